/**
 * The SQL of `auth.session()` and its readers: what opens an envelope (src/upstream/claims-envelope.ts) inside PostgreSQL.
 *
 * It runs with its owner's rights on behalf of clients that may send any SQL, so every name and operator is qualified,
 * `pg_temp` is searched last (for types it would be first), nothing that was not verified reaches a function that can fail on
 * it, and the key never is in a plan (debug_print_plan would show it): expressions with it have no sub-selects. There are no
 * backslashes, because how they are read is the client's setting.
 */

import { escapeIdentifier } from "pg";
import { envelopeType, maxEnvelopeBytes } from "./claims-envelope.ts";

/** The table that only the functions' owner may read. */
export const claimsKeyTable = "claims_key";

/** The table of connections whose claims have changed: what was sealed for one before that is worth nothing any more. */
export const withdrawnClaimsTable = "claims_withdrawn";

/** Name of the setting that holds the envelope. */
export const sessionSetting = "nodedb.session";

/**
 * Statements that create the functions, the table and their grants, or bring them up to date.
 *
 * @param schema `auth.schema` of the configuration
 */
export function claimsFunctionsSql(schema: string): string {
  const s = escapeIdentifier(schema);
  const reader = (signature: string, type: string, body: string) =>
    `CREATE OR REPLACE FUNCTION ${s}.${signature} RETURNS ${type} LANGUAGE sql STABLE PARALLEL RESTRICTED RETURN ${body};`;
  const claim = (name: string) => `(${s}.session() OPERATOR(pg_catalog.->>) '${name}'::pg_catalog.text)`;
  const list = (name: string) => `(
    SELECT CASE pg_catalog.jsonb_typeof(v.value)
             WHEN 'array' THEN ARRAY(SELECT e.value FROM pg_catalog.jsonb_array_elements_text(v.value) AS e (value))
             WHEN 'string' THEN pg_catalog.array_remove(
               pg_catalog.string_to_array(v.value OPERATOR(pg_catalog.#>>) '{}'::pg_catalog.text[], ' '), '')
           END
      FROM (SELECT ${s}.session() OPERATOR(pg_catalog.->) '${name}'::pg_catalog.text OFFSET 0) AS v (value))`;
  const uuid = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$";
  return `
CREATE TABLE IF NOT EXISTS ${s}.${claimsKeyTable} (
  kid pg_catalog.text PRIMARY KEY,
  inner_pad pg_catalog.bytea NOT NULL,
  outer_pad pg_catalog.bytea NOT NULL
);
ALTER TABLE ${s}.${claimsKeyTable} ALTER COLUMN kid SET STATISTICS 0, ALTER COLUMN inner_pad SET STATISTICS 0,
  ALTER COLUMN outer_pad SET STATISTICS 0;
REVOKE ALL ON TABLE ${s}.${claimsKeyTable} FROM PUBLIC;
CREATE TABLE IF NOT EXISTS ${s}.${withdrawnClaimsTable} (
  pid pg_catalog.int4,
  port pg_catalog.int4,
  until pg_catalog.numeric NOT NULL,
  PRIMARY KEY (pid, port)
);
REVOKE ALL ON TABLE ${s}.${withdrawnClaimsTable} FROM PUBLIC;

CREATE OR REPLACE FUNCTION ${s}.session() RETURNS pg_catalog.jsonb
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  v_envelope CONSTANT pg_catalog.text := pg_catalog.current_setting('${sessionSetting}', true);
  v_kid pg_catalog.text;
  v_inner_pad pg_catalog.bytea;
  v_outer_pad pg_catalog.bytea;
  v_mac pg_catalog.text;
  v_session pg_catalog.jsonb;
BEGIN
  IF pg_catalog.octet_length(v_envelope) OPERATOR(pg_catalog.<=) ${maxEnvelopeBytes} THEN
    IF v_envelope OPERATOR(pg_catalog.~) ('^[0-9a-f]{80}[{][ -~]*[}]$' COLLATE pg_catalog."C") THEN
      v_kid := pg_catalog.substr(v_envelope, 65, 16);
      SELECT k.inner_pad, k.outer_pad INTO v_inner_pad, v_outer_pad
        FROM ${s}.${claimsKeyTable} AS k WHERE k.kid OPERATOR(pg_catalog.=) v_kid;
      IF v_inner_pad IS NOT NULL THEN
        v_mac := pg_catalog.encode(pg_catalog.sha256(v_outer_pad OPERATOR(pg_catalog.||) pg_catalog.sha256(
          v_inner_pad OPERATOR(pg_catalog.||) pg_catalog.convert_to(pg_catalog.substr(v_envelope, 65), 'UTF8'))), 'hex');
        -- Hashed once more under the key, so that the time of the comparison tells nothing about the right code.
        IF pg_catalog.sha256(v_outer_pad OPERATOR(pg_catalog.||) pg_catalog.convert_to(v_mac, 'UTF8'))
           OPERATOR(pg_catalog.=)
           pg_catalog.sha256(v_outer_pad OPERATOR(pg_catalog.||) pg_catalog.convert_to(pg_catalog.substr(v_envelope, 1, 64), 'UTF8'))
        THEN
          v_session := pg_catalog.substr(v_envelope, 81)::pg_catalog.jsonb;
          IF (v_session OPERATOR(pg_catalog.->>) 'typ') OPERATOR(pg_catalog.=) '${envelopeType}'
             AND (v_session OPERATOR(pg_catalog.->>) 'pid')::pg_catalog.int4 OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()
             AND coalesce((v_session OPERATOR(pg_catalog.->>) 'port')::pg_catalog.int4, -1)
                 OPERATOR(pg_catalog.=) coalesce(pg_catalog.inet_client_port(), -1)
             AND (v_session OPERATOR(pg_catalog.->>) 'su') OPERATOR(pg_catalog.=) session_user::pg_catalog.text
             AND (v_session OPERATOR(pg_catalog.->>) 'db') OPERATOR(pg_catalog.=) pg_catalog.current_database()::pg_catalog.text
             AND (v_session OPERATOR(pg_catalog.->>) 'exp')::pg_catalog.numeric
                 OPERATOR(pg_catalog.>) pg_catalog.extract('epoch', pg_catalog.transaction_timestamp())
             -- By a socket there is no port, but one clock: what is from before the server's start is of another connection.
             AND (pg_catalog.inet_client_port() IS NOT NULL
                  OR (v_session OPERATOR(pg_catalog.->>) 'iat')::pg_catalog.numeric
                     OPERATOR(pg_catalog.>) pg_catalog.extract('epoch', pg_catalog.pg_postmaster_start_time()))
             AND NOT EXISTS (
               SELECT FROM ${s}.${withdrawnClaimsTable} AS w
                WHERE w.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()
                  AND w.port OPERATOR(pg_catalog.=) coalesce(pg_catalog.inet_client_port(), -1)
                  AND w.until OPERATOR(pg_catalog.>=) (v_session OPERATOR(pg_catalog.->>) 'iat')::pg_catalog.numeric)
             AND pg_catalog.jsonb_typeof(v_session OPERATOR(pg_catalog.->) 'claims') OPERATOR(pg_catalog.=) 'object'
          THEN
            RETURN v_session OPERATOR(pg_catalog.->) 'claims';
          END IF;
        END IF;
      END IF;
    END IF;
  END IF;
  RAISE EXCEPTION USING ERRCODE = '28000', MESSAGE = 'this session has no verified claims',
    HINT = 'The front-end gives them to its sessions. What was changed by SET ${sessionSetting} comes back with RESET ALL or a new session.';
END
$function$;

${reader("id()", "pg_catalog.text", claim("id"))}
${reader("role()", "pg_catalog.text", claim("role"))}
${reader("org_id()", "pg_catalog.text", claim("org_id"))}
${reader("email()", "pg_catalog.text", claim("email"))}
${reader("tenant_id()", "pg_catalog.int8", `${claim("tenant_id")}::pg_catalog.int8`)}
${reader("roles()", "pg_catalog.text[]", list("roles"))}
${reader("scopes()", "pg_catalog.text[]", list("scopes"))}
${reader("claim(name pg_catalog.text)", "pg_catalog.text", `(${s}.session() OPERATOR(pg_catalog.->>) name)`)}
-- What Supabase's policies call: the id where it is a UUID, and all claims as a token has them.
${reader(
  "uid()",
  "pg_catalog.uuid",
  `(
    SELECT CASE WHEN v.id OPERATOR(pg_catalog.~) ('${uuid}' COLLATE pg_catalog."C") THEN v.id::pg_catalog.uuid END
      FROM (SELECT ${claim("id")} OFFSET 0) AS v (id))`,
)}
${reader(
  "jwt()",
  "pg_catalog.jsonb",
  `(
    SELECT v.claims OPERATOR(pg_catalog.||)
           pg_catalog.jsonb_build_object('sub'::pg_catalog.text, v.claims OPERATOR(pg_catalog.->) 'id'::pg_catalog.text)
      FROM (SELECT ${s}.session() OFFSET 0) AS v (claims))`,
)}
${reader("has_scope(scope pg_catalog.text)", "pg_catalog.bool", `coalesce(scope OPERATOR(pg_catalog.=) ANY (${s}.scopes()), false)`)}
GRANT USAGE ON SCHEMA ${s} TO PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ${s} TO PUBLIC;`;
}
