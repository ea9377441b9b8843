/** Roles that somebody has changed in PostgreSQL itself: noticed at the next login, put right and audited. */

import type { PoolClient } from "pg";
import type { Identity } from "../auth/identity.ts";
import { sqlstateOf } from "../catalog/connection.ts";
import { SqlError } from "../errors/sql-error.ts";
import { readAdminRights } from "../upstream/admin-rights.ts";
import { ForeignVerifierError } from "../upstream/login.ts";
import type { UpstreamPool } from "../upstream/pool.ts";
import {
  differences,
  type LoginPlace,
  loginLookQuery,
  type RoleAtLogin,
  type RoleFingerprint,
  readLoginLook,
} from "../upstream/role-fingerprint.ts";
import type { StandingQuestions } from "../upstream/standing-questions.ts";
import type { UpstreamConnection } from "../upstream/upstream-connection.ts";
import { UpstreamError } from "../upstream/upstream-error.ts";
import type { UpstreamTarget } from "../upstream/upstream-target.ts";
import type { ExecutorDependencies } from "./context.ts";
import { repairRole } from "./repair-role.ts";
import { changedParts, readFingerprints, refusedRepairEntry, repairEntry } from "./role-changes.ts";
import { translateErrors } from "./translate-errors.ts";

type Dependencies = Pick<ExecutorDependencies, "audit" | "catalog" | "log" | "roleOptions">;

/** A principal's id and the name of its role. */
interface Owner {
  readonly id: number;
  readonly role: string;
}

interface Known {
  readonly fingerprint: RoleFingerprint;
  /** By database. */
  readonly looks: Map<string, Look>;
}

interface Look {
  readonly atMs: number;
  /** The role may not connect to the database, and this stays: it was not to be put right. */
  readonly isOutside: boolean;
}

/** How a repair came out; "gone" is for a principal that is not there any more. */
type Repair = "gone" | "as_it_was" | "put_right";

/** Principals whose role is remembered, about 300 bytes each; one that was forgotten is compared with the catalog anew. */
const maxKnown = 20_000;

/** What PostgreSQL answers to the first statement of a repair in a transaction that may only read. */
const readOnlyTransaction = "25006";

export class RoleDrift {
  readonly #deps: Dependencies;
  readonly #questions: Pick<StandingQuestions, "ask">;
  readonly #onRepaired: (principalId: number) => void;
  /** How each role was when it was last found to be as the catalog has it. */
  readonly #known = new Map<number, Known>();
  readonly #underWay = new Map<number, Promise<Repair>>();
  readonly #pool: Pick<UpstreamPool, "closePrincipal">;
  /** By role and database. */
  #wanted = new Map<string, LoginPlace>();
  #next: Promise<Map<string, RoleAtLogin | undefined>> | undefined;
  #last: Promise<unknown> = Promise.resolve();
  #readsPasswords: Promise<boolean> | undefined;

  /**
   * @param questions what logins look at is asked there
   * @param pool whose unused connections a role is not to get that PostgreSQL would not let in
   * @param onRepaired told of principals whose connections were opened as the role was before
   */
  constructor(
    deps: Dependencies,
    questions: Pick<StandingQuestions, "ask">,
    pool: Pick<UpstreamPool, "closePrincipal">,
    onRepaired: (principalId: number) => void,
  ) {
    this.#deps = deps;
    this.#questions = questions;
    this.#pool = pool;
    this.#onRepaired = onRepaired;
  }

  /**
   * Looks at an identity's role, and puts it right where it is not as the catalog has it. Costs one query, which logins that
   * come at the same time share. What the upstream login may not put right stays, is audited, and keeps nobody out.
   * A role that may not connect to the database is left to PostgreSQL to refuse, which looks at that only when a connection is
   * opened.
   *
   * @param maxAgeMs does nothing when the role was looked at for this database no longer ago than this
   * @throws SqlError cannot_connect_now when the upstream is not there
   */
  async check(
    { principal: { id }, role, databases }: Identity,
    database: string,
    maxAgeMs: number,
  ): Promise<void> {
    const known = this.#known.get(id);
    const last = known?.looks.get(database);
    const atMs = performance.now();
    if (maxAgeMs > 0 && last !== undefined && atMs - last.atMs <= maxAgeMs) return;
    await translateErrors(async () => {
      const found = await this.#look({ role, database });
      const isOutside = found?.mayConnect === false;
      if (isOutside) this.#pool.closePrincipal(id, database);
      const isOursToGrant = isOutside && databases?.includes(database) === true && last?.isOutside !== true;
      const isSame =
        known !== undefined && found !== undefined && differences(known.fingerprint, found).length === 0;
      let repair: Repair = "as_it_was";
      if (!isSame || isOursToGrant) {
        const work = this.#underWay.get(id) ?? this.#compare({ id, role }, found);
        this.#underWay.set(id, work);
        repair = await work.finally(() => this.#underWay.delete(id));
      }
      this.#known.get(id)?.looks.set(database, { atMs, isOutside: isOutside && repair !== "put_right" });
    });
  }

  /** Opens a connection as a role; where the login fails for what the role is, puts that right and tries once more. */
  async open(
    target: UpstreamTarget,
    open: (target: UpstreamTarget) => Promise<UpstreamConnection>,
  ): Promise<UpstreamConnection> {
    try {
      return await open(target);
    } catch (error) {
      const isDrift =
        error instanceof ForeignVerifierError ||
        (error instanceof UpstreamError && error.sqlstate.startsWith("28"));
      if (!isDrift) throw error;
      const owner = { id: target.principalId, role: target.role };
      this.#deps.log.warn({ role: owner.role, reason: error.message }, "cannot log in upstream as a role");
      if ((await translateErrors(() => this.#repair(owner, true))) === "gone") throw error;
      return open(target);
    }
  }

  // Most differences are ours: a statement has changed the role, here or at another front-end. Then nothing is written.
  async #compare(owner: Owner, found: RoleFingerprint | undefined): Promise<Repair> {
    const { audit, catalog, log, roleOptions } = this.#deps;
    try {
      const isThere = await catalog.read((client) => repairRole(client, roleOptions, owner.id));
      // Looked at before it was compared: what changes meanwhile is seen at the next login.
      if (isThere !== undefined && found !== undefined) this.#remember(owner.id, found);
      return isThere === undefined ? "gone" : "as_it_was";
    } catch (error) {
      if (!isRefusal(error) && sqlstateOf(error) !== readOnlyTransaction) throw error;
    }
    try {
      return await this.#repair(owner, false);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      log.warn({ err: error, role: owner.role }, "an upstream role cannot be put right");
      audit.record(refusedRepairEntry(owner.role));
      if (found !== undefined) this.#remember(owner.id, found);
      return "as_it_was";
    }
  }

  /** @param reinstallCredentials because the login has failed */
  async #repair(owner: Owner, reinstallCredentials: boolean): Promise<Repair> {
    const { audit, catalog, log, roleOptions } = this.#deps;
    // On a connection of its own, of which there are few: not while one is held.
    const readsPasswords = await this.#mayReadPasswords();
    const read = async (client: PoolClient) =>
      (await readFingerprints(client, [owner.role], readsPasswords)).get(owner.role);
    const { isThere, what, after } = await catalog.write(async (client) => {
      const before = await read(client);
      const statements = await repairRole(client, roleOptions, owner.id, reinstallCredentials);
      const repaired = await read(client);
      const parts = statements === undefined ? [] : partsOf(before, repaired, reinstallCredentials);
      if (parts.length > 0) await audit.recordIn(client, repairEntry(owner.role, parts));
      return { isThere: statements !== undefined, what: parts, after: repaired };
    });
    if (isThere && after !== undefined) this.#remember(owner.id, after);
    if (!isThere) return "gone";
    if (what.length === 0) return "as_it_was";
    log.warn(
      { role: owner.role, what },
      "an upstream role was not as the catalog has it and has been put right",
    );
    this.#onRepaired(owner.id);
    return "put_right";
  }

  #look(place: LoginPlace): Promise<RoleAtLogin | undefined> {
    const key = JSON.stringify([place.role, place.database]);
    this.#wanted.set(key, place);
    if (this.#next === undefined) {
      this.#next = this.#last.then(async () => {
        const places = this.#wanted;
        this.#wanted = new Map();
        this.#next = undefined;
        const query = loginLookQuery([...places.values()], await this.#mayReadPasswords());
        const found = readLoginLook(await this.#questions.ask(query));
        return new Map([...places.keys()].map((key, index) => [key, found.get(index)]));
      });
      this.#last = this.#next.catch(() => undefined);
    }
    return this.#next.then((found) => found.get(key));
  }

  #mayReadPasswords(): Promise<boolean> {
    // On the private socket of the embedded PostgreSQL no password opens anything.
    if (this.#deps.roleOptions.masterSecret === undefined) return Promise.resolve(false);
    this.#readsPasswords ??= this.#deps.catalog
      .read(async (client) => (await readAdminRights(client)).mayReadPasswords)
      .catch((error: unknown) => {
        this.#readsPasswords = undefined;
        throw error;
      });
    return this.#readsPasswords;
  }

  #remember(id: number, fingerprint: RoleFingerprint): void {
    this.#known.delete(id);
    this.#known.set(id, { fingerprint, looks: new Map() });
    if (this.#known.size <= maxKnown) return;
    for (const oldest of this.#known.keys()) {
      this.#known.delete(oldest);
      return;
    }
  }
}

/** The front-end's login lacks a right, or a name of ours is taken: for an administrator of PostgreSQL to solve. */
function isRefusal(error: unknown): boolean {
  return error instanceof SqlError || sqlstateOf(error) === "42501";
}

/** What a repair has changed; a verifier that may not be read counts as another one. */
function partsOf(
  before: RoleFingerprint | undefined,
  after: RoleFingerprint | undefined,
  hasNewCredentials: boolean,
): string[] {
  const parts = changedParts(before, after);
  if (before === undefined || !hasNewCredentials || parts.includes("password")) return parts;
  return [...parts, "password"];
}
