/** Keys of [upstream]: the PostgreSQL behind, and the pool of connections to it. */

import { type ConfigKey, count, duration } from "./config-key.ts";

export const upstreamKeys = [
  {
    key: "upstream.url",
    type: { kind: "text" },
    defaultDoc: "none: embedded PostgreSQL",
    example: `postgres://front_end:\${UPSTREAM_PASSWORD}@db.example.com:5432/app`,
    env: "NODEDB_UPSTREAM_URL",
    doc: "An existing PostgreSQL to stand in front of, with an administrative login. A password belongs in the environment; a file that holds one is refused when everybody may read it.",
    live: false,
  },
  {
    key: "upstream.tls",
    type: { kind: "choice", choices: ["disable", "prefer", "verify-full"] },
    defaultDoc: '"prefer" when the host of upstream.url is this machine, else "verify-full"',
    example: "verify-full",
    doc: "TLS towards the upstream; verify-full checks the certificate and the host's name.",
    live: false,
  },
  {
    key: "upstream.pool_mode",
    type: { kind: "choice", choices: ["session"] },
    default: "session",
    env: "NODEDB_POOL_MODE",
    doc: "How long a client keeps an upstream connection: until it leaves.",
    live: false,
  },
  {
    key: "upstream.pool_size",
    type: count(1, 10_000, "connections"),
    default: 20,
    doc: "Upstream connections per identity and database.",
    live: true,
  },
  {
    key: "upstream.max_connections",
    type: count(1, 10_000, "connections"),
    default: 90,
    doc: "Upstream connections of all pools together; idle ones of others are closed to make room.",
    live: true,
  },
  {
    key: "upstream.queue_timeout",
    type: duration(0),
    default: "15s",
    doc: "How long a client waits for an upstream connection before it gets 53300; 0 does not wait.",
    live: true,
  },
  {
    key: "upstream.idle_timeout",
    type: duration(0),
    default: "10m",
    doc: "How long an unused upstream connection is kept; 0 keeps it.",
    live: true,
  },
  {
    key: "upstream.max_lifetime",
    type: duration(0),
    default: "1h",
    doc: "Age at which an upstream connection is closed after its use; 0 is no limit.",
    live: true,
  },
  {
    key: "upstream.default_database",
    type: { kind: "text" },
    defaultDoc: '"nodedb" with the embedded PostgreSQL, else the database of upstream.url',
    example: "app",
    doc: "Database of a client that names none and whose user has no default of its own.",
    live: false,
  },
] as const satisfies readonly ConfigKey[];
