/** What of a client's startup parameters reaches the upstream: parsed, checked and merged, never passed through raw. */

import { SqlError } from "../errors/sql-error.ts";
import { parseStartupOptions } from "../wire/startup-options.ts";

/** Parameters of the connection itself, which are no settings. */
const connectionParameters = new Set(["user", "database", "options", "replication"]);

/** Settings that would change whom PostgreSQL takes the session for, what it loads or what it enforces. */
const refusedSettings = new Set([
  "role",
  "session_authorization",
  "row_security",
  "local_preload_libraries",
  "session_preload_libraries",
  "shared_preload_libraries",
  "jit_provider",
  "dynamic_library_path",
  "allow_system_table_mods",
  "ignore_system_indexes",
  "post_auth_delay",
]);

/** Prefixes of settings that carry verified claims. */
const refusedPrefixes = ["nodedb."];

/**
 * The settings of a session, by name as PostgreSQL would apply them: those of `options` first, then the
 * parameters of their own name (PostgreSQL source, process_startup_options).
 *
 * @throws SqlError FATAL insufficient_privilege for a setting that the front-end decides,
 *   feature_not_supported for replication connections, syntax_error for malformed options
 */
export function sessionSettings(parameters: ReadonlyMap<string, string>): Map<string, string> {
  const replication = parameters.get("replication");
  if (replication !== undefined && !/^(false|off|no|0)$/i.test(replication)) {
    throw new SqlError("feature_not_supported", "replication connections are not supported", {
      severity: "FATAL",
      hint: "Connect to PostgreSQL itself for replication.",
    });
  }
  const settings = new Map<string, string>();
  const options = parameters.get("options");
  if (options !== undefined) {
    for (const [name, value] of parseStartupOptions(options)) addSetting(settings, name, value);
  }
  for (const [name, value] of parameters) {
    if (!connectionParameters.has(name) && !name.startsWith("_pq_.")) addSetting(settings, name, value);
  }
  return settings;
}

// Setting names are case-insensitive, so the check must be too; one spelling wins over another.
function addSetting(settings: Map<string, string>, name: string, value: string): void {
  const folded = name.toLowerCase();
  if (refusedSettings.has(folded) || refusedPrefixes.some((prefix) => folded.startsWith(prefix))) {
    throw new SqlError(
      "insufficient_privilege",
      `permission denied to set parameter "${name}" at connection start`,
      {
        severity: "FATAL",
      },
    );
  }
  // As startup packet entries these would be read as the connection's own.
  if (connectionParameters.has(folded)) {
    throw new SqlError("insufficient_privilege", `parameter "${name}" is not a setting`, {
      severity: "FATAL",
    });
  }
  for (const earlier of settings.keys()) {
    if (earlier.toLowerCase() === folded) settings.delete(earlier);
  }
  settings.set(name, value);
}
