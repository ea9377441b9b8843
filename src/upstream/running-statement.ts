/** One statement while it runs: what has come of its result, and what is wrong with that. */

import { SqlError } from "../errors/sql-error.ts";
import { decodeErrorFields } from "../wire/backend-message-decoding.ts";
import type { Cell, DescribedColumn, QueryOutcome, ResultLimits, RowListener } from "./query-result.ts";
import { decodeCells, decodeColumns, decodeParameterTypes } from "./row-decoding.ts";

/** Notices kept of one statement. */
const maxNotices = 100;

export interface StatementOptions {
  /** Is given the rows; without one they are collected. */
  readonly listener?: RowListener;
  readonly limits?: ResultLimits;
  /** Called when the limits are exceeded while rows still come. */
  readonly onExceeded?: () => void;
  /** Messages that end the exchange are still to be sent when the statement is through. */
  readonly isSyncOwed?: boolean;
  /** Is given the types of the parameters. */
  readonly parameterTypeOids?: number[];
}

export class RunningStatement {
  /** Cleared by whoever sends them. */
  isSyncOwed: boolean;
  /** Text of CommandComplete. */
  tag = "";
  readonly #listener: RowListener | undefined;
  readonly #limits: ResultLimits | undefined;
  readonly #onExceeded: (() => void) | undefined;
  readonly #parameterTypeOids: number[] | undefined;
  readonly #resolve: (outcome: QueryOutcome) => void;
  readonly #reject: (error: unknown) => void;
  #columns: readonly DescribedColumn[] | undefined;
  readonly #rows: Cell[][] = [];
  readonly #notices: string[] = [];
  #bytes = 0;
  #rowCount = 0;
  #failure: unknown;

  constructor(
    { listener, limits, onExceeded, isSyncOwed = false, parameterTypeOids }: StatementOptions,
    resolve: (outcome: QueryOutcome) => void,
    reject: (error: unknown) => void,
  ) {
    this.isSyncOwed = isSyncOwed;
    this.#listener = listener;
    this.#limits = limits;
    this.#onExceeded = onExceeded;
    this.#parameterTypeOids = parameterTypeOids;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  get hasFailed(): boolean {
    return this.#failure !== undefined;
  }

  /** What it rejects with; the first failure is what the caller is told. */
  fail(error: unknown): void {
    this.#failure ??= error;
  }

  /** Tells the caller: nothing more comes. */
  settle(): void {
    if (this.#failure !== undefined) {
      this.#reject(this.#failure);
      return;
    }
    this.#resolve({ tag: this.tag, columns: this.#columns, rows: this.#rows, notices: this.#notices });
  }

  /** RowDescription. */
  takeColumns(body: Buffer): void {
    this.#columns = decodeColumns(body);
    try {
      this.#limits?.checkColumns?.(this.#columns);
    } catch (error) {
      this.fail(error);
    }
  }

  /** ParameterDescription. */
  takeParameterTypes(body: Buffer): void {
    this.#parameterTypeOids?.push(...decodeParameterTypes(body));
  }

  /** DataRow. */
  takeRow(body: Buffer): void {
    if (this.#failure !== undefined) return;
    if (this.#limits !== undefined && !this.#isWithin(this.#limits, body.length)) return;
    const cells = decodeCells(body);
    if (this.#listener === undefined) this.#rows.push(cells);
    else this.#listener.onRow(cells);
  }

  /** PortalSuspended: there are more rows than were asked for. */
  takeSuspension(): void {
    this.fail(tooManyRows(this.#limits));
  }

  /** NoticeResponse. */
  takeNotice(body: Buffer): void {
    if (this.#notices.length >= maxNotices) return;
    const message = decodeErrorFields(body).get("M");
    if (message !== undefined) this.#notices.push(message);
  }

  #isWithin(limits: ResultLimits, bytes: number): boolean {
    this.#bytes += bytes;
    this.#rowCount += 1;
    const error =
      this.#rowCount > limits.maxRows
        ? tooManyRows(limits)
        : this.#bytes > limits.maxBytes
          ? resultTooLarge()
          : undefined;
    if (error === undefined) return true;
    this.#failure = error;
    this.#rows.length = 0;
    // The last row of those asked for needs no cancel: PostgreSQL suspends by itself.
    if (this.#rowCount <= limits.maxRows) this.#onExceeded?.();
    return false;
  }
}

function tooManyRows(limits: ResultLimits | undefined): SqlError {
  return new SqlError("program_limit_exceeded", `the result has more than ${limits?.maxRows ?? 0} rows`, {
    detail: "Nothing was changed.",
    hint: "Ask for fewer with LIMIT, or stream the result.",
  });
}

function resultTooLarge(): SqlError {
  return new SqlError("program_limit_exceeded", "the result is too large", {
    detail: "Nothing was changed.",
    hint: "Ask for less, or stream the result.",
  });
}
