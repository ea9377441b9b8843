/** CREATE, ALTER, DROP and SHOW OIDC PROVIDER. */

import { externalPrincipalsOf } from "../catalog/external-identities.ts";
import {
  createOidcProviderRow,
  deleteOidcProviderRow,
  findAmbiguousProvider,
  findOidcProvider,
  type OidcProviderSettings,
  requestJwksRefresh,
  updateOidcProviderRow,
} from "../catalog/oidc-providers.ts";
import type { PrincipalRecord } from "../catalog/users.ts";
import type { Name, Statement } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import { denied, isSuperuser } from "./authorize.ts";
import type { ExecutionContext, ExecutorDependencies } from "./context.ts";
import { checkSettings } from "./oidc-provider-settings.ts";
import type { Column, StatementResult } from "./result.ts";
import { runRead, runWrite, type StatementScope } from "./run-statement.ts";
import { table, timestamp, timestampColumns } from "./show.ts";
import { useSessionFormat } from "./user-options.ts";

type StatementOf<Kind extends Statement["kind"]> = Extract<Statement, { kind: Kind }>;
type Result = Promise<StatementResult>;

/** As of roles: the name is part of the names of the roles that its users get. */
const maxNameBytes = 63;

export function createOidcProvider(
  deps: ExecutorDependencies,
  statement: StatementOf<"create_oidc_provider">,
  context: ExecutionContext,
): Result {
  const { name } = statement;
  const tag = "CREATE OIDC PROVIDER";
  return runWrite(deps, context, async (scope) => {
    requireSuperuser(scope.caller);
    checkProviderName(name);
    if ((await findOidcProvider(scope.client, name.text)) !== undefined) {
      if (!statement.ifNotExists) throw providerExists(name);
      return { tag, notices: [`OIDC provider "${name.text}" already exists, skipping`] };
    }
    const settings = await checkSettings(scope, statement.options, undefined);
    await refuseAmbiguous(scope, settings, undefined);
    await createOidcProviderRow(scope.client, name.text, settings);
    await touchExternals(scope, name);
    return { tag, notices: [] };
  });
}

export function alterOidcProvider(
  deps: ExecutorDependencies,
  statement: StatementOf<"alter_oidc_provider">,
  context: ExecutionContext,
): Result {
  const { name } = statement;
  return runWrite(deps, context, async (scope) => {
    requireSuperuser(scope.caller);
    const before = await findOidcProvider(scope.client, name.text);
    if (before === undefined) throw missingProvider(name);
    await touchExternals(scope, name);
    const settings = await checkSettings(scope, statement.options, before);
    await refuseAmbiguous(scope, settings, name.text);
    await updateOidcProviderRow(scope.client, name.text, settings);
    return { tag: "ALTER OIDC PROVIDER", notices: [] };
  });
}

export function refreshOidcProvider(
  deps: ExecutorDependencies,
  statement: StatementOf<"refresh_oidc_provider">,
  context: ExecutionContext,
): Result {
  const { name } = statement;
  return runWrite(deps, context, async ({ client, caller }) => {
    requireSuperuser(caller);
    if ((await findOidcProvider(client, name.text)) === undefined) throw missingProvider(name);
    await requestJwksRefresh(client, name.text);
    return { tag: "ALTER OIDC PROVIDER", notices: [] };
  });
}

export function dropOidcProvider(
  deps: ExecutorDependencies,
  statement: StatementOf<"drop_oidc_provider">,
  context: ExecutionContext,
): Result {
  const { name } = statement;
  const tag = "DROP OIDC PROVIDER";
  return runWrite(deps, context, async (scope) => {
    const { client } = scope;
    requireSuperuser(scope.caller);
    if ((await findOidcProvider(client, name.text)) === undefined) {
      if (!statement.ifExists) throw missingProvider(name);
      return { tag, notices: [`OIDC provider "${name.text}" does not exist, skipping`] };
    }
    await touchExternals(scope, name);
    await deleteOidcProviderRow(client, name.text);
    return { tag, notices: [] };
  });
}

export const oidcProviderColumns: readonly Column[] = [
  { name: "name", type: "text" },
  { name: "issuer", type: "text" },
  { name: "jwks_url", type: "text" },
  { name: "audience", type: "text" },
  { name: "tenant_id", type: "int8" },
  { name: "claim_mapping_rules", type: "int8" },
  { name: "created_at", type: "timestamptz" },
];

interface ProviderRow {
  readonly name: string;
  readonly issuer: string;
  readonly jwks_url: string | null;
  readonly audience: string | null;
  readonly tenant_id: string;
  readonly rules: string;
  readonly created_at_text: string | null;
  readonly created_at_micros: string | null;
}

export function showOidcProviders(deps: ExecutorDependencies, context: ExecutionContext): Result {
  return runRead(deps, context, async ({ client, caller }) => {
    requireSuperuser(caller);
    await useSessionFormat(client, context);
    const result = await client.query<ProviderRow>(
      `SELECT o.name, o.issuer, o.jwks_url, o.audience, o.tenant_id,
              pg_catalog.jsonb_array_length(o.claim_mapping)::pg_catalog.text AS rules,
              ${timestampColumns("o.created_at", "created_at")}
         FROM nodedb.oidc_provider o ORDER BY o.name COLLATE "C"`,
    );
    const rows = result.rows.map((row) => [
      row.name,
      row.issuer,
      row.jwks_url,
      row.audience,
      BigInt(row.tenant_id),
      BigInt(row.rules),
      timestamp(row.created_at_text, row.created_at_micros),
    ]);
    return table(oidcProviderColumns, rows);
  });
}

/** Whoever came by a provider of this name: whether one vouches for them is about to change. */
async function touchExternals({ client, touch }: StatementScope, name: Name): Promise<void> {
  for (const id of await externalPrincipalsOf(client, name.text)) touch(id);
}

function requireSuperuser(caller: PrincipalRecord): void {
  if (!isSuperuser(caller)) throw denied("only superuser may administer OIDC providers");
}

/** Under the catalog's lock, so that of two administrators at once the second one sees the first one's. */
async function refuseAmbiguous(
  { client }: StatementScope,
  { issuer, audience }: OidcProviderSettings,
  except: string | undefined,
): Promise<void> {
  const other = await findAmbiguousProvider(client, issuer, audience, except);
  if (other === undefined) return;
  throw new SqlError(
    "duplicate_object",
    `OIDC provider "${other}" already takes tokens of this issuer and audience`,
    { hint: "Two providers of one issuer need different audiences, and each its own." },
  );
}

function checkProviderName(name: Name): void {
  const length = Buffer.byteLength(name.text, "utf8");
  if (length > 0 && length <= maxNameBytes && !name.text.includes("\0")) return;
  throw new SqlError(
    "invalid_parameter_value",
    `the name of an OIDC provider must have 1 to ${maxNameBytes} bytes`,
    { position: name.position },
  );
}

function missingProvider(name: Name): SqlError {
  return new SqlError("undefined_object", `OIDC provider "${name.text}" does not exist`, {
    position: name.position,
  });
}

function providerExists(name: Name): SqlError {
  return new SqlError("duplicate_object", `OIDC provider "${name.text}" already exists`, {
    position: name.position,
    hint: "Use CREATE OIDC PROVIDER IF NOT EXISTS or ALTER OIDC PROVIDER.",
  });
}
