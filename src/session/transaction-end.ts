/** COMMIT, ROLLBACK and savepoints of a transaction that holds statements of ours: both parts end the same way. */

import type { TransactionControl } from "../ddl/transaction-control.ts";
import { SqlError } from "../errors/sql-error.ts";
import { encodeCommandComplete, encodeSqlError } from "../wire/backend-message.ts";
import { decodeCommandComplete, decodeErrorFields } from "../wire/backend-message-decoding.ts";
import { encodeQuery } from "../wire/frontend-message-encoding.ts";
import { forwardText, type TextPart } from "./forward-text.ts";
import { type CommitAnswer, PendingCommit } from "./pending-commit.ts";
import { failTransaction } from "./query-errors.ts";
import type { QuerySession } from "./query-session.ts";

/** PostgreSQL's warning that a transaction is there already; it would speak of one that the client never began. */
const alreadyInTransaction = "25001";

/**
 * What the client is told. "silent": the front-end's own end of an implicit transaction, of which it sees errors only; "takes
 * over": its BEGIN in one, which goes on as a block of the client's.
 */
export type ControlMode = "told" | "silent" | "takes over";

/**
 * Runs one statement that controls the transaction, upstream and here.
 *
 * @returns false when it failed, and the client has been told
 */
export async function runTransactionControl(
  session: QuerySession,
  text: Buffer,
  part: TextPart,
  control: TransactionControl,
  mode: ControlMode,
): Promise<boolean> {
  const { relay, paired } = session;
  const keepSilent = mode === "silent";
  if (control.kind === "commit" && paired.isOpen && relay.ledger.status === "T") {
    return commitBoth(session, text, part, keepSilent);
  }
  if (control.kind === "prepare_transaction" && paired.isOpen) {
    await failTransaction(relay);
    relay.writeToClient(encodeSqlError(cannotPrepare()));
    return false;
  }
  const isDone = await forwardText(relay, text, part, (type, body) => {
    if (keepSilent) return "drop";
    const isWarning = type === "N" && mode === "takes over";
    return isWarning && decodeErrorFields(body).get("C") === alreadyInTransaction ? "drop" : "forward";
  });
  if (isDone) await followControl(session, control);
  if (relay.ledger.status === "I") await paired.discard(relay.signal);
  relay.isWatchingTransaction = paired.isOpen;
  return isDone;
}

/** What a control that PostgreSQL has carried out means for the statements of ours. */
export async function followControl(session: QuerySession, control: TransactionControl): Promise<void> {
  const { paired, relay } = session;
  switch (control.kind) {
    case "savepoint":
      paired.setSavepoint(control.name);
      return;
    case "release":
      paired.releaseSavepoint(control.name);
      return;
    case "rollback_to":
      await paired.rollBackTo(control.name);
      return;
    case "commit":
    case "rollback":
      // A commit that gets here has found the transaction failed.
      await paired.discard(relay.signal);
      return;
    default:
      return;
  }
}

/** The statements of ours first, held open; then PostgreSQL's COMMIT; then theirs and ours hold, or neither. */
async function commitBoth(
  session: QuerySession,
  text: Buffer,
  part: TextPart,
  keepSilent: boolean,
): Promise<boolean> {
  const { relay, runner, paired } = session;
  let pending: PendingCommit | undefined;
  try {
    pending = await PendingCommit.begin(session, "simple");
  } catch (error) {
    await relay.converse(encodeQuery("ROLLBACK"), true, (type) => (type === "Z" ? "finish" : "drop"));
    await paired.discard(relay.signal);
    relay.isWatchingTransaction = false;
    if (!relay.isStopped) relay.writeToClient(runner.encodeError(error));
    return false;
  }
  let tag: string | undefined;
  await forwardText(relay, text, part, (type, body) => {
    if (type === "C") tag = decodeCommandComplete(body);
    return type === "C" || keepSilent ? "drop" : "forward";
  });
  relay.isWatchingTransaction = false;
  try {
    await pending?.end(answerOf(tag));
  } catch (error) {
    if (!relay.isStopped) relay.writeToClient(runner.encodeError(error));
    return false;
  }
  if (tag !== undefined && !keepSilent && !relay.isStopped) relay.writeToClient(encodeCommandComplete(tag));
  return tag !== undefined;
}

/** @param tag of what was to be the COMMIT; undefined when it was not completed */
export function answerOf(tag: string | undefined): CommitAnswer {
  if (tag === undefined) return "unknown";
  return tag === "COMMIT" ? "committed" : "not committed";
}

export function cannotPrepare(): SqlError {
  return new SqlError(
    "feature_not_supported",
    "cannot PREPARE a transaction that has changed users, roles or keys",
  );
}
