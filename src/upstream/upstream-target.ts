/** What decides whether two sessions may have the same upstream connection, one after the other. */

import type { SealableClaims } from "./claims-envelope.ts";

/** Whom a connection logs in as, and with which startup parameters. */
export interface UpstreamTarget {
  readonly database: string;
  /** A name may be dropped and given to somebody else; its principal's id never is. */
  readonly principalId: number;
  readonly role: string;
  readonly roleVersion: number;
  readonly parameters: ReadonlyMap<string, string>;
  /** What the connection says of its identity inside PostgreSQL. */
  readonly claims: SealableClaims;
  /** When the credential ends; undefined is never. */
  readonly expiresAt: Date | undefined;
}
