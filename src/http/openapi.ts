/** The OpenAPI 3.1 document: from the schemas that requests are checked with, and the table of statuses. */

import { httpStatuses } from "../errors/http-status.ts";
import { severalQueries, singleQuery } from "./query-schema.ts";

/** Part of a document that is JSON in the end. */
export type JsonObject = { readonly [name: string]: unknown };

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
        get: operation({
          summary: "Whose credential it is: SHOW SESSION.",
          parameters: [databaseHeader],
          answers: { 200: json("One row.", reference("Result")) },
        }),
        post: operation({
          summary: "Runs one statement, or several in one transaction.",
          parameters: [databaseHeader, requestIdHeader],
          body: { oneOf: [singleQuery, severalQueries] },
          answers: {
            200: json("The result, or one for each of queries.", {
              oneOf: [reference("Result"), reference("Results")],
            }),
          },
        }),
      },
      "/v1/query/stream": {
        post: operation({
          summary: "Runs one statement and sends its rows as lines of JSON while they come.",
          parameters: [databaseHeader, requestIdHeader],
          body: singleQuery,
          answers: {
            200: {
              description:
                "Lines: first meta, then row for each row, last end or error. Without one of the latter the answer is not whole.",
              content: { "application/x-ndjson": { schema: reference("Line") } },
            },
          },
        }),
      },
      "/healthz": { get: open("The process is up.", "application/json") },
      "/readyz": { get: open("PostgreSQL answers; 503 when it does not.", "application/json") },
      "/metrics": {
        get: {
          summary: "Metrics for Prometheus. Needs an admin or superuser unless metrics.public is set.",
          responses: {
            200: { description: "Text.", content: { "text/plain": {} } },
            default: reference("Error", "responses"),
          },
        },
      },
      "/v1/openapi.json": { get: open("This document.", "application/json") },
      "/v1/docs": { get: open("This document, for people.", "text/html") },
    },
    components: {
      securitySchemes: {
        bearer: {
          type: "http",
          scheme: "bearer",
          description: "An API key, or a token of an OIDC provider.",
        },
      },
      responses: { Error: json("Refused or failed; nothing has changed.", reference("Error")) },
      schemas,
    },
  };
}

const schemas: JsonObject = {
  Field: object({
    name: { type: "string" },
    oid: { type: "integer", description: "The type's oid in pg_type." },
    type: { type: "string", description: "The type's name; that of an array ends in []." },
  }),
  Result: object(
    {
      status: { const: "ok" },
      command: { type: "string", description: "The words of the command tag, for example INSERT." },
      rowCount: {
        type: ["integer", "null"],
        description: "Rows returned or changed; null for commands that count none.",
      },
      fields: { type: "array", items: reference("Field") },
      rows: {
        type: "array",
        items: { type: ["object", "array"] },
        description:
          "bool, int2, int4, oid, float4 and float8 as JSON values (NaN and the infinities as strings), json and jsonb as they are, arrays as arrays, everything else as PostgreSQL's text.",
      },
      notices: { type: "array", items: { type: "string" } },
    },
    ["notices"],
  ),
  Results: object({
    status: { const: "ok" },
    results: { type: "array", items: { type: "object", description: "As Result, without status." } },
  }),
  Line: {
    oneOf: [
      object({ meta: object({ fields: { type: "array", items: reference("Field") } }) }),
      object({ row: { type: ["object", "array"] } }),
      object({ end: object({ command: { type: "string" }, rowCount: { type: ["integer", "null"] } }) }),
      object({ error: { type: "object", description: "As in Error." } }),
    ],
  },
  Error: object({
    status: { const: "error" },
    error: object(
      {
        code: {
          type: "string",
          description: `A SQLSTATE, or NH and the status for what is no SQL. Statuses by code or by class, its first two characters: ${[...httpStatuses].map(([code, status]) => `${code} ${status}`).join(", ")}; else 500.`,
        },
        message: { type: "string" },
        detail: { type: "string" },
        hint: { type: "string" },
        position: { type: "integer", description: "Character of the statement, from 1." },
        where: { type: "string" },
        schema: { type: "string" },
        table: { type: "string" },
        column: { type: "string" },
        dataType: { type: "string" },
        constraint: { type: "string" },
        query: { type: "integer", description: "Which of queries, from 0." },
        requestId: { type: "string" },
      },
      ["detail", "hint", "position", "where", "schema", "table", "column", "dataType", "constraint", "query"],
    ),
  }),
};

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

function operation(parts: {
  readonly summary: string;
  readonly parameters: readonly JsonObject[];
  readonly body?: unknown;
  readonly answers: JsonObject;
}): JsonObject {
  const { summary, parameters, body, answers } = parts;
  return {
    summary,
    parameters,
    ...(body === undefined
      ? {}
      : { requestBody: { required: true, content: { "application/json": { schema: body } } } }),
    responses: { ...answers, default: reference("Error", "responses") },
  };
}

function open(summary: string, type: string): JsonObject {
  return { summary, security: [], responses: { 200: { description: summary, content: { [type]: {} } } } };
}

function json(description: string, schema: unknown): JsonObject {
  return { description, content: { "application/json": { schema } } };
}

function object(properties: JsonObject, optional: readonly string[] = []): JsonObject {
  return {
    type: "object",
    properties,
    required: Object.keys(properties).filter((name) => !optional.includes(name)),
  };
}

function reference(name: string, kind: "schemas" | "responses" = "schemas"): JsonObject {
  return { $ref: `#/components/${kind}/${name}` };
}
