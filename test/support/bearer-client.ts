/** A PostgreSQL client that logs in with a token (RFC 7628), as libpq 18 does. */

import { decodeAuthentication } from "../../src/wire/backend-message-decoding.ts";
import { encodeSaslInitialResponse, encodeSaslResponse } from "../../src/wire/frontend-message-encoding.ts";
import { errorOf, RawClient, startupMessage } from "./raw-client.ts";

export type BearerLogin =
  /** Ready for queries. */
  | { readonly ok: true; readonly client: RawClient }
  /** What the server says of where tokens come from, and the fields of its error. */
  | { readonly ok: false; readonly json: unknown; readonly error: ReadonlyMap<string, string> };

/** Logs in over an unencrypted connection; the caller closes the client. */
export async function logInWithToken(
  port: number,
  user: string,
  token: string,
  database = "postgres",
): Promise<BearerLogin> {
  const client = await RawClient.open({ host: "127.0.0.1", port });
  await client.send(startupMessage({ user, database }));
  await client.read();
  await client.send(encodeSaslInitialResponse("OAUTHBEARER", `n,,\x01auth=Bearer ${token}\x01\x01`));
  const answer = await client.read();
  if (answer.type === "E") {
    client.close();
    return { ok: false, json: undefined, error: errorOf([answer]) };
  }
  const authentication = decodeAuthentication(answer.body);
  if (authentication.type === "AuthenticationOk") {
    await client.readReady();
    return { ok: true, client };
  }
  if (authentication.type !== "AuthenticationSASLContinue") throw new Error(authentication.type);
  await client.send(encodeSaslResponse("\x01"));
  const error = errorOf(await client.readToClose());
  client.close();
  return { ok: false, json: JSON.parse(authentication.data.toString("utf8")), error };
}
