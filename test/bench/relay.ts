/** A relay that does nothing as a target: the least that a proxy on Node can cost. */

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { freePort, startChild, waitUntilReady } from "./child-process.ts";
import { acceptsConnections } from "./pgbouncer.ts";
import { database, directUser, type PostgresServer } from "./postgres-server.ts";
import type { Target } from "./targets.ts";

/** Clients log in to PostgreSQL itself through it, by the unix socket. */
export async function startBareRelay(
  workDir: string,
  server: PostgresServer,
  password: string,
): Promise<Target> {
  const port = await freePort();
  const program = fileURLToPath(new URL("bare-relay.js", import.meta.url));
  const socketPath = join(server.socketDir, `.s.PGSQL.${server.port}`);
  const child = startChild(
    process.execPath,
    ["--max-semi-space-size=4", "--disable-warning=DEP0111", program, String(port), socketPath],
    { logFile: join(workDir, "relay.log") },
  );
  await waitUntilReady("the bare relay", child, () => acceptsConnections(port));
  return {
    name: "relay",
    endpoint: { host: "127.0.0.1", port, user: directUser, password, database, sslMode: "disable" },
    proxyPid: child.pid,
    version: `a relay that looks at no byte, on Node.js ${process.version}`,
    close: () => child.stop("SIGTERM"),
  };
}
