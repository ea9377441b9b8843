/** Brings secrets into a transaction on the catalog's database without any statement or parameter that shows them. */

import type { ClientBase } from "pg";
import { copyIn } from "./copy-in.ts";

/** A secret on its way: SQL reads it with `current_setting` until the transaction ends. */
export interface InTransit {
  /** Name of the setting that holds it, which only this session can read. */
  readonly setting: string;
}

/**
 * Puts secrets into settings of the transaction. Our login may not always say what PostgreSQL logs, and what is logged of a
 * transaction may be decided when it begins; data of COPY is logged never.
 *
 * @param values by a name each, which is an identifier; one of the same name is replaced
 */
export async function sendInTransit<Name extends string>(
  client: Pick<ClientBase, "query">,
  values: Readonly<Record<Name, string>>,
): Promise<Record<Name, InTransit>> {
  const names = Object.keys(values) as Name[];
  await copyIn(
    client,
    "nodedb.in_transit (setting, value)",
    names.map((name) => [settingOf(name), values[name]]),
  );
  return Object.fromEntries(names.map((name) => [name, { setting: settingOf(name) }])) as Record<
    Name,
    InTransit
  >;
}

function settingOf(name: string): string {
  return `nodedb.${name}`;
}
