/** Runs a statement of ours: one function per statement, in the file of its group. */

import type { ReservingBackend } from "../catalog/reserved-roles.ts";
import type { Statement } from "../ddl/statement.ts";
import { alterUser, renameUser, setUserDefaultDatabase, setUserRoles } from "./alter-user.ts";
import type { ExecutionContext, ExecutorDependencies } from "./context.ts";
import { createUser } from "./create-user.ts";
import { dropUser } from "./drop-user.ts";
import { concernsForeignRole } from "./foreign-role.ts";
import type { StatementResult } from "./result.ts";
import { showSession, showUsers } from "./show.ts";
import { StatementTransaction } from "./statement-transaction.ts";

export interface Executor {
  /**
   * Runs a statement in a transaction of its own and returns when its effect holds: a user that was created can log in.
   *
   * @returns "forward" when the statement names a PostgreSQL role that is not one of our users
   * @throws SqlError for everything that the client did wrong or may not do; nothing has changed then
   */
  execute(statement: Statement, context: ExecutionContext): Promise<StatementResult | "forward">;
  /** The list of statements of a client's transaction. @param backend the upstream connection that the transaction is on */
  beginTransaction(backend: ReservingBackend): StatementTransaction;
  /** True when `execute` would answer "forward". */
  concernsForeignRole(statement: Statement): Promise<boolean>;
}

export function createExecutor(deps: ExecutorDependencies): Executor {
  const execute: Executor["execute"] = async (statement, context) => {
    switch (statement.kind) {
      case "create_user":
        return createUser(deps, statement, context);
      case "alter_user":
        return alterUser(deps, statement, context);
      case "set_user_roles":
        return setUserRoles(deps, statement, context);
      case "set_user_default_database":
        return setUserDefaultDatabase(deps, statement, context);
      case "rename_user":
        return renameUser(deps, statement, context);
      case "drop_user":
        return dropUser(deps, statement, context);
      case "show_users":
        return showUsers(deps, context);
      case "show_session":
        return showSession(deps, context);
    }
  };
  return {
    execute,
    concernsForeignRole: (statement) => concernsForeignRole(deps.catalog.pool, statement),
    beginTransaction: (backend) => new StatementTransaction(deps, execute, backend),
  };
}
