/** What a session's statements of ours work on. */

import type { PairedTransaction } from "../exec/paired-transaction.ts";
import type { Relay } from "./relay.ts";
import type { StatementRunner } from "./statement-runner.ts";

export interface QuerySession {
  readonly relay: Relay;
  readonly runner: StatementRunner;
  readonly paired: PairedTransaction;
}
