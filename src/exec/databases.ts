/** Prepares a database before a user's first session enters it: grants of the built-in roles. */

import type { Identity } from "../auth/identity.ts";

export interface DatabasePreparer {
  /** Call before the upstream login; costs nothing when the database and the user's part in it are prepared. */
  prepare(database: string, identity: Identity): Promise<void>;
}
