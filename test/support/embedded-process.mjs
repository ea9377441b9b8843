/** A process that holds an embedded PostgreSQL, to be killed: prints one line of JSON when it is ready. */

import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createViteServer } from "vitest/node";

const [dataDir] = process.argv.slice(2);
const root = fileURLToPath(new URL("../..", import.meta.url));
// Node 20 does not read TypeScript; vite, which vitest runs on, does.
const vite = await createViteServer({
  root,
  configFile: false,
  logLevel: "error",
  cacheDir: join(tmpdir(), `nodedb-test-vite-${process.pid}`),
  server: { middlewareMode: true, hmr: false, watch: null, ws: false },
  optimizeDeps: { noDiscovery: true, include: [] },
  appType: "custom",
});
const { openEmbeddedPostgres } = await vite.ssrLoadModule("/src/embedded/embedded-postgres.ts");
const silent = () => {};
const log = { trace: silent, debug: silent, info: silent, warn: silent, error: silent, fatal: silent };
try {
  const postgres = await openEmbeddedPostgres({
    dataDir,
    superuserName: "nodedb",
    log,
    maxConnections: 20,
    settings: { shared_buffers: "16MB" },
    initdbArgs: ["--no-sync"],
  });
  console.log(
    JSON.stringify({ socketDir: postgres.socketDir, port: postgres.port, processId: postgres.processId }),
  );
  process.once("SIGTERM", async () => {
    await postgres.close();
    process.exit(0);
  });
  setInterval(silent, 60_000);
} catch (error) {
  console.log(JSON.stringify({ error: error.message }));
  process.exit(1);
}
