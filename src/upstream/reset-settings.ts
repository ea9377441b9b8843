/** Takes settings off roles that say what runs in a session or as whom it runs (`ALTER ROLE … SET`, PostgreSQL manual 19.1.3). */

import { type ClientBase, escapeIdentifier } from "pg";

/**
 * Any role may set these for itself. Startup parameters of ours win over them, so that they do nothing; they are taken away
 * all the same, because nobody means well with them. Others (`search_path`, timeouts) are set on purpose, and stay.
 */
const reset: readonly string[] = ["local_preload_libraries", "role", "session_authorization"];

/**
 * Resets them for these roles, in all databases and in each. Runs inside the caller's transaction.
 *
 * @returns how many statements were needed; 0 when nobody had set any
 */
export async function resetSettings(client: ClientBase, names: readonly string[]): Promise<number> {
  const found = await client.query<{ role: string; database: string | null; setting: string }>(
    `SELECT r.rolname::pg_catalog.text AS role, d.datname::pg_catalog.text AS database, c.setting
       FROM pg_catalog.pg_db_role_setting s
       JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
       LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
      CROSS JOIN LATERAL (SELECT pg_catalog.split_part(u, '=', 1) AS setting FROM unnest(s.setconfig) AS u) c
      WHERE r.rolname = ANY ($1::pg_catalog.text[]) AND c.setting = ANY ($2::pg_catalog.text[])`,
    [[...names], [...reset]],
  );
  for (const { role, database, setting } of found.rows) {
    const where = database === null ? "" : ` IN DATABASE ${escapeIdentifier(database)}`;
    await client.query(`ALTER ROLE ${escapeIdentifier(role)}${where} RESET ${setting}`);
  }
  return found.rows.length;
}
