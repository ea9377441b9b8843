/** Which statements control a transaction, held against PostgreSQL's own parser. */

import fc from "fast-check";
import { loadModule, parseSync } from "libpg-query";
import { beforeAll, describe, expect, it } from "vitest";
import {
  mayBeTransactionControl,
  parseTransactionControl,
  type TransactionControl,
} from "../../../src/ddl/transaction-control.ts";

function control(sql: string): TransactionControl | undefined {
  // What surrounds the statement in its buffer must not matter.
  const text = Buffer.from(`commit ${sql}\0begin`);
  return parseTransactionControl(text, 7, 7 + Buffer.byteLength(sql));
}

function mayBe(sql: string): boolean {
  const text = Buffer.from(`;${sql}\0;begin`);
  return mayBeTransactionControl(text, 1, 1 + Buffer.byteLength(sql));
}

describe("parseTransactionControl", () => {
  it.each<[string, TransactionControl]>([
    ["BEGIN", { kind: "begin" }],
    ["begin work;", { kind: "begin" }],
    ["begin transaction isolation level repeatable read, read only not deferrable", { kind: "begin" }],
    ["start transaction read write", { kind: "begin" }],
    ["COMMIT", { kind: "commit", chain: false }],
    ["end transaction", { kind: "commit", chain: false }],
    ["commit work and chain", { kind: "commit", chain: true }],
    ["commit and no chain ; ;", { kind: "commit", chain: false }],
    ["/* x */ rollback -- y", { kind: "rollback", chain: false }],
    ["abort transaction and chain", { kind: "rollback", chain: true }],
    ["savepoint A", { kind: "savepoint", name: "a" }],
    ['savepoint "A""b"', { kind: "savepoint", name: 'A"b' }],
    ['savepoint U&"d\\0061t\\+000061\\\\"', { kind: "savepoint", name: "data\\" }],
    ["savepoint U&\"d!0061\" uescape '!'", { kind: "savepoint", name: "da" }],
    ["savepoint É", { kind: "savepoint", name: "É" }],
    [`savepoint x${"é".repeat(40)}`, { kind: "savepoint", name: `x${"é".repeat(31)}` }],
    ["rollback to a", { kind: "rollback_to", name: "a" }],
    ["rollback work to savepoint a", { kind: "rollback_to", name: "a" }],
    ["rollback to savepoint", { kind: "rollback_to", name: "savepoint" }],
    ["release a", { kind: "release", name: "a" }],
    ["release savepoint a", { kind: "release", name: "a" }],
    ["release savepoint savepoint", { kind: "release", name: "savepoint" }],
    ["prepare transaction 'x'", { kind: "prepare_transaction" }],
  ])("understands %j", (sql, expected) => {
    expect(control(sql)).toEqual(expected);
    expect(mayBe(sql)).toBe(true);
  });

  it.each([
    "",
    "select 1",
    "commit prepared 'x'",
    "rollback prepared 'x'",
    "prepare transaction as select 1",
    "prepare p as select 1",
    "begin atomic",
    "begin isolation level",
    "commit and",
    "commit work work",
    "start",
    "savepoint select",
    "savepoint",
    "savepoint 'a'",
    'savepoint ""',
    "abort to a",
    "ends",
    'commit "x"',
    "commit /* x",
    "set transaction read only",
  ])("leaves %j alone", (sql) => {
    expect(control(sql)).toBeUndefined();
  });

  it("tells names apart that are not UTF-8", () => {
    const name = (byte: number) => {
      const text = Buffer.concat([Buffer.from("savepoint "), Buffer.of(byte)]);
      return parseTransactionControl(text, 0, text.length);
    };
    expect(name(0xe9)).not.toEqual(name(0xe8));
  });
});

describe("mayBeTransactionControl", () => {
  it.each([
    "",
    " ",
    "select 1",
    "insert into t values (1)",
    "prepare p as select 1",
    "prepare transactions as select 1",
    "set x = 1",
    "show x",
    "reset all",
    "explain select 1",
    "copy t from stdin",
    "beginning",
    "commit_x",
    "analyze",
    "refresh materialized view v",
  ])("is false for %j", (sql) => {
    expect(mayBe(sql)).toBe(false);
  });
});

interface OracleStatement {
  readonly kind: string;
  readonly chain?: boolean;
  readonly savepoint_name?: string;
}

/** What PostgreSQL's parser says; undefined when it is no such statement, or refused. */
function oracle(sql: string): TransactionControl | undefined {
  let statement: OracleStatement | undefined;
  try {
    const { stmts } = parseSync(sql) as {
      stmts?: readonly { readonly stmt?: { readonly TransactionStmt?: OracleStatement } }[];
    };
    if (stmts?.length !== 1) return undefined;
    statement = stmts[0]?.stmt?.TransactionStmt;
  } catch {
    return undefined;
  }
  const chain = statement?.chain ?? false;
  const name = statement?.savepoint_name ?? "";
  switch (statement?.kind) {
    case "TRANS_STMT_BEGIN":
    case "TRANS_STMT_START":
      return { kind: "begin" };
    case "TRANS_STMT_COMMIT":
      return { kind: "commit", chain };
    case "TRANS_STMT_ROLLBACK":
      return { kind: "rollback", chain };
    case "TRANS_STMT_SAVEPOINT":
      return { kind: "savepoint", name };
    case "TRANS_STMT_RELEASE":
      return { kind: "release", name };
    case "TRANS_STMT_ROLLBACK_TO":
      return { kind: "rollback_to", name };
    case "TRANS_STMT_PREPARE":
      return { kind: "prepare_transaction" };
    default:
      return undefined;
  }
}

describe("parseTransactionControl against PostgreSQL's grammar", () => {
  beforeAll(loadModule);

  const words =
    `begin commit rollback end abort start transaction work and no chain savepoint release to prepare prepared
    isolation level read only write committed repeatable serializable not deferrable , a A "a""B" 'x' E'\\'' select
    /**/ ;`.split(/\s+/);

  it("says what PostgreSQL says, whatever the words", () => {
    let found = 0;
    fc.assert(
      fc.property(
        fc.constantFrom(
          "begin",
          "commit",
          "rollback",
          "end",
          "abort",
          "start transaction",
          "savepoint",
          "release",
          "prepare",
        ),
        fc.array(fc.constantFrom(...words), { maxLength: 5 }),
        (first, rest) => {
          const sql = [first, ...rest].join(" ");
          const expected = oracle(sql);
          if (expected !== undefined) found++;
          expect([sql, control(sql)]).toEqual([sql, expected]);
        },
      ),
      { numRuns: 4000 },
    );
    expect(found).toBeGreaterThan(300);
  });
});
