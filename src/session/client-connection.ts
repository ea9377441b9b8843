/** The client's own upstream connection, lent to a statement of ours that is SQL of PostgreSQL's in the end. */

import { SqlError } from "../errors/sql-error.ts";
import type { ClientConnection } from "../exec/context.ts";
import { UpstreamError } from "../upstream/upstream-error.ts";
import { MessageReader } from "../wire/message-reader.ts";
import { MessageWriter } from "../wire/message-writer.ts";
import type { Relay } from "./relay.ts";

/** Everything that was sent before must have been answered. */
export function lendConnection(relay: Relay): ClientConnection {
  return {
    get standardConformingStrings() {
      return relay.standardConformingStrings;
    },
    query: async (sql) => {
      const encoding = textEncoding(relay.clientEncoding, sql);
      const rows: (string | null)[][] = [];
      let failure: UpstreamError | undefined;
      await relay.converseForRows(encodeText(sql, encoding), (type, body) => {
        if (type === "Z") return "finish";
        if (type === "E") failure ??= new UpstreamError(body);
        else if (type === "D") rows.push(decodeRow(body, encoding));
        return "drop";
      });
      if (failure !== undefined) throw failure;
      if (relay.isStopped) {
        throw new SqlError("connection_failure", "the session has ended", { severity: "FATAL" });
      }
      return rows;
    },
  };
}

/** DataRow of a simple query: every value is text. */
function decodeRow(body: Buffer, encoding: "utf8" | "latin1"): (string | null)[] {
  const reader = new MessageReader(body);
  return reader.list(4, () => {
    const length = reader.int32();
    return length === -1 ? null : reader.bytes(length).toString(encoding);
  });
}

/** How text goes over a connection with this `client_encoding`. @throws SqlError feature_not_supported */
function textEncoding(clientEncoding: string | undefined, sql: string): "utf8" | "latin1" {
  if (clientEncoding === "LATIN1") return "latin1";
  const isAscii = Buffer.byteLength(sql, "utf8") === sql.length;
  if (
    clientEncoding === undefined ||
    clientEncoding === "UTF8" ||
    clientEncoding === "SQL_ASCII" ||
    isAscii
  ) {
    return "utf8";
  }
  throw new SqlError(
    "feature_not_supported",
    `this statement cannot be run in client_encoding ${clientEncoding}`,
    {
      hint: "SET client_encoding = 'UTF8'.",
    },
  );
}

function encodeText(sql: string, encoding: "utf8" | "latin1"): Buffer {
  return new MessageWriter("Q", sql.length + 1).cstring(sql, encoding).finish();
}
