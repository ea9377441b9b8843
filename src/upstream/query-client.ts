/** Runs statements on a connection that is on loan, one at a time, in the extended protocol (PostgreSQL manual 54.2.3). */

import { SqlError } from "../errors/sql-error.ts";
import type { TransactionStatus } from "../wire/backend-message.ts";
import { decodeCommandComplete, decodeReadyForQuery } from "../wire/backend-message-decoding.ts";
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
import type { TransportHandler } from "../wire/transport.ts";
import type { Cell, QueryOutcome, ResultLimits, RowListener, StatementDescription } from "./query-result.ts";
import { RunningStatement, type StatementOptions } from "./running-statement.ts";
import { noteParameterStatus, type UpstreamConnection } from "./upstream-connection.ts";
import { UpstreamError } from "./upstream-error.ts";

/** Largest single message, in bytes, that is put together in memory where no limit says less. */
const maxRowBytes = 64 * 1024 * 1024;
/** Describing it makes PostgreSQL fail, and with that undo, what it has run since the last Sync. */
const missingPortal = "nodedb: the result is too large";

const everyMessage = new Uint8Array(256).fill(actions.inspect);

/** Attaches to the connection until `detach`; whoever leased it must not touch it meanwhile. */
export class QueryClient implements TransportHandler, FramerVisitor {
  readonly #connection: UpstreamConnection;
  readonly #framer: MessageFramer;
  #statement: RunningStatement | undefined;
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
      !this.#isBroken && this.#statement === undefined && this.#status === "I" && this.#framer.isAtBoundary
    );
  }

  /** True while an answer is owed. */
  get isRunning(): boolean {
    return this.#statement !== undefined;
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
    const parameterTypeOids: number[] = [];
    const { columns } = await this.#exchange(
      [encodeParse("", text), encodeDescribe("statement", ""), encodeSync()],
      { parameterTypeOids },
    );
    return { parameterTypeOids, columns };
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

  /** Prepares a statement of the front-end's own under a name. @throws as `execute` */
  prepare(name: string, text: string): Promise<QueryOutcome> {
    return this.#exchange([encodeParse(name, text), encodeSync()], {});
  }

  /** Runs what was prepared, with parameters and results as text and without a description of its columns. @throws as `execute` */
  executePrepared(name: string, parameters: readonly Cell[]): Promise<QueryOutcome> {
    return this.#exchange([encodeBind(parameters, { statement: name }), encodeExecute(""), encodeSync()], {});
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

  #exchange(messages: readonly Buffer[], options: StatementOptions): Promise<QueryOutcome> {
    if (this.#isBroken) return Promise.reject(connectionLost());
    if (this.#statement !== undefined) throw new TypeError("a statement is running already");
    return new Promise((resolve, reject) => {
      this.#statement = new RunningStatement(options, resolve, reject);
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
    const statement = this.#statement;
    const body = buffer.subarray(start + 5, end);
    switch (type) {
      case 0x53: // S
        noteParameterStatus(this.#connection, body);
        return;
      case 0x41: // A: nobody listens
        return;
      case 0x4e: // N
        if (statement !== undefined) statement.takeNotice(body);
        return;
      case 0x45: // E
        this.#onError(body);
        return;
    }
    if (statement === undefined) {
      this.#break(connectionLost());
      return;
    }
    switch (type) {
      case 0x44: // D
        statement.takeRow(body);
        return;
      case 0x54: // T
        statement.takeColumns(body);
        return;
      case 0x74: // t
        statement.takeParameterTypes(body);
        return;
      case 0x43: // C
        statement.tag = decodeCommandComplete(body);
        this.#endStatement(statement);
        return;
      case 0x49: // I
        this.#endStatement(statement);
        return;
      case 0x73: // s
        statement.takeSuspension();
        this.#endStatement(statement);
        return;
      case 0x5a: // Z
        this.#onReady(statement, body);
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

  #endStatement(statement: RunningStatement): void {
    if (!statement.isSyncOwed) return;
    statement.isSyncOwed = false;
    this.#connection.transport.write(
      statement.hasFailed
        ? Buffer.concat([encodeDescribe("portal", missingPortal), encodeSync()])
        : encodeSync(),
    );
  }

  #onError(body: Buffer): void {
    const statement = this.#statement;
    const error = new UpstreamError(body);
    if (statement === undefined) {
      this.#break(error);
      return;
    }
    // A result that was too large is what the caller is told, not how its statement was undone.
    statement.fail(error);
    if (!statement.isSyncOwed) return;
    statement.isSyncOwed = false;
    this.#connection.transport.write(encodeSync());
  }

  #onReady(statement: RunningStatement, body: Buffer): void {
    this.#status = decodeReadyForQuery(body);
    this.#statement = undefined;
    statement.settle();
  }

  #break(error: unknown): void {
    if (this.#isBroken) return;
    this.#isBroken = true;
    this.#framer.discard();
    this.#connection.transport.stop();
    const statement = this.#statement;
    this.#statement = undefined;
    statement?.fail(error);
    statement?.settle();
  }
}

function connectionLost(): SqlError {
  return new SqlError("connection_failure", "the upstream server closed the connection unexpectedly", {
    severity: "FATAL",
  });
}

function rowTooLarge(): SqlError {
  return new SqlError("program_limit_exceeded", "a row of the result is too large");
}

function copyRefused(): SqlError {
  return new SqlError("feature_not_supported", "COPY from and to the client is not available here");
}
