/** A client of the front-end that is asked something once: what it answers, and what it is told besides. */

import type pg from "pg";
import type { Stage } from "./stage.ts";

/** Works as a user of the stage, on a connection of its own. */
export async function workAs<T>(
  stage: Stage,
  user: string,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const client = await stage.connect(user);
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

/** The one column of a result, each value once. */
export async function valuesOf(client: pg.Client, sql: string): Promise<unknown[]> {
  const { rows } = await client.query({ text: sql, rowMode: "array" });
  return [...new Set(rows.map(([value]) => value))];
}

/** What the client is told by notices while it runs a statement. */
export async function noticesOf(client: pg.Client, sql: string): Promise<Set<string>> {
  const told = new Set<string>();
  const listen = (notice: { message?: string | undefined }) => told.add(notice.message ?? "");
  client.on("notice", listen);
  await client.query(sql);
  client.off("notice", listen);
  return told;
}
