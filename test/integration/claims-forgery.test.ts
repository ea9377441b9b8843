/**
 * Envelopes that are forged, taken from elsewhere, old or malformed. Each is first shown to work on the functions with one
 * defence taken out, so that it is known what refuses it in ours.
 */

import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { maxEnvelopeBytes } from "../../src/upstream/claims-envelope.ts";
import { hasDebianPostgres } from "../support/postgres.ts";
import { requireClient } from "../support/skips.ts";
import { openStage, type Stage, stateOf } from "../support/stage.ts";
import {
  bindingOf,
  type EnvelopeContent,
  installVariant,
  keyOf,
  sealWith,
} from "../support/unsafe-claims.ts";

describe("before PostgreSQL 18", () => describeForgery("embedded", true));
describe("before PostgreSQL 15", () => {
  describeForgery("debian", requireClient("PostgreSQL 15 (postgresql-15)", hasDebianPostgres));
});

function describeForgery(version: "embedded" | "debian", isThere: boolean): void {
  const it = test.skipIf(!isThere);
  let stage: Stage;
  let alice: pg.Client;

  beforeAll(async () => {
    if (!isThere) return;
    stage = await openStage({ postgres: { version }, users: ["alice", "bob"] });
    alice = await stage.connect("alice");
  });
  afterAll(async () => {
    await alice?.end();
    await stage?.close();
  });

  /** What a session is with this envelope. @returns the id, or the SQLSTATE of the refusal */
  async function idWith(client: pg.Client, envelope: string, schema = "auth"): Promise<string | undefined> {
    await client.query("SELECT set_config('nodedb.session', $1, false)", [envelope]);
    let id: string | undefined;
    const state = await stateOf(
      client.query(`SELECT ${schema}.id() AS id`).then(({ rows }) => {
        id = rows[0].id;
      }),
    );
    return state ?? id;
  }

  const withoutCode: [RegExp, string] = [/IF pg_catalog\.sha256\([\s\S]*?\n +THEN/, "IF true THEN"];

  it("an envelope with every field right is accepted, so that those below fail for what is wrong in them", async () => {
    expect(await idWith(alice, sealWith(keyOf(stage), await bindingOf(alice), {}))).toBe("mallory");
  });

  it("a forged code is refused", async () => {
    await installVariant(stage, "no_code", [withoutCode]);
    const good = sealWith(keyOf(stage), await bindingOf(alice), {});
    const forged = "0".repeat(64) + good.slice(64);
    expect(await idWith(alice, forged, "no_code")).toBe("mallory");
    expect(await idWith(alice, forged)).toBe("28000");
    for (let digit = 0; digit < 64; digit += 9) {
      const other = good[digit] === "0" ? "1" : "0";
      expect(await idWith(alice, good.slice(0, digit) + other + good.slice(digit + 1)), `${digit}`).toBe(
        "28000",
      );
    }
    expect(await idWith(alice, good.replace("mallory", "Mallory"))).toBe("28000");
  });

  const pid = /AND \(v_session OPERATOR\(pg_catalog\.->>\) 'pid'\).*\n/;
  const port = /AND coalesce\(\(v_session OPERATOR\(pg_catalog\.->>\) 'port'\)[\s\S]*?, -1\)\n +OPERATOR.*\n/;
  const su = /AND \(v_session OPERATOR\(pg_catalog\.->>\) 'su'\).*\n/;
  const db = /AND \(v_session OPERATOR\(pg_catalog\.->>\) 'db'\).*\n/;
  const exp = /AND \(v_session OPERATOR\(pg_catalog\.->>\) 'exp'\).*\n.*\n/;
  const now = () => Date.now() / 1000;
  const replays: readonly [string, RegExp, () => Partial<EnvelopeContent>][] = [
    ["another session", pid, () => ({ pid: 1 })],
    ["an earlier connection with the same process id", port, () => ({ port: 1 })],
    ["a connection by a unix socket", port, () => ({ port: null })],
    ["another user", su, () => ({ su: "bob" })],
    ["another database", db, () => ({ db: "template1" })],
    ["the past", exp, () => ({ exp: now() - 1 })],
  ];
  it.each(replays)("one of %s is refused", async (name, defence, changes) => {
    const schema = `no_${name.replaceAll(" ", "_").slice(0, 40)}`;
    await installVariant(stage, schema, [[defence, "\n"]]);
    const envelope = sealWith(keyOf(stage), await bindingOf(alice), changes());
    expect(await idWith(alice, envelope, schema)).toBe("mallory");
    expect(await idWith(alice, envelope)).toBe("28000");
  });

  it("by a unix socket, where no port tells connections apart, one from before the server's start is refused", async () => {
    await installVariant(stage, "no_start", [
      [/AND \(pg_catalog\.inet_client_port\(\) IS NOT NULL\n.*\n.*pg_postmaster_start_time\(\)\)\)\n/, "\n"],
    ]);
    const { socketDir, port } = stage.postgres;
    const direct = await stage.connect("alice", { host: socketDir, port });
    const binding = await bindingOf(direct);
    expect(binding.clientPort).toBeNull();
    const [start] = await stage.past("SELECT extract(epoch FROM pg_postmaster_start_time())::float8 AS at");
    const before = sealWith(keyOf(stage), binding, { iat: Number(start?.at) - 1 });
    expect(await idWith(direct, before, "no_start")).toBe("mallory");
    expect(await idWith(direct, before)).toBe("28000");
    // Since then it could be the envelope of an earlier connection with this process id: the front-end does not open such a one
    // with other claims (claims-publisher.test.ts).
    expect(await idWith(direct, sealWith(keyOf(stage), binding, {}))).toBe("mallory");
    // By TCP the clocks may be those of two machines.
    expect(
      await idWith(alice, sealWith(keyOf(stage), await bindingOf(alice), { iat: Number(start?.at) - 1 })),
    ).toBe("mallory");
    await direct.end();
  });

  it("one for another purpose is refused", async () => {
    await installVariant(stage, "no_type", [
      [/\(v_session OPERATOR\(pg_catalog\.->>\) 'typ'\).*'nodedb-session'/, "true"],
    ]);
    const envelope = sealWith(keyOf(stage), await bindingOf(alice), { typ: "nodedb-other" });
    expect(await idWith(alice, envelope, "no_type")).toBe("mallory");
    expect(await idWith(alice, envelope)).toBe("28000");
  });

  it("one sealed with the key of another database or installation is refused", async () => {
    const binding = await bindingOf(alice);
    expect(await idWith(alice, sealWith(keyOf(stage, "template1"), binding, {}))).toBe("28000");
    // The right name of a key does not help.
    const stolenName = { ...keyOf(stage, "template1"), kid: keyOf(stage).kid };
    expect(await idWith(alice, sealWith(stolenName, binding, {}))).toBe("28000");
  });

  it("a longer one than is looked at is refused, though it is sealed", async () => {
    await installVariant(stage, "no_cap", [[`<=) ${maxEnvelopeBytes}`, "<=) 1000000"]]);
    const claims = { id: "mallory", text: "x".repeat(maxEnvelopeBytes) };
    const envelope = sealWith(keyOf(stage), await bindingOf(alice), { claims });
    expect(await idWith(alice, envelope, "no_cap")).toBe("mallory");
    expect(await idWith(alice, envelope)).toBe("28000");
    await alice.query("SELECT set_config('nodedb.session', repeat('a', 100000000), false)");
    expect(await stateOf(alice.query("SELECT auth.id()"))).toBe("28000");
  });

  it("what is no envelope is refused with the same error, whatever it is", async () => {
    const good = sealWith(keyOf(stage), await bindingOf(alice), {});
    const key = keyOf(stage);
    const malformed = [
      "",
      "x",
      " ",
      "null",
      "{}",
      "ž".repeat(200),
      "\u{1F600}",
      good.slice(1),
      ` ${good}`,
      `${good} `,
      `${good}\n`,
      good.slice(0, 64),
      good.slice(0, 80),
      good.slice(0, -1),
      good.toUpperCase(),
      good.replace("mallory", "mallorž"),
      `${"0".repeat(64)}${key.kid}{}`,
      `${"0".repeat(64)}${key.kid}{\\u0000}`,
      `${"0".repeat(64)}${key.kid}{"pid":99999999999999999999}`,
      `${"f".repeat(64)}${"f".repeat(16)}{"id":"x"}`,
      `${"0".repeat(80)}${"{".repeat(5000)}}`,
    ];
    const words = new Set<string>();
    for (const text of malformed) {
      await alice.query("SELECT set_config('nodedb.session', $1, false)", [text]);
      for (const reader of ["session()", "id()", "roles()", "tenant_id()", "has_scope('x')", "claim('id')"]) {
        const error: pg.DatabaseError = await alice.query(`SELECT auth.${reader}`).then(
          () => expect.fail(`${reader} gave something for ${text}`),
          (refusal) => refusal,
        );
        expect(error.code, `${reader} for ${text}`).toBe("28000");
        words.add(`${error.message} ${error.detail} ${error.hint}`);
      }
    }
    expect(words.size).toBe(1);
  });

  it.each(["LATIN1", "SQL_ASCII"])("so is what is no text at all in a database of %s", async (encoding) => {
    const database = `in_${encoding.toLowerCase()}`;
    await stage.asAdmin(
      `CREATE DATABASE ${database} ENCODING '${encoding}' LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0`,
    );
    const client = await stage.connect("alice", { database });
    expect((await client.query("SELECT auth.id() AS id")).rows).toEqual([{ id: "alice" }]);
    for (const bytes of ["80", "ff00".slice(0, 2), "c328", "7bfe7d"]) {
      await client.query(
        `DO $$ BEGIN PERFORM set_config('nodedb.session', repeat('0', 80) || '{' || convert_from('\\x${bytes}', getdatabaseencoding()) || '}', false); END $$`,
      );
      expect(await stateOf(client.query("SELECT auth.id()")), bytes).toBe("28000");
    }
    await client.end();
  });

  it("a client cannot use another's envelope, nor its own in another session or after it has reconnected", async () => {
    const envelope = async (client: pg.Client) =>
      (await client.query("SELECT current_setting('nodedb.session') AS e")).rows[0].e as string;
    const bob = await stage.connect("bob");
    const first = await stage.connect("alice");
    const firstEnvelope = await envelope(first);
    expect(await idWith(bob, firstEnvelope)).toBe("28000");
    const second = await stage.connect("alice");
    expect(await idWith(second, firstEnvelope)).toBe("28000");
    // Past the front-end, as by dblink: another connection of the same role.
    const { socketDir, port } = stage.postgres;
    const direct = await stage.connect("alice", { host: socketDir, port });
    expect(await stateOf(direct.query("SELECT auth.id()"))).toBe("28000");
    expect(await idWith(direct, firstEnvelope)).toBe("28000");
    const processId = (await bindingOf(first)).processId;
    await first.end();
    await stage.past("SELECT pg_terminate_backend($1)", [processId]);
    const later = await stage.connect("alice");
    expect(await idWith(later, firstEnvelope)).toBe("28000");
    for (const client of [bob, second, direct, later]) await client.end();
  });

  it("an envelope can be kept neither in a role nor in a function, and says nothing where a superuser has put it", async () => {
    const { rows } = await alice.query("SELECT current_setting('nodedb.session') AS e");
    const kept = `SET nodedb.session = '${rows[0].e}'`;
    for (const attempt of [
      `ALTER ROLE alice ${kept}`,
      `ALTER DATABASE postgres ${kept}`,
      `CREATE FUNCTION pg_temp.kept() RETURNS text LANGUAGE sql ${kept} AS 'SELECT auth.id()'`,
    ]) {
      expect(await stateOf(alice.query(attempt)), attempt).toBe("42501");
    }
    await stage.past(`ALTER ROLE bob ${kept}`);
    const { socketDir, port } = stage.postgres;
    const direct = await stage.connect("bob", { host: socketDir, port });
    expect(await stateOf(direct.query("SELECT auth.id()"))).toBe("28000");
    const bob = await stage.connect("bob", { application_name: "a connection of its own" });
    expect((await bob.query("SELECT auth.id() AS id")).rows).toEqual([{ id: "bob" }]);
    await bob.query("RESET nodedb.session");
    expect((await bob.query("SELECT auth.id() AS id")).rows).toEqual([{ id: "bob" }]);
    for (const client of [direct, bob]) await client.end();
  });
}
