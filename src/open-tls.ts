/** The TLS files of the configuration: read, watched, and given to both front doors. */

import { X509Certificate } from "node:crypto";
import { readFileSync, unwatchFile, watchFile } from "node:fs";
import { createSecureContext } from "node:tls";
import { revokedIn } from "./auth/certificate-fields.ts";
import type { Config } from "./config/config.ts";
import type { Log } from "./observe/log.ts";
import { loadServerTls, type ServerTls } from "./session/tls.ts";

type TlsConfig = NonNullable<Config["server"]["tls"]>;

/** How often the files of authorities and revoked certificates are looked at. */
const watchIntervalMs = 1_000;

export interface TlsFiles {
  /** undefined: TLS is not offered. */
  readonly current: ServerTls | undefined;
  /** Whether clients without TLS are refused; it changes together with the certificates. */
  readonly isRequired: boolean;
  /** Whether the list of this moment revokes a certificate. */
  isRevoked(certificateId: string): boolean;
  /** Called with what new connections are to get. */
  onChange(listener: (tls: ServerTls | undefined) => void): void;
  /** Reads everything again. @throws when something cannot be used; what there was stays */
  reload(tls: TlsConfig | undefined): void;
  close(): void;
}

/** @throws Error that names the file which cannot be used */
export function openTlsFiles(config: TlsConfig | undefined, log: Log): TlsFiles {
  let own: ServersOwn | undefined;
  let revoked: ReadonlySet<string> = new Set();
  let current: ServerTls | undefined;
  let watched: readonly string[] = [];
  const listeners: ((tls: ServerTls | undefined) => void)[] = [];
  const isRevoked = (id: string) => revoked.has(id);

  const use = (tls: TlsConfig | undefined, nextOwn: ServersOwn | undefined) => {
    const clients = tls?.clients && readClientFiles(tls.clients);
    const next =
      tls === undefined || nextOwn === undefined
        ? undefined
        : loadServerTls({
            ...nextOwn,
            ...(tls.clients === undefined || clients === undefined
              ? {}
              : {
                  clients: {
                    ...clients,
                    isRequired: tls.clients.required,
                    policy: { identity: tls.clients.identity, isRevoked },
                  },
                }),
          });
    own = nextOwn;
    revoked = clients?.revoked ?? new Set();
    current = next;
    for (const listener of listeners) listener(next);
  };
  const watch = (tls: TlsConfig | undefined) => {
    const before = watched;
    watched = [tls?.clients?.caPath, tls?.clients?.crlPath].filter((path) => path !== undefined);
    for (const path of before) {
      if (!watched.includes(path)) unwatchFile(path, onFileChange);
    }
    for (const path of watched) {
      if (before.includes(path)) continue;
      watchFile(path, { interval: watchIntervalMs, persistent: false }, onFileChange);
    }
  };
  let latest = config;
  const onFileChange = () => {
    try {
      // With the server's own certificate as it is in memory: its two files may be half replaced.
      use(latest, own);
      log.info({ files: watched }, "client certificates reloaded");
    } catch (error) {
      log.error({ err: error, files: watched }, "client certificates not reloaded");
    }
  };
  // Watched before they are read: a change between the two is not missed.
  watch(config);
  try {
    use(config, readOwn(config));
  } catch (error) {
    watch(undefined);
    throw error;
  }
  return {
    get current() {
      return current;
    },
    get isRequired() {
      return latest?.required ?? false;
    },
    isRevoked,
    onChange: (listener) => {
      listeners.push(listener);
    },
    reload: (tls) => {
      use(tls, readOwn(tls));
      latest = tls;
      watch(tls);
    },
    close: () => watch(undefined),
  };
}

interface ServersOwn {
  readonly cert: string;
  readonly key: string;
}

/** @throws Error that names both files, for what does not become a certificate with its key */
function readOwn(tls: TlsConfig | undefined): ServersOwn | undefined {
  if (tls === undefined) return undefined;
  const { certPath, keyPath } = tls;
  const own = { cert: readFileSync(certPath, "utf8"), key: readFileSync(keyPath, "utf8") };
  try {
    createSecureContext(own);
  } catch (cause) {
    // OpenSSL names neither a file nor, mostly, what is wrong.
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`${certPath} and ${keyPath} are no certificate with its private key: ${reason}`, {
      cause,
    });
  }
  return own;
}

interface ClientFiles {
  readonly authorities: readonly string[];
  readonly revocationLists: readonly string[];
  readonly revoked: ReadonlySet<string>;
}

/** @throws Error when a file holds nothing of what it should, or something that does not parse: never "no restriction" */
function readClientFiles({ caPath, crlPath }: NonNullable<TlsConfig["clients"]>): ClientFiles {
  const authorities = readPem(caPath, "CERTIFICATE");
  for (const authority of authorities) new X509Certificate(authority);
  const revocationLists = crlPath === undefined ? [] : readPem(crlPath, "X509 CRL");
  const revoked = new Set<string>();
  for (const list of revocationLists) {
    const ids = revokedIn(Buffer.from(list.replaceAll(/-----[^-]+-----/g, ""), "base64"));
    if (ids === undefined) throw new Error(`${crlPath} holds a malformed revocation list`);
    for (const id of ids) revoked.add(id);
  }
  return { authorities, revocationLists, revoked };
}

/** Every block of the kind, each on its own: OpenSSL reads only the first revocation list of a text. */
function readPem(path: string, kind: "CERTIFICATE" | "X509 CRL"): readonly string[] {
  const blocks = new RegExp(`-----BEGIN ${kind}-----[^-]+-----END ${kind}-----`, "g");
  const text = readFileSync(path, "utf8");
  const found = text.match(blocks) ?? [];
  if (found.length === 0) throw new Error(`${path} holds no PEM block "${kind}"`);
  // Half a file may hold some whole blocks: a list that is left out would revoke nothing.
  if (found.length !== text.split("-----BEGIN ").length - 1) {
    throw new Error(`${path} holds a PEM block that is broken off or no "${kind}"`);
  }
  return found;
}
