/** [server] of the configuration, its TLS files looked at. */

import { resolve } from "node:path";
import type { Config } from "./config.ts";
import { type ConfigFiles, isWorldReadable } from "./config-files.ts";
import type { KeyReader } from "./key-reader.ts";

type TlsPathKey = "server.tls.cert" | "server.tls.key" | "server.tls.client_ca" | "server.tls.crl";

/** What is wrong is noted in the reader. */
export function readServer(reader: KeyReader, files: ConfigFiles): Config["server"] {
  const tls = readTls(reader, files);
  return {
    host: reader.text("server.host") ?? "",
    ports: { pgwire: reader.number("server.ports.pgwire"), http: reader.number("server.ports.http") },
    dataDir: resolve(reader.text("server.data_dir") ?? ""),
    maxConnections: reader.number("server.max_connections"),
    authenticationTimeoutMs: reader.number("server.authentication_timeout"),
    shutdownTimeoutMs: reader.number("server.shutdown_timeout"),
    ...(tls === undefined ? {} : { tls }),
  };
}

function readTls(reader: KeyReader, files: ConfigFiles): Config["server"]["tls"] {
  const certPath = readPath("server.tls.cert");
  const keyPath = readPath("server.tls.key");
  const required = reader.boolean("server.tls.required");
  const clients = readClients();
  if (certPath === undefined && keyPath === undefined) {
    for (const key of ["server.tls.required", "server.tls.client_ca"] as const) {
      const isSet = key === "server.tls.required" ? required : clients !== undefined;
      if (isSet) reader.blame(key, "needs server.tls.cert and server.tls.key");
    }
    return undefined;
  }
  if (certPath === undefined) {
    reader.blame("server.tls.key", "is set without server.tls.cert");
    return undefined;
  }
  if (keyPath === undefined) {
    reader.blame("server.tls.cert", "is set without server.tls.key");
    return undefined;
  }
  if (isWorldReadable(files, keyPath)) {
    reader.blame("server.tls.key", `is a private key that everybody may read: run chmod 600 ${keyPath}`);
  }
  return { certPath, keyPath, required, ...(clients === undefined ? {} : { clients }) };

  function readClients(): NonNullable<Config["server"]["tls"]>["clients"] {
    const caPath = readPath("server.tls.client_ca");
    const crlPath = readPath("server.tls.crl");
    const isClientRequired = reader.boolean("server.tls.client_required");
    if (caPath === undefined) {
      if (crlPath !== undefined) reader.blame("server.tls.crl", "needs server.tls.client_ca");
      if (isClientRequired) reader.blame("server.tls.client_required", "needs server.tls.client_ca");
      return undefined;
    }
    // Else a client would get by without one by not encrypting.
    if (isClientRequired && !required) {
      reader.blame("server.tls.client_required", "needs server.tls.required = true");
    }
    return {
      caPath,
      ...(crlPath === undefined ? {} : { crlPath }),
      identity: reader.choice("server.tls.client_identity") ?? "cn",
      required: isClientRequired,
    };
  }

  function readPath(key: TlsPathKey): string | undefined {
    const text = reader.text(key);
    if (text === undefined) {
      return undefined;
    }
    const path = resolve(text);
    try {
      files.read(path);
    } catch (error) {
      reader.blame(
        key,
        `names a file that cannot be read (${(error as NodeJS.ErrnoException).code}): ${path}`,
      );
    }
    return path;
  }
}
