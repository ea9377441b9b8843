/** What a query request may hold, as TypeBox schemas: the same are checked, and printed in the OpenAPI document. */

import { type Static, type TSchema, Type } from "@sinclair/typebox";
import { type TypeCheck, TypeCompiler } from "@sinclair/typebox/compiler";
import { maxParameters } from "../exec/bind-parameters.ts";
import { HttpError } from "./http-error.ts";

/** Most statements of one transaction. */
const maxQueries = 1000;

const strict = { additionalProperties: false } as const;

const sql = Type.String({ description: "One statement, PostgreSQL's or the front-end's own." });
const params = Type.Array(Type.Unknown(), {
  maxItems: maxParameters,
  description:
    "Values of $1, $2, …: bound, never put into the text. PostgreSQL infers their types; arrays and objects become PostgreSQL arrays or json.",
});
const shared = {
  database: Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 63,
      description: "Else X-NodeDB-Database, else the identity's default.",
    }),
  ),
  rowMode: Type.Optional(
    Type.Union([Type.Literal("object"), Type.Literal("array")], {
      description: "Rows as objects (the default) or as arrays in the order of fields.",
    }),
  ),
  timeoutMs: Type.Optional(
    Type.Integer({ minimum: 1, description: "At most http.statement_timeout, which is also the default." }),
  ),
  readOnly: Type.Optional(Type.Boolean({ description: "Runs in a transaction that can write nothing." })),
};
const isolationLevel = Type.Optional(
  Type.Union([Type.Literal("read committed"), Type.Literal("repeatable read"), Type.Literal("serializable")]),
);

export const singleQuery = Type.Object({ sql, params: Type.Optional(params), ...shared }, strict);

export const severalQueries = Type.Object(
  {
    queries: Type.Array(Type.Object({ sql, params: Type.Optional(params) }, strict), {
      minItems: 1,
      maxItems: maxQueries,
      description: "Statements of one transaction: all hold, or none.",
    }),
    isolationLevel,
    ...shared,
  },
  strict,
);

export const streamQuery = singleQuery;

export type SingleQuery = Static<typeof singleQuery>;
export type SeveralQueries = Static<typeof severalQueries>;

const checkSingle = TypeCompiler.Compile(singleQuery);
const checkSeveral = TypeCompiler.Compile(severalQueries);

/** @throws HttpError 400 that names what is wrong */
export function parseQuery(body: unknown): SingleQuery | SeveralQueries {
  const areSeveral = typeof body === "object" && body !== null && "queries" in body;
  return areSeveral ? check(checkSeveral, body) : check(checkSingle, body);
}

/** @throws HttpError 400 */
export function parseSingleQuery(body: unknown): SingleQuery {
  return check(checkSingle, body);
}

function check<T extends TSchema>(checker: TypeCheck<T>, body: unknown): Static<T> {
  if (checker.Check(body)) return body;
  const error = checker.Errors(body).First();
  const place =
    error === undefined || error.path === "" ? "the body" : error.path.slice(1).replaceAll("/", ".");
  throw new HttpError(400, `${place}: ${(error?.message ?? "is not valid").toLowerCase()}`);
}
