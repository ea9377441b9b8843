/** The body of an answer to POST /v1/query, written as text: rows are not made into objects first. */

import type { RequestResult } from "../exec/request-result.ts";
import { fieldsJson, type RowMode, rowEncoder } from "./row-json.ts";

export function answerOne(result: RequestResult, mode: RowMode): string {
  return `{"status":"ok",${resultJson(result, mode)}}`;
}

export function answerSeveral(results: readonly RequestResult[], mode: RowMode): string {
  return `{"status":"ok","results":[${results.map((result) => `{${resultJson(result, mode)}}`).join(",")}]}`;
}

function resultJson({ command, rowCount, fields, rows, notices }: RequestResult, mode: RowMode): string {
  const encode = rowEncoder(fields, mode);
  const heard = notices.length === 0 ? "" : `,"notices":${JSON.stringify(notices)}`;
  return `"command":${JSON.stringify(command)},"rowCount":${rowCount ?? "null"},"fields":${fieldsJson(fields)},"rows":[${rows
    .map(encode)
    .join(",")}]${heard}`;
}
