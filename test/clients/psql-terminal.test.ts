/** psql 15 at a terminal: Ctrl-C, password prompts, \watch, and notifications between two people. */

import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { isRunnable } from "../support/client-program.ts";
import { createUser, type Endpoint, libpqEnvironment, openEndpoint } from "../support/endpoint.ts";
import { runProgram } from "../support/run-program.ts";
import { requireClient } from "../support/skips.ts";
import { openTerminal, type Terminal } from "../support/terminal.ts";

const isPresent = isRunnable("psql", "--version") && isRunnable("script", "--version");
const prompt = /=> /;

/** Without readline and a pager, so that the output is only what the terminal echoes and psql prints. */
const psqlArguments = ["-X", "-n", "-A", "-t", "-P", "pager=off"];

describe("psql at a terminal", () => {
  const isThere = requireClient("psql (postgresql-client-15) and script (bsdutils)", isPresent);
  const terminals: Terminal[] = [];
  let endpoint: Endpoint;

  beforeAll(async () => {
    if (isThere) {
      endpoint = await openEndpoint();
    }
  });
  afterEach(async () => {
    await Promise.all(terminals.splice(0).map((terminal) => terminal.close()));
  });
  afterAll(() => endpoint?.close());

  async function openPsql(env: NodeJS.ProcessEnv = {}): Promise<Terminal> {
    const terminal = openTerminal("psql", psqlArguments, { ...libpqEnvironment(endpoint), ...env });
    terminals.push(terminal);
    await terminal.waitFor(prompt);
    return terminal;
  }

  test.skipIf(!isThere)("Ctrl-C cancels the running statement, and the session goes on", async () => {
    const psql = await openPsql();
    const other = await openPsql();
    psql.type("SET application_name = 'sleeper'; SELECT pg_sleep(60);");
    await psql.waitFor(/SET\r?\n/);
    await waitUntilActive(other, "sleeper");
    psql.interrupt();
    await psql.waitFor(/ERROR: {2}canceling statement due to user request/);
    psql.type("SELECT :'LAST_ERROR_SQLSTATE', current_setting('application_name');");
    await psql.waitFor(/57014\|sleeper/);
  });

  test.skipIf(!isThere)("Ctrl-C inside a transaction leaves it failed and the prompt says so", async () => {
    const psql = await openPsql();
    const other = await openPsql();
    psql.type("BEGIN; SET LOCAL application_name = 'transaction sleeper'; SELECT pg_sleep(60);");
    await waitUntilActive(other, "transaction sleeper");
    psql.interrupt();
    await psql.waitFor(/canceling statement due to user request[\s\S]*=!> /);
    psql.type("ROLLBACK;");
    await psql.waitFor(/ROLLBACK\r?\n[\s\S]*=> /);
  });

  test.skipIf(!isThere)("Ctrl-C ends \\watch after it has repeated a statement", async () => {
    const psql = await openPsql();
    psql.type("SELECT 'tick' || 'ed' \\watch 0.1");
    for (const _repetition of [1, 2, 3]) {
      await psql.waitFor(/ticked/);
    }
    psql.interrupt();
    await psql.waitFor(prompt);
    psql.type("SELECT 40 + 2;");
    await psql.waitFor(/\b42\b/);
  });

  test.skipIf(!isThere)("\\password sets a verifier that the next login is checked against", async () => {
    const [name, oldPassword, newPassword] = ["changes_password", "first password", "Zweites Paßwort ½"];
    await createUser(endpoint, name, oldPassword);
    const psql = await openPsql({ PGUSER: name, PGPASSWORD: oldPassword });
    psql.type("\\password");
    await psql.waitFor(/Enter new password for user "changes_password": /);
    psql.type(newPassword);
    await psql.waitFor(/Enter it again: /);
    psql.type(newPassword);
    expect(await psql.waitFor(prompt)).not.toContain("ERROR");

    expect(await logIn(name, newPassword)).toEqual({ status: 0, stdout: `${name}\n`, stderr: "" });
    const refused = await logIn(name, oldPassword);
    expect(refused.status).toBe(2);
    expect(refused.stderr).toContain(`password authentication failed for user "${name}"`);
  });

  test.skipIf(!isThere)("an administrator's \\password sets another user's password", async () => {
    const name = "forgot_password";
    await createUser(endpoint, name, "forgotten password");
    const psql = openTerminal("psql", psqlArguments, libpqEnvironment(endpoint, "admin"));
    terminals.push(psql);
    await psql.waitFor(/=# |=> /);
    psql.type(`\\password ${name}`);
    await psql.waitFor(/Enter new password for user "forgot_password": /);
    psql.type("given by the administrator");
    await psql.waitFor(/Enter it again: /);
    psql.type("given by the administrator");
    expect(await psql.waitFor(/=# |=> /)).not.toContain("ERROR");
    expect(await logIn(name, "given by the administrator")).toMatchObject({ status: 0, stdout: `${name}\n` });
  });

  test.skipIf(!isThere)("asks for a password where none is given", async () => {
    const { PGPASSWORD: password, ...env } = libpqEnvironment(endpoint);
    const psql = openTerminal("psql", psqlArguments, env);
    terminals.push(psql);
    await psql.waitFor(/Password for user .*: /);
    psql.type(password ?? "");
    await psql.waitFor(prompt);
    psql.type("SELECT 40 + 2;");
    await psql.waitFor(/\b42\b/);
  });

  test.skipIf(!isThere)("NOTIFY reaches a psql that listens, with the notifier's process id", async () => {
    const listener = await openPsql();
    const notifier = await openPsql();
    listener.type("LISTEN news;");
    await listener.waitFor(/LISTEN\r?\n/);
    notifier.type("SELECT 'pid=' || pg_backend_pid();");
    const pid = /pid=(\d+)/.exec(await notifier.waitFor(/pid=\d+/))?.[1];
    notifier.type("NOTIFY news, 'žluť';");
    await notifier.waitFor(/NOTIFY\r?\n/);
    listener.type("SELECT 40 + 2;");
    const heard = await listener.waitFor(/received from server process with PID \d+/);
    expect(heard).toContain('Asynchronous notification "news" with payload "žluť"');
    expect(heard).toMatch(new RegExp(`PID ${pid}$`));
  });

  function logIn(name: string, password: string) {
    const env = { ...libpqEnvironment(endpoint), PGUSER: name, PGPASSWORD: password };
    return runProgram("psql", ["-X", "-A", "-t", "-c", "SELECT current_user"], env);
  }
});

/** Asks until a session of this application_name sleeps; the sessions must be of the same user. */
async function waitUntilActive(psql: Terminal, applicationName: string): Promise<void> {
  const active = `application_name = '${applicationName}' AND state = 'active' AND wait_event = 'PgSleep'`;
  for (;;) {
    psql.type(`SELECT 'sleeping=' || count(*) FROM pg_stat_activity WHERE ${active};`);
    if (/sleeping=1/.test(await psql.waitFor(/sleeping=\d/))) {
      return;
    }
  }
}
