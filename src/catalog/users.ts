/** Principals in the catalog (users, service accounts, stand-alone keys), and the roles that they hold. */

import type { ClientBase } from "pg";
import { withInherited } from "./inherited-roles.ts";

/**
 * Each has a PostgreSQL role of its name. An `api_key` is a key that belongs to nobody: it is its own owner. An `external` one
 * is who an OIDC provider says that it is.
 */
export type PrincipalKind = "user" | "service_account" | "api_key" | "external";

/** One principal as the login path and the statements see it; never changed after it was read. */
export interface PrincipalRecord {
  readonly id: number;
  readonly kind: PrincipalKind;
  readonly name: string;
  readonly tenantId: number;
  /** SCRAM-SHA-256 verifier as text; undefined when no password can log in. */
  readonly scramVerifier: string | undefined;
  readonly canLogin: boolean;
  /** undefined is no limit in time. */
  readonly validUntil: Date | undefined;
  /** -1 is no limit. */
  readonly connectionLimit: number;
  readonly defaultDatabase: string | undefined;
  /** Part of the derivation of the PostgreSQL role's credential. */
  readonly roleVersion: number;
  /** Names of the roles held, in the order in which they were given. */
  readonly roles: readonly string[];
  /** The roles held and those that custom roles among them inherit; what rights are measured by. */
  readonly effectiveRoles: readonly string[];
  /**
   * The databases of a service account, or of a stand-alone key or an external identity that has a list; undefined: as PostgreSQL
   * lets it in.
   */
  readonly databases: readonly string[] | undefined;
  /** Present, and true, for an external identity whose provider is in the catalog no more. */
  readonly isOrphaned?: boolean;
}

interface PrincipalRow {
  readonly id: string;
  readonly kind: PrincipalKind;
  readonly name: string;
  readonly tenant_id: string;
  readonly scram_verifier: string | null;
  readonly can_login: boolean;
  readonly valid_until_ms: number | null;
  readonly connection_limit: number;
  readonly default_database: string | null;
  readonly role_version: number;
  readonly roles: string[];
  readonly effective_roles: string[];
  readonly databases: string[] | null;
  readonly is_orphaned: boolean;
}

/** Farthest moments that a Date can hold; PostgreSQL's reach further. */
const maxDateMs = 8.64e15;

const selectPrincipal = `
  SELECT p.id, p.kind, p.name, p.tenant_id, p.scram_verifier, p.can_login, p.connection_limit, p.default_database,
         p.role_version,
         CASE WHEN p.valid_until IS NULL OR p.valid_until = 'infinity'::pg_catalog.timestamptz THEN NULL
              WHEN p.valid_until = '-infinity'::pg_catalog.timestamptz THEN -${maxDateMs}
              ELSE pg_catalog.date_part('epoch', p.valid_until) * 1000 END AS valid_until_ms,
         ARRAY(SELECT r.role FROM nodedb.principal_role r WHERE r.principal_id = p.id ORDER BY r.ordinal) AS roles,
         ${withInherited("SELECT r.role FROM nodedb.principal_role r WHERE r.principal_id = p.id")} AS effective_roles,
         CASE p.kind
           WHEN 'service_account' THEN ARRAY(
             SELECT d.database FROM nodedb.principal_database d WHERE d.principal_id = p.id ORDER BY d.ordinal)
           WHEN 'api_key' THEN (SELECT k.databases FROM nodedb.api_key k WHERE k.owner_id = p.id LIMIT 1)
           WHEN 'external' THEN nullif(ARRAY(
             SELECT d.database FROM nodedb.principal_database d WHERE d.principal_id = p.id ORDER BY d.ordinal), '{}')
         END AS databases,
         EXISTS (SELECT FROM nodedb.external_identity e
                  WHERE e.principal_id = p.id AND e.source = 'catalog' AND NOT EXISTS (
                    SELECT FROM nodedb.oidc_provider o WHERE o.name = e.provider AND o.issuer = e.issuer)) AS is_orphaned
    FROM nodedb.principal p`;

/** A moment in milliseconds as a Date. @returns undefined for none, and for one that is later than any Date */
export function readMoment(ms: number | null): Date | undefined {
  return ms === null || ms > maxDateMs ? undefined : new Date(Math.max(ms, -maxDateMs));
}

function toRecord(row: PrincipalRow): PrincipalRecord {
  return {
    id: Number(row.id),
    kind: row.kind,
    name: row.name,
    tenantId: Number(row.tenant_id),
    scramVerifier: row.scram_verifier ?? undefined,
    canLogin: row.can_login,
    validUntil: readMoment(row.valid_until_ms),
    connectionLimit: row.connection_limit,
    defaultDatabase: row.default_database ?? undefined,
    roleVersion: row.role_version,
    roles: row.roles,
    effectiveRoles: row.effective_roles,
    databases: row.databases ?? undefined,
    ...(row.is_orphaned ? { isOrphaned: true } : {}),
  };
}

/** Reads every principal. */
export async function loadUsers(client: Queryable): Promise<PrincipalRecord[]> {
  const result = await client.query<PrincipalRow>(selectPrincipal);
  return result.rows.map(toRecord);
}

/** Reads the principals with these ids; those that no longer exist are absent. */
export async function loadUsersById(client: Queryable, ids: readonly number[]): Promise<PrincipalRecord[]> {
  const result = await client.query<PrincipalRow>(
    `${selectPrincipal} WHERE p.id = ANY ($1::pg_catalog.int8[])`,
    [ids.map(String)],
  );
  return result.rows.map(toRecord);
}

/** Reads one principal. @returns undefined when there is none of that name. */
export async function findUserByName(client: Queryable, name: string): Promise<PrincipalRecord | undefined> {
  const result = await client.query<PrincipalRow>(`${selectPrincipal} WHERE p.name = $1`, [name]);
  const row = result.rows[0];
  return row === undefined ? undefined : toRecord(row);
}

/** Anything that runs one query: a pool, or a client inside a transaction. */
export type Queryable = Pick<ClientBase, "query">;

/** A secret that is in a setting of the transaction, because statements and bound parameters may be logged. */
export interface InTransit {
  readonly setting: string;
}

export interface NewUser {
  /** A user when absent. */
  readonly kind?: PrincipalKind;
  readonly name: string;
  readonly tenantId: number;
  readonly scramVerifier: InTransit | undefined;
  readonly canLogin: boolean;
  /** PostgreSQL's text of the moment in ISO form, as `parseTimestamp` gave it. */
  readonly validUntil: string | undefined;
  readonly connectionLimit: number;
  readonly roles: readonly string[];
}

/** Creates a principal's row. @returns its id */
export async function createUserRow(client: Queryable, user: NewUser): Promise<number> {
  const result = await client.query<{ id: string }>(
    `INSERT INTO nodedb.principal (kind, name, tenant_id, scram_verifier, can_login, valid_until, connection_limit)
     VALUES ($7, $1, $2, pg_catalog.current_setting($3), $4, $5::pg_catalog.timestamptz, $6) RETURNING id`,
    [
      user.name,
      user.tenantId,
      user.scramVerifier?.setting ?? null,
      user.canLogin,
      user.validUntil ?? null,
      user.connectionLimit,
      user.kind ?? "user",
    ],
  );
  const id = Number(result.rows[0]?.id);
  await insertRoles(client, id, user.roles);
  return id;
}

/** What ALTER USER may change in the row; absent stays as it is, `null` clears. */
export interface UserChanges {
  readonly scramVerifier?: InTransit | null;
  readonly canLogin?: boolean;
  readonly validUntil?: string | null;
  readonly connectionLimit?: number;
  readonly defaultDatabase?: string | null;
  readonly name?: string;
  readonly roleVersion?: number;
}

/** Columns of `UserChanges`; the texts are constants, so that building the statement from them is safe. */
const changeColumns = {
  scramVerifier: "scram_verifier",
  canLogin: "can_login",
  validUntil: "valid_until",
  connectionLimit: "connection_limit",
  defaultDatabase: "default_database",
  name: "name",
  roleVersion: "role_version",
} as const satisfies Record<keyof UserChanges, string>;

/** Changes a user's row. */
export async function updateUserRow(client: Queryable, id: number, changes: UserChanges): Promise<void> {
  const assignments: string[] = [];
  const values: unknown[] = [String(id)];
  for (const [key, column] of Object.entries(changeColumns) as [keyof UserChanges, string][]) {
    const value = changes[key];
    if (value === undefined) continue;
    const isInTransit = typeof value === "object" && value !== null;
    values.push(isInTransit ? value.setting : value);
    const parameter = `$${values.length}`;
    assignments.push(`${column} = ${isInTransit ? `pg_catalog.current_setting(${parameter})` : parameter}`);
  }
  if (assignments.length === 0) return;
  await client.query(`UPDATE nodedb.principal SET ${assignments.join(", ")} WHERE id = $1`, values);
}

/** Replaces the roles that a user holds. */
export async function replaceRoles(client: Queryable, id: number, roles: readonly string[]): Promise<void> {
  await client.query("DELETE FROM nodedb.principal_role WHERE principal_id = $1", [String(id)]);
  await insertRoles(client, id, roles);
}

/** Deletes users' rows; what belongs to them goes with them. */
export async function deleteUserRows(client: Queryable, ids: readonly number[]): Promise<void> {
  await client.query("DELETE FROM nodedb.principal WHERE id = ANY ($1::pg_catalog.int8[])", [
    ids.map(String),
  ]);
}

/** Counts the superusers that could log in with a password now; zero would lock everybody out. */
export async function countUsableSuperusers(client: Queryable): Promise<number> {
  const result = await client.query<{ count: number }>(
    `SELECT pg_catalog.count(*)::pg_catalog.int4 AS count FROM nodedb.principal p
      WHERE p.kind = 'user' AND p.can_login AND p.scram_verifier IS NOT NULL
        AND (p.valid_until IS NULL OR p.valid_until > pg_catalog.now())
        AND EXISTS (SELECT FROM nodedb.principal_role r WHERE r.principal_id = p.id AND r.role = 'superuser')`,
  );
  return result.rows[0]?.count ?? 0;
}

/** Replaces the databases of a service account or an external identity. */
export async function replaceDatabases(
  client: Queryable,
  id: number,
  databases: readonly string[],
): Promise<void> {
  await client.query("DELETE FROM nodedb.principal_database WHERE principal_id = $1", [String(id)]);
  await client.query(
    `INSERT INTO nodedb.principal_database (principal_id, database, ordinal)
     SELECT $1, d.name, d.ordinal FROM pg_catalog.unnest($2::pg_catalog.text[]) WITH ORDINALITY AS d (name, ordinal)`,
    [String(id), [...databases]],
  );
}

async function insertRoles(client: Queryable, id: number, roles: readonly string[]): Promise<void> {
  await client.query(
    `INSERT INTO nodedb.principal_role (principal_id, role, ordinal)
     SELECT $1, r.role, r.ordinal FROM pg_catalog.unnest($2::pg_catalog.text[]) WITH ORDINALITY AS r (role, ordinal)`,
    [String(id), [...roles]],
  );
}
