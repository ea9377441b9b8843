/** From a request's headers and connection to an identity, or the one refusal (RFC 6750, RFC 9110 section 11.6). */

import type { X509Certificate } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { BearerAuthenticator } from "../auth/bearer.ts";
import type { CertificateLogin } from "../auth/certificate-login.ts";
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
  /** Of the request's connection, verified by its handshake; undefined without one. */
  readonly certificateOf: (request: IncomingMessage) => X509Certificate | undefined;
  readonly certificateLogin: CertificateLogin;
}

/** The certificate of the connection stands for nobody any more, or never did: no request on it can succeed. */
export class CertificateRefused extends SqlError {
  constructor() {
    super("invalid_authorization_specification", authenticationFailed);
  }
}

const authenticationFailed = "authentication failed";

const databaseHeader = "x-nodedb-database";

/** @throws HttpError 429; SqlError invalid_authorization_specification, insufficient_privilege */
export async function authenticate(
  credentials: Credentials,
  request: IncomingMessage,
  requestId: string,
  log: Log,
): Promise<Identity> {
  const database = readDatabaseHeader(request);
  const address = addressOf(request);
  const certificate = credentials.certificateOf(request);
  if (certificate !== undefined) {
    const outcome = credentials.certificateLogin(certificate, address, database);
    if (outcome.ok) return outcome.identity;
    log.info({ peer: address, reason: outcome.reason, requestId }, "login refused");
    throw outcome.reason === "too_many_failures" ? tooManyFailures() : new CertificateRefused();
  }
  const token = readBearer(request);
  if (token === undefined) {
    throw new SqlError("invalid_authorization_specification", "a credential is required", {
      hint: "Send an API key or a token as Authorization: Bearer.",
    });
  }
  const outcome = await credentials.bearer.authenticate(token, { address, database });
  if (outcome.ok) return outcome.identity;
  log.info({ peer: address, reason: outcome.reason, requestId }, "login refused");
  throw outcome.reason === "too_many_failures" ? tooManyFailures() : refused();
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
  return new SqlError("invalid_authorization_specification", authenticationFailed);
}

function tooManyFailures(): HttpError {
  return new HttpError(429, "too many failed logins from this address", { headers: { "retry-after": "60" } });
}
