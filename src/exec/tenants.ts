/** CREATE, ALTER and DROP TENANT, and SHOW TENANTS. */

import {
  createTenantRow,
  defaultTenantId,
  deleteTenantRow,
  findTenant,
  listTenantContents,
  systemTenantId,
  type Tenant,
  updateTenantQuota,
} from "../catalog/tenants.ts";
import type { Queryable } from "../catalog/users.ts";
import type { Statement, TenantReference } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import { dropTenantGroup } from "../upstream/tenant-groups.ts";
import { denied, requireSuperuser } from "./authorize.ts";
import type { ExecutionContext, ExecutorDependencies } from "./context.ts";
import type { Column, StatementResult } from "./result.ts";
import { runRead, runWrite } from "./run-statement.ts";
import { table, timestamp, timestampColumns } from "./show.ts";
import { useSessionFormat } from "./user-options.ts";

type StatementOf<Kind extends Statement["kind"]> = Extract<Statement, { kind: Kind }>;

/** As for every other name here. */
const maxNameBytes = 63;

/** The largest value of nodedb.tenant.max_connections. */
const maxQuota = 2 ** 31 - 1;

/** What a refusal lists at most. */
const maxListedContents = 100;

export function createTenant(
  deps: ExecutorDependencies,
  statement: StatementOf<"create_tenant">,
  context: ExecutionContext,
): Promise<StatementResult> {
  const { name, id } = statement;
  const tag = "CREATE TENANT";
  return runWrite(deps, context, async ({ client, caller, touch }) => {
    requireSuperuser(caller, "create tenants");
    const length = Buffer.byteLength(name.text, "utf8");
    if (length === 0 || length > maxNameBytes) {
      throw new SqlError("invalid_parameter_value", `tenant name must have 1 to ${maxNameBytes} bytes`, {
        position: name.position,
      });
    }
    if (id !== undefined && !(Number.isSafeInteger(id.value) && id.value >= 0)) {
      throw new SqlError("invalid_parameter_value", `tenant id must be 0 to ${Number.MAX_SAFE_INTEGER}`, {
        position: id.position,
      });
    }
    if ((await findTenant(client, { name: name.text })) !== undefined) {
      if (statement.ifNotExists) {
        return { tag, notices: [`tenant "${name.text}" already exists, skipping`] };
      }
      throw taken(`tenant "${name.text}" already exists`, name.position);
    }
    if (id !== undefined && (await findTenant(client, { id: id.value })) !== undefined) {
      throw taken(`tenant ${id.value} already exists`, id.position);
    }
    await createTenantRow(client, { name: name.text, id: id?.value });
    // The cache reads the tenants again with whomever it reads.
    touch(caller.id);
    return { tag, notices: [] };
  });
}

export function alterTenantQuota(
  deps: ExecutorDependencies,
  statement: StatementOf<"alter_tenant_quota">,
  context: ExecutionContext,
): Promise<StatementResult> {
  const { quota, value } = statement;
  return runWrite(deps, context, async ({ client, caller, touch }) => {
    requireSuperuser(caller, "alter tenants");
    const tenant = await requireTenant(client, statement.tenant);
    if (quota.text !== "max_connections") {
      throw new SqlError("undefined_object", `unrecognized quota "${quota.text}"`, {
        position: quota.position,
        hint: "The quota is max_connections.",
      });
    }
    if (!Number.isInteger(value) || value < -1 || value > maxQuota) {
      throw new SqlError("invalid_parameter_value", `max_connections must be -1 (no limit) to ${maxQuota}`, {
        position: quota.position,
      });
    }
    await updateTenantQuota(client, tenant.id, value === -1 ? undefined : value);
    touch(caller.id);
    return { tag: "ALTER TENANT", notices: [] };
  });
}

export function dropTenant(
  deps: ExecutorDependencies,
  statement: StatementOf<"drop_tenant">,
  context: ExecutionContext,
): Promise<StatementResult> {
  return runWrite(deps, context, async ({ client, caller, touch }) => {
    requireSuperuser(caller, "drop tenants");
    const tenant = await requireTenant(client, statement.tenant);
    if (tenant.id === systemTenantId) throw denied("cannot drop system tenant");
    if (tenant.id === defaultTenantId) throw denied("cannot drop default tenant");
    const contents = await listTenantContents(client, tenant.id);
    if (contents.length > 0) {
      const lines = contents.slice(0, maxListedContents);
      if (contents.length > lines.length) lines.push(`and ${contents.length - lines.length} more`);
      throw new SqlError(
        "dependent_objects_still_exist",
        `tenant "${tenant.name}" cannot be dropped because something still belongs to it`,
        { detail: lines.join("\n"), hint: "Drop these first." },
      );
    }
    await deleteTenantRow(client, tenant.id);
    await dropTenantGroup(client, tenant.id);
    touch(caller.id);
    return { tag: "DROP TENANT", notices: [] };
  });
}

export const tenantColumns: readonly Column[] = [
  { name: "id", type: "int8" },
  { name: "name", type: "text" },
  { name: "max_connections", type: "int8" },
  { name: "users", type: "int8" },
  { name: "created_at", type: "timestamptz" },
];

interface TenantRow {
  readonly id: string;
  readonly name: string;
  readonly max_connections: number | null;
  readonly users: string;
  readonly created_at_text: string | null;
  readonly created_at_micros: string | null;
}

export function showTenants(deps: ExecutorDependencies, context: ExecutionContext): Promise<StatementResult> {
  return runRead(deps, context, async ({ client, caller }) => {
    requireSuperuser(caller, "see the tenants");
    await useSessionFormat(client, context);
    const result = await client.query<TenantRow>(
      `SELECT t.id, t.name, t.max_connections, ${timestampColumns("t.created_at", "created_at")},
              (SELECT pg_catalog.count(*) FROM nodedb.principal p WHERE p.tenant_id = t.id AND p.kind = 'user') AS users
         FROM nodedb.tenant t ORDER BY t.id`,
    );
    return table(
      tenantColumns,
      result.rows.map((row) => [
        BigInt(row.id),
        row.name,
        row.max_connections === null ? null : BigInt(row.max_connections),
        BigInt(row.users),
        timestamp(row.created_at_text, row.created_at_micros),
      ]),
    );
  });
}

async function requireTenant(client: Queryable, reference: TenantReference): Promise<Tenant> {
  const tenant = await findTenant(client, reference);
  if (tenant !== undefined) return tenant;
  const wording = "id" in reference ? String(reference.id) : `"${reference.name}"`;
  throw new SqlError("undefined_object", `tenant ${wording} does not exist`, {
    position: reference.position,
  });
}

function taken(message: string, position: number): SqlError {
  return new SqlError("duplicate_object", message, { position });
}
