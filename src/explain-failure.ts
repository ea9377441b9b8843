/** What a start or a check that has failed says to the person at the terminal. */

import { isConnectionError, sqlstateOf } from "./catalog/connection.ts";
import { SqlError } from "./errors/sql-error.ts";

interface Explanation {
  readonly message: string;
  readonly detail?: string | undefined;
  readonly hint?: string | undefined;
}

const upstreamHint =
  "upstream.url (NODEDB_UPSTREAM_URL) names it; is it running, and can it be reached from here?";

/** @returns lines without a line feed */
export function explainFailure(error: unknown): string[] {
  const { message, detail, hint } = explanationOf(error);
  const lines = [`nodedb: ${message}`];
  if (detail !== undefined) lines.push(`DETAIL: ${detail}`);
  if (hint !== undefined) lines.push(`HINT: ${hint}`);
  return lines;
}

function explanationOf(error: unknown): Explanation {
  if (error instanceof SqlError) return error;
  const message = messageOf(error);
  const call = fieldOf(error, "syscall");
  if (call === "listen" && fieldOf(error, "code") === "EADDRINUSE") {
    return {
      message,
      hint: "Something else listens there. server.ports.pgwire (NODEDB_PORT_PGWIRE) and server.ports.http (NODEDB_PORT_HTTP) choose other ports.",
    };
  }
  if (sqlstateOf(error) !== undefined) {
    return {
      message: `the upstream says: ${message}`,
      detail: fieldOf(error, "detail"),
      hint: fieldOf(error, "hint"),
    };
  }
  // An error of a file has a code of the same form.
  const isOfConnection = call === undefined || ["connect", "getaddrinfo", "read", "write"].includes(call);
  if (isOfConnection && isConnectionError(error)) {
    return { message: `cannot connect to the upstream: ${message}`, hint: upstreamHint };
  }
  return { message };
}

function fieldOf(error: unknown, name: string): string | undefined {
  if (error instanceof AggregateError) return fieldOf(error.errors[0], name);
  const value: unknown = error instanceof Error ? Reflect.get(error, name) : undefined;
  return typeof value === "string" ? value : undefined;
}

/** A name with several addresses fails once for each, under one error that says nothing itself. */
function messageOf(error: unknown): string {
  if (error instanceof AggregateError && error.message === "") return error.errors.map(messageOf).join("; ");
  return error instanceof Error ? error.message : String(error);
}
