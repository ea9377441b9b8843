/** Runs a statement of ours: checks the caller's rights, changes catalog and PostgreSQL roles in one transaction. */

import type { Statement } from "../ddl/statement.ts";
import type { ExecutionContext, ExecutorDependencies } from "./context.ts";
import type { StatementResult } from "./result.ts";

export interface Executor {
  /**
   * @returns "forward" when the statement names a PostgreSQL role that is not one of our users
   * @throws SqlError for everything that the client did wrong or may not do; nothing has changed then
   */
  execute(statement: Statement, context: ExecutionContext): Promise<StatementResult | "forward">;
}

export declare function createExecutor(deps: ExecutorDependencies): Executor;
