/** Administrative connections to other databases than the catalog's, for one statement of ours. */

import type { Client } from "pg";
import { connectAdmin } from "../catalog/connection.ts";
import type { ExecutorDependencies } from "./context.ts";

/** Opens one; the caller ends it. What it runs is cancelled together with the statement. */
export async function connectElsewhere(
  deps: Pick<ExecutorDependencies, "adminConnection" | "catalog">,
  database: string,
): Promise<Client> {
  const client = await connectAdmin(deps.adminConnection, database);
  deps.catalog.cancelAlong(client);
  return client;
}
