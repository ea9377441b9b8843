/** A result as lines of JSON while it comes: `meta`, one line per row, `end` or `error`; PostgreSQL waits for a slow reader. */

import { Readable } from "node:stream";
import type { RequestResult } from "../exec/request-result.ts";
import type { RequestLimits, RequestSession } from "../exec/request-session.ts";
import type { RequestStatements, ResultListener } from "../exec/request-statements.ts";
import type { ValueType } from "../exec/result-types.ts";
import type { ErrorBody } from "./error-answer.ts";
import { type EncodeRow, fieldsJson, type RowMode, rowEncoder } from "./row-json.ts";

/** Characters of lines that are put together into one chunk. */
const chunkLength = 16 * 1024;

export interface StreamedStatement {
  run(
    statements: RequestStatements,
    listener: ResultListener,
  ): Promise<Pick<RequestResult, "command" | "rowCount" | "notices">>;
  wordError(error: unknown): ErrorBody;
}

/**
 * Resolves with the stream when the statement has its first row, or has ended without one.
 *
 * @throws whatever the statement fails with before that; later errors are the stream's last line
 */
export function streamRows(
  session: RequestSession,
  limits: RequestLimits,
  mode: RowMode,
  statement: StreamedStatement,
): Promise<Readable> {
  return new Promise((resolve, reject) => {
    const lines = new LineStream(session);
    let encode: EncodeRow | undefined;
    let hasVerbatimJson = false;
    /** The status of the answer is said. */
    let isAnswered = false;
    const answer = () => {
      isAnswered = true;
      resolve(lines);
    };
    const listener: ResultListener = {
      onFields: (fields) => {
        encode = rowEncoder(fields, mode);
        hasVerbatimJson = fields.some(({ type }) => isJson(type));
        lines.write(`{"meta":{"fields":${fieldsJson(fields)}}}`);
      },
      onRow: (cells) => {
        if (!isAnswered) answer();
        const row = encode?.(cells) ?? "null";
        // A json value may hold line feeds between its parts; in its strings it has none.
        lines.write(`{"row":${hasVerbatimJson ? row.replaceAll(/[\r\n]/g, " ") : row}}`);
      },
    };
    session
      .run(limits, (statements) => statement.run(statements, listener))
      .then(({ command, rowCount, notices }) => {
        const heard = notices.length === 0 ? undefined : notices;
        lines.finish(JSON.stringify({ end: { command, rowCount, notices: heard } }));
        answer();
      })
      .catch((error: unknown) => {
        if (!isAnswered) reject(error);
        else lines.finish(JSON.stringify({ error: statement.wordError(error).error }));
      });
  });
}

function isJson(type: ValueType): boolean {
  return type.kind === "json" || (type.kind === "array" && isJson(type.element));
}

class LineStream extends Readable {
  readonly #session: Pick<RequestSession, "pause" | "resume">;
  #pending = "";
  #isScheduled = false;
  #isFinished = false;

  constructor(session: Pick<RequestSession, "pause" | "resume">) {
    super({ highWaterMark: 4 * chunkLength });
    this.#session = session;
  }

  override _read(): void {
    this.#session.resume();
  }

  write(line: string): void {
    this.#pending += `${line}\n`;
    if (this.#pending.length >= chunkLength) this.#flush();
    else if (!this.#isScheduled) {
      this.#isScheduled = true;
      setImmediate(() => {
        this.#isScheduled = false;
        this.#flush();
      });
    }
  }

  finish(line: string): void {
    this.#pending += `${line}\n`;
    this.#flush();
    this.#isFinished = true;
    this.push(null);
  }

  #flush(): void {
    if (this.#pending === "" || this.#isFinished || this.destroyed) return;
    const chunk = this.#pending;
    this.#pending = "";
    if (!this.push(chunk)) this.#session.pause();
  }
}
