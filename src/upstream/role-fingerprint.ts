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
}

/** The parts that differ. */
export function differences(one: RoleFingerprint, other: RoleFingerprint): (keyof RoleFingerprint)[] {
  const parts = ["attributes", "memberships", "settings", "password"] as const;
  return parts.filter((part) => one[part] !== other[part]);
}

/** For whoever runs it: its rows are fingerprints with the role's `name`. */
export interface FingerprintQuery {
  readonly name: string;
  readonly text: string;
  readonly values: unknown[];
}

/**
 * The query for the fingerprints of roles by name; those that do not exist are absent from its rows.
 *
 * @param withPasswords only for a login that may read pg_authid
 */
export function fingerprintQuery(names: readonly string[], withPasswords: boolean): FingerprintQuery {
  return withPasswords
    ? { name: "role fingerprints with passwords", text: queryWithPasswords, values: [[...names]] }
    : { name: "role fingerprints", text: queryWithoutPasswords, values: [[...names]] };
}

/** Hashed there, so that neither long lists nor verifiers come here. */
const hash = (text: string) =>
  `pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(coalesce(${text}, ''), pg_catalog.getdatabaseencoding())), 'base64')`;

/**
 * Behind the group of a tenant's administrators stands everybody in the tenant: what those are members of is their business,
 * and would change with each new user.
 */
const query = (password: string) => `
  SELECT r.rolname::pg_catalog.text AS name,
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
         ${password} AS password
    FROM pg_catalog.pg_roles r WHERE r.rolname = ANY ($1::pg_catalog.text[])`;

const queryWithoutPasswords = query("''");
const queryWithPasswords = query(
  hash("(SELECT a.rolpassword FROM pg_catalog.pg_authid a WHERE a.oid = r.oid)"),
);
