/** Ends what a statement of ours runs or waits for on catalog connections, when its client does not want it any more. */

import { setTimeout as delay } from "node:timers/promises";
import type { ClientBase, Pool, PoolClient } from "pg";
import { SqlError } from "../errors/sql-error.ts";
import { sqlstateOf } from "./connection.ts";

/** Sends a CancelRequest, and resolves when PostgreSQL has acted on it. Never rejects. */
export type CancelBackend = (processId: number, secretKey: number) => Promise<void>;

export interface Cancellation {
  readonly signal: AbortSignal;
  readonly cancelBackend: CancelBackend;
}

/** A cancel that falls between two statements hits nothing, so it is sent again, in ms. */
const repeatMs = 50;

/** @param cause PostgreSQL's own word for it, where there is one */
export function queryCanceled(cause?: unknown): SqlError {
  return new SqlError("query_canceled", "canceling statement due to user request", { cause });
}

/** @throws SqlError query_canceled */
export function throwIfCanceled(cancellation: Cancellation | undefined): void {
  if (cancellation?.signal.aborted === true) throw queryCanceled();
}

/** An error as the client is to be told of it: PostgreSQL's 57014 is its own wish. */
export function asCanceled(error: unknown, cancellation: Cancellation | undefined): unknown {
  const isCanceled = cancellation?.signal.aborted === true && sqlstateOf(error) === "57014";
  return isCanceled ? queryCanceled(error) : error;
}

/**
 * Takes a connection from the pool, or leaves the queue for one.
 *
 * @throws SqlError query_canceled
 */
export async function connectUnlessCanceled(
  pool: Pool,
  cancellation: Cancellation | undefined,
): Promise<PoolClient> {
  if (cancellation === undefined) return pool.connect();
  throwIfCanceled(cancellation);
  const { signal } = cancellation;
  const connecting = pool.connect().then((client) => {
    if (!signal.aborted) return client;
    // The pool knows no way out of its queue: whoever has left passes the connection on.
    client.release();
    throw queryCanceled();
  });
  return unlessCanceled(connecting, signal);
}

/**
 * Waits for something that goes on all the same.
 *
 * @throws SqlError query_canceled
 */
export async function unlessCanceled<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  let onAbort: (() => void) | undefined;
  const canceled = new Promise<never>((_, reject) => {
    onAbort = () => reject(queryCanceled());
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
  });
  try {
    return await Promise.race([work, canceled]);
  } finally {
    if (onAbort !== undefined) signal.removeEventListener("abort", onAbort);
  }
}

/**
 * Has PostgreSQL cancel what the connection runs, from the moment that the signal is aborted.
 *
 * @returns what ends that; when it resolves no cancel is on its way any more
 */
export function cancelWhenAborted(
  client: ClientBase,
  cancellation: Cancellation | undefined,
): () => Promise<void> {
  if (cancellation === undefined) return () => Promise.resolve();
  const { signal, cancelBackend } = cancellation;
  let isOver = false;
  let canceling: Promise<void> | undefined;
  const cancel = async (): Promise<void> => {
    const { processID, secretKey } = client as ClientBase & { processID: number; secretKey: number };
    while (!isOver) {
      await cancelBackend(processID, secretKey);
      if (!isOver) await delay(repeatMs);
    }
  };
  const onAbort = () => {
    canceling = cancel();
  };
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  return async () => {
    isOver = true;
    signal.removeEventListener("abort", onAbort);
    await canceling;
  };
}
