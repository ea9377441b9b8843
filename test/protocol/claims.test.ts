/** A session's claims over its whole life: renewed, changed, taken away by resets and given back, unseen by the client. */

import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import {
  encodeDescribe,
  encodeExecute,
  encodeFlush,
  encodeParse,
  encodeQuery,
  encodeSync,
} from "../../src/wire/frontend-message-encoding.ts";
import { openProtocolStage, type ProtocolStage } from "../support/protocol-stage.ts";
import {
  type BackendMessage,
  bind,
  describeMessages,
  errorOf,
  type RawClient,
  rowsOf,
} from "../support/raw-client.ts";
import { until } from "../support/until.ts";

const lifetimeMs = 4_000;
const password = "correct horse battery";
const sync = encodeSync();
const execute = encodeExecute("");
const whoAmI = "SELECT $auth.id";
/** When the envelope of a session was sealed; undefined when it has none. */
const sealedAt = "SELECT substr(nullif(current_setting('nodedb.session', true), ''), 81)::json ->> 'iat'";

let stage: ProtocolStage;

beforeAll(async () => {
  stage = await openProtocolStage({
    configuration: `[auth]\nclaims_lifetime = "${lifetimeMs}ms"\nclaims_prefix = "app"\n`,
  });
  const { client } = await stage.logIn();
  for (const name of ["alice", "bob"]) await client.query(`CREATE USER ${name} PASSWORD '${password}'`);
});
afterEach(() => stage.closeClients());
afterAll(() => stage?.close());

async function logIn(user = "alice"): Promise<RawClient> {
  return (await stage.logIn({ user, password })).client;
}

/** The only value of a result, or the SQLSTATE of its error. */
function outcomeOf(messages: readonly BackendMessage[]): string | null | undefined {
  if (messages.some(({ type }) => type === "E")) return errorOf(messages).get("C");
  return rowsOf(messages)[0]?.[0];
}

async function ask(client: RawClient, text: string): Promise<string | null | undefined> {
  return outcomeOf(await client.query(text));
}

/** Seconds since 1970. */
async function sealing(client: RawClient): Promise<number> {
  return Number(await ask(client, sealedAt));
}

describe("claims of a session that lasts", () => {
  test("are sealed anew before they expire, and the client is told nothing of it", async () => {
    const client = await logIn();
    const first = await sealing(client);
    const shapes = new Set<string>();
    await until(async () => {
      const messages = await client.query(sealedAt);
      shapes.add(describeMessages(messages));
      return Number(outcomeOf(messages)) > first;
    });
    expect([...shapes]).toEqual(["TDCZ"]);
    expect(await ask(client, whoAmI)).toBe("alice");
    expect(client.unread).toHaveLength(0);
  });

  test("hold through a transaction that lasts longer than they do, and are sealed anew behind it", async () => {
    const client = await logIn();
    const first = await sealing(client);
    await client.query("BEGIN");
    const isOver = `SELECT extract(epoch FROM clock_timestamp()) > ${first + lifetimeMs / 1000}`;
    await until(async () => (await ask(client, isOver)) === "t");
    expect(await ask(client, whoAmI)).toBe("alice");
    expect(await sealing(client)).toBe(first);
    await client.query("COMMIT");
    expect(await sealing(client)).toBeGreaterThan(first);
    expect(await ask(client, whoAmI)).toBe("alice");
  });

  test("are sealed anew between two pipelined transactions too", async () => {
    const client = await logIn();
    const first = await sealing(client);
    const transaction = [encodeQuery("BEGIN"), encodeQuery(sealedAt), encodeQuery("COMMIT")];
    await until(async () => {
      await client.send(...transaction, ...transaction);
      const answers: BackendMessage[][] = [];
      for (let index = 0; index < 6; index += 1) answers.push(await client.readReady());
      expect(answers.map(describeMessages)).toEqual(["CZ", "TDCZ", "CZ", "CZ", "TDCZ", "CZ"]);
      return Number(outcomeOf(answers[4] ?? [])) > first;
    });
    expect(await ask(client, whoAmI)).toBe("alice");
  });

  test("leave the client's unnamed statement and its implicit transaction alone", async () => {
    const client = await logIn();
    const first = await sealing(client);
    await client.send(encodeParse("", sealedAt), sync);
    await client.readReady();
    const shapes = new Set<string>();
    await until(async () => {
      await client.send(bind(), encodeDescribe("portal", ""), execute, sync);
      const messages = await client.readReady();
      shapes.add(describeMessages(messages));
      return Number(outcomeOf(messages)) > first;
    });
    expect([...shapes]).toEqual(["2TDCZ"]);
  });

  test("do not cut a pipeline in two that is one transaction", async () => {
    const { client: admin } = await stage.logIn();
    await admin.query("CREATE TABLE public.entry (n int); GRANT INSERT, SELECT ON public.entry TO bob");
    await admin.query("ALTER USER bob SET ROLE readwrite");
    const client = await logIn("bob");
    await client.send(encodeParse("", "INSERT INTO public.entry VALUES (1)"), bind(), execute, encodeFlush());
    await client.readUntil("C");
    await admin.query("ALTER USER bob SET ROLE readwrite, readonly");
    await client.send(encodeParse("", "SELECT 1 / 0"), bind(), execute, sync);
    expect(errorOf(await client.readReady()).get("C")).toBe("22012");
    expect(await ask(client, "SELECT count(*) FROM public.entry")).toBe("0");
    expect(await ask(client, "SELECT $auth.roles::text")).toBe("{readwrite,readonly}");
    await admin.query("ALTER USER bob SET ROLE readwrite");
  });

  test("change with the roles of their user, from the next statement on", async () => {
    const client = await logIn("bob");
    const { client: admin } = await stage.logIn();
    const roles = "SELECT $auth.roles::text";
    expect(await ask(client, roles)).toBe("{readwrite}");
    await admin.query("ALTER USER bob SET ROLE readonly");
    expect(await ask(client, roles)).toBe("{readonly}");
    await client.query("BEGIN");
    await admin.query("ALTER USER bob SET ROLE admin");
    expect(await ask(client, roles)).toBe("{readonly}");
    await client.query("COMMIT");
    expect(await ask(client, roles)).toBe("{admin}");
    expect(await ask(client, "SELECT $auth.role")).toBe("admin");
  });
});

test("a client that never sends Sync does not keep the claims of its first transaction, and no implicit one is cut", async () => {
  const { client: admin } = await stage.logIn();
  await admin.query("ALTER USER bob SET ROLE readwrite; CREATE TABLE public.unsynced (n int)");
  await admin.query("GRANT INSERT, SELECT ON public.unsynced TO bob");
  const client = await logIn("bob");
  const pipeline = (...texts: string[]) =>
    texts.flatMap((text) => [encodeParse("", text), bind(), execute, encodeFlush()]);
  const block = ["BEGIN", "SELECT $auth.roles::text", "COMMIT"];
  const rolesIn = async () => {
    const messages: BackendMessage[] = [];
    for (const _ of block) messages.push(...(await client.readUntil("C")));
    return outcomeOf(messages);
  };
  await client.send(...pipeline(...block));
  expect(await rolesIn()).toBe("{readwrite}");
  await admin.query("ALTER USER bob SET ROLE readonly");
  await client.send(...pipeline(...block, ...block));
  expect([await rolesIn(), await rolesIn()]).toEqual(["{readonly}", "{readonly}"]);
  await client.send(...pipeline("INSERT INTO public.unsynced VALUES (1)"));
  await client.readUntil("C");
  await admin.query("ALTER USER bob SET ROLE readwrite");
  await client.send(...pipeline("SELECT 1 / 0"), sync);
  expect(errorOf(await client.readReady()).get("C")).toBe("22012");
  expect(await ask(client, "SELECT count(*) FROM public.unsynced")).toBe("0");
  expect(await ask(client, "SELECT $auth.roles::text")).toBe("{readwrite}");
});

describe("a client that resets its settings has its claims again", () => {
  test.each([
    ["RESET ALL", ["RESET ALL"]],
    ["DISCARD ALL", ["discard all;"]],
    ["behind a comment", ["/* pool */ RESET ALL"]],
    ["RESET of the setting itself", ["RESET nodedb.session"]],
    ["asyncpg's reset", ["SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;"]],
    ["psycopg2's reset", ["ABORT", "RESET ALL", "SET SESSION AUTHORIZATION DEFAULT"]],
    ["in a transaction, behind it", ["BEGIN", "RESET ALL", "COMMIT"]],
    ["in a transaction that is undone", ["BEGIN", "RESET ALL", "ROLLBACK"]],
    ["after it was overwritten", ["SET nodedb.session = 'x'", "RESET ALL"]],
  ])("%s", async (_name, statements) => {
    const client = await logIn();
    for (const statement of statements)
      expect((await client.query(statement)).map(({ type }) => type)).not.toContain("E");
    expect(await ask(client, whoAmI)).toBe("alice");
  });

  test("DISCARD ALL sent ahead of a statement in the same write, as Npgsql does", async () => {
    const client = await logIn();
    await client.send(
      encodeQuery("DISCARD ALL"),
      encodeParse("", "SELECT (SELECT auth.id())"),
      bind(),
      execute,
      sync,
      encodeQuery("SELECT auth.id()"),
    );
    expect(describeMessages(await client.readReady())).toBe("CZ");
    expect(outcomeOf(await client.readReady())).toBe("alice");
    expect(outcomeOf(await client.readReady())).toBe("alice");
  });

  test("a reset among others sent ahead of a statement in the same write, as Npgsql does with statements prepared", async () => {
    const client = await logIn();
    await client.send(
      encodeQuery(
        "SET SESSION AUTHORIZATION DEFAULT;RESET ALL;CLOSE ALL;UNLISTEN *;SELECT pg_advisory_unlock_all()",
      ),
      encodeParse("", "SELECT auth.id()"),
      bind(),
      execute,
      sync,
    );
    expect(describeMessages(await client.readReady())).toBe("CCCCTDCZ");
    expect(outcomeOf(await client.readReady())).toBe("alice");
  });

  test.each(["reset", ""])("RESET ALL prepared as %j, and sent ahead of a statement", async (name) => {
    const client = await logIn();
    await client.send(encodeParse(name, "RESET ALL"), encodeParse("who", "SELECT auth.id()"), sync);
    await client.readReady();
    const run = (statement: string) => [bind({ statement }), execute, sync];
    await client.send(...run("who"), ...run(name), ...run("who"), ...run(name), ...run("who"));
    for (const answer of ["alice", undefined, "alice", undefined, "alice"]) {
      const messages = await client.readReady();
      if (answer !== undefined) expect(outcomeOf(messages)).toBe(answer);
      else expect(describeMessages(messages)).toBe("2CZ");
    }
  });

  test("the Sync behind an error is answered, though claims are due and a Query was skipped", async () => {
    const client = await logIn();
    await client.send(
      encodeParse("", "RESET ALL"),
      bind({ statement: "missing" }),
      encodeQuery("SELECT 1"),
      sync,
    );
    expect(describeMessages(await client.readReady())).toBe("1EZ");
    expect(await ask(client, whoAmI)).toBe("alice");
  });

  test("RESET ALL of the extended protocol, prepared and run later", async () => {
    const client = await logIn();
    await client.send(encodeParse("reset", "RESET ALL"), sync);
    await client.readReady();
    expect(await ask(client, whoAmI)).toBe("alice");
    await client.send(bind({ statement: "reset" }), execute, sync);
    expect(describeMessages(await client.readReady())).toBe("2CZ");
    expect(await ask(client, whoAmI)).toBe("alice");
  });
});

describe("a client that spoils its own claims is refused, and nobody else", () => {
  test.each([
    ["SET", ["SET nodedb.session = ''"]],
    ["set_config", ["SELECT set_config('nodedb.session', 'x', false)"]],
    ["in a function", ["DO $$ BEGIN RESET ALL; END $$"]],
    ["for a transaction", ["BEGIN", "SET LOCAL nodedb.session = 'x'"]],
    ["with a reset in the same transaction", ["BEGIN", "RESET ALL"]],
  ])("%s", async (_name, statements) => {
    const client = await logIn();
    for (const statement of statements) await client.query(statement);
    const messages = await client.query(whoAmI);
    expect(errorOf(messages).get("C")).toBe("28000");
    expect(errorOf(messages).get("H")).toContain("RESET ALL");
    await client.query("ROLLBACK");
    await client.query("RESET ALL");
    expect(await ask(client, whoAmI)).toBe("alice");
    expect(await ask(await logIn("bob"), whoAmI)).toBe("bob");
  });
});

describe("plain settings, for policies that were written for others", () => {
  test("hold what Supabase's and PostgREST's policies read, and each claim under the configured prefix", async () => {
    const client = await logIn();
    const claims = JSON.parse((await ask(client, "SELECT current_setting('request.jwt.claims')")) ?? "");
    expect(claims).toEqual({
      sub: "alice",
      id: "alice",
      role: "readwrite",
      roles: ["readwrite"],
      tenant_id: 1,
    });
    const settings = await client.query(
      "SELECT current_setting('app.sub'), current_setting('app.roles'), current_setting('app.tenant_id'), current_setting('app.org_id', true)",
    );
    expect(rowsOf(settings)).toEqual([["alice", '["readwrite"]', "1", null]]);
    await client.query("DISCARD ALL");
    expect(await ask(client, "SELECT current_setting('app.sub')")).toBe("alice");
  });

  test("prove nothing: a client can set them, and $auth is not what they say", async () => {
    const client = await logIn();
    await client.query("SET app.sub = 'bob'");
    await client.query(`SET request.jwt.claims = '{"sub":"bob"}'`);
    expect(await ask(client, "SELECT current_setting('app.sub')")).toBe("bob");
    expect(await ask(client, whoAmI)).toBe("alice");
  });
});
