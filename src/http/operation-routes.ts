/** /healthz, /readyz and /metrics: for those who run the program. */

import type { FastifyInstance, FastifyRequest } from "fastify";
import type { Identity } from "../auth/identity.ts";
import { SqlError } from "../errors/sql-error.ts";
import type { Metrics } from "../observe/metrics.ts";

export interface OperationServices {
  readonly metrics: Metrics;
  readonly areMetricsPublic: boolean;
  /** Whether PostgreSQL answers; asked by anybody, so that it must cost next to nothing. */
  readonly isUpstreamReachable: () => Promise<boolean>;
  /** @throws SqlError, HttpError as for any other request */
  readonly authenticate: (request: FastifyRequest) => Promise<Identity>;
}

export function addOperationRoutes(app: FastifyInstance, services: OperationServices): void {
  const { metrics, areMetricsPublic, isUpstreamReachable, authenticate } = services;
  app.get("/healthz", () => ({ status: "ok" }));
  app.get("/readyz", async () => {
    if (await isUpstreamReachable()) return { status: "ready" };
    throw new SqlError("cannot_connect_now", "the database system is not available");
  });
  app.get("/metrics", async (request, reply) => {
    if (!areMetricsPublic) requireAdmin(await authenticate(request));
    return reply.type(metrics.contentType).send(await metrics.render());
  });
}

function requireAdmin({ effectiveRoles, isSuperuser }: Identity): void {
  if (isSuperuser || effectiveRoles.includes("admin")) return;
  throw new SqlError("insufficient_privilege", "permission denied: only an admin may read the metrics");
}
