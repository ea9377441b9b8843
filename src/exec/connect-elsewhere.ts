/** Administrative connections to other databases than the catalog's, for one statement of ours. */

import type { Client, ClientConfig } from "pg";
import type { Catalog } from "../catalog/catalog.ts";
import { connectAdmin } from "../catalog/connection.ts";

/** What reaches the catalog's database, and the others. */
export interface ClusterAccess {
  readonly catalog: Catalog;
  /** The administrative login, for connections to other databases (DROP USER). */
  readonly adminConnection: ClientConfig;
}

/** Opens one; the caller ends it. What it runs is cancelled together with the statement. */
export async function connectElsewhere(deps: ClusterAccess, database: string): Promise<Client> {
  const client = await connectAdmin(deps.adminConnection, database);
  deps.catalog.cancelAlong(client);
  return client;
}
