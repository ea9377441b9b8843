/**
 * Policies of CREATE RLS POLICY as PostgreSQL keeps them: pg_policy is the only place, and names tell what belongs together.
 * FOR READ and FOR ALL are one policy of PostgreSQL's. FOR WRITE needs three, as one policy has one command: the first has
 * the plain name, so that PostgreSQL itself refuses a second policy of that name, whatever its kind.
 */

import { escapeIdentifier, escapeLiteral } from "pg";

export type RlsAccess = "read" | "write" | "all";

/** The other two of a policy FOR WRITE. */
const companions = { update: ":update", delete: ":delete" } as const;

/** Longest name of a policy FOR WRITE, in bytes: PostgreSQL would cut the companions' names. */
export const maxWritePolicyNameBytes = 63 - companions.update.length;

interface TableName {
  readonly schema?: string;
  readonly name: string;
}

/** A policy as SHOW RLS POLICIES has it; one made by CREATE POLICY has its command as its type. */
export interface RlsPolicy {
  readonly name: string;
  /** `schema.table`, quoted where it has to be. */
  readonly table: string;
  readonly type: "READ" | "WRITE" | "ALL" | "INSERT" | "UPDATE" | "DELETE";
  readonly mode: "PERMISSIVE" | "RESTRICTIVE";
  /** As PostgreSQL words it. */
  readonly predicate: string | null;
  /** Names of the policies in PostgreSQL. */
  readonly parts: readonly string[];
}

/** A row of `policiesQuery`: values as text. */
export type PolicyRow = readonly (string | null)[];

export function quoteTable({ schema, name }: TableName): string {
  return schema === undefined
    ? escapeIdentifier(name)
    : `${escapeIdentifier(schema)}.${escapeIdentifier(name)}`;
}

/**
 * The statements that make a policy, cut where the predicate belongs: it stands between each two pieces.
 * Forced, so that the owner's own statements keep to the policy as well; only superusers and BYPASSRLS do not.
 */
export function createPolicyPieces(
  name: string,
  table: TableName,
  access: RlsAccess,
  isRestrictive: boolean,
): string[] {
  const target = quoteTable(table);
  const create = (suffix: string, command: string) =>
    `CREATE POLICY ${escapeIdentifier(name + suffix)} ON ${target} AS ${isRestrictive ? "RESTRICTIVE" : "PERMISSIVE"} FOR ${command}`;
  const enable = `ALTER TABLE ${target} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; `;
  // Without WITH CHECK, UPDATE and ALL check new rows with USING.
  if (access === "read") return [`${enable}${create("", "SELECT")} USING (`, ")"];
  if (access === "all") return [`${enable}${create("", "ALL")} USING (`, ")"];
  return [
    `${enable}${create("", "INSERT")} WITH CHECK (`,
    `); ${create(companions.update, "UPDATE")} USING (`,
    `); ${create(companions.delete, "DELETE")} USING (`,
    ")",
  ];
}

/** The statements that drop a policy. */
export function dropPolicySql(policy: Pick<RlsPolicy, "parts">, table: TableName): string {
  return policy.parts
    .map((part) => `DROP POLICY ${escapeIdentifier(part)} ON ${quoteTable(table)}`)
    .join("; ");
}

const columns = `
  p.polname::pg_catalog.text, p.polcmd::pg_catalog.text, p.polpermissive::pg_catalog.text,
  pg_catalog.pg_get_expr(p.polqual, p.polrelid), pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)`;

/**
 * The query for `readPolicies`. Names resolve as the connection's search_path has it; of a table that there is not, the
 * first column of the only row is null.
 */
export function policiesQuery(table: TableName | undefined): string {
  if (table === undefined) {
    return `SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), ${columns}
              FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
              JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             ORDER BY n.nspname, c.relname, p.polname`;
  }
  return `SELECT CASE WHEN c.oid IS NOT NULL THEN pg_catalog.format('%I.%I', n.nspname, c.relname) END, ${columns}
            FROM (SELECT pg_catalog.to_regclass(${escapeLiteral(quoteTable(table))}::pg_catalog.text)::pg_catalog.oid AS oid) t
            LEFT JOIN pg_catalog.pg_class c ON c.oid = t.oid
            LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            LEFT JOIN pg_catalog.pg_policy p ON p.polrelid = t.oid
           ORDER BY p.polname`;
}

/** The query for partitions and children of a table that have no row-level security: who reads those directly is asked by no policy. */
export function openChildrenQuery(table: TableName): string {
  return `WITH RECURSIVE below (oid) AS (
            SELECT i.inhrelid FROM pg_catalog.pg_inherits i
             WHERE i.inhparent = pg_catalog.to_regclass(${escapeLiteral(quoteTable(table))}::pg_catalog.text)::pg_catalog.oid
             UNION
            SELECT i.inhrelid FROM below b JOIN pg_catalog.pg_inherits i ON i.inhparent = b.oid)
          SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
            FROM below b JOIN pg_catalog.pg_class c ON c.oid = b.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           WHERE NOT c.relrowsecurity ORDER BY 1`;
}

const types = { r: "READ", "*": "ALL", a: "INSERT", w: "UPDATE", d: "DELETE" } as const;

function typeOf(command: string | null | undefined): RlsPolicy["type"] {
  return types[(command ?? "*") as keyof typeof types] ?? "ALL";
}

/** @returns undefined when the table of `policiesQuery` does not exist */
export function readPolicies(rows: readonly PolicyRow[]): RlsPolicy[] | undefined {
  if (rows.some(([table]) => table === null)) return undefined;
  const policies = new Map<string, RlsPolicy>();
  const keyOf = (table: string, name: string) => JSON.stringify([table, name]);
  for (const [table, name, command, isPermissive, using, check] of rows) {
    // A table without a policy has one row, of its name alone.
    if (typeof table !== "string" || typeof name !== "string") continue;
    policies.set(keyOf(table, name), {
      name,
      table,
      type: typeOf(command),
      mode: isPermissive === "true" ? "PERMISSIVE" : "RESTRICTIVE",
      predicate: using ?? check ?? null,
      parts: [name],
    });
  }
  for (const [key, policy] of policies) {
    const update = keyOf(policy.table, policy.name + companions.update);
    const remove = keyOf(policy.table, policy.name + companions.delete);
    const others = [
      { key: update, policy: policies.get(update), type: "UPDATE" },
      { key: remove, policy: policies.get(remove), type: "DELETE" },
    ];
    if (policy.type !== "INSERT" || others.some((other) => other.policy?.type !== other.type)) continue;
    for (const other of others) policies.delete(other.key);
    policies.set(key, {
      ...policy,
      type: "WRITE",
      parts: [policy.name, policy.name + companions.update, policy.name + companions.delete],
    });
  }
  return [...policies.values()];
}
