/** nodedb.toml and the environment → Config, or every mistake in them at once. */

import type { KeyValues } from "./changed-keys.ts";
import type { Config, ConfigMistake } from "./config.ts";
import { type ConfigFiles, nodeFiles } from "./config-files.ts";
import { KeyReader } from "./key-reader.ts";
import { readAuth } from "./read-auth.ts";
import { readHttp } from "./read-http.ts";
import { readServer } from "./read-server.ts";
import { readUpstream } from "./read-upstream.ts";
import { configKeys } from "./schema.ts";
import { parseTomlFile, type TomlLeaf } from "./toml-file.ts";

export interface LoadOptions {
  /** From --config; else NODEDB_CONFIG; else nodedb.toml, when there is one. */
  readonly path?: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Whether the log goes to a terminal; decides the default of log.format. */
  readonly isTerminal?: boolean;
  readonly files?: ConfigFiles;
}

export type LoadOutcome =
  | {
      readonly ok: true;
      readonly config: Config;
      readonly file: string | undefined;
      /** To tell which keys differ from another reading. */
      readonly values: KeyValues;
    }
  | { readonly ok: false; readonly mistakes: readonly ConfigMistake[] };

const defaultFile = "nodedb.toml";

/** Reads the file, lays the environment over it, and checks everything; opens nothing else. */
export function loadConfig(options: LoadOptions): LoadOutcome {
  const { env } = options;
  const files = options.files ?? nodeFiles;
  const found = readConfigFile(options, files);
  if (!found.ok) {
    return { ok: false, mistakes: [found.mistake] };
  }
  const { file } = found;
  const reader = new KeyReader({ file, leaves: found.leaves, env });
  const config: Config = {
    server: readServer(reader, files),
    upstream: readUpstream(reader, files, file),
    auth: readAuth(reader, files, env.NODEDB_SUPERUSER_PASSWORD),
    http: readHttp(reader),
    metrics: { public: reader.boolean("metrics.public") },
    audit: { level: reader.choice("audit.level") ?? "standard" },
    log: {
      level: reader.choice("log.level") ?? "info",
      format: reader.choice("log.format") ?? (options.isTerminal === true ? "text" : "json"),
    },
  };
  return reader.mistakes.length === 0
    ? { ok: true, config, file, values: reader.values }
    : { ok: false, mistakes: sortByPlace(reader.mistakes) };
}

function readConfigFile(
  options: LoadOptions,
  files: ConfigFiles,
):
  | { readonly ok: true; readonly file: string | undefined; readonly leaves: readonly TomlLeaf[] }
  | { readonly ok: false; readonly mistake: ConfigMistake } {
  const named = options.path ?? (options.env.NODEDB_CONFIG || undefined);
  const file = named ?? defaultFile;
  let text: string;
  try {
    text = files.read(file);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (named === undefined && code === "ENOENT") {
      return { ok: true, file: undefined, leaves: [] };
    }
    return { ok: false, mistake: { file, message: `cannot be read (${code ?? String(error)})` } };
  }
  const parsed = parseTomlFile(text);
  return parsed.ok
    ? { ok: true, file, leaves: parsed.leaves }
    : { ok: false, mistake: { file, line: parsed.line, message: `is no valid TOML: ${parsed.message}` } };
}

/** In the order of the file, then the environment's. */
function sortByPlace(mistakes: readonly ConfigMistake[]): ConfigMistake[] {
  const order = new Map<string | undefined, number>(configKeys.map(({ key }, index) => [key, index]));
  const place = (mistake: ConfigMistake) =>
    mistake.file === undefined ? 1e9 + (order.get(mistake.key) ?? 1e6) : (mistake.line ?? 1e8);
  return mistakes.toSorted((a, b) => place(a) - place(b));
}
