/** Keys of [http] and [metrics]. */

import { type ConfigKey, count, duration, kib, mib, size } from "./config-key.ts";

export const httpKeys = [
  {
    key: "http.enabled",
    type: { kind: "boolean" },
    default: true,
    env: "NODEDB_HTTP_ENABLED",
    doc: "Whether HTTP is served at all.",
    live: false,
  },
  {
    key: "http.max_body",
    type: size(kib, 64 * mib),
    default: "1MiB",
    doc: "Largest body of a request; a larger one gets 413.",
    live: false,
  },
  {
    key: "http.max_rows",
    type: count(1, 10_000_000, "rows"),
    default: 10_000,
    doc: "Most rows that POST /v1/query returns of one statement; one with more is undone and gets 413. A stream has no such limit.",
    live: true,
  },
  {
    key: "http.max_response",
    type: size(kib, 1024 * mib),
    default: "64MiB",
    doc: "Most bytes that POST /v1/query collects of one request's rows, as PostgreSQL sends them; and the largest single row of a stream. More gets 413.",
    live: true,
  },
  {
    key: "http.statement_timeout",
    type: duration(1),
    default: "30s",
    doc: "How long the statements of one request may run before they are canceled (57014); a request can ask for less.",
    live: true,
  },
  {
    key: "http.requests_per_min",
    type: count(0, 10_000_000, "requests"),
    default: 0,
    doc: "Requests of one identity within a minute, after which further ones get 429; 0 is unlimited.",
    live: false,
  },
  {
    key: "http.cors_origins",
    type: { kind: "text" },
    defaultDoc: "none: no CORS",
    example: "https://app.example.com",
    doc: "Origins whose scripts may call the API from a browser, separated by commas; * for all.",
    live: false,
  },
  {
    key: "metrics.public",
    type: { kind: "boolean" },
    default: false,
    doc: "Whether /metrics is served without a credential; else it takes that of an admin or superuser.",
    live: false,
  },
] as const satisfies readonly ConfigKey[];
