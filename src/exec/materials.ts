/** What a statement makes once, however often it is run. */

import type { ExecutionContext } from "./context.ts";

/**
 * The value that was made under this name at the statement's first run, or makes it now.
 *
 * @param make always of the same type for the same name
 */
export function material<T>(context: ExecutionContext, name: string, make: () => T): T {
  const { materials } = context;
  if (!materials.has(name)) materials.set(name, make());
  return materials.get(name) as T;
}
