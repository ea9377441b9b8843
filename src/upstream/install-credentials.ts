/** Installs what opens a role upstream, so that nobody reads it on the way. */

import type { ClientBase } from "pg";
import { sendInTransit } from "./in-transit.ts";
import { deriveRoleCredential } from "./role-credential.ts";

/**
 * Gives roles their derived verifiers, inside the caller's transaction on the catalog's database. Who reads one with its
 * ServerKey in a log could pretend to be the upstream, so they come as data, and no statement that PostgreSQL is sent holds them.
 *
 * @returns how many were installed; none without a master secret
 */
export async function installCredentials(
  client: ClientBase,
  roles: readonly { readonly name: string; readonly roleVersion: number }[],
  masterSecret: Buffer | undefined,
): Promise<number> {
  if (roles.length === 0 || masterSecret === undefined) return 0;
  const credentials = roles.map(({ name, roleVersion }) => ({
    name,
    verifier: deriveRoleCredential(masterSecret, name, roleVersion).verifier,
  }));
  await sendInTransit(client, { role_credentials: JSON.stringify(credentials) });
  await client.query(installation);
  return roles.length;
}

/**
 * The statement with the verifier is run inside this one. Where our login may say so, extensions that look at inner statements
 * do not see it. An error is raised anew, because the context of the first one would quote it; a lock is waited for by a
 * statement without it, because an administrator who ends the connection then is answered with the context as well.
 */
const installation = `DO $do$
  DECLARE
    credential record;
  BEGIN
    PERFORM pg_catalog.set_config(s.name, 'none', true)
       FROM pg_catalog.pg_settings s
      WHERE s.name IN ('pg_stat_statements.track', 'pgaudit.log') AND pg_catalog.has_parameter_privilege(s.name, 'SET');
    FOR credential IN
      SELECT c.name, c.verifier
        FROM pg_catalog.json_to_recordset(pg_catalog.current_setting('nodedb.role_credentials')::pg_catalog.json) AS c (name text, verifier text)
    LOOP
      EXECUTE pg_catalog.format('ALTER ROLE %I CONNECTION LIMIT -1', credential.name);
      EXECUTE pg_catalog.format('ALTER ROLE %I PASSWORD %L', credential.name, credential.verifier);
    END LOOP;
  EXCEPTION WHEN OTHERS OR query_canceled THEN
    RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = SQLERRM;
  END $do$`;
