/** `nodedb check`: does everything that a start needs and can be done without changing anything. */

import { X509Certificate } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { connectAdmin } from "./catalog/connection.ts";
import type { Config } from "./config/config.ts";
import { parseUpstreamUrl } from "./config/upstream-url.ts";
import { SqlError } from "./errors/sql-error.ts";
import type { Log } from "./observe/log.ts";
import { openTlsFiles } from "./open-tls.ts";
import { adminConnectionOf } from "./open-upstream.ts";

/** @returns lines for a person @throws SqlError or Error naming what would stop a start */
export async function checkSetup(config: Config, log: Log): Promise<string[]> {
  log.debug("checking");
  const lines = ["configuration  ok"];
  const { tls } = config.server;
  if (tls !== undefined) {
    openTlsFiles(tls, log).close();
    const cert = readFileSync(tls.certPath, "utf8");
    lines.push(`certificate    ok, valid until ${new X509Certificate(cert).validTo}`);
  }
  if (config.upstream.url === undefined) {
    const isThere = existsSync(config.server.dataDir);
    lines.push(
      `upstream       embedded PostgreSQL in ${config.server.dataDir}${isThere ? "" : ", to be made"}`,
    );
    return lines;
  }
  const parsed = parseUpstreamUrl(config.upstream.url.reveal());
  if (!parsed.ok) throw new SqlError("invalid_parameter_value", `upstream.url ${parsed.reason}`);
  const { admin, defaultDatabase } = adminConnectionOf(config, parsed.address);
  const client = await connectAdmin(admin, defaultDatabase);
  try {
    const result = await client.query<{ version: string; role: string }>(
      "SELECT pg_catalog.current_setting('server_version') AS version, current_user::text AS role",
    );
    const row = result.rows[0];
    lines.push(`upstream       ok, PostgreSQL ${row?.version} as ${row?.role}`);
  } finally {
    await client.end();
  }
  return lines;
}
