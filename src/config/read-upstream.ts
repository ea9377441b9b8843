/** [upstream] of the configuration, its URL taken apart. */

import type { Config, UpstreamTls } from "./config.ts";
import { type ConfigFiles, isWorldReadable } from "./config-files.ts";
import type { KeyReader } from "./key-reader.ts";
import { Secret } from "./secret.ts";
import { isThisMachine, parseUpstreamUrl, type UpstreamAddress } from "./upstream-url.ts";

/**
 * What is wrong is noted in the reader.
 *
 * @param file the configuration file; undefined when there is none
 */
export function readUpstream(
  reader: KeyReader,
  files: ConfigFiles,
  file: string | undefined,
): Config["upstream"] {
  const upstreamUrl = reader.text("upstream.url");
  const upstream = checkUpstreamUrl(upstreamUrl);
  const defaultDatabase =
    reader.text("upstream.default_database") ?? (upstreamUrl === undefined ? "nodedb" : upstream?.database);
  const tlsDefault: UpstreamTls =
    upstream === undefined || isThisMachine(upstream.host) ? "prefer" : "verify-full";
  // Only to refuse another mode: there is one.
  reader.choice("upstream.pool_mode");
  return {
    ...(upstreamUrl === undefined ? {} : { url: new Secret(upstreamUrl) }),
    tls: reader.choice("upstream.tls") ?? tlsDefault,
    poolMode: "session",
    poolSize: reader.number("upstream.pool_size"),
    maxConnections: reader.number("upstream.max_connections"),
    queueTimeoutMs: reader.number("upstream.queue_timeout"),
    idleTimeoutMs: reader.number("upstream.idle_timeout"),
    maxLifetimeMs: reader.number("upstream.max_lifetime"),
    ...(defaultDatabase === undefined ? {} : { defaultDatabase }),
  };

  function checkUpstreamUrl(text: string | undefined): UpstreamAddress | undefined {
    if (text === undefined) {
      return undefined;
    }
    const outcome = parseUpstreamUrl(text);
    if (!outcome.ok) {
      reader.blame("upstream.url", outcome.reason);
      return undefined;
    }
    if (
      file !== undefined &&
      reader.isLiteralInFile("upstream.url", holdsPassword) &&
      isWorldReadable(files, file)
    ) {
      reader.blame(
        "upstream.url",
        `holds a password, and everybody may read this file: run chmod 600 ${file}, or write \${VARIABLE} for the password`,
      );
    }
    return outcome.address;
  }
}

function holdsPassword(url: string): boolean {
  return /^\w+:\/\/[^@/?#]*:[^@/?#]+@/.test(url);
}
