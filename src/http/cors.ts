/** Which scripts of browsers may call the API (Fetch standard, CORS protocol): none unless the configuration names them. */

import type { FastifyInstance } from "fastify";

const allowedHeaders = "authorization, content-type, x-nodedb-database, x-request-id";
const exposedHeaders = "x-request-id, retry-after, www-authenticate";
/** How long a browser may remember an answer to its preflight, in seconds. */
const maxAgeS = "600";

/** @param origins empty: no header is ever sent; `*` among them: every origin. Cookies are never asked for nor allowed */
export function addCors(app: FastifyInstance, origins: readonly string[]): void {
  if (origins.length === 0) return;
  const isOpen = origins.includes("*");
  app.addHook("onRequest", async (request, reply) => {
    if (!isOpen) reply.header("vary", "origin");
    const { origin } = request.headers;
    if (origin === undefined || !(isOpen || origins.includes(origin))) return;
    reply.headers({
      "access-control-allow-origin": isOpen ? "*" : origin,
      "access-control-expose-headers": exposedHeaders,
    });
    if (request.method !== "OPTIONS" || request.headers["access-control-request-method"] === undefined)
      return;
    reply.headers({
      "access-control-allow-headers": allowedHeaders,
      "access-control-allow-methods": "GET, POST",
      "access-control-max-age": maxAgeS,
    });
  });
}
