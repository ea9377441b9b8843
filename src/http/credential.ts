/** From a request's headers and connection to an identity, or the one refusal (RFC 6750, RFC 9110 section 11.6). */

import type { IncomingMessage } from "node:http";
import type { BearerAuthenticator } from "../auth/bearer.ts";
import type { Identity } from "../auth/identity.ts";
import { SqlError } from "../errors/sql-error.ts";
import type { Log } from "../observe/log.ts";
import { HttpError } from "./http-error.ts";

/**
 * What proves who a client is, in the order in which it is looked for. One that is presented and fails is a refusal: the next
 * is not asked.
 */
export interface Credentials {
  readonly bearer: BearerAuthenticator;
  /** Asked first: the identity of the connection's certificate; undefined without one. */
  readonly certificate?: (
    request: IncomingMessage,
    database: string | undefined,
  ) => Promise<Identity | undefined>;
}

const databaseHeader = "x-nodedb-database";

/** @throws HttpError 429; SqlError invalid_authorization_specification, insufficient_privilege */
export async function authenticate(
  credentials: Credentials,
  request: IncomingMessage,
  requestId: string,
  log: Log,
): Promise<Identity> {
  const database = readDatabaseHeader(request);
  const token = readBearer(request);
  const address = addressOf(request);
  const certified = await credentials.certificate?.(request, database);
  if (certified !== undefined) return certified;
  if (token === undefined) {
    throw new SqlError("invalid_authorization_specification", "a credential is required", {
      hint: "Send an API key or a token as Authorization: Bearer.",
    });
  }
  const outcome = await credentials.bearer.authenticate(token, { address, database });
  if (outcome.ok) return outcome.identity;
  log.info({ peer: address, reason: outcome.reason, requestId }, "login refused");
  if (outcome.reason === "too_many_failures") {
    throw new HttpError(429, "too many failed logins from this address", {
      headers: { "retry-after": "60" },
    });
  }
  throw refused();
}

export function addressOf(request: IncomingMessage): string {
  return request.socket.remoteAddress ?? "?";
}

/** The database that the client has named by header. @throws HttpError 400 when it has named two */
export function readDatabaseHeader(request: IncomingMessage): string | undefined {
  const value = readOnce(request, databaseHeader);
  if (value === undefined) return undefined;
  // Node reads header values as latin1; a name beyond ASCII comes as UTF-8.
  const name = Buffer.from(value, "latin1").toString("utf8").trim();
  if (name === "") throw new HttpError(400, "X-NodeDB-Database is empty");
  return name;
}

/** @throws SqlError when there is a credential of another kind */
function readBearer(request: IncomingMessage): string | undefined {
  const value = readOnce(request, "authorization");
  if (value === undefined) return undefined;
  const token = /^Bearer +([\x21-\x7e]+) *$/i.exec(value)?.[1];
  if (token === undefined) throw refused();
  return token;
}

/** A header that a proxy and we could read differently is not read at all. */
function readOnce(request: IncomingMessage, name: string): string | undefined {
  let found: string | undefined;
  for (let index = 0; index < request.rawHeaders.length; index += 2) {
    if (request.rawHeaders[index]?.toLowerCase() !== name) continue;
    if (found !== undefined) throw new HttpError(400, `the header ${name} is sent twice`);
    found = request.rawHeaders[index + 1] ?? "";
  }
  return found;
}

function refused(): SqlError {
  return new SqlError("invalid_authorization_specification", "authentication failed");
}
