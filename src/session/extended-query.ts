/**
 * Statements of ours in the extended protocol (PostgreSQL manual 54.2.3). The upstream gets a stand-in
 * under the client's own names, so that names, portals, Describe, Close and their errors are its business;
 * only Execute is answered here, when everything before it in the pipeline has been.
 */

import type { Statement } from "../ddl/statement.ts";
import { parseTransactionControl, type TransactionControl } from "../ddl/transaction-control.ts";
import { SqlError } from "../errors/sql-error.ts";
import type { PairedTransaction } from "../exec/paired-transaction.ts";
import type { Column } from "../exec/result.ts";
import { endsWithTransaction } from "../exec/statement-transaction.ts";
import {
  encodeCommandComplete,
  encodePortalSuspended,
  encodeReadyForQuery,
} from "../wire/backend-message.ts";
import { decodeCommandComplete } from "../wire/backend-message-decoding.ts";
import { decodeFrontendMessage, type FrontendMessage, type ObjectName } from "../wire/frontend-message.ts";
import { encodeClose, encodeDescribe, encodeFlush, encodeParse } from "../wire/frontend-message-encoding.ts";
import { resolveResultFormats } from "../wire/row-encoding.ts";
import { lendConnection } from "./client-connection.ts";
import {
  hasMisleadingTag,
  KnownNames,
  type KnownPortal,
  type OwnPortal,
  type Progress,
} from "./known-names.ts";
import { PendingCommit } from "./pending-commit.ts";
import { findPortalText } from "./portal-text.ts";
import { missingPortal } from "./query-errors.ts";
import type { QuerySession } from "./query-session.ts";
import type { Relay } from "./relay.ts";
import { standIn } from "./stand-in.ts";
import { encodeNotices, encodeRows, type StatementRunner } from "./statement-runner.ts";
import { answerOf, cannotPrepare, followControl } from "./transaction-end.ts";

type Message<T extends FrontendMessage["type"]> = Extract<FrontendMessage, { type: T }>;

const flush = encodeFlush();

const sync = 0x53; // S

export class ExtendedQuery {
  readonly #session: QuerySession;
  readonly #relay: Relay;
  readonly #runner: StatementRunner;
  readonly #paired: PairedTransaction;
  readonly #columnsOf: (statement: Statement) => readonly Column[] | undefined;
  readonly #names = new KnownNames();

  constructor(session: QuerySession, columnsOf: (statement: Statement) => readonly Column[] | undefined) {
    this.#session = session;
    this.#relay = session.relay;
    this.#runner = session.runner;
    this.#paired = session.paired;
    this.#columnsOf = columnsOf;
  }

  get names(): KnownNames {
    return this.#names;
  }

  /** True when the next Sync commits statements of ours: outside a transaction block, where a pipeline is one transaction. */
  get mustCommitAtSync(): boolean {
    return this.#paired.isOpen && this.#relay.ledger.status === "I";
  }

  /** ReadyForQuery has said that no transaction is open. */
  onTransactionEnd(): void {
    if (!this.#names.hasPortals) return;
    this.#names.forgetPortals();
    this.#updateRelay();
  }

  /** True when Execute of this portal is not the upstream's alone. */
  mustRun(portal: ObjectName): boolean {
    return this.#names.isExecuteOfConcern(portal, this.#paired.isOpen);
  }

  /** True when it has to be known what becomes of this Bind. */
  mustBind(body: Buffer): boolean {
    try {
      const bind = decodeAs(body, 0x42, "Bind");
      // Drivers send what comes next without waiting for its answer.
      if (this.#names.isReset(bind.statement)) this.#relay.areClaimsDue = true;
      return this.#names.isBindOfConcern(bind, this.#paired.isOpen);
    } catch (error) {
      // Malformed: the upstream refuses it in its own words, and no portal is made.
      if (error instanceof SqlError) return false;
      throw error;
    }
  }

  /** Parse of a statement that takes the session's settings back. */
  noteReset(name: ObjectName): void {
    this.#names.noteReset(name);
    this.#updateRelay();
  }

  /** Bind goes on, to the stand-in where the statement is ours; what it makes is noted when the upstream has made it. */
  async bind(message: Buffer): Promise<void> {
    const bind = decodeAs(message.subarray(5), 0x42, "Bind");
    await this.#relay.settle();
    if (this.#isSkipping()) return;
    this.#relay.sendExtended(message);
    await this.#relay.settle();
    if (this.#isSkipping()) return;
    this.#names.noteBound(bind, this.#paired.isOpen);
    this.#updateRelay();
  }

  /** Close of a statement or portal of ours: it goes on to the stand-in, unless an error before it makes both skip it. */
  async close(message: Buffer): Promise<void> {
    const close = decodeAs(message.subarray(5), 0x43, "Close");
    await this.#relay.settle();
    if (this.#isSkipping()) return;
    this.#relay.sendExtended(message);
    if (close.target === "statement") this.#names.forgetStatement(close.name);
    else this.#names.forgetPortal(close.name);
    this.#updateRelay();
  }

  /** Parse of a statement of ours, or of another one under a name that was ours. */
  async parse(message: Buffer): Promise<void> {
    const parse = decodeAs(message.subarray(5), 0x50, "Parse");
    await this.#relay.settle();
    if (this.#isSkipping()) return;
    let statement: Statement | "forward";
    let forwarded = message;
    try {
      statement = this.#runner.parse(parse.text, true);
      const { signal } = this.#relay;
      if (statement !== "forward" && (await this.#runner.concernsForeignRole(statement, signal)))
        statement = "forward";
      if (statement === "forward") {
        const text = this.#runner.rewriteAuth(parse.text);
        if (text !== parse.text) forwarded = encodeParse(parse.statement, text, parse.parameterTypeOids);
      }
    } catch (error) {
      await this.#failParse(parse.statement, error);
      return;
    }
    const columns = statement === "forward" ? undefined : this.#columnsOf(statement);
    this.#relay.sendExtended(
      statement === "forward" ? forwarded : encodeParse(parse.statement, standIn(columns), []),
    );
    await this.#relay.settle();
    // Refused, for example because the name is taken: what stood under it still does.
    if (this.#isSkipping()) return;
    const own = statement === "forward" ? undefined : { statement, columns };
    this.#names.noteParsed(parse.statement, own, parseTransactionControl(parse.text, 0, parse.text.length));
    this.#updateRelay();
  }

  /** Execute of a portal of ours, or of one that ends the transaction. */
  async execute(message: Buffer): Promise<void> {
    const execute = decodeAs(message.subarray(5), 0x45, "Execute");
    await this.#relay.settle();
    if (this.#isSkipping()) return;
    const known = this.#names.portal(execute.portal);
    const portal = this.#isCertain(known) ? known : await this.#lookUp(execute.portal, known?.own);
    if (this.#isSkipping()) return;
    if (portal?.own !== undefined) await this.#executeOwn(execute, portal.own);
    else if (portal?.control !== undefined) await this.#executeControl(message, portal.control);
    else if (this.#relay.ledger.status === "E") await this.#executeInFailed(message);
    else this.#relay.sendExtended(message);
  }

  /** Sync that ends a pipeline with statements of ours: they and what PostgreSQL did in it commit together, or not at all. */
  async sync(message: Buffer): Promise<void> {
    await this.#relay.settle();
    if (this.#relay.isStopped) return;
    let pending: PendingCommit | undefined;
    if (!this.#isSkipping()) {
      try {
        pending = await PendingCommit.begin(this.#session, "extended");
      } catch (error) {
        await this.#fail(error);
      }
    }
    let hasFailed = this.#isSkipping();
    let ready: Buffer | undefined;
    await this.#relay.converseSync(message, (type, body) => {
      if (type === "E") hasFailed = true;
      if (type !== "Z") return "forward";
      ready = Buffer.from(body);
      return "finish";
    });
    try {
      if (ready === undefined) await pending?.end("unknown");
      else await pending?.end(hasFailed ? "not committed" : "committed");
    } catch (error) {
      if (!this.#relay.isStopped) this.#relay.writeToClient(this.#runner.encodeError(error));
    }
    await this.#paired.discard(this.#relay.signal);
    this.#updateRelay();
    if (!this.#relay.isStopped) this.#relay.writeToClient(encodeReadyForQuery(this.#relay.ledger.status));
  }

  async #executeOwn(execute: Message<"Execute">, portal: OwnPortal): Promise<void> {
    if (!(await this.#portalExists(execute.portal))) return;
    try {
      const messages: Buffer[] = [];
      if (portal.progress !== undefined && portal.columns === undefined) {
        throw new SqlError("object_not_in_prerequisite_state", `portal "${execute.portal}" cannot be run`);
      }
      if (portal.progress === undefined) {
        const { status } = this.#relay.ledger;
        const connection = lendConnection(this.#relay, "extended");
        const isFirst = status === "I" && !this.#paired.isOpen;
        const paired = this.#isAlone(portal.statement) ? undefined : this.#paired;
        const result = await this.#runner.run(portal.statement, status, connection, paired);
        // For PostgreSQL, too, the pipeline has to be a transaction now: what cannot be part of one (VACUUM) is refused.
        if (isFirst && this.#paired.isOpen) await connection.ask("SELECT");
        // It was about one of our users when it was prepared; now only PostgreSQL knows the name.
        if (result === "forward") throw new SqlError("undefined_object", "user does not exist");
        messages.push(...encodeNotices(result));
        // Where no rows come, PostgreSQL does not look at them.
        const formats = portal.columns
          ? resolveResultFormats(portal.resultFormats, portal.columns.length)
          : [];
        portal.progress = { rows: encodeRows(result, formats), tag: result.tag, fetched: 0 };
        this.#updateRelay();
      }
      messages.push(...fetch(portal.progress, execute.maxRows));
      if (!this.#relay.isStopped) this.#relay.writeToClient(Buffer.concat(messages));
    } catch (error) {
      await this.#fail(error);
    }
  }

  // In a failed block PostgreSQL cannot be asked what a portal is, and runs nothing but the block's end.
  async #executeInFailed(message: Buffer): Promise<void> {
    this.#relay.sendExtended(message);
    await this.#relay.settle();
    if (this.#relay.ledger.status !== "I") return;
    await this.#paired.discard(this.#relay.signal);
    this.#updateRelay();
  }

  #isCertain(portal: KnownPortal | undefined): boolean {
    return portal !== undefined && (portal.own === undefined || !this.#names.areSharedWithSql);
  }

  /** @param own what the name stood for when it was last bound */
  async #lookUp(name: ObjectName, own: OwnPortal | undefined): Promise<KnownPortal | undefined> {
    if (this.#relay.ledger.status === "E") return undefined;
    try {
      const text = await findPortalText(lendConnection(this.#relay, "extended"), name);
      if (own !== undefined && text.equals(Buffer.from(standIn(own.columns)))) return { own };
      const control = parseTransactionControl(text, 0, text.length);
      if (control === undefined) this.#names.noteForeign(name);
      return { control };
    } catch (error) {
      await this.#fail(error);
      return undefined;
    }
  }

  // Outside a block, first in its pipeline, and followed by Sync: a transaction of its own, which commits at once.
  #isAlone(statement: Statement): boolean {
    const { ledger, nextFromClient } = this.#relay;
    if (ledger.status !== "I" || this.#paired.isOpen) return false;
    return !endsWithTransaction(statement) && !ledger.hasExecuted && nextFromClient === sync;
  }

  async #executeControl(message: Buffer, control: TransactionControl): Promise<void> {
    let pending: PendingCommit | undefined;
    try {
      if (control.kind === "prepare_transaction") throw cannotPrepare();
      // The COMMIT of a failed block is a ROLLBACK.
      const isFailed = this.#relay.ledger.status === "E";
      if (control.kind === "commit" && !isFailed)
        pending = await PendingCommit.begin(this.#session, "extended");
    } catch (error) {
      await this.#fail(error);
      return;
    }
    let tag: string | undefined;
    await this.#relay.converse(Buffer.concat([message, flush]), false, (type, body) => {
      if (type === "E") return "forward-and-finish";
      if (type !== "C") return "forward";
      tag = decodeCommandComplete(body);
      return "finish";
    });
    try {
      await pending?.end(answerOf(tag));
      // The name means another statement by now: the block goes on, without what belonged to it.
      if (pending !== undefined && tag !== undefined && tag !== "COMMIT" && tag !== "ROLLBACK") {
        throw notTheCommit();
      }
      if (pending === undefined && tag !== undefined) await followControl(this.#session, control);
      if (tag !== undefined) this.#noteStatus(control);
    } catch (error) {
      await this.#fail(error);
      return;
    } finally {
      this.#updateRelay();
    }
    if (tag !== undefined && !this.#relay.isStopped) this.#relay.writeToClient(encodeCommandComplete(tag));
  }

  #noteStatus(control: TransactionControl): void {
    const { ledger } = this.#relay;
    if (control.kind === "savepoint" || control.kind === "release") return;
    // Portals end with their transaction.
    if (control.kind === "commit" || control.kind === "rollback") this.#names.forgetPortals();
    const isOpen = control.kind === "begin" || hasMisleadingTag(control);
    ledger.status = isOpen ? "T" : "I";
  }

  // The upstream discards everything up to Sync after an error, and so do we.
  #isSkipping(): boolean {
    return this.#relay.isStopped || this.#relay.ledger.isSkipping;
  }

  /** Asks the upstream, which owns the names, whether the stand-in's portal is still there; its error is the client's. */
  async #portalExists(name: ObjectName): Promise<boolean> {
    let exists = true;
    await this.#relay.converse(Buffer.concat([encodeDescribe("portal", name), flush]), false, (type) => {
      if (type === "T" || type === "n") return "finish";
      if (type !== "E") return "forward";
      exists = false;
      return "forward-and-finish";
    });
    return exists && !this.#relay.isStopped;
  }

  // PostgreSQL forgets the unnamed statement before it reads the next one.
  async #failParse(name: ObjectName, error: unknown): Promise<void> {
    if (name === "") {
      this.#names.forgetStatement(name);
      this.#updateRelay();
      const close = Buffer.concat([encodeClose("statement", name), flush]);
      await this.#relay.converse(close, false, (type) => (type === "3" ? "finish" : "drop"));
    }
    await this.#fail(error);
  }

  // The upstream has to fail as well: its transaction, and whatever else is in the pipeline before Sync.
  async #fail(error: unknown): Promise<void> {
    if (this.#relay.isStopped) return;
    // Unless it was the upstream's own error, behind which it hears nothing more.
    if (!this.#relay.ledger.isSkipping) {
      const missing = Buffer.concat([encodeDescribe("portal", missingPortal), flush]);
      await this.#relay.converse(missing, false, (type) => (type === "E" ? "finish" : "drop"));
    }
    if (!this.#relay.isStopped) this.#relay.writeToClient(this.#runner.encodeError(error));
  }

  #updateRelay(): void {
    this.#relay.hasOwn = this.#names.hasOwn;
    this.#relay.isWatchingTransaction = this.#paired.isOpen;
  }
}

function notTheCommit(): SqlError {
  return new SqlError("serialization_failure", "the prepared COMMIT is another statement by now", {
    hint: "Roll back, and prepare COMMIT again.",
  });
}

/** The next rows, at most `maxRows` (0: all), and how the fetch ended. */
function fetch(progress: Progress, maxRows: number): Buffer[] {
  const left = progress.rows.length - progress.fetched;
  const count = maxRows > 0 ? Math.min(maxRows, left) : left;
  const rows = progress.rows.slice(progress.fetched, progress.fetched + count);
  progress.fetched += count;
  const isSuspended = maxRows > 0 && count === maxRows;
  return [...rows, isSuspended ? encodePortalSuspended() : encodeCommandComplete(progress.tag)];
}

function decodeAs<T extends FrontendMessage["type"]>(body: Buffer, type: number, name: T): Message<T> {
  const message = decodeFrontendMessage(type, body);
  if (message.type !== name) throw new TypeError(`expected ${name}, decoded ${message.type}`);
  return message as Message<T>;
}
