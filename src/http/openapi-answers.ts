/** The answers of the OpenAPI document: their statuses, headers and bodies. */

import { httpStatuses } from "../errors/http-status.ts";

/** Part of a document that is JSON in the end. */
export type JsonObject = { readonly [name: string]: unknown };

/** What each status but 200 means, and the headers that come with it. */
export const refusals: Readonly<
  Record<number, { readonly description: string; readonly headers?: string[] }>
> = {
  400: { description: "The request cannot be read, or the statement is wrong." },
  401: { description: "No credential, or none that is accepted.", headers: ["WWW-Authenticate"] },
  403: { description: "The identity may not do that." },
  404: { description: "The database, or what the statement names, is not there." },
  408: { description: "The statement took longer than timeoutMs." },
  409: { description: "It collides with what there is: a constraint, a lock, another transaction." },
  413: { description: "The body or the result is too large." },
  415: { description: "The body is not JSON." },
  426: { description: "TLS is required.", headers: ["Upgrade"] },
  429: { description: "Too many requests, or too many failed logins.", headers: ["Retry-After"] },
  500: { description: "A fault of the server, or of what runs in PostgreSQL." },
  501: { description: "Only a session that lasts can do that: BEGIN, COPY, LISTEN." },
  503: {
    description: "Not at the moment: no connection is free, or PostgreSQL is away.",
    headers: ["Retry-After"],
  },
};

const resultFields: JsonObject = {
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
  notices: {
    type: "array",
    items: { type: "string" },
    description: "What PostgreSQL had to say; absent when nothing.",
  },
};

export const schemas: JsonObject = {
  Field: object({
    name: { type: "string" },
    oid: { type: "integer", description: "The type's oid in pg_type." },
    type: { type: "string", description: "The type's name; that of an array ends in []." },
  }),
  Result: object({ status: { const: "ok" }, ...resultFields }, ["notices"]),
  Results: object({
    status: { const: "ok" },
    results: { type: "array", items: object(resultFields, ["notices"]) },
  }),
  Line: {
    oneOf: [
      object({ meta: object({ fields: { type: "array", items: reference("Field") } }) }),
      object({ row: { type: ["object", "array"] } }),
      object({
        end: object(
          {
            command: { type: "string" },
            rowCount: { type: ["integer", "null"] },
            notices: { type: "array", items: { type: "string" } },
          },
          ["notices"],
        ),
      }),
      object({ error: reference("Failure") }),
    ],
  },
  Error: object({ status: { const: "error" }, error: reference("Failure") }),
  Failure: object(
    {
      code: {
        type: "string",
        description: `A SQLSTATE, or NH and the status for what is no SQL. Statuses by code or by class, its first two characters: ${[...httpStatuses].map(([code, status]) => `${code} ${status}`).join(", ")}; else 500.`,
      },
      message: { type: "string" },
      detail: { type: "string" },
      hint: { type: "string" },
      position: { type: "integer", description: "Character of the statement, from 1." },
      where: { type: "string", description: "What PostgreSQL was in: a function, a line." },
      schema: { type: "string" },
      table: { type: "string" },
      column: { type: "string" },
      dataType: { type: "string" },
      constraint: { type: "string" },
      query: { type: "integer", description: "Which of queries, from 0." },
      requestId: { type: "string", description: "As in the header X-Request-Id, and in the log." },
    },
    ["detail", "hint", "position", "where", "schema", "table", "column", "dataType", "constraint", "query"],
  ),
};

/** `responses` of the document's components: one for each status, and one for all others. */
export function refusalResponses(): JsonObject {
  const byStatus = Object.entries(refusals).map(([status, { description, headers = [] }]) => [
    `Status${status}`,
    {
      ...json(description, reference("Error")),
      headers: Object.fromEntries(
        headers.map((name) => [name, { required: true, schema: { type: "string" } }]),
      ),
    },
  ]);
  return {
    ...Object.fromEntries(byStatus),
    Error: json("Refused or failed; nothing has changed.", reference("Error")),
  };
}

export function json(description: string, schema: unknown): JsonObject {
  return { description, content: { "application/json": { schema } } };
}

export function object(properties: JsonObject, optional: readonly string[] = []): JsonObject {
  return {
    type: "object",
    properties,
    required: Object.keys(properties).filter((name) => !optional.includes(name)),
  };
}

export function reference(name: string, kind: "schemas" | "responses" = "schemas"): JsonObject {
  return { $ref: `#/components/${kind}/${name}` };
}
