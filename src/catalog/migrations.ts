/** Versions of the catalog's schema, and how an older one is brought to the program's. */

import type { PoolClient } from "pg";
import { SqlError } from "../errors/sql-error.ts";
import { sqlstateOf } from "./connection.ts";

/** Channel on which other processes learn that the catalog changed; its payload is never read. */
export const catalogChannel = "nodedb_catalog";

/**
 * One entry per version, never edited once released. Each runs in its own transaction.
 * `principal` is wider than users, for service accounts and stand-alone keys: names are unique over all kinds,
 * because each is also the name of one PostgreSQL role. `principal_role.role` is text, so that custom roles fit.
 */
const migrations: readonly string[] = [
  `CREATE TABLE nodedb.instance (
     only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
     master_secret_fingerprint bytea NOT NULL,
     catalog_version pg_catalog.int8 NOT NULL DEFAULT 1,
     created_at timestamptz NOT NULL DEFAULT pg_catalog.now()
   );
   CREATE TABLE nodedb.tenant (
     id pg_catalog.int8 PRIMARY KEY CHECK (id >= 0),
     name text NOT NULL UNIQUE,
     created_at timestamptz NOT NULL DEFAULT pg_catalog.now()
   );
   INSERT INTO nodedb.tenant (id, name) VALUES (0, 'system'), (1, 'default');
   CREATE TABLE nodedb.principal (
     id pg_catalog.int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
     kind text NOT NULL,
     name text NOT NULL CONSTRAINT principal_name_key UNIQUE,
     tenant_id pg_catalog.int8 NOT NULL REFERENCES nodedb.tenant (id),
     scram_verifier text,
     can_login boolean NOT NULL DEFAULT true,
     valid_until timestamptz,
     connection_limit pg_catalog.int4 NOT NULL DEFAULT -1 CHECK (connection_limit >= -1),
     default_database text,
     role_version pg_catalog.int4 NOT NULL DEFAULT 1,
     created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
     last_login_at timestamptz
   );
   CREATE TABLE nodedb.principal_role (
     principal_id pg_catalog.int8 NOT NULL REFERENCES nodedb.principal (id) ON DELETE CASCADE,
     role text NOT NULL,
     ordinal pg_catalog.int8 NOT NULL,
     PRIMARY KEY (principal_id, role)
   );
   CREATE INDEX principal_role_role_idx ON nodedb.principal_role (role);
   CREATE INDEX principal_tenant_id_idx ON nodedb.principal (tenant_id);`,
  // Custom roles, API keys, service accounts, providers, policies, quotas, sessions, lockout and the audit log.
  `ALTER TABLE nodedb.tenant ADD COLUMN max_connections pg_catalog.int4 CHECK (max_connections >= 0);
   CREATE TABLE nodedb.role (
     id pg_catalog.int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
     name text NOT NULL CONSTRAINT role_name_key UNIQUE,
     tenant_id pg_catalog.int8 NOT NULL REFERENCES nodedb.tenant (id),
     parent text,
     created_at timestamptz NOT NULL DEFAULT pg_catalog.now()
   );
   CREATE TABLE nodedb.principal_database (
     principal_id pg_catalog.int8 NOT NULL REFERENCES nodedb.principal (id) ON DELETE CASCADE,
     database text NOT NULL,
     ordinal pg_catalog.int8 NOT NULL,
     PRIMARY KEY (principal_id, database)
   );
   CREATE TABLE nodedb.api_key (
     id pg_catalog.int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
     key_id text NOT NULL CONSTRAINT api_key_key_id_key UNIQUE,
     name text NOT NULL CONSTRAINT api_key_name_key UNIQUE,
     owner_id pg_catalog.int8 NOT NULL REFERENCES nodedb.principal (id) ON DELETE CASCADE,
     databases text[],
     secret_hash bytea NOT NULL,
     scram_verifier text NOT NULL,
     previous_secret_hash bytea,
     previous_scram_verifier text,
     previous_valid_until timestamptz,
     expires_at timestamptz,
     revoked_at timestamptz,
     created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
     last_used_at timestamptz
   );
   CREATE INDEX api_key_owner_id_idx ON nodedb.api_key (owner_id);
   CREATE TABLE nodedb.oidc_provider (
     id pg_catalog.int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
     name text NOT NULL CONSTRAINT oidc_provider_name_key UNIQUE,
     issuer text NOT NULL,
     jwks_url text,
     audience text,
     tenant_id pg_catalog.int8 NOT NULL REFERENCES nodedb.tenant (id),
     algorithms text[],
     claim_mapping jsonb NOT NULL DEFAULT '[]',
     jwks_refresh_requested_at timestamptz,
     created_at timestamptz NOT NULL DEFAULT pg_catalog.now()
   );
   CREATE UNLOGGED TABLE nodedb.front_end (
     id uuid PRIMARY KEY,
     heartbeat_at timestamptz NOT NULL
   );
   CREATE UNLOGGED TABLE nodedb.session (
     id uuid PRIMARY KEY,
     instance_id uuid NOT NULL REFERENCES nodedb.front_end (id) ON DELETE CASCADE,
     principal_id pg_catalog.int8 NOT NULL,
     username text NOT NULL,
     database text NOT NULL,
     tenant_id pg_catalog.int8 NOT NULL,
     auth_method text NOT NULL,
     client_addr text,
     protocol text NOT NULL,
     state text NOT NULL,
     connected_at timestamptz NOT NULL,
     last_active_at timestamptz NOT NULL,
     expires_at timestamptz,
     killed_by uuid
   );
   CREATE INDEX session_instance_id_idx ON nodedb.session (instance_id);
   CREATE TABLE nodedb.login_failure (
     name text PRIMARY KEY,
     failures pg_catalog.int4 NOT NULL,
     last_failed_at timestamptz NOT NULL,
     locked_until timestamptz,
     changed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
   );
   CREATE INDEX login_failure_changed_at_idx ON nodedb.login_failure (changed_at);
   CREATE TABLE nodedb.reserved_role (
     name text PRIMARY KEY,
     backend_pid pg_catalog.int4 NOT NULL,
     backend_start timestamptz NOT NULL
   );
   CREATE TABLE nodedb.audit_log (
     seq pg_catalog.int8 PRIMARY KEY,
     at timestamptz NOT NULL,
     event text NOT NULL,
     username text,
     tenant_id pg_catalog.int8,
     source text,
     session_id uuid,
     detail text,
     hash bytea NOT NULL
   );
   CREATE TABLE nodedb.audit_head (
     only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
     seq pg_catalog.int8 NOT NULL,
     hash bytea NOT NULL
   );
   INSERT INTO nodedb.audit_head (seq, hash) VALUES (0, pg_catalog.decode(pg_catalog.repeat('00', 32), 'hex'));
   CREATE TABLE nodedb.audit_outbox (
     id pg_catalog.int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
     at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
     event text NOT NULL,
     username text,
     tenant_id pg_catalog.int8,
     source text,
     session_id uuid,
     detail text
   );
   CREATE FUNCTION nodedb.refuse_audit_change() RETURNS trigger LANGUAGE plpgsql
     SET search_path = pg_catalog, pg_temp AS
     $$BEGIN
       RAISE insufficient_privilege USING MESSAGE = 'the audit log cannot be changed';
     END$$;
   CREATE TRIGGER audit_log_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON nodedb.audit_log
     FOR EACH STATEMENT EXECUTE FUNCTION nodedb.refuse_audit_change();
   CREATE TRIGGER audit_head_stays BEFORE DELETE OR TRUNCATE ON nodedb.audit_head
     FOR EACH STATEMENT EXECUTE FUNCTION nodedb.refuse_audit_change();
   ALTER TABLE nodedb.audit_log ENABLE ALWAYS TRIGGER audit_log_is_append_only;
   ALTER TABLE nodedb.audit_head ENABLE ALWAYS TRIGGER audit_head_stays;`,
  // Holds nothing: what is copied into it becomes settings of the transaction.
  `CREATE VIEW nodedb.in_transit AS SELECT NULL::text AS setting, NULL::text AS value WHERE false;
   CREATE FUNCTION nodedb.hold_in_transit() RETURNS trigger LANGUAGE plpgsql
     SET search_path = pg_catalog, pg_temp AS
     $$BEGIN
       PERFORM pg_catalog.set_config(NEW.setting, NEW.value, true);
       RETURN NEW;
     END$$;
   CREATE TRIGGER in_transit INSTEAD OF INSERT ON nodedb.in_transit
     FOR EACH ROW EXECUTE FUNCTION nodedb.hold_in_transit();`,
  // Roles that a client's transaction has dropped and that are still to let go of what they hold in other databases.
  `CREATE TABLE nodedb.dropped_role (
     id pg_catalog.int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
     role_oid pg_catalog.oid NOT NULL UNIQUE,
     former_name text NOT NULL,
     new_owner_oid pg_catalog.oid,
     dropped_at timestamptz NOT NULL DEFAULT pg_catalog.now()
   );`,
  // Whom the principals of kind external are: `source` tells providers of this catalog from those of a configuration file.
  `CREATE TABLE nodedb.external_identity (
     principal_id pg_catalog.int8 PRIMARY KEY REFERENCES nodedb.principal (id) ON DELETE CASCADE,
     source text NOT NULL CHECK (source IN ('catalog', 'configuration')),
     provider text NOT NULL,
     issuer text NOT NULL,
     subject text NOT NULL,
     UNIQUE (source, provider, issuer, subject)
   );`,
  // A session takes its place only if its principal and its tenant have one left on all front-ends together: $2 and $3 are their
  // limits, NULL none; the sessions of $4 have ended on the front-end that asks. Who counts holds a lock, on a row because any
  // client could hold an advisory one; always of the tenant first. What is counted after the lock is what was committed before.
  `CREATE INDEX session_principal_id_idx ON nodedb.session (principal_id);
   CREATE INDEX session_tenant_id_idx ON nodedb.session (tenant_id);
   CREATE UNLOGGED TABLE nodedb.session_count_lock (slot pg_catalog.int4 PRIMARY KEY);
   CREATE FUNCTION nodedb.take_place(place nodedb.session, of_principal pg_catalog.int4, of_tenant pg_catalog.int4,
                                     ended uuid[], silence interval)
     RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '3s' AS
     $$DECLARE
       slots pg_catalog.int4[] := ARRAY[]::pg_catalog.int4[];
       wanted pg_catalog.int4;
       present pg_catalog.int8;
     BEGIN
       IF of_tenant IS NOT NULL THEN slots := slots || (place.tenant_id % 64)::pg_catalog.int4; END IF;
       IF of_principal IS NOT NULL THEN slots := slots || (64 + place.principal_id % 64)::pg_catalog.int4; END IF;
       FOREACH wanted IN ARRAY slots LOOP
         INSERT INTO nodedb.session_count_lock (slot) VALUES (wanted) ON CONFLICT (slot) DO NOTHING;
         PERFORM FROM nodedb.session_count_lock l WHERE l.slot = wanted FOR UPDATE;
       END LOOP;
       IF of_principal IS NOT NULL THEN
         SELECT pg_catalog.count(*) INTO present FROM nodedb.session s JOIN nodedb.front_end f ON f.id = s.instance_id
          WHERE s.principal_id = place.principal_id AND s.id <> place.id AND s.id <> ALL (ended)
            AND (f.id = place.instance_id OR f.heartbeat_at >= pg_catalog.clock_timestamp() - silence);
         IF present >= of_principal THEN RETURN 'principal'; END IF;
       END IF;
       IF of_tenant IS NOT NULL THEN
         SELECT pg_catalog.count(*) INTO present FROM nodedb.session s JOIN nodedb.front_end f ON f.id = s.instance_id
          WHERE s.tenant_id = place.tenant_id AND s.id <> place.id AND s.id <> ALL (ended)
            AND (f.id = place.instance_id OR f.heartbeat_at >= pg_catalog.clock_timestamp() - silence);
         IF present >= of_tenant THEN RETURN 'tenant'; END IF;
       END IF;
       INSERT INTO nodedb.session SELECT place.* ON CONFLICT (id) DO NOTHING;
       RETURN NULL;
     END$$;`,
];

/** The version that this program reads and writes. */
export const schemaVersion = migrations.length;

/**
 * Creates the schema or brings it to `schemaVersion`; does nothing when it is there already. Several processes may start at
 * once: they wait for each other on the version table, because an advisory lock could be held by any client.
 *
 * @throws SqlError object_not_in_prerequisite_state when the schema is newer than the program, or is somebody else's.
 */
export async function migrate(client: PoolClient): Promise<void> {
  while (!(await claimSchema(client)));
  for (let isCurrent = false; !isCurrent; ) {
    await inTransaction(client, async () => {
      await client.query("LOCK TABLE nodedb.schema_version IN ACCESS EXCLUSIVE MODE");
      const found = await client.query<{ version: number }>(
        "SELECT coalesce(pg_catalog.max(version), 0) AS version FROM nodedb.schema_version",
      );
      const current = found.rows[0]?.version ?? 0;
      refuseNewerSchema(current);
      isCurrent = current === schemaVersion;
      if (isCurrent) return;
      await client.query(migrations[current] ?? "");
      await client.query("INSERT INTO nodedb.schema_version (version) VALUES ($1)", [current + 1]);
    });
  }
}

function refuseNewerSchema(current: number): void {
  if (current <= schemaVersion) return;
  throw new SqlError(
    "object_not_in_prerequisite_state",
    `the catalog has schema version ${current}, this program knows versions up to ${schemaVersion}`,
    { hint: "Start the program version that wrote this catalog, or a newer one." },
  );
}

/**
 * Creates schema and version table, or checks that the schema that stands there is our own.
 *
 * @returns false when another process created it at the same moment: to be looked at again
 */
async function claimSchema(client: PoolClient): Promise<boolean> {
  const found = await client.query<{ is_ours: boolean; has_versions: boolean }>(
    `SELECT pg_catalog.pg_has_role(n.nspowner, 'USAGE') AS is_ours,
            EXISTS (SELECT FROM pg_catalog.pg_class c
                     WHERE c.relnamespace = n.oid AND c.relname = 'schema_version') AS has_versions
       FROM pg_catalog.pg_namespace n WHERE n.nspname = 'nodedb'`,
  );
  const schema = found.rows[0];
  if (schema?.is_ours === true && schema.has_versions) return true;
  if (schema !== undefined) {
    throw new SqlError(
      "object_not_in_prerequisite_state",
      'schema "nodedb" exists and is not a NodeDB catalog',
      {
        hint: "Name a database without such a schema in upstream.url.",
      },
    );
  }
  try {
    await inTransaction(client, async () => {
      await client.query(
        `CREATE SCHEMA nodedb;
         REVOKE ALL ON SCHEMA nodedb FROM PUBLIC;
         CREATE TABLE nodedb.schema_version (
           version pg_catalog.int4 PRIMARY KEY,
           applied_at timestamptz NOT NULL DEFAULT pg_catalog.now()
         );`,
      );
    });
    return true;
  } catch (error) {
    const state = sqlstateOf(error);
    if (state === "42P06" || state === "23505") return false;
    if (state !== "42501") throw error;
    throw new SqlError("object_not_in_prerequisite_state", "the upstream login may not create the catalog", {
      hint: "Give it CREATE on its database, or let it own that database.",
      cause: error,
    });
  }
}

async function inTransaction(client: PoolClient, work: () => Promise<void>): Promise<void> {
  await client.query("BEGIN");
  try {
    await work();
    await client.query("COMMIT");
  } catch (error) {
    await client.query("ROLLBACK").catch(() => undefined);
    throw error;
  }
}
