/** The HTTP interface as a fastify application: who may ask, what every answer carries, and how errors look. */

import { randomUUID } from "node:crypto";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { type FastifyInstance, type FastifyReply, type FastifyRequest, fastify } from "fastify";
import type { Identity } from "../auth/identity.ts";
import { SqlError } from "../errors/sql-error.ts";
import type { Log } from "../observe/log.ts";
import { addCors } from "./cors.ts";
import { authenticate, CertificateRefused, type Credentials } from "./credential.ts";
import { addDocumentRoutes } from "./document-routes.ts";
import { answerError } from "./error-answer.ts";
import { HttpError } from "./http-error.ts";
import { parseJsonBody } from "./json-body.ts";
import { addOperationRoutes, type OperationServices } from "./operation-routes.ts";
import { addQueryRoutes, type QueryServices } from "./query-routes.ts";
import type { RateLimit } from "./rate-limit.ts";

export interface AppOptions {
  readonly credentials: Credentials;
  readonly query: QueryServices;
  readonly operation: Omit<OperationServices, "authenticate">;
  /** @throws HttpError 429 */
  readonly rateLimit: RateLimit;
  readonly maxBodyBytes: number;
  readonly isTlsRequired: boolean;
  readonly corsOrigins: readonly string[];
  /** The program's. */
  readonly version: string;
  /** Makes the server that the application answers for. */
  readonly makeServer: (handler: (request: IncomingMessage, response: ServerResponse) => void) => Server;
  /** Before true every request gets 503: the program is still starting, or already ending. */
  readonly isOpen: () => boolean;
  readonly log: Log;
}

/** What every answer carries: it is data for a program, and nothing that a browser should keep, guess at or frame. */
const securityHeaders = {
  "cache-control": "no-store",
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
  "cross-origin-resource-policy": "same-origin",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
} as const;

const requestIdPattern = /^[A-Za-z0-9._:-]{1,64}$/;

export function createApp(options: AppOptions): FastifyInstance {
  const { log } = options;
  const app = fastify({
    logger: false,
    bodyLimit: options.maxBodyBytes,
    // One that would break out of a log line or a header is replaced.
    genReqId: ({ headers }) => {
      const given = headers["x-request-id"];
      return typeof given === "string" && requestIdPattern.test(given) ? given : randomUUID();
    },
    serverFactory: (handler) => options.makeServer(handler),
    frameworkErrors: (error, request, reply) => {
      const answer = answerError(translate(error), request.id, log);
      void (reply as FastifyReply).code(answer.status).headers(answer.headers).send(answer.body);
    },
  });
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("application/json", { parseAs: "buffer" }, (_request, body, done) => {
    try {
      done(null, parseJsonBody(body as Buffer));
    } catch (error) {
      done(error as Error);
    }
  });
  answerOtherMethods(app);
  const identities = new WeakMap<FastifyRequest, Identity>();
  app.addHook("onRequest", async (request, reply) => {
    reply.headers({ ...securityHeaders, "x-request-id": request.id });
    if (!options.isOpen() && request.routeOptions.url !== "/healthz") {
      throw new SqlError("cannot_connect_now", "the database system is not accepting connections");
    }
    if (options.isTlsRequired && !("encrypted" in request.raw.socket)) throw tlsRequired();
  });
  app.addHook("onSend", async (_request, reply) => {
    // Who keeps connections must not send another request on one that is closed after this answer.
    if (!options.isOpen()) reply.header("connection", "close");
  });
  addCors(app, options.corsOrigins);
  app.addHook("onResponse", async (request, reply) => {
    const route = request.routeOptions.url ?? "none";
    options.operation.metrics.observeRequest(route, request.method, reply.statusCode, reply.elapsedTime);
  });
  app.setErrorHandler((error, request, reply) => {
    const answer = answerError(translate(error), request.id, log);
    log.debug(
      { requestId: request.id, status: answer.status, code: answer.body.error.code },
      "request failed",
    );
    if (error instanceof CertificateRefused) reply.header("connection", "close");
    return reply.code(answer.status).headers(answer.headers).send(answer.body);
  });
  const admit = async (request: FastifyRequest): Promise<Identity> => {
    const identity = await authenticate(options.credentials, request.raw, request.id, log);
    await options.rateLimit(identity);
    return identity;
  };
  addDocumentRoutes(app, options.version);
  addOperationRoutes(app, { ...options.operation, authenticate: admit });
  app.register(async (guarded) => {
    guarded.addHook("onRequest", async (request) => {
      identities.set(request, await admit(request));
    });
    addQueryRoutes(guarded, options.query, (request) => {
      const identity = identities.get(request);
      if (identity === undefined) throw new TypeError("the request was not authenticated");
      return identity;
    });
  });
  return app;
}

/** OPTIONS, and the wrong method, at addresses that there are; nothing is anywhere else. */
function answerOtherMethods(app: FastifyInstance): void {
  const methods = new Map<string, Set<string>>();
  app.addHook("onRoute", ({ url, method }) => {
    const known = methods.get(url) ?? new Set();
    for (const name of [method].flat()) known.add(name);
    methods.set(url, known);
  });
  app.setNotFoundHandler((request, reply) => {
    const [path = ""] = request.url.split("?");
    const known = methods.get(path);
    if (known === undefined)
      throw new HttpError(404, "there is nothing here", { hint: "GET /v1/docs shows the addresses." });
    const allow = [...known, "OPTIONS"].join(", ");
    if (request.method === "OPTIONS") return reply.code(204).header("allow", allow).send();
    throw new HttpError(405, `${request.method} is not for this address`, { headers: { allow } });
  });
}

/** fastify's own refusals in our words; everything else stays what it is. */
function translate(error: unknown): unknown {
  const code = typeof error === "object" && error !== null && "code" in error ? error.code : undefined;
  switch (code) {
    case "FST_ERR_CTP_BODY_TOO_LARGE":
      return new HttpError(413, "the body is larger than http.max_body", {
        headers: { connection: "close" },
      });
    case "FST_ERR_CTP_INVALID_MEDIA_TYPE":
      return new HttpError(415, "the body must be application/json", {
        headers: { accept: "application/json" },
      });
    case "FST_ERR_CTP_INVALID_CONTENT_LENGTH":
    case "FST_ERR_CTP_EMPTY_JSON_BODY":
      return new HttpError(400, "the body is not as long as Content-Length says");
    case "FST_ERR_BAD_URL":
      return new HttpError(400, "the address cannot be read");
    default:
      return error;
  }
}

function tlsRequired(): HttpError {
  return new HttpError(426, "TLS is required", {
    hint: "Use https.",
    headers: { upgrade: "TLS/1.2, HTTP/1.1", connection: "upgrade, close" },
  });
}
