/** What a session gives a statement of ours to run SQL on the client's own upstream connection, over a plain client of pg. */

import { type Client, DatabaseError, type QueryResult } from "pg";
import type { ClientConnection } from "../../src/exec/context.ts";
import { UpstreamError } from "../../src/upstream/upstream-error.ts";
import { encodeErrorResponse } from "../../src/wire/backend-message.ts";

const asText = { getTypeParser: () => (value: string) => value };

export function clientConnection(client: Client, standardConformingStrings = true): ClientConnection {
  const query = async (text: string) => {
    try {
      const result: unknown = await client.query({ text, rowMode: "array", types: asText });
      const results = (Array.isArray(result) ? result : [result]) as QueryResult<(string | null)[]>[];
      return results.flatMap(({ rows }) => rows);
    } catch (error) {
      throw error instanceof DatabaseError ? upstreamError(error) : error;
    }
  };
  return { standardConformingStrings, query, ask: query };
}

function upstreamError(error: DatabaseError): UpstreamError {
  const { severity = "ERROR", code = "", message, detail, hint, position } = error;
  const fields = Object.entries({
    S: severity,
    V: severity,
    C: code,
    M: message,
    D: detail,
    H: hint,
    P: position,
  });
  const present = fields.filter((field): field is [string, string] => field[1] !== undefined);
  return new UpstreamError(encodeErrorResponse(present).subarray(5));
}
