/** The client's own upstream connection, lent to a statement of ours that is SQL of PostgreSQL's in the end. */

import { splitStatements } from "../ddl/splitter.ts";
import { SqlError } from "../errors/sql-error.ts";
import type { ClientConnection } from "../exec/context.ts";
import { UpstreamError } from "../upstream/upstream-error.ts";
import {
  encodeBind,
  encodeClose,
  encodeExecute,
  encodeFlush,
  encodeParse,
} from "../wire/frontend-message-encoding.ts";
import { MessageReader } from "../wire/message-reader.ts";
import { MessageWriter } from "../wire/message-writer.ts";
import { movePosition } from "./forward-text.ts";
import type { Relay } from "./relay.ts";

/** Names of the statement and portal with which a pipeline is interrupted; a client has its own. */
const ownName = "nodedb: a question of the front-end";

/**
 * Everything that was sent before must have been answered.
 *
 * @param protocol that the client is speaking at the moment
 */
export function lendConnection(relay: Relay, protocol: "simple" | "extended"): ClientConnection {
  const run = async (
    sql: string,
    encode: (sql: string, encoding: "utf8" | "latin1") => Buffer,
    lastReply: "Z" | "C",
    offset = 0,
  ): Promise<(string | null)[][]> => {
    const encoding = textEncoding(relay.clientEncoding, sql);
    const rows: (string | null)[][] = [];
    let failure: UpstreamError | undefined;
    await relay.converseForRows(encode(sql, encoding), lastReply === "Z", (type, body) => {
      if (type === "E") failure ??= new UpstreamError(movePosition(body, offset)?.subarray(5) ?? body);
      else if (type === "D") rows.push(decodeRow(body, encoding));
      // In a pipeline nothing more comes behind an error before the client's Sync.
      return type === lastReply || (type === "E" && lastReply === "C") ? "finish" : "drop";
    });
    if (failure !== undefined) throw failure;
    if (relay.isStopped) {
      throw new SqlError("connection_failure", "the session has ended", { severity: "FATAL" });
    }
    return rows;
  };
  const query = (sql: string) => run(sql, encodeText, "Z");
  const ask = (sql: string) => run(sql, encodeQuestion, "C");
  // A Query would end the pipeline's transaction.
  const askEach = async (sql: string) => {
    const text = Buffer.from(sql);
    const options = { standardConformingStrings: relay.standardConformingStrings };
    const rows: (string | null)[][] = [];
    for (const { start, end } of splitStatements(text, 0, text.length, options)) {
      const offset = [...text.toString("utf8", 0, start)].length;
      rows.push(...(await run(text.toString("utf8", start, end), encodeQuestion, "C", offset)));
    }
    return rows;
  };
  return {
    get standardConformingStrings() {
      return relay.standardConformingStrings;
    },
    signal: relay.signal,
    query: protocol === "simple" ? query : askEach,
    ask: protocol === "simple" ? query : ask,
  };
}

/**
 * Leaves the client's unnamed statement and portal alone, and the transaction of its pipeline open. What an earlier one, which
 * may have failed, has left is closed first.
 */
function encodeQuestion(sql: string, encoding: "utf8" | "latin1"): Buffer {
  return Buffer.concat([
    encodeClose("portal", ownName),
    encodeClose("statement", ownName),
    encodeParse(ownName, Buffer.from(sql, encoding)),
    encodeBind([], { portal: ownName, statement: ownName }),
    encodeExecute(ownName),
    encodeFlush(),
  ]);
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
