/** Every key of nodedb.toml, in the order of the documentation. */

import { authKeys } from "./auth-keys.ts";
import type { ConfigKey } from "./config-key.ts";
import { httpKeys } from "./http-keys.ts";
import { jwksKeys } from "./jwks-keys.ts";
import { recordKeys } from "./record-keys.ts";
import { serverKeys } from "./server-keys.ts";
import { upstreamKeys } from "./upstream-keys.ts";

export const configKeys = [
  ...serverKeys,
  ...upstreamKeys,
  ...authKeys,
  ...jwksKeys,
  ...httpKeys,
  ...recordKeys,
] as const satisfies readonly ConfigKey[];

export type KeyName = (typeof configKeys)[number]["key"];

/** Environment variables that stand for no key. */
export const otherEnvironment = {
  NODEDB_CONFIG: "Path of the configuration file, when --config is not given.",
  NODEDB_SUPERUSER_PASSWORD: "Password of the first user; only read at the first start.",
} as const;
