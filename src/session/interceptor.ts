/** Decides which of a client's messages concern statements of ours, and hands those to who runs them. */

import { mayHoldAuthReference } from "../ddl/auth-references.ts";
import { holdsOurs, isOurs, mayNeedAttention } from "../ddl/classify.ts";
import { namesInDatabaseCommands } from "../ddl/database-command.ts";
import { lexicalText } from "../ddl/multibyte.ts";
import { beginsWithReset, holdsReset } from "../ddl/session-reset.ts";
import { findStatements } from "../ddl/splitter.ts";
import type { Statement } from "../ddl/statement.ts";
import { mayBeTransactionControl, parseTransactionControl } from "../ddl/transaction-control.ts";
import { SqlError } from "../errors/sql-error.ts";
import type { PairedTransaction } from "../exec/paired-transaction.ts";
import type { Column } from "../exec/result.ts";
import { type Verdict, verdicts } from "../wire/framer.ts";
import { ExtendedQuery } from "./extended-query.ts";
import type { QuerySession } from "./query-session.ts";
import type { Relay } from "./relay.ts";
import type { Interceptor } from "./relay-contracts.ts";
import { hasTransactionControl, runSimpleQuery } from "./simple-query.ts";
import type { StatementRunner } from "./statement-runner.ts";

const headerBytes = 5;
const letter = {
  query: 0x51,
  parse: 0x50,
  bind: 0x42,
  execute: 0x45,
  close: 0x43,
  sync: 0x53,
  functionCall: 0x46,
} as const;
const statementTarget = 0x53; // S

export class StatementInterceptor implements Interceptor {
  readonly #session: QuerySession;
  readonly #extended: ExtendedQuery;
  readonly #freeDatabases: (names: readonly string[]) => void;

  /** @param freeDatabases is told of the databases that a statement on its way upstream wants to have to itself */
  constructor(
    relay: Relay,
    runner: StatementRunner,
    paired: PairedTransaction,
    columnsOf: (statement: Statement) => readonly Column[] | undefined,
    freeDatabases: (names: readonly string[]) => void,
  ) {
    this.#session = { relay, runner, paired };
    this.#freeDatabases = freeDatabases;
    this.#extended = new ExtendedQuery(this.#session, columnsOf);
  }

  inspect(type: number, buffer: Buffer, start: number, end: number): Verdict {
    const bodyStart = start + headerBytes;
    switch (type) {
      case letter.query:
        // Malformed: the upstream words the error.
        if (end === bodyStart || buffer[end - 1] !== 0) return verdicts.pass;
        return this.#inspectQuery(buffer, bodyStart, end - 1);
      case letter.parse: {
        const nameEnd = buffer.indexOf(0, bodyStart);
        const textEnd = nameEnd === -1 ? -1 : buffer.indexOf(0, nameEnd + 1);
        // Malformed: the upstream words the error.
        if (textEnd === -1 || textEnd >= end) return verdicts.pass;
        const { names } = this.#extended;
        if (names.hasOwn && names.hasStatement(buffer.toString("latin1", bodyStart, nameEnd)))
          return verdicts.take;
        if (this.#concernsControl(buffer, bodyStart, nameEnd, textEnd)) return verdicts.take;
        if (beginsWithReset(buffer, nameEnd + 1, textEnd))
          this.#extended.noteReset(buffer.toString("latin1", bodyStart, nameEnd));
        else if (names.hasResets && nameEnd === bodyStart) names.forgetUnnamedReset();
        return this.#mustRun(buffer, nameEnd + 1, textEnd) ? verdicts.take : verdicts.pass;
      }
      case letter.bind:
        return this.#extended.mustBind(buffer.subarray(bodyStart, end)) ? verdicts.take : verdicts.pass;
      case letter.execute: {
        const nameEnd = buffer.indexOf(0, bodyStart);
        if (nameEnd === -1 || nameEnd >= end) return verdicts.pass;
        const name = buffer.toString("latin1", bodyStart, nameEnd);
        return this.#extended.mustRun(name) ? verdicts.take : verdicts.pass;
      }
      case letter.sync:
        return this.#extended.mustCommitAtSync ? verdicts.take : verdicts.pass;
      case letter.functionCall:
        return this.#extended.mustCommitAtSync ? verdicts.take : verdicts.pass;
      case letter.close: {
        const nameEnd = buffer.indexOf(0, bodyStart + 1);
        if (nameEnd === -1 || nameEnd >= end) return verdicts.pass;
        const name = buffer.toString("latin1", bodyStart + 1, nameEnd);
        const { names } = this.#extended;
        const isOfConcern =
          buffer[bodyStart] === statementTarget
            ? names.hasStatement(name) || names.isControl(name)
            : names.isSpecial(name);
        return isOfConcern ? verdicts.take : verdicts.pass;
      }
      default:
        return verdicts.pass;
    }
  }

  mustRefuse(type: number, buffer: Buffer, start: number, end: number): boolean {
    const bodyStart = start + headerBytes;
    let textStart = bodyStart;
    if (type !== letter.query) {
      const nameEnd = buffer.indexOf(0, bodyStart);
      if (nameEnd === -1 || nameEnd >= end) return false;
      // What the name meant is replaced, and not by a statement of ours: that is not so long, nor are its parameters.
      const name = buffer.toString("latin1", bodyStart, nameEnd);
      if (type === letter.bind) this.#extended.names.forgetPortal(name);
      if (type !== letter.parse) return false;
      this.#extended.names.forgetStatement(name);
      textStart = nameEnd + 1;
    }
    if (textStart >= end) return false;
    const { standardConformingStrings } = this.#session.relay;
    let isOwn = false;
    findStatements(buffer, textStart, end, { standardConformingStrings }, (statementStart, statementEnd) => {
      isOwn = isOurs(buffer, statementStart, statementEnd, { standardConformingStrings });
      return true;
    });
    return isOwn;
  }

  async handle(type: number, message: Buffer): Promise<void> {
    const body = message.subarray(headerBytes);
    if (type === letter.query) await runSimpleQuery(this.#session, body.subarray(0, -1));
    else if (type === letter.parse) await this.#extended.parse(message);
    else if (type === letter.bind) await this.#extended.bind(message);
    else if (type === letter.close) await this.#extended.close(message);
    else if (type === letter.sync) await this.#extended.sync(message);
    else if (type === letter.functionCall) throw noFunctionCall();
    else await this.#extended.execute(message);
  }

  onTransactionEnd(): void {
    this.#extended.onTransactionEnd();
    const { paired, relay } = this.#session;
    // Ended otherwise than by a COMMIT that was seen coming: what was rehearsed must not wait for another one.
    if (!paired.isOpen) return;
    void paired.discard();
    relay.isWatchingTransaction = false;
  }

  onNamedBySql(): void {
    this.#extended.names.areSharedWithSql = true;
  }

  close(): void {
    if (this.#session.paired.isOpen) void this.#session.paired.discard();
  }

  #inspectQuery(buffer: Buffer, start: number, end: number): Verdict {
    const { relay, paired } = this.#session;
    if (this.#mustRun(buffer, start, end)) return verdicts.take;
    if (!paired.isOpen) return verdicts.pass;
    // It ends the transaction of a pipeline.
    if (relay.ledger.status === "I") return verdicts.take;
    return hasTransactionControl(relay, buffer.subarray(start, end)) ? verdicts.take : verdicts.pass;
  }

  #mustRun(buffer: Buffer, start: number, end: number): boolean {
    // Drivers send what comes next without waiting for its answer.
    if (beginsWithReset(buffer, start, end)) this.#session.relay.areClaimsDue = true;
    return this.#holdsOwn(buffer, start, end) || mayHoldAuthReference(buffer, start, end);
  }

  #holdsOwn(buffer: Buffer, start: number, end: number): boolean {
    if (!mayNeedAttention(buffer, start, end)) return false;
    const { standardConformingStrings, clientEncoding } = this.#session.relay;
    const text = lexicalText(buffer.subarray(start, end), clientEncoding);
    const databases = namesInDatabaseCommands(text, 0, text.length, { standardConformingStrings });
    if (databases.length > 0) this.#freeDatabases(databases);
    if (holdsReset(text, 0, text.length, { standardConformingStrings }))
      this.#session.relay.areClaimsDue = true;
    return holdsOurs(text, 0, text.length, { standardConformingStrings });
  }

  // Drivers prepare COMMIT once and run it for years: its name must be known before the first statement of ours, and known to
  // have been taken by the upstream.
  #concernsControl(buffer: Buffer, nameStart: number, nameEnd: number, textEnd: number): boolean {
    if (mayBeTransactionControl(buffer, nameEnd + 1, textEnd)) {
      return parseTransactionControl(buffer, nameEnd + 1, textEnd) !== undefined;
    }
    const { names } = this.#extended;
    return names.hasControls && names.isControl(buffer.toString("latin1", nameStart, nameEnd));
  }
}

/** It would commit what the pipeline did in PostgreSQL, and nothing could be held back meanwhile. */
function noFunctionCall(): SqlError {
  return new SqlError(
    "feature_not_supported",
    "FunctionCall cannot end a pipeline that changes users, roles or keys",
    { severity: "FATAL", hint: "Send Sync before it." },
  );
}
