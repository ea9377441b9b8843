/** The client's own upstream connection, lent to a statement of ours that is SQL of PostgreSQL's in the end. */

import type { ClientConnection } from "../exec/context.ts";
import { UpstreamError } from "../upstream/upstream-error.ts";
import { encodeQuery } from "../wire/frontend-message-encoding.ts";
import { MessageReader } from "../wire/message-reader.ts";
import type { Relay } from "./relay.ts";

/** Everything that was sent before must have been answered. */
export function lendConnection(relay: Relay): ClientConnection {
  return {
    get standardConformingStrings() {
      return relay.standardConformingStrings;
    },
    query: async (sql) => {
      const rows: (string | null)[][] = [];
      let failure: UpstreamError | undefined;
      await relay.converseForRows(encodeQuery(sql), (type, body) => {
        if (type === "Z") return "finish";
        if (type === "E") failure ??= new UpstreamError(body);
        else if (type === "D") rows.push(decodeRow(body));
        return "drop";
      });
      if (failure !== undefined) throw failure;
      return rows;
    },
  };
}

/** DataRow of a simple query: every value is text. */
function decodeRow(body: Buffer): (string | null)[] {
  const reader = new MessageReader(body);
  return reader.list(4, () => {
    const length = reader.int32();
    return length === -1 ? null : reader.bytes(length).toString("utf8");
  });
}
