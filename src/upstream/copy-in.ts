/** Gives PostgreSQL values that are neither statement text nor bound parameters: COPY FROM STDIN (PostgreSQL manual 54.2.6). */

import type { ClientBase, Connection, Submittable } from "pg";

/**
 * Copies rows into a table. Their values are to be seen neither in PostgreSQL's log, whatever it logs of statements and
 * parameters, nor in pg_stat_activity; a row that the table refuses is, so that they must be ones that it takes.
 *
 * @param target table and columns as SQL text, quoted as they need be
 * @throws what PostgreSQL raises
 */
export function copyIn(
  client: Pick<ClientBase, "query">,
  target: string,
  rows: readonly (readonly string[])[],
): Promise<void> {
  return new Promise((resolve, reject) => {
    const data = Buffer.from(rows.map((row) => `${row.map(escapeCopyText).join("\t")}\n`).join(""));
    client.query(
      new CopyIn(`COPY ${target} FROM STDIN`, data, (error) => {
        if (error instanceof Error) reject(error);
        else resolve();
      }),
    );
  });
}

/** The text of a bytea value. */
export function byteaText(bytes: Uint8Array): string {
  return `\\x${Buffer.from(bytes).toString("hex")}`;
}

/** The text format of COPY (PostgreSQL manual, COPY). */
function escapeCopyText(value: string): string {
  return value
    .replaceAll("\\", "\\\\")
    .replaceAll("\t", "\\t")
    .replaceAll("\n", "\\n")
    .replaceAll("\r", "\\r");
}

/** What node-postgres' own connection can do beside its published types. */
interface CopyingConnection {
  sendCopyFromChunk(chunk: Buffer): void;
  endCopyFrom(): void;
}

/** A query of node-postgres' kind; its client calls the methods as the answers come. */
class CopyIn implements Submittable {
  readonly #text: string;
  readonly #data: Buffer;
  /** The client puts its own around it, for its time limit. */
  callback: (error?: unknown) => void;

  constructor(text: string, data: Buffer, callback: (error?: unknown) => void) {
    this.#text = text;
    this.#data = data;
    this.callback = callback;
  }

  submit(connection: Connection): void {
    connection.query(this.#text);
  }

  handleCopyInResponse(connection: Connection & CopyingConnection): void {
    connection.sendCopyFromChunk(this.#data);
    connection.endCopyFrom();
  }

  handleCommandComplete(): void {
    // ReadyForQuery is what ends it.
  }

  handleReadyForQuery(): void {
    this.callback();
  }

  handleError(error: unknown): void {
    this.callback(error);
  }
}
