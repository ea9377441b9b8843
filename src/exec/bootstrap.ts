/** What every start does before the first client: groups, the first superuser, and the roles of all users. */

import type { ExecutorDependencies } from "./context.ts";

export interface BootstrapOptions {
  readonly superuserName: string;
  /** Given by the environment; a random one is made when it is absent and needed. */
  readonly superuserPassword: string | undefined;
}

/** The superuser's name, and on the first start the generated password: show it once, log it never. */
export interface BootstrapResult {
  readonly superuserName: string;
  readonly isFirstStart: boolean;
  readonly generatedPassword: string | undefined;
}

export declare function bootstrap(
  deps: Pick<ExecutorDependencies, "catalog" | "roleOptions" | "minPasswordLength" | "scramIterations">,
  options: BootstrapOptions,
): Promise<BootstrapResult>;
