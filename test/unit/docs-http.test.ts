/** docs/http.md and the OpenAPI document say what the code does: routes, statuses, refusals, metrics, configuration. */

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import { Validator } from "@seriousme/openapi-schema-validator";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { configKeys } from "../../src/config/schema.ts";
import { conditions } from "../../src/errors/conditions.ts";
import { httpStatuses, httpStatusOf } from "../../src/errors/http-status.ts";
import { type AppOptions, createApp } from "../../src/http/app.ts";
import { describedRoutes, openApiDocument } from "../../src/http/openapi.ts";
import { schemas } from "../../src/http/openapi-answers.ts";
import { renderPage } from "../../src/http/openapi-page.ts";
import { severalQueries, singleQuery } from "../../src/http/query-schema.ts";
import { createMetrics } from "../../src/observe/metrics.ts";

const pagePath = fileURLToPath(new URL("../../docs/http.md", import.meta.url));
const sourceDirectory = fileURLToPath(new URL("../../src/http", import.meta.url));
const page = readFileSync(pagePath, "utf8");

/** Rows of the table between two marks, each as its cells. */
function tableOf(name: string): string[][] {
  const table = new RegExp(`<!-- ${name} -->\n([\\s\\S]*?)<!-- /${name} -->`).exec(page)?.[1] ?? "";
  return table
    .split("\n")
    .filter((line) => line.startsWith("|"))
    .slice(2)
    .map((line) =>
      line
        .slice(1, -1)
        .split("|")
        .map((cell) => cell.trim().replaceAll("`", "")),
    );
}

const metrics = createMetrics({
  sessions: () => [],
  pool: () => ({ open: 0, idle: 0, waiting: 0 }),
  keySets: () => [],
});
const routes: string[] = [];

beforeAll(async () => {
  const options = {
    corsOrigins: [],
    maxBodyBytes: 1024,
    operation: { metrics, areMetricsPublic: true, isUpstreamReachable: async () => true },
    makeServer: (handler: Parameters<AppOptions["makeServer"]>[0]) => createServer(handler),
    isOpen: () => true,
    version: "0",
  } as unknown as AppOptions;
  const app = createApp(options);
  await app.ready();
  // Printed as a tree: a path below another one is printed without it, four columns further in.
  const above: string[] = [];
  for (const [, indent = "", part = "", methods = ""] of app
    .printRoutes({ commonPrefix: false })
    .matchAll(/^([│ ]*)[├└]── (\S+) \(([^)]*)\)/gm)) {
    const depth = indent.length / 4;
    above.length = depth;
    above.push(part);
    for (const method of methods.split(", ")) {
      if (method !== "HEAD") routes.push(`${method} ${above.join("")}`);
    }
  }
  await app.close();
});

afterAll(() => expect(routes.length).toBeGreaterThan(5));

describe("docs/http.md", () => {
  test("names every route and no other", () => {
    expect(
      tableOf("routes")
        .map(([route]) => route)
        .toSorted(),
    ).toEqual(routes.toSorted());
  });

  test("names every field of a request, and every field of an error", () => {
    const fields = [singleQuery, severalQueries].flatMap(({ properties }) => Object.keys(properties));
    expect(
      tableOf("request fields")
        .map(([name]) => name)
        .toSorted(),
    ).toEqual([...new Set(fields)].toSorted());
    const errors = page.slice(page.indexOf("## Errors"));
    for (const name of Object.keys((schemas.Failure as { properties: object }).properties)) {
      expect(errors, name).toMatch(name === "message" ? /"message":/ : `\`${name}\``);
    }
  });

  test("its table of statuses is the code's", () => {
    const rows = [...httpStatuses].map(([code, status]) => `| \`${code}\` | ${status} |\n`);
    const table = `| SQLSTATE or class | status |\n| --- | --- |\n${rows.join("")}`;
    if (process.env.NODEDB_TEST_UPDATE_DOCS === "1") {
      const marks = /(<!-- statuses -->\n)[\s\S]*(<!-- \/statuses -->)/;
      writeFileSync(
        pagePath,
        page.replace(marks, (_all, start, end) => `${start}${table}${end}`),
      );
    }
    expect(readFileSync(pagePath, "utf8")).toContain(`<!-- statuses -->\n${table}<!-- /statuses -->`);
  });

  test("names the refusals without SQL that there are", () => {
    const thrown = new Set<string>();
    for (const file of readdirSync(sourceDirectory)) {
      const source = readFileSync(`${sourceDirectory}/${file}`, "utf8");
      for (const [, status] of source.matchAll(/new HttpError\(\s*(\d{3})/g)) thrown.add(`NH${status}`);
      if (file !== "malformed-request.ts") continue;
      for (const [, status] of source.matchAll(/\[(\d{3}), "/g)) thrown.add(`NH${status}`);
    }
    expect(tableOf("refusals").map(([code]) => code)).toEqual([...thrown].toSorted());
  });

  test("names every metric of the program's own", async () => {
    const own = [...(await metrics.render()).matchAll(/^# TYPE (nodedb_\w+)/gm)].map(([, name]) => name);
    expect(
      tableOf("metrics")
        .map(([name]) => name)
        .toSorted(),
    ).toEqual(own.toSorted());
  });

  test("names no configuration key that there is not", () => {
    const keys = new Set<string>(configKeys.map(({ key }) => key));
    const named = page.match(/`(?:http|metrics|server|auth|upstream)\.[a-z_.]+/g) ?? [];
    expect(named.length).toBeGreaterThan(10);
    for (const name of named) expect(keys).toContain(name.slice(1));
    for (const key of keys) if (/^(http|metrics)\./.test(key)) expect(page).toContain(`\`${key}`);
  });
});

describe("the table of statuses", () => {
  test("prefers a code to its class, and has an answer for the unknown", () => {
    expect(httpStatusOf("23505")).toBe(409);
    expect(httpStatusOf("23514")).toBe(400);
    expect(httpStatusOf("28P01")).toBe(401);
    expect(httpStatusOf("53300")).toBe(503);
    expect(httpStatusOf("08006")).toBe(503);
    expect(httpStatusOf("57014")).toBe(408);
    expect(httpStatusOf("40001")).toBe(409);
    expect(httpStatusOf("42501")).toBe(403);
    expect(httpStatusOf("ZZ999")).toBe(500);
  });

  test("gives no condition of ours but bugs a 500", () => {
    const failing = Object.entries(conditions).filter(([, sqlstate]) => httpStatusOf(sqlstate) === 500);
    expect(failing.map(([name]) => name).toSorted()).toEqual(["data_corrupted", "internal_error"]);
  });
});

describe("the OpenAPI document", () => {
  const document = openApiDocument("1.2.3");

  test("describes every route and no other", () => {
    expect(describedRoutes(document).toSorted()).toEqual(routes.toSorted());
  });

  test("is one by the schema of OpenAPI 3.1", async () => {
    const { valid, errors } = await new Validator().validate(JSON.parse(JSON.stringify(document)));
    expect(valid, JSON.stringify(errors)).toBe(true);
    const broken = { ...document, paths: { "/v1/query": { post: { responses: { 200: {} } } } } };
    expect((await new Validator().validate(JSON.parse(JSON.stringify(broken)))).valid).toBe(false);
  });

  test("refers to nothing that it does not hold", () => {
    const text = JSON.stringify(document);
    const references = [...text.matchAll(/"\$ref":"#\/([^"]+)"/g)].map(([, path = ""]) => path.split("/"));
    expect(references.length).toBeGreaterThan(5);
    for (const path of references) {
      let part: unknown = document;
      for (const name of path) part = (part as Record<string, unknown>)[name];
      expect(part, path.join("/")).toBeDefined();
    }
  });

  test("is a page that loads nothing and runs nothing", () => {
    const html = renderPage(document);
    for (const route of routes) expect(html).toContain(`<b>${route.split(" ")[0]}</b>${route.split(" ")[1]}`);
    expect(html).not.toMatch(/<script|<img|<link|<iframe|@import|url\(|\son\w+=|style="/i);
    expect([...html.matchAll(/(?:href|src)="([^"]*)"/g)].map(([, target]) => target)).toEqual([
      "/v1/openapi.json",
    ]);
  });
});
