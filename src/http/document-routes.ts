/** /v1/openapi.json and the page that is made of it. */

import type { FastifyInstance } from "fastify";
import { openApiDocument } from "./openapi.ts";
import { pageSecurityPolicy, renderPage } from "./openapi-page.ts";

export function addDocumentRoutes(app: FastifyInstance, version: string): void {
  const document = openApiDocument(version);
  const json = JSON.stringify(document);
  const page = renderPage(document);
  app.get("/v1/openapi.json", (_request, reply) => reply.type("application/json; charset=utf-8").send(json));
  app.get("/v1/docs", (_request, reply) =>
    reply.header("content-security-policy", pageSecurityPolicy).type("text/html; charset=utf-8").send(page),
  );
}
