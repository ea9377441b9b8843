/** PgBouncer as a target: session mode, SCRAM towards clients, and a file of verifiers as its list of users. */

import { chownSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import type { UnprivilegedUser } from "../../src/embedded/unprivileged-user.ts";
import type { BenchOptions } from "./arguments.ts";
import { findProgram, freePort, runProgram, startChild, waitUntilReady } from "./child-process.ts";
import {
  database,
  directUser,
  maxUpstreamConnections,
  type PostgresServer,
  readVerifier,
} from "./postgres-server.ts";
import { sslModeOf, type Target, type TlsFiles } from "./targets.ts";

/** Starts PgBouncer in a folder of its own under `workDir`. */
export async function startPgBouncer(
  workDir: string,
  runAs: UnprivilegedUser | undefined,
  options: BenchOptions,
  server: PostgresServer,
  password: string,
  tls: TlsFiles | undefined,
): Promise<Target> {
  const program = findProgram("pgbouncer");
  const folder = join(workDir, "pgbouncer");
  const port = await freePort();
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const files: Record<string, string> = {
    // The verifier that PostgreSQL has, so that logging in costs what it costs the front-end: no PBKDF2,
    // and PgBouncer can use the client's keys upstream.
    "userlist.txt": `"${directUser}" "${await readVerifier(server, directUser)}"\n`,
    "pgbouncer.ini": configuration(folder, port, options, server, tls !== undefined),
  };
  if (tls !== undefined) {
    files["client.crt"] = readFileSync(tls.certPath, "utf8");
    files["client.key"] = readFileSync(tls.keyPath, "utf8");
  }
  for (const [name, content] of Object.entries(files))
    writeFileSync(join(folder, name), content, { mode: 0o600 });
  if (runAs !== undefined) {
    for (const path of [folder, ...Object.keys(files).map((name) => join(folder, name))]) {
      chownSync(path, runAs.uid, runAs.gid);
    }
  }
  const child = startChild(program, [join(folder, "pgbouncer.ini")], {
    runAs,
    logFile: join(workDir, "pgbouncer.log"),
  });
  // SIGTERM is PgBouncer's immediate shutdown.
  const close = () => child.stop("SIGTERM");
  try {
    await waitUntilReady("PgBouncer", child, () => acceptsConnections(port));
    const version = (await runProgram(program, ["--version"])).split("\n")[0] ?? "";
    return {
      name: "pgbouncer",
      endpoint: { host: "127.0.0.1", port, user: directUser, password, database, sslMode: sslModeOf(tls) },
      proxyPid: child.pid,
      version,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

function configuration(
  folder: string,
  port: number,
  options: BenchOptions,
  server: PostgresServer,
  isEncrypted: boolean,
): string {
  const host = options.upstream === "unix" ? server.socketDir : "127.0.0.1";
  const connections = maxUpstreamConnections(options);
  return `[databases]
${database} = host=${host} port=${server.port} dbname=${database}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = ${join(folder, "userlist.txt")}
pool_mode = session
max_client_conn = ${connections}
default_pool_size = ${connections}
log_connections = 0
log_disconnections = 0
log_stats = 0
${isEncrypted ? encryption(folder) : ""}`;
}

function encryption(folder: string): string {
  return `client_tls_sslmode = require
client_tls_cert_file = ${join(folder, "client.crt")}
client_tls_key_file = ${join(folder, "client.key")}
`;
}

/** True when something listens on the loopback port. */
export function acceptsConnections(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
