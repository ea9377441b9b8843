/** What roles own and hold in all databases of the upstream, and how they let go of it before they are dropped. */

import { type Client, type ClientBase, escapeIdentifier } from "pg";
import { SqlError } from "../errors/sql-error.ts";

/** A role to be dropped. */
export interface DroppedRole {
  readonly name: string;
  readonly oid: string;
}

export interface OwnedObject {
  readonly role: string;
  /** "" for objects that belong to no database, such as databases. */
  readonly database: string;
  /** For example `table public.t`, always with its schema. */
  readonly description: string;
}

interface Dependency {
  readonly dbid: string;
  readonly database: string | null;
  readonly classid: string;
  readonly objid: string;
  readonly objsubid: number;
  readonly refobjid: string;
}

/**
 * What ownership is not: default privileges (our own doing) and user mappings go with the role, as nothing else can use
 * them.
 */
const ownership = `
  SELECT s.dbid::pg_catalog.text, d.datname::pg_catalog.text AS database, s.classid::pg_catalog.text,
         s.objid::pg_catalog.text, s.objsubid, s.refobjid::pg_catalog.text
    FROM pg_catalog.pg_shdepend s LEFT JOIN pg_catalog.pg_database d ON d.oid = s.dbid
   WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND s.deptype = 'o'
     AND s.refobjid = ANY ($1::pg_catalog.oid[])
     AND s.classid <> ALL (ARRAY['pg_catalog.pg_default_acl'::pg_catalog.regclass::pg_catalog.oid,
                                 'pg_catalog.pg_user_mapping'::pg_catalog.regclass::pg_catalog.oid])
   ORDER BY d.datname NULLS FIRST, s.classid, s.objid`;

/** Finds roles by name; those that do not exist are absent. */
export async function findRoles(
  client: Pick<ClientBase, "query">,
  names: readonly string[],
): Promise<DroppedRole[]> {
  const result = await client.query<DroppedRole>(
    `SELECT rolname::pg_catalog.text AS name, oid::pg_catalog.text FROM pg_catalog.pg_roles
      WHERE rolname = ANY ($1::pg_catalog.text[])`,
    [[...names]],
  );
  return result.rows;
}

/** Reads system catalogs: by a connection of ours, or by a client's own, which sees what its transaction has changed. */
export interface CatalogReader {
  /** @param lists for $1, $2 and so on; their elements are digits only */
  read<Row>(sql: string, lists: readonly (readonly string[])[]): Promise<readonly Row[]>;
}

export function readerOf(client: Pick<ClientBase, "query">): CatalogReader {
  return {
    read: async <Row>(sql: string, lists: readonly (readonly string[])[]) =>
      (await client.query(sql, [...lists])).rows as Row[],
  };
}

export interface OwnedObjectsAccess {
  /** An administrative connection in the catalog's database, inside the transaction that drops the roles. */
  readonly client: ClientBase;
  /** Opens an administrative connection to a database; closed again here. */
  readonly connect: (database: string) => Promise<Client>;
}

/** Where ownership is looked up, and what describes the objects of other databases. */
export interface OwnedObjectsReader {
  readonly reader: CatalogReader;
  /** The database that the reader is in. */
  readonly database: string;
  /** Opens an administrative connection to another database; closed again here. */
  readonly connect: (database: string) => Promise<Client>;
}

/**
 * Lists what the roles own in every database as the reader sees it, temporary objects of live sessions left out.
 *
 * @param more also looked at, where the reader may have an old view of things
 */
export async function listOwnedObjects(
  { reader, database: here, connect }: OwnedObjectsReader,
  roles: readonly DroppedRole[],
  more?: CatalogReader,
): Promise<OwnedObject[]> {
  const names = new Map(roles.map((role) => [role.oid, role.name]));
  const found = new Map<string, Dependency>();
  for (const source of more === undefined ? [reader] : [reader, more]) {
    for (const row of await source.read<Dependency>(ownership, [[...names.keys()]]))
      found.set(keyOf(row), row);
  }
  const objects: OwnedObject[] = [];
  for (const [database, dependencies] of byDatabase([...found.values()])) {
    const described =
      database === "" || database === here
        ? await describeObjects(reader, dependencies)
        : await withConnection({ connect }, database, (client) =>
            describeObjects(readerOf(client), dependencies),
          );
    for (const { refobjid, description } of described) {
      objects.push({ role: names.get(refobjid) ?? "", database, description });
    }
  }
  return objects;
}

/**
 * Takes from the roles, in every database, what was granted to them; with `reassignTo`, gives that role what they own.
 * Other databases are committed one by one, the caller's own with its transaction: PostgreSQL has no transaction over
 * databases. What is committed when a later one fails is harmless, and a second DROP goes on from there.
 *
 * @throws SqlError serialization_failure when a role got an object in between; that object is untouched
 */
export async function releaseRoles(
  access: OwnedObjectsAccess,
  roles: readonly DroppedRole[],
  reassignTo: string | undefined,
): Promise<void> {
  const here = await currentDatabase(access.client);
  const elsewhere = await access.client.query<{ database: string }>(
    `SELECT DISTINCT d.datname::pg_catalog.text AS database
       FROM pg_catalog.pg_shdepend s JOIN pg_catalog.pg_database d ON d.oid = s.dbid
      WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
        AND s.refobjid = ANY ($1::pg_catalog.oid[]) AND d.datname <> $2
      ORDER BY 1`,
    [roles.map((role) => role.oid), here],
  );
  for (const { database } of elsewhere.rows) {
    await withConnection(access, database, async (client) => {
      await client.query("BEGIN");
      await releaseHere(client, () => withConnection(access, database, witness), roles, reassignTo);
      await client.query("COMMIT");
    });
  }
  await releaseHere(access.client, () => withConnection(access, here, witness), roles, reassignTo);

  function witness(client: ClientBase): Promise<Dependency[]> {
    return ownedInDatabase(client, roles);
  }
}

/**
 * DROP OWNED takes grants away, but would also drop what a role created a moment ago. So another connection looks at what
 * the roles own after it and before its commit: that connection still sees whatever DROP OWNED removed, and anything that
 * was not there before, or was not given away, means that all is rolled back.
 */
async function releaseHere(
  client: ClientBase,
  readByWitness: () => Promise<Dependency[]>,
  roles: readonly DroppedRole[],
  reassignTo: string | undefined,
): Promise<void> {
  const list = roles.map((role) => escapeIdentifier(role.name)).join(", ");
  const before = await ownedInDatabase(client, roles);
  const temporary = await temporaryObjects(client, before);
  const isExpected = new Set(
    before.filter((d) => reassignTo !== undefined || temporary.has(keyOf(d))).map(keyOf),
  );
  if (reassignTo !== undefined) {
    await client.query(`REASSIGN OWNED BY ${list} TO ${escapeIdentifier(reassignTo)}`);
  }
  await client.query(`DROP OWNED BY ${list}`);
  const surprises = (await readByWitness()).filter((dependency) => !isExpected.has(keyOf(dependency)));
  if (surprises.length === 0) return;
  throw new SqlError("serialization_failure", "the user is creating objects at the same time", {
    hint: "Try again, or end its sessions with ALTER USER … NOLOGIN first.",
  });
}

/** Ownership in the client's database and of shared objects. */
async function ownedInDatabase(client: ClientBase, roles: readonly DroppedRole[]): Promise<Dependency[]> {
  const found = await client.query<Dependency>(ownership, [roles.map((role) => role.oid)]);
  const here = await currentDatabase(client);
  return found.rows.filter((row) => row.database === null || row.database === here);
}

async function temporaryObjects(
  client: ClientBase,
  dependencies: readonly Dependency[],
): Promise<Set<string>> {
  const all = await identifyObjects(readerOf(client), dependencies);
  return new Set(all.filter((object) => object.is_temporary).map(keyOf));
}

async function describeObjects(
  reader: CatalogReader,
  dependencies: readonly Dependency[],
): Promise<{ refobjid: string; description: string }[]> {
  const all = await identifyObjects(reader, dependencies);
  return all
    .filter((object) => !object.is_temporary)
    .map(({ refobjid, description }) => ({
      refobjid,
      description: description === "" ? "an object" : description,
    }));
}

/** With several arguments `unnest` is syntax, which PostgreSQL itself qualifies; written qualified it does not exist. */
type IdentifiedObject = Dependency & { readonly description: string; readonly is_temporary: boolean };

async function identifyObjects(
  reader: CatalogReader,
  dependencies: readonly Dependency[],
): Promise<IdentifiedObject[]> {
  if (dependencies.length === 0) return [];
  return (await reader.read<IdentifiedObject>(
    `SELECT o.classid::pg_catalog.text, o.objid::pg_catalog.text, o.objsubid, o.refobjid::pg_catalog.text,
            o.dbid::pg_catalog.text, NULL AS database,
            pg_catalog.concat_ws(' ', i.type, i.identity) AS description,
            coalesce(i.schema ~ '^pg_(toast_)?temp', false) AS is_temporary
       FROM unnest($1::pg_catalog.oid[], $2::pg_catalog.oid[], $3::pg_catalog.int4[], $4::pg_catalog.oid[],
                              $5::pg_catalog.oid[])
              WITH ORDINALITY AS o (classid, objid, objsubid, refobjid, dbid, ordinal)
       CROSS JOIN LATERAL pg_catalog.pg_identify_object(o.classid, o.objid, o.objsubid) i
      ORDER BY o.ordinal`,
    [
      dependencies.map((d) => d.classid),
      dependencies.map((d) => d.objid),
      dependencies.map((d) => String(d.objsubid)),
      dependencies.map((d) => d.refobjid),
      dependencies.map((d) => d.dbid),
    ],
  )) as IdentifiedObject[];
}

function keyOf(dependency: Dependency): string {
  return [dependency.refobjid, dependency.dbid, dependency.classid, dependency.objid].join(" ");
}

function byDatabase(dependencies: readonly Dependency[]): Map<string, Dependency[]> {
  const groups = new Map<string, Dependency[]>();
  for (const dependency of dependencies) {
    const key = dependency.database ?? "";
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [dependency]);
    else group.push(dependency);
  }
  return groups;
}

export async function currentDatabase(client: ClientBase): Promise<string> {
  const result = await client.query<{ name: string }>(
    "SELECT pg_catalog.current_database()::pg_catalog.text AS name",
  );
  return result.rows[0]?.name ?? "";
}

async function withConnection<T>(
  access: Pick<OwnedObjectsAccess, "connect">,
  database: string,
  work: (client: Client) => Promise<T>,
): Promise<T> {
  const client = await access.connect(database);
  try {
    return await work(client);
  } finally {
    await client.end().catch(() => undefined);
  }
}
