/** The connection of the front-end's own on which it asks what each login asks. */

import { randomBytes } from "node:crypto";
import type { Client } from "pg";
import { fixedSettings } from "./catalog/connection.ts";
import type { Upstream } from "./open-upstream.ts";
import { openUpstreamConnection } from "./upstream/login.ts";
import { StandingQuestions } from "./upstream/standing-questions.ts";
import type { TransportFactory } from "./wire/transport-factory.ts";

/** A login waits for it, whose client will not wait longer; in ms. */
const openTimeoutMs = 5_000;

/** @param connect opens an administrative connection in the usual way */
export function openQuestions(
  { admin, endpoint, defaultDatabase, embedded }: Upstream,
  transports: TransportFactory,
  connect: (database: string) => Promise<Client>,
): StandingQuestions {
  const findPassword = async () => {
    if (embedded !== undefined) return undefined;
    if (typeof admin.password === "string" && admin.password !== "") return admin.password;
    // Where the URL has none, node-postgres may know one all the same, of the environment or of a password file.
    const client = await connect(defaultDatabase);
    await client.end();
    return client.password ?? undefined;
  };
  return new StandingQuestions(async () =>
    openUpstreamConnection({
      endpoint,
      transports,
      database: defaultDatabase,
      role: admin.user ?? "",
      password: await findPassword(),
      parameters: new Map([...fixedSettings, ["client_encoding", "UTF8"], ["application_name", "nodedb"]]),
      timeoutMs: openTimeoutMs,
      nonce: () => randomBytes(18).toString("base64"),
    }),
  );
}
