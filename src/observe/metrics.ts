/** What the program counts and measures, in Prometheus' text format; docs/http.md lists every metric. */

import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";

/** A session's door and what it is doing. */
export interface SessionMeasure {
  readonly session: { readonly profile: { readonly protocol: string } };
  readonly state: string;
}

/** The JWK set of an issuer; an issuer may have several, by URL. */
export interface KeySetMeasure {
  readonly issuer: string;
  /** undefined: there is no set. */
  readonly ageMs: number | undefined;
  /** Attempts to fetch it that have failed since the last good one. */
  readonly failures: number;
}

/** What is asked for when the page is: nothing is counted twice. */
export interface MetricSources {
  sessions(): Iterable<SessionMeasure>;
  pool(): { readonly open: number; readonly idle: number; readonly waiting: number };
  keySets(): Iterable<KeySetMeasure>;
}

export interface Metrics {
  /** A login or token. @param method `AuthMethod` */
  countAuthentication(method: string, outcome: "accepted" | "refused"): void;
  /** How long a session or request has waited for its upstream connection, in ms. */
  observeQueue(waitedMs: number): void;
  /** How long the statements of one HTTP request took, in ms. */
  observeQuery(tookMs: number, outcome: "ok" | "error"): void;
  /** An HTTP answer. @param route as it is written in the code, never what a client has sent */
  observeRequest(route: string, method: string, status: number, tookMs: number): void;
  /** The page. */
  render(): Promise<string>;
  readonly contentType: string;
}

/** From a local statement to one that is nearly too slow, in seconds. */
const buckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

export function createMetrics(sources: MetricSources): Metrics {
  const registry = new Registry();
  const registers = [registry];
  // The event loop's delay is sampled by a timer; ten times a second costs nothing.
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 100 });
  new Gauge({
    name: "nodedb_sessions",
    help: "Client sessions, by protocol and state.",
    labelNames: ["protocol", "state"],
    registers,
    collect() {
      this.reset();
      for (const { session, state } of sources.sessions()) {
        this.inc({ protocol: session.profile.protocol, state });
      }
    },
  });
  new Gauge({
    name: "nodedb_upstream_connections",
    help: "Connections to PostgreSQL that are pooled for clients, by state.",
    labelNames: ["state"],
    registers,
    collect() {
      const { open, idle } = sources.pool();
      this.set({ state: "idle" }, idle);
      this.set({ state: "in use" }, open - idle);
    },
  });
  new Gauge({
    name: "nodedb_upstream_waiting",
    help: "Sessions and requests that wait for an upstream connection.",
    registers,
    collect() {
      this.set(sources.pool().waiting);
    },
  });
  new Gauge({
    name: "nodedb_jwks_age_seconds",
    help: "Time since an issuer's keys were last fetched; absent while there are none.",
    labelNames: ["issuer"],
    registers,
    collect() {
      this.reset();
      for (const [issuer, { ageMs }] of worstByIssuer(sources.keySets())) {
        if (ageMs !== undefined) this.set({ issuer }, ageMs / 1000);
      }
    },
  });
  new Gauge({
    name: "nodedb_jwks_failures",
    help: "Attempts to fetch an issuer's keys that have failed since the last good one.",
    labelNames: ["issuer"],
    registers,
    collect() {
      this.reset();
      for (const [issuer, { failures }] of worstByIssuer(sources.keySets())) this.set({ issuer }, failures);
    },
  });
  const authentications = new Counter({
    name: "nodedb_authentications_total",
    help: "Logins and tokens, by method and outcome.",
    labelNames: ["method", "outcome"],
    registers,
  });
  const queue = new Histogram({
    name: "nodedb_upstream_queue_seconds",
    help: "Time from asking for an upstream connection to having it.",
    buckets,
    registers,
  });
  const queries = new Histogram({
    name: "nodedb_http_query_seconds",
    help: "Time that the statements of one HTTP request took, by outcome.",
    labelNames: ["outcome"],
    buckets,
    registers,
  });
  const requests = new Histogram({
    name: "nodedb_http_request_seconds",
    help: "Time from an HTTP request's header to the end of its answer, by route, method and status.",
    labelNames: ["route", "method", "status"],
    buckets,
    registers,
  });
  return {
    countAuthentication: (method, outcome) => authentications.inc({ method, outcome }),
    observeQueue: (waitedMs) => queue.observe(waitedMs / 1000),
    observeQuery: (tookMs, outcome) => queries.observe({ outcome }, tookMs / 1000),
    observeRequest: (route, method, status, tookMs) =>
      requests.observe({ route, method, status: String(status) }, tookMs / 1000),
    render: () => registry.metrics(),
    contentType: registry.contentType,
  };
}

/** Of several sets of one issuer the oldest age and the most failures; one that is not there has no age. */
function worstByIssuer(
  keySets: Iterable<KeySetMeasure>,
): ReadonlyMap<string, Pick<KeySetMeasure, "ageMs" | "failures">> {
  const worst = new Map<string, Pick<KeySetMeasure, "ageMs" | "failures">>();
  for (const { issuer, ageMs, failures } of keySets) {
    const known = worst.get(issuer) ?? { ageMs, failures };
    const isUnknown = ageMs === undefined || known.ageMs === undefined;
    worst.set(issuer, {
      ageMs: isUnknown ? undefined : Math.max(ageMs, known.ageMs),
      failures: Math.max(failures, known.failures),
    });
  }
  return worst;
}
