/**
 * Statements of ours in the extended protocol (PostgreSQL manual 54.2.3). The upstream gets a stand-in
 * under the client's own names, so that names, portals, Describe, Close and their errors are its business;
 * only Execute is answered here, when everything before it in the pipeline has been.
 */

import type { Statement } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import type { Column } from "../exec/result.ts";
import { encodeCommandComplete, encodePortalSuspended, encodeSqlError } from "../wire/backend-message.ts";
import { decodeFrontendMessage, type FrontendMessage, type ObjectName } from "../wire/frontend-message.ts";
import { encodeDescribe, encodeFlush, encodeParse } from "../wire/frontend-message-encoding.ts";
import { resolveResultFormats } from "../wire/row-encoding.ts";
import type { Relay } from "./relay.ts";
import { missingPortal } from "./simple-query.ts";
import { encodeNotices, encodeRows, type StatementRunner } from "./statement-runner.ts";

type Message<T extends FrontendMessage["type"]> = Extract<FrontendMessage, { type: T }>;

interface OwnStatement {
  readonly statement: Statement;
  readonly columns: readonly Column[] | undefined;
}

interface OwnPortal extends OwnStatement {
  /** As in the Bind; checked at the first Execute. */
  readonly resultFormats: readonly number[];
  /** Rows not yet fetched, and the tag; absent before the first Execute. */
  progress: Progress | undefined;
}

interface Progress {
  readonly rows: readonly Buffer[];
  readonly tag: string;
  fetched: number;
}

const flush = encodeFlush();

const typeNames: Readonly<Record<Column["type"], string>> = {
  text: "text",
  int8: "int8",
  bool: "bool",
  timestamptz: "timestamptz",
};

export class ExtendedQuery {
  readonly #relay: Relay;
  readonly #runner: StatementRunner;
  readonly #columnsOf: (statement: Statement) => readonly Column[] | undefined;
  readonly #statements = new Map<ObjectName, OwnStatement>();
  readonly #portals = new Map<ObjectName, OwnPortal>();

  constructor(
    relay: Relay,
    runner: StatementRunner,
    columnsOf: (statement: Statement) => readonly Column[] | undefined,
  ) {
    this.#relay = relay;
    this.#runner = runner;
    this.#columnsOf = columnsOf;
  }

  /** True while a name of ours exists that a message could mean. */
  get hasOwn(): boolean {
    return this.#statements.size > 0 || this.#portals.size > 0;
  }

  hasStatement(name: ObjectName): boolean {
    return this.#statements.has(name);
  }

  hasPortal(name: ObjectName): boolean {
    return this.#portals.has(name);
  }

  forgetPortals(): void {
    if (this.#portals.size === 0) return;
    this.#portals.clear();
    this.#updateRelay();
  }

  /** Bind goes on to the stand-in; what it makes is noted. */
  noteBind(body: Buffer): void {
    let bind: Message<"Bind">;
    try {
      bind = decodeAs(body, 0x42, "Bind");
    } catch (error) {
      // Malformed: the upstream refuses it in its own words, and no portal is made.
      if (error instanceof SqlError) return;
      throw error;
    }
    const own = this.#statements.get(bind.statement);
    this.#portals.delete(bind.portal);
    if (own !== undefined) {
      this.#portals.set(bind.portal, { ...own, resultFormats: bind.resultFormats, progress: undefined });
    }
    this.#updateRelay();
  }

  /** Close of a statement or portal of ours: it goes on to the stand-in, unless an error before it makes both skip it. */
  async close(message: Buffer): Promise<void> {
    const close = decodeAs(message.subarray(5), 0x43, "Close");
    await this.#relay.settle();
    if (this.#isSkipping()) return;
    this.#relay.sendExtended(message);
    if (close.target === "statement") this.#statements.delete(close.name);
    else this.#portals.delete(close.name);
    this.#updateRelay();
  }

  /** Parse of a statement of ours, or of another one under a name that was ours. */
  async parse(message: Buffer): Promise<void> {
    const parse = decodeAs(message.subarray(5), 0x50, "Parse");
    await this.#relay.settle();
    if (this.#isSkipping()) return;
    let statement: Statement | "forward";
    try {
      statement = this.#runner.parse(parse.text, true);
      if (statement !== "forward" && (await this.#runner.concernsForeignRole(statement)))
        statement = "forward";
    } catch (error) {
      await this.#fail(error);
      return;
    }
    const columns = statement === "forward" ? undefined : this.#columnsOf(statement);
    this.#relay.sendExtended(
      statement === "forward" ? message : encodeParse(parse.statement, standIn(columns), []),
    );
    await this.#relay.settle();
    // Refused, for example because the name is taken: what stood under it still does.
    if (this.#isSkipping()) return;
    this.#statements.delete(parse.statement);
    if (statement !== "forward") this.#statements.set(parse.statement, { statement, columns });
    this.#updateRelay();
  }

  /** Execute of a portal of ours. */
  async execute(message: Buffer): Promise<void> {
    const execute = decodeAs(message.subarray(5), 0x45, "Execute");
    await this.#relay.settle();
    const portal = this.#portals.get(execute.portal);
    if (this.#isSkipping()) return;
    if (portal === undefined) {
      // It has ended with its transaction meanwhile: the upstream, which knows that too, words the error.
      this.#relay.sendExtended(message);
      return;
    }
    if (!(await this.#portalExists(execute.portal))) return;
    try {
      const messages: Buffer[] = [];
      if (portal.progress !== undefined && portal.columns === undefined) {
        throw new SqlError("object_not_in_prerequisite_state", `portal "${execute.portal}" cannot be run`);
      }
      if (portal.progress === undefined) {
        const result = await this.#runner.run(portal.statement, this.#relay.ledger.status);
        // It was about one of our users when it was prepared; now only PostgreSQL knows the name.
        if (result === "forward") throw new SqlError("undefined_object", "user does not exist");
        messages.push(...encodeNotices(result));
        const formats = resolveResultFormats(portal.resultFormats, portal.columns?.length ?? 0);
        portal.progress = { rows: encodeRows(result, formats), tag: result.tag, fetched: 0 };
      }
      messages.push(...fetch(portal.progress, execute.maxRows));
      if (!this.#relay.isStopped) this.#relay.writeToClient(Buffer.concat(messages));
    } catch (error) {
      await this.#fail(error);
    }
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

  // The upstream has to fail as well: its transaction, and whatever else is in the pipeline before Sync.
  async #fail(error: unknown): Promise<void> {
    if (this.#relay.isStopped) return;
    const missing = Buffer.concat([encodeDescribe("portal", missingPortal), flush]);
    await this.#relay.converse(missing, false, (type) => (type === "E" ? "finish" : "drop"));
    if (!this.#relay.isStopped) this.#relay.writeToClient(encodeSqlError(this.#runner.asSqlError(error)));
  }

  #updateRelay(): void {
    this.#relay.hasOwn = this.hasOwn;
  }
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

/**
 * What the upstream prepares instead: for a SHOW a query with the same columns, so that Describe tells the truth;
 * for a command something without columns. Should it ever be run, it gives nothing away and changes nothing.
 */
function standIn(columns: readonly Column[] | undefined): string {
  if (columns === undefined) {
    return "DO 'BEGIN RAISE EXCEPTION ''this statement is run by the front-end''; END'";
  }
  const list = columns.map(({ name, type }) => `NULL::pg_catalog.${typeNames[type]} AS "${name}"`);
  return `SELECT ${list.join(", ")} LIMIT 0`;
}

function decodeAs<T extends FrontendMessage["type"]>(body: Buffer, type: number, name: T): Message<T> {
  const message = decodeFrontendMessage(type, body);
  if (message.type !== name) throw new TypeError(`expected ${name}, decoded ${message.type}`);
  return message as Message<T>;
}
