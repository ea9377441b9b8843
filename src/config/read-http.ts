/** [http] of the configuration, its origins looked at. */

import type { Config } from "./config.ts";
import type { KeyReader } from "./key-reader.ts";

/** What is wrong is noted in the reader. */
export function readHttp(reader: KeyReader): Config["http"] {
  return {
    enabled: reader.boolean("http.enabled"),
    maxBodyBytes: reader.number("http.max_body"),
    maxRows: reader.number("http.max_rows"),
    maxResponseBytes: reader.number("http.max_response"),
    statementTimeoutMs: reader.number("http.statement_timeout"),
    requestsPerMin: reader.number("http.requests_per_min"),
    corsOrigins: readCorsOrigins(reader),
  };
}

function readCorsOrigins(reader: KeyReader): string[] {
  const origins = (reader.text("http.cors_origins") ?? "")
    .split(",")
    .map((origin) => origin.trim())
    .filter((origin) => origin !== "");
  const wrong = origins.find((origin) => origin !== "*" && !isOrigin(origin));
  if (wrong !== undefined) {
    reader.blame("http.cors_origins", "must hold origins such as https://app.example.com, or *");
  }
  return origins;
}

/** An origin as browsers send it (RFC 6454 section 6.2): scheme, host and port only. */
function isOrigin(text: string): boolean {
  return URL.canParse(text) && new URL(text).origin === text;
}
