/** Roles that somebody has changed in PostgreSQL itself: noticed at the next login, put right and audited. */

import { setTimeout as delay } from "node:timers/promises";
import type { Pool, PoolClient, QueryConfig } from "pg";
import type { Identity } from "../auth/identity.ts";
import { loginQuery, sqlstateOf } from "../catalog/connection.ts";
import { SqlError } from "../errors/sql-error.ts";
import type { AuditEntry } from "../observe/audit.ts";
import { readAdminRights } from "../upstream/admin-rights.ts";
import { ForeignVerifierError } from "../upstream/login.ts";
import { differences, fingerprintQuery, type RoleFingerprint } from "../upstream/role-fingerprint.ts";
import type { UpstreamConnection } from "../upstream/upstream-connection.ts";
import { UpstreamError } from "../upstream/upstream-error.ts";
import type { UpstreamTarget } from "../upstream/upstream-target.ts";
import type { ExecutorDependencies } from "./context.ts";
import { repairRole } from "./repair-role.ts";
import { translateErrors } from "./translate-errors.ts";

type Dependencies = Pick<ExecutorDependencies, "audit" | "catalog" | "log" | "roleOptions">;

/** A principal's id and the name of its role. */
interface Owner {
  readonly id: number;
  readonly role: string;
}

interface Known {
  readonly fingerprint: RoleFingerprint;
  lookedAtMs: number;
}

/** Principals whose role is remembered, about 300 bytes each; one that was forgotten is compared with the catalog anew. */
const maxKnown = 20_000;

/** From one look to the next where many log in: a query costs more than a login's share of the rest, and they can share one. */
const lookSpacingMs = 5;

/** What PostgreSQL answers to the first statement of a repair in a transaction that may only read. */
const readOnlyTransaction = "25006";

export class RoleDrift {
  readonly #deps: Dependencies;
  readonly #onRepaired: (principalId: number) => void;
  /** How each role was when it was last found to be as the catalog has it. */
  readonly #known = new Map<number, Known>();
  readonly #underWay = new Map<number, Promise<void>>();
  #wanted = new Set<string>();
  #next: Promise<Map<string, RoleFingerprint>> | undefined;
  #last: Promise<unknown> = Promise.resolve();
  #lookedAtMs = Number.NEGATIVE_INFINITY;
  #readsPasswords: Promise<boolean> | undefined;

  /** @param onRepaired told of principals whose connections were opened as the role was before */
  constructor(deps: Dependencies, onRepaired: (principalId: number) => void) {
    this.#deps = deps;
    this.#onRepaired = onRepaired;
  }

  /**
   * Looks at an identity's role, and puts it right where it is not as the catalog has it. Costs one query, which logins that
   * come within a few milliseconds share. What the upstream login may not put right stays, is audited, and keeps nobody out.
   *
   * @param maxAgeMs does nothing when the role was looked at no longer ago than this
   * @throws SqlError cannot_connect_now when the upstream is not there
   */
  async check({ principal: { id }, role }: Identity, maxAgeMs: number): Promise<void> {
    const known = this.#known.get(id);
    const now = performance.now();
    if (known !== undefined && maxAgeMs > 0 && now - known.lookedAtMs <= maxAgeMs) return;
    await translateErrors(async () => {
      const found = await this.#look(role);
      if (known !== undefined && found !== undefined && differences(known.fingerprint, found).length === 0) {
        known.lookedAtMs = now;
        return;
      }
      const owner = { id, role };
      const work = this.#underWay.get(id) ?? this.#compare(owner, found);
      this.#underWay.set(id, work);
      await work.finally(() => this.#underWay.delete(id));
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
      if (!(await translateErrors(() => this.#repair(owner, true)))) throw error;
      return open(target);
    }
  }

  // Most differences are ours: a statement has changed the role, here or at another front-end. Then nothing is written.
  async #compare(owner: Owner, found: RoleFingerprint | undefined): Promise<void> {
    const { audit, catalog, log, roleOptions } = this.#deps;
    try {
      const isThere = await catalog.read((client) => repairRole(client, roleOptions, owner.id));
      // Looked at before it was compared: what changes meanwhile is seen at the next login.
      if (isThere !== undefined && found !== undefined) this.#remember(owner.id, found);
      return;
    } catch (error) {
      if (!isRefusal(error) && sqlstateOf(error) !== readOnlyTransaction) throw error;
    }
    try {
      await this.#repair(owner, false);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      log.warn({ err: error, role: owner.role }, "an upstream role cannot be put right");
      audit.record(
        entryOf(owner, "the PostgreSQL role is not as the catalog has it and cannot be put right"),
      );
      if (found !== undefined) this.#remember(owner.id, found);
    }
  }

  /**
   * @param reinstallCredentials because the login has failed
   * @returns false when there is no such principal any more
   */
  async #repair(owner: Owner, reinstallCredentials: boolean): Promise<boolean> {
    const { audit, catalog, log, roleOptions } = this.#deps;
    // On a connection of its own, of which there are few: not while one is held.
    const readsPasswords = await this.#mayReadPasswords();
    const read = async (client: PoolClient) =>
      (await readRows(client, fingerprintQuery([owner.role], readsPasswords))).get(owner.role);
    const { isThere, what, after } = await catalog.write(async (client) => {
      const before = await read(client);
      const statements = await repairRole(client, roleOptions, owner.id, reinstallCredentials);
      const repaired = await read(client);
      const parts = statements === undefined ? [] : partsOf(before, repaired, reinstallCredentials);
      if (parts.length > 0) {
        const detail = `the PostgreSQL role was not as the catalog has it (${parts.join(", ")}) and has been put right`;
        await audit.recordIn(client, entryOf(owner, detail));
      }
      return { isThere: statements !== undefined, what: parts, after: repaired };
    });
    if (isThere && after !== undefined) this.#remember(owner.id, after);
    if (what.length > 0) {
      log.warn(
        { role: owner.role, what },
        "an upstream role was not as the catalog has it and has been put right",
      );
      this.#onRepaired(owner.id);
    }
    return isThere;
  }

  #look(role: string): Promise<RoleFingerprint | undefined> {
    this.#wanted.add(role);
    if (this.#next === undefined) {
      this.#next = this.#last.then(async () => {
        await this.#untilDue();
        const names = [...this.#wanted];
        this.#wanted = new Set();
        this.#next = undefined;
        const { text, values, name } = fingerprintQuery(names, await this.#mayReadPasswords());
        return readRows(this.#deps.catalog.pool, loginQuery(text, values, name));
      });
      this.#last = this.#next.catch(() => undefined);
    }
    return this.#next.then((found) => found.get(role));
  }

  /** Nobody waits who comes alone: each look begins after all who rely on it have asked. */
  async #untilDue(): Promise<void> {
    const waitMs = this.#lookedAtMs + lookSpacingMs - performance.now();
    if (waitMs > 0) await delay(waitMs);
    this.#lookedAtMs = performance.now();
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
    this.#known.set(id, { fingerprint, lookedAtMs: performance.now() });
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

async function readRows(
  client: Pool | PoolClient,
  query: QueryConfig,
): Promise<Map<string, RoleFingerprint>> {
  const result = await client.query<RoleFingerprint & { name: string }>(query);
  return new Map(result.rows.map(({ name, ...fingerprint }) => [name, fingerprint]));
}

/** What a repair has changed. Statements alone say little: a GRANT by somebody who may not is run, and does nothing. */
function partsOf(
  before: RoleFingerprint | undefined,
  after: RoleFingerprint | undefined,
  hasNewCredentials: boolean,
): string[] {
  if (before === undefined) return ["it was dropped"];
  const parts = after === undefined ? [] : differences(before, after);
  return hasNewCredentials && !parts.includes("password") ? [...parts, "password"] : parts;
}

function entryOf({ role }: Owner, detail: string): AuditEntry {
  return { event: "PrivilegeChange", username: role, detail };
}
