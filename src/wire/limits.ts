/** Sizes that a peer's length field is held against before anything is allocated (PostgreSQL 18 manual 54.2, 54.7). */

/**
 * Largest startup packet body (the bytes after its length field), as PostgreSQL's
 * MAX_STARTUP_PACKET_LENGTH; larger is a FATAL protocol_violation and the connection is closed.
 */
export const maxStartupPacketBytes = 10_000;

/**
 * Largest message body accepted before authentication has succeeded; larger is a FATAL
 * protocol_violation. A SCRAM message takes a few hundred bytes; a stranger gets no more memory than this.
 */
export const maxAuthenticationMessageBytes = 10_000;

/** The same where tokens are taken, which are as long as 16 KiB. */
export const maxBearerMessageBytes = 17_000;

/**
 * Largest message body at all, PostgreSQL's own PQ_LARGE_MESSAGE_LIMIT: larger is a FATAL
 * protocol_violation here, because the upstream would close the connection over it anyway.
 */
export const maxMessageBytes = 0x3fffffff - 1;
