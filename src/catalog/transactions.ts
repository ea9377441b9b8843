/** Transactions on the catalog's connections: reads, writes one after the other, rehearsals, and writes that are held open. */

import type { ClientBase, Pool, PoolClient } from "pg";
import { SqlError } from "../errors/sql-error.ts";
import {
  asCanceled,
  type Cancellation,
  cancelWhenAborted,
  connectUnlessCanceled,
  throwIfCanceled,
  unlessCanceled,
} from "./cancellation.ts";
import { catalogChannel } from "./migrations.ts";
import type { Queryable } from "./users.ts";
import type { WriteQueue } from "./write-queue.ts";

type Work<T> = (client: PoolClient) => Promise<T>;

export interface CatalogTransactions {
  /** Runs work in a read-only transaction. */
  read<T>(work: Work<T>): Promise<T>;
  /**
   * Runs work in a transaction under the catalog's lock, so that writers follow one another, and tells the other
   * processes. Own cache entries are the caller's to reload, with the ids that it touched.
   */
  write<T>(work: Work<T>): Promise<T>;
  /** As `write`, and then undoes it: to know what statements would do. */
  rehearse<T>(work: Work<T>): Promise<T>;
  /**
   * As `write`, but stays open when the work is done, until it is committed or rolled back: exactly one of the two, and
   * soon, because other writers wait.
   */
  writeAndHold<T>(work: Work<T>): Promise<HeldWrite<T>>;
  /** Waits for what somebody else does, no longer than these transactions are wanted. */
  waitFor<T>(work: Promise<T>): Promise<T>;
  /** Has a connection of the caller's own cancelled together with these transactions, until it ends. */
  cancelAlong(client: ClientBase): void;
}

/** A write that has been done and is neither committed nor undone. */
export interface HeldWrite<T> {
  readonly result: T;
  /** The connection that it is open on. */
  readonly client: Queryable;
  commit(): Promise<void>;
  /** Never rejects: a connection that breaks has rolled back as well. */
  rollback(): Promise<void>;
}

/** @param cancellation ends all of them early with SqlError query_canceled; what has been committed stays so */
export function openTransactions(
  pool: Pool,
  queue: WriteQueue,
  cancellation?: Cancellation,
): CatalogTransactions {
  const inTurn = async <T>(work: () => Promise<T>): Promise<T> => {
    const leave = await queue.enter(cancellation);
    try {
      return await work();
    } finally {
      leave();
    }
  };
  const inTransaction = <T>(begin: string, work: Work<T>): Promise<T> =>
    withClient(pool, cancellation, (client) =>
      transaction(client, begin, async () => {
        const result = await work(client);
        throwIfCanceled(cancellation);
        return result;
      }),
    );
  return {
    read: (work) => inTransaction("BEGIN READ ONLY", work),
    write: (work) => inTurn(() => inTransaction("BEGIN", (client) => writeUnderLock(client, work))),
    rehearse: (work) =>
      inTurn(() =>
        withClient(pool, cancellation, async (client) => {
          await client.query("BEGIN");
          try {
            return await writeUnderLock(client, work);
          } finally {
            await client.query("ROLLBACK");
          }
        }),
      ),
    writeAndHold: async (work) => {
      const leave = await queue.enter(cancellation);
      try {
        return await holdWrite(pool, cancellation, work, leave);
      } catch (error) {
        leave();
        throw error;
      }
    },
    waitFor: (work) => unlessCanceled(work, cancellation?.signal),
    cancelAlong: (client) => {
      const stop = cancelWhenAborted(client, cancellation);
      client.once("end", () => void stop());
    },
  };
}

async function writeUnderLock<T>(client: PoolClient, work: Work<T>): Promise<T> {
  // A client's open transaction may hold what this needs, and the client may be waiting for this: PostgreSQL cannot know.
  await client.query("SET LOCAL lock_timeout = '3s'");
  // A row that only we can reach: an advisory lock could be held by any client.
  await client.query("SELECT FROM nodedb.instance FOR UPDATE");
  const result = await work(client);
  await client.query("UPDATE nodedb.instance SET catalog_version = catalog_version + 1");
  await client.query(`NOTIFY ${catalogChannel}`);
  return result;
}

async function holdWrite<T>(
  pool: Pool,
  cancellation: Cancellation | undefined,
  work: Work<T>,
  onEnd: () => void,
): Promise<HeldWrite<T>> {
  const client = await connectUnlessCanceled(pool, cancellation);
  const ignore = () => undefined;
  client.on("error", ignore);
  const end = async (command: "COMMIT" | "ROLLBACK"): Promise<void> => {
    let failure: Error | undefined;
    try {
      await client.query(command);
    } catch (error) {
      failure = asError(error);
      if (command === "COMMIT") throw error;
    } finally {
      client.off("error", ignore);
      client.release(failure);
      onEnd();
    }
  };
  const stopCanceling = cancelWhenAborted(client, cancellation);
  try {
    await client.query("BEGIN");
    const result = await writeUnderLock(client, work);
    await stopCanceling();
    throwIfCanceled(cancellation);
    return { result, client, commit: () => end("COMMIT"), rollback: () => end("ROLLBACK") };
  } catch (error) {
    await stopCanceling();
    await end("ROLLBACK");
    throw asCanceled(error, cancellation);
  }
}

/** Runs work on a connection of the pool. */
export async function withClient<T>(
  pool: Pool,
  cancellation: Cancellation | undefined,
  work: Work<T>,
): Promise<T> {
  const client = await connectUnlessCanceled(pool, cancellation);
  // While it is checked out the pool does not listen for its errors; the query that it breaks rejects anyway.
  const ignore = () => undefined;
  client.on("error", ignore);
  const stopCanceling = cancelWhenAborted(client, cancellation);
  let failure: Error | undefined;
  try {
    return await work(client);
  } catch (error) {
    if (!(error instanceof SqlError)) failure = asError(error);
    throw asCanceled(error, cancellation);
  } finally {
    await stopCanceling();
    // A signal may still be on its way to the server process: nobody else is to be hit by it.
    if (cancellation?.signal.aborted === true) failure ??= new Error("canceled");
    client.off("error", ignore);
    // After an error that is not ours the connection's state is unknown: closed, not reused.
    client.release(failure);
  }
}

async function transaction<T>(client: PoolClient, begin: string, work: () => Promise<T>): Promise<T> {
  await client.query(begin);
  let result: T;
  try {
    result = await work();
  } catch (error) {
    await client.query("ROLLBACK").catch(() => undefined);
    throw error;
  }
  await client.query("COMMIT");
  return result;
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
