/** The principal of somebody whom an OIDC provider vouches for: made at the first login, and given what the mapping says at each. */

import { createHash } from "node:crypto";
import type { ExternalSubject } from "../auth/bearer-jwt.ts";
import { externalRolePrefix } from "../auth/identity.ts";
import { createExternalRow, setTenant } from "../catalog/external-identities.ts";
import { findOidcProvider } from "../catalog/oidc-providers.ts";
import { loadCustomRolesByName } from "../catalog/roles.ts";
import {
  createUserRow,
  findUserByName,
  loadUsersById,
  type PrincipalRecord,
  type Queryable,
  replaceDatabases,
  replaceRoles,
  updateUserRow,
} from "../catalog/users.ts";
import { SqlError } from "../errors/sql-error.ts";
import { isBuiltInRole } from "../upstream/built-in-groups.ts";
import { reconcileConnect } from "../upstream/reconcile-connect.ts";
import { reconcileRoles } from "../upstream/reconcile-roles.ts";
import type { ExecutorDependencies } from "./context.ts";
import { roleExists } from "./role-names.ts";
import { desiredRoleOf, followUp } from "./run-statement.ts";
import { translateErrors } from "./translate-errors.ts";

/** What a principal is to be. */
interface Wanted {
  readonly tenantId: number;
  readonly roles: readonly string[];
  readonly databases: readonly string[];
  readonly defaultDatabase: string | undefined;
}

/** Of SHA-256; 130 bits in base 32. */
const hashLength = 26;
const base32 = "abcdefghijklmnopqrstuvwxyz234567";
/** What PostgreSQL leaves of 63 bytes. */
const maxProviderBytes = 63 - externalRolePrefix.length - 1 - hashLength;

/**
 * `oidc:<provider>:<hash>`, of 63 bytes at most. The hash is of all that tells one subject from another, and not of issuer and
 * subject alone: a long provider's name is cut, and one issuer may be of two providers in two tenants.
 */
export function externalRoleName({
  provider,
  subject,
}: Pick<ExternalSubject, "provider" | "subject">): string {
  const { name, source, issuer } = provider;
  const digest = createHash("sha256")
    .update(JSON.stringify([source, name, issuer, subject]))
    .digest();
  const hash = Array.from(digest.subarray(0, hashLength), (byte) => base32[byte & 31]).join("");
  // NUL cannot be in it; a character that is cut in two would not be one.
  const cut = Buffer.from(name)
    .subarray(0, maxProviderBytes)
    .toString("utf8")
    .replace(/\uFFFD$/, "");
  return `${externalRolePrefix}${cut}:${hash}`;
}

/**
 * Finds, makes or changes principals of external subjects. Asks only the cache where nothing has changed; many logins of one
 * subject at once wait for one of them.
 */
export function createExternalIdentities(
  deps: ExecutorDependencies,
): (subject: ExternalSubject) => Promise<PrincipalRecord | undefined> {
  const underWay = new Map<string, Promise<unknown>>();
  const applied = new AppliedWishes();
  return async (external) => {
    const name = externalRoleName(external);
    const wanted = wantedOf(external);
    for (;;) {
      const known = deps.catalog.cache.findByName(name);
      if (known?.kind === "external") {
        // Nothing is changed of one that may not log in: the refusal leaves the catalog as it is.
        if (!known.canLogin || isAsWanted(known, wanted) || applied.hold(known, wanted)) return known;
      }
      const other = underWay.get(name);
      if (other === undefined) break;
      await other;
    }
    const mine = provision(deps, name, external);
    underWay.set(
      name,
      mine.catch(() => undefined),
    );
    try {
      const record = await mine;
      if (record !== undefined) applied.note(record, wanted);
      return record;
    } finally {
      underWay.delete(name);
    }
  };
}

/** How long a role that a mapping names and that there is not is not looked for again. */
const appliedMs = 60_000;
const maxApplied = 10_000;

/** What came of mappings that could not be followed in full: else each login with one would write to the catalog. */
class AppliedWishes {
  readonly #results = new Map<string, { readonly key: string; readonly untilMs: number }>();

  hold(record: PrincipalRecord, wanted: Wanted): boolean {
    const result = this.#results.get(record.name);
    return result?.key === keyOf(record, wanted) && result.untilMs > performance.now();
  }

  note(record: PrincipalRecord, wanted: Wanted): void {
    if (isAsWanted(record, wanted)) return;
    if (this.#results.size >= maxApplied) this.#results.clear();
    this.#results.set(record.name, { key: keyOf(record, wanted), untilMs: performance.now() + appliedMs });
  }
}

function keyOf({ id, tenantId, roles, databases, defaultDatabase }: PrincipalRecord, wanted: Wanted): string {
  return JSON.stringify([id, tenantId, roles, databases, defaultDatabase, wanted]);
}

function wantedOf({ provider, access }: ExternalSubject): Wanted {
  const { defaultDatabase } = access;
  const named = defaultDatabase === undefined ? access.databases : [defaultDatabase, ...access.databases];
  return {
    tenantId: provider.tenantId,
    // Held against what the statement has checked already: nobody is made superuser by a claim.
    roles: access.roles.filter((role) => role !== "superuser"),
    databases: [...new Set(named)],
    defaultDatabase,
  };
}

function isAsWanted(record: PrincipalRecord, wanted: Wanted): boolean {
  const { tenantId, roles, databases = [], defaultDatabase } = record;
  return (
    tenantId === wanted.tenantId &&
    defaultDatabase === wanted.defaultDatabase &&
    isSameList(roles, wanted.roles) &&
    isSameList(databases, wanted.databases)
  );
}

function isSameList(one: readonly string[], other: readonly string[]): boolean {
  return one.length === other.length && one.every((entry, index) => entry === other[index]);
}

async function provision(
  deps: ExecutorDependencies,
  name: string,
  external: ExternalSubject,
): Promise<PrincipalRecord | undefined> {
  const touched = new Set<number>();
  const record = await translateErrors(() =>
    deps.catalog.write(async (client) => {
      if (!(await isStillThere(client, external))) return undefined;
      const wanted = await withoutMissingRoles(client, wantedOf(external));
      const found = await findUserByName(client, name);
      if (found !== undefined && found.kind !== "external")
        throw new Error(`role ${name} is of another kind`);
      // Another front-end may have been faster.
      if (found !== undefined && isAsWanted(found, wanted)) {
        touched.add(found.id);
        return found;
      }
      const id = found?.id ?? (await create(client, name, external));
      await setTenant(client, id, wanted.tenantId);
      await replaceRoles(client, id, wanted.roles);
      await replaceDatabases(client, id, wanted.databases);
      await updateUserRow(client, id, { defaultDatabase: wanted.defaultDatabase ?? null });
      const [made] = await loadUsersById(client, [id]);
      if (made === undefined) throw new Error(`principal ${id} is not there`);
      await reconcileRoles(client, [desiredRoleOf(made)], deps.roleOptions);
      // Without a list too, so that what an earlier one gave is taken back.
      await reconcileConnect(client, [{ name, databases: wanted.databases }]);
      await deps.audit.recordIn(client, {
        event: "PrivilegeChange",
        username: name,
        tenantId: wanted.tenantId,
        detail: `${found === undefined ? "first login" : "mapping"} by OIDC provider ${JSON.stringify(external.provider.name)}: roles ${JSON.stringify(wanted.roles)}, databases ${JSON.stringify(wanted.databases)}`,
      });
      touched.add(id);
      return made;
    }),
  );
  await followUp(deps, touched);
  return record;
}

/** A provider of the configuration is there as long as this process. */
async function isStillThere(client: Queryable, { provider }: ExternalSubject): Promise<boolean> {
  if (provider.source === "configuration") return true;
  const found = await findOidcProvider(client, provider.name);
  return found?.issuer === provider.issuer && found.tenantId === provider.tenantId;
}

/**
 * Without the roles that have been dropped, or made anew for another tenant, since the mapping was. A database that is gone stays
 * on the list: without it the list could be empty, and would limit nothing.
 */
async function withoutMissingRoles(client: Queryable, wanted: Wanted): Promise<Wanted> {
  const custom = await loadCustomRolesByName(client, wanted.roles);
  const isGrantable = (role: string) => {
    const { tenantId, effectiveRoles = [] } = custom.get(role) ?? {};
    return isBuiltInRole(role) || (tenantId === wanted.tenantId && !effectiveRoles.includes("superuser"));
  };
  return { ...wanted, roles: wanted.roles.filter(isGrantable) };
}

async function create(
  client: Queryable,
  name: string,
  { provider, subject }: ExternalSubject,
): Promise<number> {
  // No statement of ours can have made or reserved it; what somebody made in PostgreSQL itself has grants that nobody knows of.
  if (await roleExists(client, name)) {
    throw new SqlError("duplicate_object", `role "${name}" already exists`, {
      hint: "PostgreSQL has a role of the name that belongs to this identity; drop that.",
    });
  }
  const id = await createUserRow(client, {
    kind: "external",
    name,
    tenantId: provider.tenantId,
    scramVerifier: undefined,
    canLogin: true,
    validUntil: undefined,
    connectionLimit: -1,
    roles: [],
  });
  const { source, issuer } = provider;
  await createExternalRow(client, id, { source, provider: provider.name, issuer, subject });
  return id;
}
