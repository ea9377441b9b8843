/** Which messages of a session are passed, noted or looked at, in each direction and state (PostgreSQL manual 54.7). */

import { actionTable, type FramerLimits } from "../wire/framer.ts";
import { maxMessageBytes } from "../wire/limits.ts";
import { countedReplies } from "./reply-ledger.ts";

/**
 * `maxInspectedBytes`: largest Query or Parse that is searched for statements of ours, a little more than the longest of those.
 * Of larger ones only the beginning is looked at.
 */
export const framerLimits: FramerLimits = { maxMessageBytes, maxInspectedBytes: 1024 * 1024 + 64 * 1024 };

export const clientTable = actionTable({ pass: "dH", observe: "BDECSFcf", inspect: "QPX" });
/** While statements of ours are prepared, the messages that may name one are looked at. */
export const clientTableWithOwn = actionTable({ pass: "dH", observe: "DSFcf", inspect: "QPXBEC" });
/** While the client's transaction holds statements of ours: its end must be seen before it happens. */
export const clientTableInTransaction = actionTable({ pass: "dH", observe: "Dcf", inspect: "QPXBECSF" });
/** While the session's claims are due: whatever may begin a transaction waits until they have been sealed anew. */
export const clientTableWhenDue = actionTable({ pass: "dH", observe: "cf", inspect: "QPXBECDSF" });
/** While a COPY that is part of a multi-statement string waits for the client's data. */
export const clientTableInCopy = actionTable({ pass: "dHS", inspect: "cfX" });
export const upstreamTable = actionTable({
  pass: "dcDAtVvNH",
  observe: countedReplies.replace("C", ""),
  inspect: "CZSEGW",
});
/** While the front-end itself talks to the upstream, every reply is decided on singly. */
export const upstreamTableInExchange = actionTable({ pass: "dcDAVvH", inspect: "123CIsTntNZSEGW" });
/** The same where rows are the front-end's own as well. */
export const upstreamTableInOwnQuery = actionTable({ pass: "dcAVvH", inspect: "123CIsTntNZSEGWD" });
/** While functions are called for the front-end itself. */
export const upstreamTableInCalls = actionTable({ pass: "A", inspect: "VNZSE" });
