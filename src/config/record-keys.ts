/** Keys of [audit] and [log]: what is written down. */

import type { ConfigKey } from "./config-key.ts";

export const recordKeys = [
  {
    key: "audit.level",
    type: { kind: "choice", choices: ["minimal", "standard", "full"] },
    default: "standard",
    doc: "What the audit log records. minimal: AuthFailure, LockoutTriggered, PrivilegeChange, AdminAction; standard: also AuthSuccess, AuthzDenied, KeyUsed; full: also SessionConnect, SessionDisconnect.",
    live: false,
  },
  {
    key: "log.level",
    type: { kind: "choice", choices: ["trace", "debug", "info", "warn", "error", "fatal", "silent"] },
    default: "info",
    env: "NODEDB_LOG_LEVEL",
    doc: "Least severe line that is logged, to standard error.",
    live: true,
  },
  {
    key: "log.format",
    type: { kind: "choice", choices: ["text", "json"] },
    defaultDoc: '"text" on a terminal, else "json"',
    example: "json",
    env: "NODEDB_LOG_FORMAT",
    doc: "Short lines for people, or one JSON object per line.",
    live: false,
  },
] as const satisfies readonly ConfigKey[];
