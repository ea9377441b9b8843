/** The OpenAPI document as one page for people: no script, nothing from elsewhere. */

import { createHash } from "node:crypto";
import type { JsonObject } from "./openapi-answers.ts";

const style = `
:root { color-scheme: light dark; --line: #8885; --soft: #8882; --accent: #2a6; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem 1.25rem 4rem; }
h1 { margin-bottom: 0; }
h2 { border-top: 1px solid var(--line); margin-top: 2.5rem; padding-top: 1.25rem; }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; }
h2 b { color: var(--accent); font-family: ui-monospace, monospace; margin-right: .5rem; }
code, pre { font: 14px/1.45 ui-monospace, monospace; }
pre { background: var(--soft); border-radius: 6px; overflow-x: auto; padding: .75rem 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
td, th { border-bottom: 1px solid var(--line); padding: .35rem .9rem .35rem 0; text-align: left; vertical-align: top; }
`;

/** What the page's answer carries instead of the policy of all others: its own style, and no more. */
export const pageSecurityPolicy = `default-src 'none'; style-src 'sha256-${createHash("sha256").update(style).digest("base64")}'; frame-ancestors 'none'`;

/** Commands by route; several are a blank line apart. */
export const examples: Readonly<Record<string, string>> = {
  "GET /v1/query": `curl -H "Authorization: Bearer $KEY" http://localhost:6480/v1/query`,
  "POST /v1/query": `curl -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" \\
     -d '{"sql": "SELECT * FROM item WHERE id = $1", "params": [7]}' http://localhost:6480/v1/query

curl -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" \\
     -d '{"queries": [{"sql": "INSERT INTO item (id) VALUES (8)"}, {"sql": "SELECT count(*) FROM item"}]}' \\
     http://localhost:6480/v1/query`,
  "POST /v1/query/stream": `curl -N -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" \\
     -d '{"sql": "SELECT * FROM item"}' http://localhost:6480/v1/query/stream`,
};

export function renderPage(document: JsonObject): string {
  const { info, paths, components } = document as {
    readonly info: { readonly title: string; readonly version: string; readonly description: string };
    readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
    readonly components: {
      readonly schemas: Readonly<Record<string, Schema>>;
      readonly responses: Readonly<Record<string, Response>>;
    };
  };
  const operations = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) =>
      renderOperation(method.toUpperCase(), path, operation, components.responses),
    ),
  );
  const schemas = Object.entries(components.schemas).map(
    ([name, schema]) => `<h2 id="${escapeHtml(name)}">${escapeHtml(name)}</h2>${renderSchema(schema)}`,
  );
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${escapeHtml(info.title)}</title>
<style>${style}</style>
</head>
<body>
<h1>${escapeHtml(info.title)}</h1>
<p>Version ${escapeHtml(info.version)} · <a href="/v1/openapi.json">openapi.json</a></p>
<p>${escapeHtml(info.description)}</p>
${operations.join("\n")}
${schemas.join("\n")}
</body>
</html>
`;
}

interface Schema {
  readonly type?: string | readonly string[];
  readonly description?: string;
  readonly const?: unknown;
  readonly $ref?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly items?: Schema;
  readonly oneOf?: readonly Schema[];
  readonly anyOf?: readonly Schema[];
}

interface Operation {
  readonly summary: string;
  readonly parameters?: readonly { readonly name: string; readonly description: string }[];
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly schema: Schema }>> };
  readonly responses: Readonly<Record<string, Response | { readonly $ref: string }>>;
}

interface Response {
  readonly description: string;
  readonly headers?: Readonly<Record<string, unknown>>;
}

function renderOperation(
  method: string,
  path: string,
  operation: Operation,
  shared: Readonly<Record<string, Response>>,
): string {
  const { summary, parameters = [], requestBody, responses } = operation;
  const example = examples[`${method} ${path}`];
  const headers = parameters.map(
    ({ name, description }) => `<tr><td><code>${escapeHtml(name)}</code><td>${escapeHtml(description)}`,
  );
  const body = Object.values(requestBody?.content ?? {}).map(({ schema }) => renderSchema(schema));
  const answers = Object.entries(responses).map(([status, response]) => {
    const { description, headers = {} } =
      "$ref" in response ? (shared[nameOf(response.$ref)] ?? noResponse) : response;
    const more = Object.keys(headers).map((name) => ` Has <code>${escapeHtml(name)}</code>.`);
    const name = status === "default" ? "other" : status;
    return `<tr><td>${escapeHtml(name)}<td>${escapeHtml(description)}${more.join("")}`;
  });
  return `<h2><b>${method}</b>${escapeHtml(path)}</h2>
<p>${escapeHtml(summary)}</p>
${example === undefined ? "" : `<pre>${escapeHtml(example)}</pre>`}
${headers.length === 0 ? "" : `<h3>Headers</h3><table>${headers.join("")}</table>`}
${body.length === 0 ? "" : `<h3>Body</h3>${body.join("")}`}
<h3>Answers</h3><table>${answers.join("")}</table>`;
}

const noResponse: Response = { description: "" };

function renderSchema(schema: Schema): string {
  const choices = schema.oneOf ?? schema.anyOf;
  if (choices !== undefined) return choices.map(renderSchema).join("<p>or</p>");
  if (schema.properties === undefined) return `<p>${escapeHtml(typeOf(schema))}</p>`;
  const rows = Object.entries(schema.properties).map(([name, property]) => {
    const isOptional = schema.required?.includes(name) !== true;
    const nested = property.properties ?? property.items?.properties;
    const text = [
      property.description,
      nested === undefined ? undefined : `with ${Object.keys(nested).join(", ")}`,
    ]
      .filter((part) => part !== undefined)
      .join(" ");
    return `<tr><td><code>${escapeHtml(name)}</code>${isOptional ? "" : " *"}<td>${escapeHtml(typeOf(property))}<td>${escapeHtml(text)}`;
  });
  const inner = Object.values(schema.properties)
    .filter(({ properties }) => properties !== undefined)
    .map(renderSchema);
  return `<table><tr><th>name (* required)<th>type<th>${rows.join("")}</table>${inner.join("")}`;
}

function typeOf(schema: Schema): string {
  if (schema.$ref !== undefined) return nameOf(schema.$ref);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  const choices = schema.oneOf ?? schema.anyOf;
  if (choices !== undefined) return choices.map(typeOf).join(" or ");
  if (schema.items !== undefined) return `array of ${typeOf(schema.items)}`;
  return [schema.type ?? "any"].flat().join(" or ");
}

/** The last part of a reference. */
function nameOf(reference: string): string {
  return reference.replace(/^.*\//, "");
}

function escapeHtml(text: string): string {
  return text.replaceAll(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
