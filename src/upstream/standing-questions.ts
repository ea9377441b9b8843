/**
 * Asks PostgreSQL the few questions that every login asks, on a connection that is kept for them: prepared there, and without the
 * objects that a driver makes of each query and each row.
 */

import { SqlError } from "../errors/sql-error.ts";
import { QueryClient } from "./query-client.ts";
import type { Cell } from "./query-result.ts";
import type { UpstreamConnection } from "./upstream-connection.ts";
import { UpstreamError } from "./upstream-error.ts";

/** A question that is prepared under its name; its parameters are text. */
export interface Question {
  readonly name: string;
  readonly text: string;
  readonly values: readonly string[];
}

/** The client of a login will not wait longer. */
const defaultAnswerTimeoutMs = 5_000;

/**
 * PostgreSQL's refusal, with the properties that node-postgres gives its own. Not an UpstreamError: clients are shown those, and this
 * is about a login of the front-end's.
 */
export class RefusedQuestionError extends Error {
  override readonly name = "RefusedQuestionError";
  readonly code: string;
  readonly severity: string;

  constructor(cause: UpstreamError) {
    super(cause.message, { cause });
    this.code = cause.sqlstate;
    this.severity = cause.fields.get("V") ?? "ERROR";
  }
}

interface Line {
  readonly client: QueryClient;
  readonly prepared: Set<string>;
}

export class StandingQuestions {
  readonly #open: () => Promise<UpstreamConnection>;
  readonly #answerTimeoutMs: number;
  #line: Line | undefined;
  #isClosed = false;

  /**
   * @param open called when there is a question and no connection that is good for it
   * @param answerTimeoutMs an answer that takes longer is not waited for
   */
  constructor(open: () => Promise<UpstreamConnection>, answerTimeoutMs = defaultAnswerTimeoutMs) {
    this.#open = open;
    this.#answerTimeoutMs = answerTimeoutMs;
  }

  /**
   * Asks; the one before must have been answered.
   *
   * @returns the rows, each value as text
   * @throws SqlError cannot_connect_now when the upstream is not there or keeps silent
   * @throws RefusedQuestionError with what else it says
   */
  async ask({ name, text, values }: Question): Promise<readonly (readonly Cell[])[]> {
    try {
      const line = await this.#ready();
      return await this.#withinTime(line.client, async () => {
        if (!line.prepared.has(name)) await line.client.prepare(name, text);
        line.prepared.add(name);
        return (await line.client.executePrepared(name, values)).rows;
      });
    } catch (error) {
      if (error instanceof UpstreamError) throw new RefusedQuestionError(error);
      if (!(error instanceof SqlError && error.condition === "connection_failure")) throw error;
      throw new SqlError("cannot_connect_now", "the catalog is not available", { cause: error });
    }
  }

  close(): void {
    this.#isClosed = true;
    this.#hangUp();
  }

  async #ready(): Promise<Line> {
    if (this.#line?.client.isReusable === true) return this.#line;
    this.#hangUp();
    const connection = await this.#open();
    if (this.#isClosed) {
      connection.transport.close();
      throw new SqlError("cannot_connect_now", "the server is shutting down");
    }
    const line = { client: new QueryClient(connection), prepared: new Set<string>() };
    this.#line = line;
    return line;
  }

  async #withinTime<T>(client: QueryClient, work: () => Promise<T>): Promise<T> {
    const timer = setTimeout(() => client.abandon(), this.#answerTimeoutMs);
    try {
      return await work();
    } finally {
      clearTimeout(timer);
    }
  }

  #hangUp(): void {
    const line = this.#line;
    this.#line = undefined;
    line?.client.abandon();
    line?.client.connection.transport.close();
  }
}
