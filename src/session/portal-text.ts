/** What a portal runs, asked of PostgreSQL where its Bind was not looked at (manual 53.7, pg_cursors). */

import type { ClientConnection } from "../exec/context.ts";
import type { ObjectName } from "../wire/frontend-message.ts";

/**
 * @param name as it was in the message, byte for byte
 * @returns the text of its statement; empty when there is no such portal
 * @throws UpstreamError when the client's transaction has failed
 */
export async function findPortalText(connection: ClientConnection, name: ObjectName): Promise<Buffer> {
  const rows = await connection.ask("SELECT c.name, c.statement FROM pg_catalog.pg_cursors c");
  const found = rows.find(([portal]) => Buffer.from(portal ?? "", "utf8").toString("latin1") === name);
  return Buffer.from(found?.[1] ?? "", "utf8");
}
