/**
 * The part of a client's transaction that the front-end runs: opened by the first statement of ours inside a transaction,
 * ended with it. Knows the savepoints that were set since.
 */

import { unlessCanceled } from "../catalog/cancellation.ts";
import type { Statement } from "../ddl/statement.ts";
import type { ClientConnection, ExecutionContext } from "./context.ts";
import type { StatementResult } from "./result.ts";
import type { PreparedCommit, StatementTransaction } from "./statement-transaction.ts";

interface Savepoint {
  readonly name: string;
  /** Statements of ours before it. */
  readonly length: number;
}

export class PairedTransaction {
  readonly #open: () => StatementTransaction;
  #statements: StatementTransaction | undefined;
  #savepoints: Savepoint[] = [];
  #discarding: Promise<void> = Promise.resolve();

  /** @param open makes the list of statements of a new transaction */
  constructor(open: () => StatementTransaction) {
    this.#open = open;
  }

  /** True while the client's transaction holds statements of ours. */
  get isOpen(): boolean {
    return this.#statements !== undefined;
  }

  async run(statement: Statement, context: ExecutionContext): Promise<StatementResult | "forward"> {
    const statements = this.#statements ?? this.#open();
    try {
      return await statements.run(statement, context);
    } finally {
      // One that only read, first in its transaction, leaves nothing to be committed.
      if (!statements.isEmpty) this.#statements = statements;
    }
  }

  /** SAVEPOINT has succeeded. */
  setSavepoint(name: string): void {
    this.#savepoints.push({ name, length: this.#statements?.length ?? 0 });
  }

  /** RELEASE has succeeded: that savepoint and those after it are gone. */
  releaseSavepoint(name: string): void {
    const index = this.#indexOf(name);
    if (index !== -1) this.#savepoints.length = index;
  }

  /** ROLLBACK TO has succeeded. A savepoint that is not known was set before the first statement of ours. */
  async rollBackTo(name: string): Promise<void> {
    const index = this.#indexOf(name);
    const length = this.#savepoints[index]?.length ?? 0;
    this.#savepoints.length = index + 1;
    await this.#statements?.truncate(length);
  }

  /**
   * Runs the statements for good.
   *
   * @param connection the client's own
   * @param onHeld called when others begin to wait for the end of this
   * @throws SqlError when they do not hold any more; the client's transaction must fail
   */
  async prepareCommit(connection: ClientConnection, onHeld: () => void): Promise<PreparedCommit | undefined> {
    const statements = this.#statements;
    this.#statements = undefined;
    this.#savepoints = [];
    if (statements === undefined) return undefined;
    try {
      return await statements.prepareCommit(connection, onHeld);
    } catch (error) {
      // The names that it has reserved can be dropped only when the client's GRANTs to them are undone.
      this.#statements = statements;
      throw error;
    }
  }

  /**
   * The client's transaction has ended without a commit, or its statements are to be forgotten. Never rejects.
   *
   * @param signal aborted when the client does not want to wait for it
   */
  async discard(signal?: AbortSignal): Promise<void> {
    const statements = this.#statements;
    this.#statements = undefined;
    this.#savepoints = [];
    // Others may have begun with it and wait for nothing.
    if (statements !== undefined) this.#discarding = statements.discard();
    await unlessCanceled(this.#discarding, signal).catch(() => undefined);
  }

  // The latest of equal names hides the others, as in PostgreSQL.
  #indexOf(name: string): number {
    return this.#savepoints.findLastIndex((savepoint) => savepoint.name === name);
  }
}
