/** What a portal does to the transaction, asked of PostgreSQL where its Bind was not looked at (manual 53.7, pg_cursors). */

import { parseTransactionControl, type TransactionControl } from "../ddl/transaction-control.ts";
import type { ClientConnection } from "../exec/context.ts";
import type { ObjectName } from "../wire/frontend-message.ts";

/**
 * @param name as it was in the message, byte for byte
 * @returns undefined for every other statement, and when there is no such portal
 * @throws UpstreamError when the client's transaction has failed
 */
export async function findPortalControl(
  connection: ClientConnection,
  name: ObjectName,
): Promise<TransactionControl | undefined> {
  const rows = await connection.ask("SELECT c.name, c.statement FROM pg_catalog.pg_cursors c");
  const found = rows.find(([portal]) => Buffer.from(portal ?? "", "utf8").toString("latin1") === name);
  const text = Buffer.from(found?.[1] ?? "", "utf8");
  return parseTransactionControl(text, 0, text.length);
}
