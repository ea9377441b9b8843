/** Scripts of protocol messages as a client may send them ahead (PostgreSQL 18 manual 54.2.3, 54.2.4), and what is made of their answers. */

import fc from "fast-check";
import { decodeErrorFields } from "../../src/wire/backend-message-decoding.ts";
import {
  encodeClose,
  encodeDescribe,
  encodeExecute,
  encodeFlush,
  encodeParse,
  encodeQuery,
  encodeSync,
} from "../../src/wire/frontend-message-encoding.ts";
import { type BackendMessage, bind, message, type RawClient, rowsOf, valuesOf } from "./raw-client.ts";

/** `@` in a text is the script's own beginning of names. */
export type Step =
  | { readonly send: "parse"; readonly name: string; readonly text: string }
  | { readonly send: "bind"; readonly portal: string; readonly statement: string; readonly formats: number }
  | { readonly send: "describe" | "close"; readonly target: "statement" | "portal"; readonly name: string }
  | { readonly send: "execute"; readonly portal: string; readonly rows: number }
  | { readonly send: "query"; readonly texts: readonly string[] }
  /** A COPY and its data at once, in a Query or with the unnamed portal. */
  | { readonly send: "copy"; readonly isQuery: boolean; readonly data: string }
  | { readonly send: "flush" | "sync" | "copy done" };

export type Script = readonly Step[];

/** Statements of ours, with what says the same to PostgreSQL alone. */
const own: ReadonlyMap<string, string> = new Map([
  ["CREATE USER @a PASSWORD 'long enough to be taken'", "CREATE USER @a"],
  ["CREATE USER @b PASSWORD 'long enough to be taken'", "CREATE USER @b"],
  ["ALTER USER @a NOLOGIN", "ALTER USER @a NOLOGIN"],
  ["DROP USER @a", "DROP USER @a"],
  ["GRANT ROLE readonly TO @a", "GRANT pg_monitor TO @a"],
  ["SHOW USERS", "SELECT rolname FROM pg_roles WHERE rolname IN ('postgres', '@a', '@b')"],
  ["CREATE USER @a PASSWORD", "CREATE USER @a PASSWORD"],
  ["SELECT $auth.id", "SELECT 'postgres'"],
]);

/** Those for which PostgreSQL has nothing like it. */
const ownAlone: readonly string[] = [
  "CREATE USER IF NOT EXISTS @a PASSWORD 'long enough to be taken'",
  "CREATE RLS POLICY @p ON guarded FOR READ USING (name = $auth.id)",
  "DROP RLS POLICY @p ON guarded",
  "SHOW RLS POLICIES",
];

const control = [
  "BEGIN",
  "COMMIT",
  "ROLLBACK",
  "SAVEPOINT s",
  "ROLLBACK TO s",
  "RELEASE s",
  "COMMIT AND CHAIN",
  "ROLLBACK AND CHAIN",
] as const;

const plain = [
  "INSERT INTO written VALUES ('@a')",
  "INSERT INTO written VALUES ('@b')",
  "SELECT generate_series(1, 3)",
  "SELECT 1/0",
  "SELECT generate_series(1, 3) / (3 - generate_series(1, 3))",
  "SELEC 1",
  "SELECT nothing FROM nowhere",
  "DO 'BEGIN RAISE NOTICE ''told''; END'",
  "COPY (SELECT generate_series(1, 3)) TO STDOUT",
  "SELECT auth.id()",
  "SELECT length('LONG')",
  "SELECT repeat('long', 50000)",
  "",
] as const;

/** They reach the names that the extended protocol uses from the side. */
const sideways = [
  "DEALLOCATE one",
  "DEALLOCATE ALL",
  "PREPARE one AS SELECT 7",
  "CLOSE p",
  "DECLARE p CURSOR FOR SELECT 8",
  "FETCH 1 FROM p",
  "DISCARD ALL",
  "RESET ALL",
] as const;

function textsOf(script: Script): string[] {
  return script.flatMap((step) =>
    step.send === "parse" ? [step.text] : step.send === "query" ? step.texts : [],
  );
}

/** Whether it holds statements of ours, each of which PostgreSQL has one like. */
export function isTranslatable(script: Script): boolean {
  const texts = textsOf(script);
  // Behind a reset in the same transaction claims are refused.
  const mayBeRefused = texts.includes("SELECT $auth.id") && texts.some((text) => resets.has(text));
  return (
    texts.some((text) => own.has(text)) && !texts.some((text) => untranslatable.has(text)) && !mayBeRefused
  );
}

/** Whether PostgreSQL alone, where there are no claims, answers it. */
export function isPlain(script: Script): boolean {
  return !textsOf(script).some((text) => untranslatable.has(text));
}

const untranslatable: ReadonlySet<string> = new Set([...ownAlone, "SELECT auth.id()"]);
const resets: ReadonlySet<string> = new Set(["RESET ALL", "DISCARD ALL"]);
const misspelled: ReadonlySet<string> = new Set(["SELEC 1", "CREATE USER @a PASSWORD"]);

/**
 * PostgreSQL reads a Query to its end before it runs any of it. Where statements of ours are among several, what stands behind
 * one is read when that has run.
 */
export function isReadInOrder(script: Script): boolean {
  return script.every(
    (step) =>
      step.send !== "query" || step.texts.length === 1 || !step.texts.some((text) => misspelled.has(text)),
  );
}

export interface ScriptOptions {
  readonly mayHoldOwn: boolean;
  /** A Query behind messages that no Sync has ended. */
  readonly mayQueryUnsynced: boolean;
}

export function scripts({ mayHoldOwn, mayQueryUnsynced }: ScriptOptions): fc.Arbitrary<Script> {
  const text = fc.oneof(
    { weight: mayHoldOwn ? 5 : 0, arbitrary: fc.constantFrom(...own.keys()) },
    { weight: mayHoldOwn ? 1 : 0, arbitrary: fc.constantFrom(...ownAlone) },
    { weight: 4, arbitrary: fc.constantFrom(...control) },
    { weight: 4, arbitrary: fc.constantFrom(...plain) },
    { weight: 1, arbitrary: fc.constantFrom(...sideways) },
  );
  const name = fc.oneof(
    { weight: 3, arbitrary: fc.constant("") },
    { weight: 2, arbitrary: fc.constant("one") },
    { weight: 1, arbitrary: fc.constant("two") },
  );
  const portal = fc.oneof(
    { weight: 3, arbitrary: fc.constant("") },
    { weight: 2, arbitrary: fc.constant("p") },
    { weight: 1, arbitrary: fc.constant("q") },
  );
  const rows = fc.oneof(
    { weight: 3, arbitrary: fc.constant(0) },
    { weight: 1, arbitrary: fc.integer({ min: 1, max: 4 }) },
  );
  const formats = fc.oneof(
    { weight: 9, arbitrary: fc.constant(0) },
    { weight: 1, arbitrary: fc.constant(2) },
  );
  const steps = <T extends Step>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<Step[]> =>
    arbitrary.map((step) => [step]);
  const sync: Step = { send: "sync" };
  const end = fc.constantFrom<readonly Step[]>([], [], [sync]);
  const ran = fc
    .record({ name, portal, text, rows, end, formats })
    .map(({ name, portal, text, rows, end, formats }): Step[] => [
      { send: "parse", name, text },
      { send: "bind", portal, statement: name, formats },
      { send: "execute", portal, rows },
      ...end,
    ]);
  const ranAgain = fc
    .record({ name, portal, rows, end })
    .map(({ name, portal, rows, end }): Step[] => [
      { send: "bind", portal, statement: name, formats: 0 },
      { send: "execute", portal, rows },
      ...end,
    ]);
  const group = fc.oneof(
    { weight: 8, arbitrary: ran },
    { weight: 5, arbitrary: ranAgain },
    { weight: 2, arbitrary: steps(fc.record({ send: fc.constant("parse" as const), name, text })) },
    {
      weight: 2,
      arbitrary: steps(fc.record({ send: fc.constant("bind" as const), portal, statement: name, formats })),
    },
    { weight: 2, arbitrary: steps(fc.record({ send: fc.constant("execute" as const), portal, rows })) },
    {
      weight: 2,
      arbitrary: steps(
        fc.record({
          send: fc.constantFrom("describe" as const, "close" as const),
          target: fc.constant("statement" as const),
          name,
        }),
      ),
    },
    {
      weight: 2,
      arbitrary: steps(
        fc.record({
          send: fc.constantFrom("describe" as const, "close" as const),
          target: fc.constant("portal" as const),
          name: portal,
        }),
      ),
    },
    {
      weight: 3,
      arbitrary: fc
        .array(text, { minLength: 1, maxLength: 4 })
        .map((texts): Step[] => [...(mayQueryUnsynced ? [] : [sync]), { send: "query", texts }]),
    },
    {
      weight: 1,
      arbitrary: fc
        .record({
          send: fc.constant("copy" as const),
          isQuery: fc.boolean(),
          data: fc.constantFrom("@a\n@b\n", "@a\ttoo many\n", ""),
        })
        .map((copy): Step[] => [...(mayQueryUnsynced || !copy.isQuery ? [] : [sync]), copy]),
    },
    { weight: 1, arbitrary: fc.constant<Step[]>([{ send: "flush" }]) },
    { weight: 3, arbitrary: fc.constant<Step[]>([sync]) },
    { weight: 1, arbitrary: fc.constant<Step[]>([{ send: "copy done" }]) },
  );
  return fc.array(group, { minLength: 1, maxLength: 9 }).map((groups) => groups.flat());
}

/** @param translate makes a text of the script the one that is sent */
export function encodeStep(step: Step, translate: (text: string) => string): Buffer {
  switch (step.send) {
    case "parse":
      return encodeParse(step.name, translate(step.text));
    case "bind":
      return bind({ ...step, resultFormats: Array.from({ length: step.formats }, () => 0) });
    case "describe":
      return encodeDescribe(step.target, step.name);
    case "close":
      return encodeClose(step.target, step.name);
    case "execute":
      return encodeExecute(step.portal, step.rows);
    case "query":
      return encodeQuery(step.texts.map(translate).join("; "));
    case "copy": {
      const text = "COPY written FROM STDIN";
      const data = [message("d", translate(step.data)), message("c")];
      if (step.isQuery) return Buffer.concat([encodeQuery(text), ...data]);
      const begin = [encodeParse("copy", text), bind({ statement: "copy" }), encodeExecute("")];
      // Nothing else runs it: without data it would take the next messages for them.
      return Buffer.concat([...begin, ...data, encodeClose("statement", "copy")]);
    }
    case "flush":
      return encodeFlush();
    case "sync":
      return encodeSync();
    case "copy done":
      return message("c");
  }
}

/** More than a client may send ahead while a statement of ours runs, in bytes. */
const longText = "x".repeat(70_000);

/** As they are sent to the front-end. */
export function named(prefix: string): (text: string) => string {
  return (text) => text.replaceAll("@", prefix).replace("LONG", longText);
}

/** As they are sent to PostgreSQL, which has statements of its own for ours. */
export function translated(prefix: string): (text: string) => string {
  return (text) => named(prefix)(own.get(text) ?? text);
}

/**
 * Where a client that waits for each ReadyForQuery cuts the script. A Query behind messages without a Sync is none: PostgreSQL
 * skips it when one of them fails.
 */
export function piecesOf(script: Script): { readonly ended: readonly Script[]; readonly rest: Script } {
  const ended: Script[] = [];
  let piece: Step[] = [];
  let isUnsynced = false;
  for (const step of script) {
    piece.push(step);
    const isEnd: boolean =
      step.send === "sync" ||
      ((step.send === "query" || (step.send === "copy" && step.isQuery)) && !isUnsynced);
    if (step.send !== "flush" && step.send !== "copy done") isUnsynced = !isEnd;
    if (isEnd) ended.push(piece);
    if (isEnd) piece = [];
  }
  return { ended, rest: piece };
}

const endText = "the end of the script";

/** What ends a script: its Sync, the end of its transaction, and rows that nothing else in it gives. */
export const ending = Buffer.concat([
  encodeSync(),
  encodeQuery("COMMIT"),
  encodeQuery(`SELECT '${endText}'`),
]);

/** Everything up to the answer to `ending`. @throws Error when something is missing or left over */
export async function readToEnd(client: RawClient): Promise<BackendMessage[]> {
  const messages: BackendMessage[] = [];
  for (;;) {
    const answer = await client.readReady().catch((error: unknown) => {
      throw new Error(`${String(error)}; before that: ${messages.map(({ type }) => type).join("")}`);
    });
    messages.push(...answer);
    if (rowsOf(answer).some(([value]) => value === endText)) break;
  }
  if (client.unread.length > 0) throw new Error(`left over: ${client.unread.toString("latin1")}`);
  return messages;
}

const time = /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d.*$/;

/** The answers to the last byte, but for names, and times that are given as such. */
export function wordForWord(messages: readonly BackendMessage[], prefix: string): string[] {
  return messages
    .filter(({ type }) => type !== "S")
    .map(({ type, body }) => {
      if (type !== "D") return `${type} ${body.toString("latin1").replaceAll(prefix, "@")}`;
      const values = valuesOf(body).map((value) => value?.toString("latin1").replaceAll(prefix, "@") ?? null);
      return `D ${JSON.stringify(values.map((value) => value?.replace(time, "a time") ?? null))}`;
    });
}

/** What PostgreSQL says of a GRANT that changes nothing; we do not. */
const alreadyGranted = /is already a member of|has already been granted membership/;

/** The answers as far as PostgreSQL's own statements give the same ones as ours. */
export function inOutline(
  messages: readonly BackendMessage[],
  prefix: string,
  administrator: string,
): string[] {
  return messages
    .filter(
      ({ type, body }) => type !== "S" && !(type === "N" && alreadyGranted.test(body.toString("latin1"))),
    )
    .map(({ type, body }) => {
      switch (type) {
        case "C": {
          const tag = body.toString("latin1", 0, body.length - 1);
          return `C ${tag.replace("USER", "ROLE").replace(/^(SHOW|SELECT \d+)$/, "SELECT")}`;
        }
        case "Z":
          return `Z ${body.toString("latin1")}`;
        case "D": {
          const [first] = valuesOf(body);
          return `D ${first?.toString("latin1").replaceAll(prefix, "@").replace(administrator, "administrator")}`;
        }
        case "E":
        case "N":
          return `${type} ${decodeErrorFields(body).get("C")}`;
        default:
          return type;
      }
    });
}
