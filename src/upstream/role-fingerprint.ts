/** What PostgreSQL has of a role, made short enough to be remembered and compared. */

/** A hash of each part of what the reconciler looks at. */
export interface RoleFingerprint {
  readonly attributes: string;
  /** Memberships that the role has, directly and through its groups, and those in the role. */
  readonly memberships: string;
  /** `ALTER ROLE … SET`. */
  readonly settings: string;
  /** Empty where passwords are not looked at. */
  readonly password: string;
  /** Those that CONNECT was granted on to the role itself; absent where they are not looked at. */
  readonly databases?: string;
}

/** What a login looks at. */
export interface RoleAtLogin extends RoleFingerprint {
  /** Whether PostgreSQL lets the role into the database. */
  readonly mayConnect: boolean;
}

/** A role that wants into a database. */
export interface LoginPlace {
  readonly role: string;
  readonly database: string;
}

/** The parts that differ, of those that both have. */
export function differences(one: RoleFingerprint, other: RoleFingerprint): (keyof RoleFingerprint)[] {
  const parts = ["attributes", "memberships", "settings", "password", "databases"] as const;
  return parts.filter((part) => (one[part] ?? other[part]) !== (other[part] ?? one[part]));
}

/** For whoever runs it. */
export interface FingerprintQuery {
  readonly name: string;
  readonly text: string;
  readonly values: unknown[];
}

export interface LookQuery extends FingerprintQuery {
  readonly values: string[];
}

/**
 * The query for all of the fingerprints of roles by name. Its rows have the role's `name`; those that do not exist are absent.
 *
 * @param withPasswords only for a login that may read pg_authid
 */
export function fingerprintQuery(names: readonly string[], withPasswords: boolean): FingerprintQuery {
  return {
    name: withPasswords ? "role fingerprints with passwords" : "role fingerprints",
    text: withPasswords ? queryWithPasswords : queryWithoutPasswords,
    values: [[...names]],
  };
}

/** The query for what logins look at, with parameters as text; `readLoginLook` reads its rows. */
export function loginLookQuery(places: readonly LoginPlace[], withPasswords: boolean): LookQuery {
  return {
    name: withPasswords ? "roles at login with passwords" : "roles at login",
    text: withPasswords ? lookWithPasswords : lookWithoutPasswords,
    values: [arrayOf(places.map(({ role }) => role)), arrayOf(places.map(({ database }) => database))],
  };
}

/** What was found, by the number of the place in the list, from 0 on; roles that do not exist are absent. */
export function readLoginLook(rows: readonly (readonly (string | null)[])[]): Map<number, RoleAtLogin> {
  return new Map(
    rows.map(([place, attributes, memberships, settings, password, mayConnect]) => [
      Number(place) - 1,
      {
        attributes: attributes ?? "",
        memberships: memberships ?? "",
        settings: settings ?? "",
        password: password ?? "",
        mayConnect: mayConnect === "t",
      },
    ]),
  );
}

/** An array in PostgreSQL's text form (manual 8.15.2). */
function arrayOf(texts: readonly string[]): string {
  return `{${texts.map((text) => `"${text.replaceAll(/[\\"]/g, "\\$&")}"`).join(",")}}`;
}

/** Hashed there, so that neither long lists nor verifiers come here. */
const hash = (text: string) =>
  `pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(coalesce(${text}, ''), pg_catalog.getdatabaseencoding())), 'base64')`;

/**
 * Behind the group of a tenant's administrators stands everybody in the tenant: what those are members of is their business,
 * and would change with each new user.
 */
const columns = (password: string) => `
         ${hash("(pg_catalog.to_jsonb(r) - 'rolconfig')::pg_catalog.text")} AS attributes,
         ${hash(`(
           WITH RECURSIVE edge AS (
             SELECT m.roleid, pg_catalog.to_jsonb(m)::pg_catalog.text AS text
               FROM pg_catalog.pg_auth_members m WHERE m.member = r.oid
             UNION
             SELECT m.roleid, pg_catalog.to_jsonb(m)::pg_catalog.text
               FROM edge
               JOIN pg_catalog.pg_roles g ON g.oid = edge.roleid AND g.rolname !~ '^nodedb_admin_[0-9]+$'
               JOIN pg_catalog.pg_auth_members m ON m.member = g.oid)
           SELECT pg_catalog.string_agg(e.text, ',' ORDER BY e.text COLLATE "C")
             FROM (SELECT edge.text FROM edge
                   UNION ALL
                   SELECT pg_catalog.to_jsonb(m)::pg_catalog.text FROM pg_catalog.pg_auth_members m WHERE m.roleid = r.oid) e)`)} AS memberships,
         ${hash(`(SELECT pg_catalog.string_agg(s.setdatabase::pg_catalog.text || s.setconfig::pg_catalog.text, ',' ORDER BY s.setdatabase)
                    FROM pg_catalog.pg_db_role_setting s WHERE s.setrole = r.oid)`)} AS settings,
         ${password} AS password`;

const query = (password: string) => `
  SELECT r.rolname::pg_catalog.text AS name, ${columns(password)},
         ${hash(`(SELECT pg_catalog.string_agg(d.oid::pg_catalog.text, ',' ORDER BY d.oid)
                    FROM pg_catalog.pg_database d CROSS JOIN LATERAL pg_catalog.aclexplode(d.datacl) a
                   WHERE a.grantee = r.oid AND a.privilege_type = 'CONNECT')`)} AS databases
    FROM pg_catalog.pg_roles r WHERE r.rolname = ANY ($1::pg_catalog.text[])`;

/**
 * has_database_privilege is what PostgreSQL itself asks when a connection is opened. The arrays are read by subqueries so that the
 * planner cannot count them: otherwise it plans anew for each login, which takes longer than the query itself.
 */
const look = (password: string) => `
  SELECT p.place::pg_catalog.int4, ${columns(password)},
         coalesce(pg_catalog.has_database_privilege(r.oid, d.oid, 'CONNECT'), false) AS "mayConnect"
    FROM unnest((SELECT $1::pg_catalog.text[]), (SELECT $2::pg_catalog.text[])) WITH ORDINALITY AS p (role, database, place)
    JOIN pg_catalog.pg_roles r ON r.rolname = p.role
    LEFT JOIN pg_catalog.pg_database d ON d.datname = p.database`;

const noPassword = "''";
const hashOfPassword = hash("(SELECT a.rolpassword FROM pg_catalog.pg_authid a WHERE a.oid = r.oid)");
const queryWithoutPasswords = query(noPassword);
const queryWithPasswords = query(hashOfPassword);
const lookWithoutPasswords = look(noPassword);
const lookWithPasswords = look(hashOfPassword);
