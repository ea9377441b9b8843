/** The OpenAPI 3.1 document: from the schemas that requests are checked with, and what is answered. */

import {
  type JsonObject,
  json,
  object,
  reference,
  refusalResponses,
  refusals,
  schemas,
} from "./openapi-answers.ts";
import { severalQueries, singleQuery } from "./query-schema.ts";

/** Routes that the document describes: method and path. */
export function describedRoutes(document: JsonObject): string[] {
  return Object.entries(document.paths as Record<string, JsonObject>).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
  );
}

export function openApiDocument(version: string): JsonObject {
  return {
    openapi: "3.1.0",
    info: {
      title: "NodeDB over HTTP",
      version,
      description:
        "SQL as the identity of a bearer credential. PostgreSQL decides what it may do; every statement of the PostgreSQL protocol works here that needs no session.",
    },
    security: [{ bearer: [] }],
    paths: {
      "/v1/query": {
        get: {
          summary: "Whose credential it is: SHOW SESSION.",
          parameters: [databaseHeader, requestIdHeader],
          responses: answers(json("One row.", reference("Result")), [400, 401, 403, 404, 426, 429, 503]),
        },
        post: {
          summary: "Runs one statement, or several in one transaction.",
          parameters: [databaseHeader, requestIdHeader],
          requestBody: body({ oneOf: [singleQuery, severalQueries] }),
          responses: answers(
            json("The result, or one for each of queries.", {
              oneOf: [reference("Result"), reference("Results")],
            }),
            ofStatements,
          ),
        },
      },
      "/v1/query/stream": {
        post: {
          summary: "Runs one statement and sends its rows as lines of JSON while they come.",
          parameters: [databaseHeader, requestIdHeader],
          requestBody: body(singleQuery),
          responses: answers(
            {
              description:
                "Lines: first meta, then row for each row, last end or error. Without one of the latter the answer is not whole.",
              content: { "application/x-ndjson": { schema: reference("Line") } },
            },
            ofStatements,
          ),
        },
      },
      "/healthz": {
        get: open("The process is up.", json("It is.", object({ status: { const: "ok" } })), [426]),
      },
      "/readyz": {
        get: open(
          "Whether requests can be served.",
          json("PostgreSQL answers, and the process is not ending.", object({ status: { const: "ready" } })),
          [426, 503],
        ),
      },
      "/metrics": {
        get: {
          summary: "Metrics for Prometheus. Needs an admin or superuser unless metrics.public is set.",
          responses: answers({ description: "Text.", content: { "text/plain": {} } }, [401, 403, 426, 429]),
        },
      },
      "/v1/openapi.json": {
        get: open("This document.", json("OpenAPI 3.1.", { type: "object" }), [426]),
      },
      "/v1/docs": {
        get: open(
          "This document, for people.",
          { description: "A page without scripts.", content: { "text/html": {} } },
          [426],
        ),
      },
    },
    components: {
      securitySchemes: {
        bearer: {
          type: "http",
          scheme: "bearer",
          description: "An API key, or a token of an OIDC provider.",
        },
      },
      responses: refusalResponses(),
      schemas,
    },
  };
}

const ofStatements = Object.keys(refusals).map(Number);

const databaseHeader = {
  name: "X-NodeDB-Database",
  in: "header",
  schema: { type: "string" },
  description: "The database, where the body names none.",
};
const requestIdHeader = {
  name: "X-Request-Id",
  in: "header",
  schema: { type: "string", pattern: "^[A-Za-z0-9._:-]{1,64}$" },
  description:
    "Comes back with the answer, and is in the log. One is made when it is absent or anything else.",
};

/** @param statuses those that are more than a mishap on the way; others have the shape of an error all the same */
function answers(whenGood: JsonObject, statuses: readonly number[]): JsonObject {
  return {
    200: whenGood,
    ...Object.fromEntries(statuses.map((status) => [status, reference(`Status${status}`, "responses")])),
    default: reference("Error", "responses"),
  };
}

/** One that needs no credential. */
function open(summary: string, whenGood: JsonObject, statuses: readonly number[]): JsonObject {
  return { summary, security: [], responses: answers(whenGood, statuses) };
}

function body(schema: unknown): JsonObject {
  return { required: true, content: { "application/json": { schema } } };
}
