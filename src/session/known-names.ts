/**
 * The names of prepared statements and portals that are not the upstream's alone (PostgreSQL manual 54.2.3). The upstream owns
 * them: a name is noted when the upstream has accepted what made it, never when a client has merely sent that.
 */

import type { Statement } from "../ddl/statement.ts";
import type { TransactionControl } from "../ddl/transaction-control.ts";
import type { Column } from "../exec/result.ts";
import type { ObjectName } from "../wire/frontend-message.ts";

/** A prepared statement of ours. */
export interface OwnStatement {
  readonly statement: Statement;
  readonly columns: readonly Column[] | undefined;
}

export interface OwnPortal extends OwnStatement {
  /** As in the Bind; they fit, since the stand-in has the same columns. */
  readonly resultFormats: readonly number[];
  /** Rows not yet fetched, and the tag; absent before the first Execute. */
  progress: Progress | undefined;
}

export interface Progress {
  readonly rows: readonly Buffer[];
  readonly tag: string;
  fetched: number;
}

/** What a portal runs: a statement of ours, one that controls the transaction, or neither. */
export interface KnownPortal {
  readonly own?: OwnPortal | undefined;
  readonly control?: TransactionControl | undefined;
}

/** What a Bind names. */
export interface BoundNames {
  readonly portal: ObjectName;
  readonly statement: ObjectName;
  readonly resultFormats: readonly number[];
}

const neither: KnownPortal = {};

export class KnownNames {
  /** True once SQL has given names too, which may have replaced those that are noted here. */
  areSharedWithSql = false;
  readonly #statements = new Map<ObjectName, OwnStatement>();
  /** Prepared statements that control the transaction. */
  readonly #controls = new Map<ObjectName, TransactionControl>();
  /** Prepared statements that take the session's settings back. */
  readonly #resets = new Set<ObjectName>();
  /** Made from either; and those that are known to be made from neither. */
  readonly #portals = new Map<ObjectName, KnownPortal>();
  /** True once a statement was prepared that looks like the end of a block by its tag and is none. */
  #hasMisleadingTags = false;

  /** True while a name exists that a message could mean and that is not the upstream's alone. */
  get hasOwn(): boolean {
    return (
      this.#statements.size > 0 || this.#portals.size > 0 || this.#resets.size > 0 || this.#hasMisleadingTags
    );
  }

  get hasControls(): boolean {
    return this.#controls.size > 0;
  }

  hasStatement(name: ObjectName): boolean {
    return this.#statements.has(name);
  }

  isControl(name: ObjectName): boolean {
    return this.#controls.has(name);
  }

  get hasResets(): boolean {
    return this.#resets.size > 0;
  }

  isReset(name: ObjectName): boolean {
    return this.#resets.has(name);
  }

  /** Sent, and perhaps refused: to seal claims once too often does no harm. */
  noteReset(name: ObjectName): void {
    this.#resets.add(name);
  }

  forgetUnnamedReset(): void {
    this.#resets.delete("");
  }

  get hasPortals(): boolean {
    return this.#portals.size > 0;
  }

  portal(name: ObjectName): KnownPortal | undefined {
    return this.#portals.get(name);
  }

  /** Whether the portal runs a statement of ours or one that controls the transaction. */
  isSpecial(portal: ObjectName): boolean {
    const known = this.#portals.get(portal);
    return known !== undefined && (known.own !== undefined || known.control !== undefined);
  }

  /**
   * Whether it has to be known what becomes of a Bind.
   *
   * @param isPaired the client's transaction holds statements of ours: its end must be seen coming
   */
  isBindOfConcern({ portal, statement }: BoundNames, isPaired: boolean): boolean {
    if (this.#statements.has(statement) || this.isSpecial(portal)) return true;
    const control = this.#controls.get(statement);
    const isKnown = this.#portals.has(portal);
    if (control !== undefined) return isPaired || isKnown || hasMisleadingTag(control);
    return isPaired && !isKnown;
  }

  /** Whether Execute of this portal is not the upstream's alone. @param isPaired as for `isBindOfConcern` */
  isExecuteOfConcern(portal: ObjectName, isPaired: boolean): boolean {
    const known = this.#portals.get(portal);
    if (known === undefined) return isPaired;
    if (known.control !== undefined) return isPaired || hasMisleadingTag(known.control);
    return known.own !== undefined;
  }

  /** Parse has been accepted. */
  noteParsed(name: ObjectName, own: OwnStatement | undefined, control: TransactionControl | undefined): void {
    this.forgetStatement(name);
    if (own !== undefined) this.#statements.set(name, own);
    if (control === undefined) return;
    this.#controls.set(name, control);
    if (hasMisleadingTag(control)) this.#hasMisleadingTags = true;
  }

  /** Bind has been accepted. @param isPaired as for `isBindOfConcern` */
  noteBound({ portal, statement, resultFormats }: BoundNames, isPaired: boolean): void {
    const known = this.#statements.get(statement);
    const own = known && { ...known, resultFormats, progress: undefined };
    const control = this.#controls.get(statement);
    this.#portals.delete(portal);
    if (own !== undefined || control !== undefined || isPaired) this.#portals.set(portal, { own, control });
  }

  /** It has turned out to be the upstream's alone. */
  noteForeign(portal: ObjectName): void {
    this.#portals.set(portal, neither);
  }

  forgetStatement(name: ObjectName): void {
    this.#statements.delete(name);
    this.#controls.delete(name);
  }

  forgetPortal(name: ObjectName): void {
    this.#portals.delete(name);
  }

  /** Portals end with their transaction. */
  forgetPortals(): void {
    this.#portals.clear();
  }
}

/** Its tag is that of COMMIT or ROLLBACK, but a block is open behind it. */
export function hasMisleadingTag(control: TransactionControl): boolean {
  return control.kind === "rollback_to" || ("chain" in control && control.chain);
}
