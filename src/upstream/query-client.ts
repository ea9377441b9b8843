/** Runs statements on a connection that is on loan, one at a time, in the extended protocol (PostgreSQL manual 54.2.3). */

import { SqlError } from "../errors/sql-error.ts";
import type { TransactionStatus } from "../wire/backend-message.ts";
import {
  decodeCommandComplete,
  decodeErrorFields,
  decodeReadyForQuery,
} from "../wire/backend-message-decoding.ts";
import { actions, type FramerVisitor, MessageFramer, type Verdict, verdicts } from "../wire/framer.ts";
import {
  encodeBind,
  encodeDescribe,
  encodeExecute,
  encodeFlush,
  encodeParse,
  encodeQuery,
  encodeSync,
} from "../wire/frontend-message-encoding.ts";
import { maxMessageBytes } from "../wire/limits.ts";
import { MessageReader } from "../wire/message-reader.ts";
import type { TransportHandler } from "../wire/transport.ts";
import { noteParameterStatus, type UpstreamConnection } from "./upstream-connection.ts";
import { UpstreamError } from "./upstream-error.ts";

/** A column as RowDescription names it. */
export interface DescribedColumn {
  readonly name: string;
  readonly typeOid: number;
}

/** One value as PostgreSQL's text, or NULL. */
export type Cell = string | null;

/** A statement's result, as far as it was not given to a listener row by row. */
export interface QueryOutcome {
  /** Text of CommandComplete; empty for an empty statement. */
  readonly tag: string;
  /** Absent when the statement returns no rows. */
  readonly columns: readonly DescribedColumn[] | undefined;
  readonly rows: readonly (readonly Cell[])[];
  /** Messages of NoticeResponses of NOTICE and above. */
  readonly notices: readonly string[];
}

/** What a result may grow to before its statement is undone. */
export interface ResultLimits {
  readonly maxRows: number;
  /** Of all rows together, as PostgreSQL sends them. */
  readonly maxBytes: number;
  /** @throws SqlError for columns that the result cannot be given with; the statement is undone then, too */
  readonly checkColumns?: (columns: readonly DescribedColumn[]) => void;
}

/** Takes the rows as they come; `pause` and `resume` of the client hold PostgreSQL back. */
export interface RowListener {
  onRow(cells: Cell[]): void;
}

export interface StatementDescription {
  readonly parameterTypeOids: readonly number[];
  readonly columns: readonly DescribedColumn[] | undefined;
}

/** Largest single message, in bytes, that is put together in memory where no limit says less. */
const maxRowBytes = 64 * 1024 * 1024;
/** Notices kept of one statement. */
const maxNotices = 100;
/** Describing it makes PostgreSQL fail, and with that undo, what it has run since the last Sync. */
const missingPortal = "nodedb: the result is too large";

const everyMessage = new Uint8Array(256).fill(actions.inspect);

interface Operation {
  readonly listener: RowListener | undefined;
  readonly limits: ResultLimits | undefined;
  /** Messages that end the exchange are still to be sent when the statement is through. */
  isSyncOwed: boolean;
  readonly onExceeded: () => void;
  readonly resolve: (outcome: QueryOutcome) => void;
  readonly reject: (error: unknown) => void;
  readonly rows: Cell[][];
  readonly notices: string[];
  readonly parameterTypeOids: number[];
  columns: readonly DescribedColumn[] | undefined;
  bytes: number;
  rowCount: number;
  tag: string;
  failure: unknown;
}

/** Attaches to the connection until `detach`; whoever leased it must not touch it meanwhile. */
export class QueryClient implements TransportHandler, FramerVisitor {
  readonly #connection: UpstreamConnection;
  readonly #framer: MessageFramer;
  #operation: Operation | undefined;
  #status: TransactionStatus = "I";
  #isBroken = false;
  #isPaused = false;

  constructor(connection: UpstreamConnection, maxBytes = maxRowBytes) {
    this.#connection = connection;
    this.#framer = new MessageFramer(everyMessage, this, {
      maxMessageBytes,
      maxInspectedBytes: Math.min(maxBytes, maxMessageBytes),
    });
    connection.transport.handler = this;
    connection.transport.start();
  }

  get connection(): UpstreamConnection {
    return this.#connection;
  }

  /** Of the transaction, as the last ReadyForQuery told. */
  get status(): TransactionStatus {
    return this.#status;
  }

  /** True when the connection waits for a command outside any transaction: it may be given back. */
  get isReusable(): boolean {
    return (
      !this.#isBroken && this.#operation === undefined && this.#status === "I" && this.#framer.isAtBoundary
    );
  }

  /** True while an answer is owed. */
  get isRunning(): boolean {
    return this.#operation !== undefined;
  }

  /** Stops reading: PostgreSQL waits when its socket is full. */
  pause(): void {
    this.#isPaused = true;
    this.#connection.transport.stop();
  }

  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    if (!this.#isBroken) this.#connection.transport.start();
  }

  /** Parameter and column types, without running it. @throws UpstreamError, SqlError connection_failure */
  async describe(text: Buffer): Promise<StatementDescription> {
    const types: number[] = [];
    const outcome = await this.#exchange(
      [encodeParse("", text), encodeDescribe("statement", ""), encodeSync()],
      { parameterTypeOids: types },
    );
    return { parameterTypeOids: types, columns: outcome.columns };
  }

  /**
   * Runs one statement with parameters as text; PostgreSQL infers their types.
   *
   * @param limits a result that exceeds them is undone when no transaction is open, and the statement fails
   * @param onExceeded called when they are exceeded while rows still come
   * @throws UpstreamError; SqlError program_limit_exceeded, connection_failure, feature_not_supported (COPY)
   */
  execute(
    text: Buffer,
    parameters: readonly Cell[],
    limits: ResultLimits,
    onExceeded: () => void,
  ): Promise<QueryOutcome> {
    const mayCommit = this.#status === "I";
    return this.#exchange(
      [
        encodeParse("", text),
        encodeBind(parameters),
        encodeDescribe("portal", ""),
        encodeExecute("", limits.maxRows + 1),
        // Sync would commit what is undone when the result turns out to be too large.
        mayCommit ? encodeFlush() : encodeSync(),
      ],
      { limits, onExceeded, isSyncOwed: mayCommit },
    );
  }

  /** Runs one statement and gives its rows to the listener as they come, however many. @throws as `execute` */
  stream(text: Buffer, parameters: readonly Cell[], listener: RowListener): Promise<QueryOutcome> {
    return this.#exchange(
      [
        encodeParse("", text),
        encodeBind(parameters),
        encodeDescribe("portal", ""),
        encodeExecute(""),
        encodeSync(),
      ],
      { listener },
    );
  }

  /** Runs SQL of the front-end's own as a simple Query; the rows of all its statements. @throws as `execute` */
  query(sql: string): Promise<QueryOutcome> {
    return this.#exchange([encodeQuery(sql)], {});
  }

  /** Gives the transport up. */
  detach(): void {
    this.#connection.transport.stop();
  }

  /** Whoever still waits for an answer is told that there is none; nothing is sent any more. */
  abandon(): void {
    this.#break(connectionLost());
  }

  #exchange(messages: readonly Buffer[], options: Partial<Operation>): Promise<QueryOutcome> {
    if (this.#isBroken) return Promise.reject(connectionLost());
    if (this.#operation !== undefined) throw new TypeError("a statement is running already");
    return new Promise((resolve, reject) => {
      this.#operation = {
        listener: undefined,
        limits: undefined,
        isSyncOwed: false,
        onExceeded: () => undefined,
        parameterTypeOids: [],
        ...options,
        resolve,
        reject,
        rows: [],
        notices: [],
        columns: undefined,
        bytes: 0,
        rowCount: 0,
        tag: "",
        failure: undefined,
      };
      this.#connection.transport.write(Buffer.concat(messages));
    });
  }

  onData(buffer: Buffer, start: number, end: number): void {
    this.#framer.push(buffer, start, end);
  }

  onDrain(): void {}

  onEnd(): void {
    this.#break(connectionLost());
  }

  onObserve(): void {}

  onForward(): void {}

  onOversized(): Verdict {
    this.#break(rowTooLarge());
    return verdicts.take;
  }

  onViolation(): void {
    this.#break(connectionLost());
  }

  onInspect(): Verdict {
    return verdicts.take;
  }

  onTake(type: number, buffer: Buffer, start: number, end: number): void {
    const operation = this.#operation;
    const body = buffer.subarray(start + 5, end);
    switch (type) {
      case 0x53: // S
        noteParameterStatus(this.#connection, body);
        return;
      case 0x41: // A: nobody listens
        return;
      case 0x4e: // N
        if (operation !== undefined) noteNotice(operation, body);
        return;
      case 0x45: // E
        this.#onError(body);
        return;
    }
    if (operation === undefined) {
      this.#break(connectionLost());
      return;
    }
    switch (type) {
      case 0x44: // D
        this.#onRow(operation, body);
        return;
      case 0x54: // T
        operation.columns = decodeColumns(body);
        checkColumns(operation, operation.columns);
        return;
      case 0x74: // t
        operation.parameterTypeOids.push(...decodeParameterTypes(body));
        return;
      case 0x43: // C
        operation.tag = decodeCommandComplete(body);
        this.#endStatement(operation);
        return;
      case 0x49: // I
        this.#endStatement(operation);
        return;
      case 0x73: // s
        operation.failure ??= tooManyRows(operation.limits);
        this.#endStatement(operation);
        return;
      case 0x5a: // Z
        this.#onReady(operation, body);
        return;
      case 0x31: // 1
      case 0x32: // 2
      case 0x6e: // n
        return;
      default:
        // COPY in, out or both: its end would need a conversation that nobody has here.
        this.#break(copyRefused());
    }
  }

  #onRow(operation: Operation, body: Buffer): void {
    const { limits, listener } = operation;
    if (operation.failure !== undefined) return;
    if (limits !== undefined) {
      operation.bytes += body.length;
      operation.rowCount += 1;
      const error =
        operation.rowCount > limits.maxRows
          ? tooManyRows(limits)
          : operation.bytes > limits.maxBytes
            ? resultTooLarge()
            : undefined;
      if (error !== undefined) {
        operation.failure = error;
        operation.rows.length = 0;
        // The last row of those asked for needs no cancel: PostgreSQL suspends by itself.
        if (operation.rowCount <= limits.maxRows) operation.onExceeded();
        return;
      }
    }
    const cells = decodeCells(body);
    if (listener === undefined) operation.rows.push(cells);
    else listener.onRow(cells);
  }

  #endStatement(operation: Operation): void {
    if (!operation.isSyncOwed) return;
    operation.isSyncOwed = false;
    const isUndone = operation.failure !== undefined;
    this.#connection.transport.write(
      isUndone ? Buffer.concat([encodeDescribe("portal", missingPortal), encodeSync()]) : encodeSync(),
    );
  }

  #onError(body: Buffer): void {
    const operation = this.#operation;
    const error = new UpstreamError(body);
    if (operation === undefined) {
      this.#break(error);
      return;
    }
    // A result that was too large is what the caller is told, not how its statement was undone.
    operation.failure ??= error;
    if (!operation.isSyncOwed) return;
    operation.isSyncOwed = false;
    this.#connection.transport.write(encodeSync());
  }

  #onReady(operation: Operation, body: Buffer): void {
    this.#status = decodeReadyForQuery(body);
    this.#operation = undefined;
    const { failure, tag, columns, rows, notices } = operation;
    if (failure !== undefined) operation.reject(failure);
    else operation.resolve({ tag, columns, rows, notices });
  }

  #break(error: unknown): void {
    if (this.#isBroken) return;
    this.#isBroken = true;
    this.#framer.discard();
    this.#connection.transport.stop();
    const operation = this.#operation;
    this.#operation = undefined;
    operation?.reject(operation.failure ?? error);
  }
}

function checkColumns(operation: Operation, columns: readonly DescribedColumn[]): void {
  try {
    operation.limits?.checkColumns?.(columns);
  } catch (error) {
    operation.failure ??= error;
  }
}

function noteNotice(operation: Operation, body: Buffer): void {
  if (operation.notices.length >= maxNotices) return;
  const message = decodeErrorFields(body).get("M");
  if (message !== undefined) operation.notices.push(message);
}

/** RowDescription: what is needed to read text values. */
function decodeColumns(body: Buffer): DescribedColumn[] {
  const reader = new MessageReader(body);
  return reader.list(19, () => {
    const name = reader.cstring().toString("utf8");
    // The table's oid and the column's number.
    reader.bytes(6);
    const typeOid = reader.uint32();
    // Size, modifier and format.
    reader.bytes(8);
    return { name, typeOid };
  });
}

function decodeParameterTypes(body: Buffer): number[] {
  const reader = new MessageReader(body);
  return reader.list(4, () => reader.uint32());
}

/** DataRow: every value was asked for as text. */
function decodeCells(body: Buffer): Cell[] {
  const count = body.readInt16BE(0);
  const cells: Cell[] = [];
  let position = 2;
  for (let index = 0; index < count; index += 1) {
    const length = body.readInt32BE(position);
    position += 4;
    if (length === -1) cells.push(null);
    else {
      cells.push(body.toString("utf8", position, position + length));
      position += length;
    }
  }
  return cells;
}

function connectionLost(): SqlError {
  return new SqlError("connection_failure", "the upstream server closed the connection unexpectedly", {
    severity: "FATAL",
  });
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

function rowTooLarge(): SqlError {
  return new SqlError("program_limit_exceeded", "a row of the result is too large");
}

function copyRefused(): SqlError {
  return new SqlError("feature_not_supported", "COPY from and to the client is not available here");
}
