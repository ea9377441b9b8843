/** POST /v1/query and POST /v1/query/stream. */

import { randomUUID } from "node:crypto";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { Identity, JsonValue } from "../auth/identity.ts";
import { SqlError } from "../errors/sql-error.ts";
import { type RequestServices, RequestSession } from "../exec/request-session.ts";
import type { RequestStatement, RequestStatements, TransactionOptions } from "../exec/request-statements.ts";
import { addressOf, readDatabaseHeader } from "./credential.ts";
import { answerError, FailedQuery } from "./error-answer.ts";
import { HttpError } from "./http-error.ts";
import { answerOne, answerSeveral } from "./query-answer.ts";
import { parseQuery, parseSingleQuery, type SeveralQueries, type SingleQuery } from "./query-schema.ts";
import { requireDistinctNames } from "./row-json.ts";
import { streamRows } from "./row-stream.ts";

export interface QueryServices extends RequestServices {
  /** Makes the built-in roles' grants in a database before its first use; costs nothing the second time. */
  readonly prepareDatabase: (database: string, identity: Identity) => Promise<void>;
  /** @throws SqlError insufficient_privilege, which has been audited */
  readonly requireDatabase: (identity: Identity, database: string, address: string) => void;
  /** False when the principal, its key or its certificate has gone or changed since it was authenticated. */
  readonly isCurrent: (identity: Identity, database: string) => boolean;
  readonly defaultDatabase: string;
  readonly maxRows: number;
  readonly maxResponseBytes: number;
  readonly statementTimeoutMs: number;
}

const jsonType = "application/json; charset=utf-8";
/** One JSON text per line. */
const streamType = "application/x-ndjson; charset=utf-8";

/** Routes whose requests have been authenticated: `identityOf` finds whose they are. */
export function addQueryRoutes(
  app: FastifyInstance,
  services: QueryServices,
  identityOf: (request: FastifyRequest) => Identity,
): void {
  const answer = async (
    request: FastifyRequest,
    reply: FastifyReply,
    query: SingleQuery | SeveralQueries,
  ): Promise<FastifyReply> => {
    const session = await openSession(services, request, identityOf(request), query);
    endWithClient(session, reply);
    const mode = query.rowMode ?? "object";
    const limits = {
      maxRows: services.maxRows,
      maxBytes: services.maxResponseBytes,
      timeoutMs: timeoutOf(query, services),
      ...(mode === "object" ? { checkColumns: requireDistinctNames } : {}),
    };
    if (!("queries" in query)) {
      const result = await session.run(limits, (statements) =>
        statements.runAlone(statementOf(query), optionsOf(query)),
      );
      return reply.type(jsonType).send(answerOne(result, mode));
    }
    let statements: RequestStatements | undefined;
    try {
      const results = await session.run(limits, (opened) => {
        statements = opened;
        return opened.runTogether(query.queries.map(statementOf), optionsOf(query));
      });
      return reply.type(jsonType).send(answerSeveral(results, mode));
    } catch (error) {
      throw statements === undefined ? error : new FailedQuery(statements.current, error);
    }
  };
  app.get("/v1/query", (request, reply) => answer(request, reply, { sql: "SHOW SESSION" }));
  app.post("/v1/query", (request, reply) => answer(request, reply, parseQuery(request.body)));
  app.post("/v1/query/stream", async (request, reply) => {
    const query = parseSingleQuery(request.body);
    const session = await openSession(services, request, identityOf(request), query);
    endWithClient(session, reply);
    const limits = {
      maxRows: Number.POSITIVE_INFINITY,
      maxBytes: services.maxResponseBytes,
      timeoutMs: timeoutOf(query, services),
    };
    const stream = await streamRows(session, limits, query.rowMode ?? "object", {
      run: (statements, listener) => statements.stream(statementOf(query), optionsOf(query), listener),
      wordError: (error) => answerError(error, request.id, services.log).body,
    });
    return reply.type(streamType).send(stream);
  });
}

/** Checks where the request wants to go, and makes the session that it will be. @throws SqlError, HttpError */
export async function openSession(
  services: QueryServices,
  request: FastifyRequest,
  identity: Identity,
  query: SingleQuery | SeveralQueries,
): Promise<RequestSession> {
  const clientAddress = addressOf(request.raw);
  const database = databaseOf(request, query, identity, services.defaultDatabase);
  services.requireDatabase(identity, database, clientAddress);
  await services.prepareDatabase(database, identity);
  // What was awaited takes time, in which the user may have been dropped and another one have got its name.
  if (!services.isCurrent(identity, database)) {
    throw new SqlError("invalid_authorization_specification", "authentication failed");
  }
  return new RequestSession(
    { id: randomUUID(), identity, database, clientAddress, protocol: "http" },
    services,
  );
}

function databaseOf(
  request: FastifyRequest,
  query: SingleQuery | SeveralQueries,
  identity: Identity,
  defaultDatabase: string,
): string {
  const named = readDatabaseHeader(request.raw);
  if (named !== undefined && query.database !== undefined && named !== query.database) {
    throw new HttpError(400, "database and X-NodeDB-Database name two databases");
  }
  return query.database ?? named ?? identity.defaultDatabase ?? defaultDatabase;
}

/** A client that goes away takes its statement with it. */
function endWithClient(session: RequestSession, reply: FastifyReply): void {
  reply.raw.once("close", () => {
    if (!reply.raw.writableFinished) {
      session.fail(new SqlError("connection_failure", "the client has closed the connection"));
    }
  });
}

function timeoutOf(query: SingleQuery | SeveralQueries, services: QueryServices): number {
  const { statementTimeoutMs } = services;
  const { timeoutMs = statementTimeoutMs } = query;
  if (timeoutMs > statementTimeoutMs) {
    throw new HttpError(400, `timeoutMs: more than http.statement_timeout, which is ${statementTimeoutMs}`);
  }
  return timeoutMs;
}

function statementOf({
  sql,
  params,
}: {
  readonly sql: string;
  readonly params?: unknown[];
}): RequestStatement {
  // The body was parsed as JSON: that is all that it can hold.
  return { sql, parameters: (params ?? []) as JsonValue[] };
}

function optionsOf(query: SingleQuery | SeveralQueries): TransactionOptions {
  return {
    isReadOnly: query.readOnly ?? false,
    isolationLevel: "isolationLevel" in query ? query.isolationLevel : undefined,
  };
}
