import fc from "fast-check";
import { serialize } from "pg-protocol";
import { describe, expect, test } from "vitest";
import { SqlError } from "../../../src/errors/sql-error.ts";
import {
  decodeFrontendMessage,
  decodePasswordMessage,
  decodeSaslInitialResponse,
  decodeSaslResponse,
  type FrontendMessage,
} from "../../../src/wire/frontend-message.ts";
import { MessageReader } from "../../../src/wire/message-reader.ts";
import { cstring, int16, int32, list, split, value } from "./wire-bytes.ts";

function decode(type: string, ...parts: Buffer[]): FrontendMessage {
  return decodeFrontendMessage(type.charCodeAt(0), Buffer.concat(parts));
}

function refusal(run: () => unknown): SqlError {
  try {
    run();
  } catch (error) {
    if (error instanceof SqlError) return error;
    throw error;
  }
  throw new Error("was not refused");
}

/** One valid body of every type, with every field filled. */
const valid: readonly [type: string, body: Buffer][] = [
  ["Q", cstring("SELECT 1")],
  ["P", Buffer.concat([cstring("s"), cstring("SELECT $1"), list([int32(25), int32(-1)])])],
  [
    "B",
    Buffer.concat([
      cstring("p"),
      cstring("s"),
      list([int16(0), int16(1), int16(0)]),
      list([value(Buffer.from("a")), value(null), value(Buffer.alloc(0))]),
      list([int16(1)]),
    ]),
  ],
  ["D", Buffer.concat([Buffer.from("S"), cstring("s")])],
  ["E", Buffer.concat([cstring("p"), int32(7)])],
  ["C", Buffer.concat([Buffer.from("P"), cstring("p")])],
  ["F", Buffer.concat([int32(-2), list([int16(1)]), list([value(Buffer.from("x"))]), int16(1)])],
  ["H", Buffer.alloc(0)],
  ["S", Buffer.alloc(0)],
  ["X", Buffer.alloc(0)],
  ["d", Buffer.from("1\t2\n")],
  ["c", Buffer.alloc(0)],
  ["f", cstring("stopped")],
];

describe("frontend messages", () => {
  test("decodes every type under the manual's name", () => {
    expect(valid.map(([type, body]) => decode(type, body))).toEqual([
      { type: "Query", text: Buffer.from("SELECT 1") },
      { type: "Parse", statement: "s", text: Buffer.from("SELECT $1"), parameterTypeOids: [25, 0xffffffff] },
      {
        type: "Bind",
        portal: "p",
        statement: "s",
        parameterFormats: [0, 1, 0],
        parameters: [Buffer.from("a"), null, Buffer.alloc(0)],
        resultFormats: [1],
      },
      { type: "Describe", target: "statement", name: "s" },
      { type: "Execute", portal: "p", maxRows: 7 },
      { type: "Close", target: "portal", name: "p" },
      {
        type: "FunctionCall",
        functionOid: 0xfffffffe,
        argumentFormats: [1],
        arguments: [Buffer.from("x")],
        resultFormat: 1,
      },
      { type: "Flush" },
      { type: "Sync" },
      { type: "Terminate" },
      { type: "CopyData", data: Buffer.from("1\t2\n") },
      { type: "CopyDone" },
      { type: "CopyFail", reason: Buffer.from("stopped") },
    ]);
  });

  test("reads what pg-protocol's serializer writes", () => {
    const name = fc.string({ maxLength: 60 }).filter((s) => !s.includes("\0"));
    const values = fc.array(
      fc.option(
        fc.oneof(
          fc.string(),
          fc.uint8Array().map((b) => Buffer.from(b)),
        ),
      ),
    );
    fc.assert(
      fc.property(name, name, values, fc.boolean(), (portal, statement, parameters, binary) => {
        const { type, body } = split(serialize.bind({ portal, statement, binary, values: parameters }));
        expect(decode(type, body)).toEqual({
          type: "Bind",
          portal,
          statement,
          parameterFormats: parameters.map((v) => (Buffer.isBuffer(v) ? 1 : 0)),
          parameters: parameters.map((v) => (typeof v === "string" ? Buffer.from(v) : v)),
          resultFormats: [binary ? 1 : 0],
        });
      }),
    );
  });

  test("keeps texts and names that are not UTF-8 as they are", () => {
    const bytes = Buffer.from([0x80, 0xff, 0x41]);
    const message = decode("P", cstring(bytes), cstring(bytes), int16(0));
    if (message.type !== "Parse") throw new Error(message.type);
    expect(message.text).toEqual(bytes);
    expect(Buffer.from(message.statement, "latin1")).toEqual(bytes);
  });

  test("returns a view of the body, not a copy", () => {
    const body = cstring("SELECT 1");
    const message = decodeFrontendMessage(0x51, body);
    if (message.type !== "Query") throw new Error(message.type);
    expect(message.text.buffer).toBe(body.buffer);
    expect(message.text.byteOffset).toBe(body.byteOffset);
  });

  test("refuses every truncation of every message with a FATAL protocol_violation", () => {
    for (const [type, body] of valid) {
      if (type === "d") continue; // every prefix of CopyData is CopyData
      for (let length = 0; length < body.length; length += 1) {
        const error = refusal(() => decode(type, body.subarray(0, length)));
        expect([type, length, error.sqlstate, error.severity]).toEqual([type, length, "08P01", "FATAL"]);
      }
    }
  });

  test("refuses every message with a byte too many", () => {
    for (const [type, body] of valid) {
      if (type === "d") continue;
      expect(refusal(() => decode(type, body, Buffer.from([0]))).message).toBe("invalid message format");
    }
  });

  test("throws nothing but protocol_violation on any bytes", () => {
    fc.assert(
      fc.property(fc.nat(255), fc.uint8Array({ maxLength: 64 }), (type, bytes) => {
        try {
          decodeFrontendMessage(type, Buffer.from(bytes));
        } catch (error) {
          expect(error).toBeInstanceOf(SqlError);
          expect(error).toMatchObject({ condition: "protocol_violation" });
        }
      }),
    );
  });

  test.each([
    ["Q", Buffer.from("SELECT"), "invalid string in message"],
    ["Q", Buffer.from("a\0b\0"), "invalid message format"],
    ["D", Buffer.concat([Buffer.from("X"), cstring("")]), "invalid DESCRIBE message subtype 88"],
    ["C", Buffer.concat([Buffer.from("Y"), cstring("")]), "invalid CLOSE message subtype 89"],
    ["S", Buffer.from([0]), "invalid message format"],
    ["p", cstring("secret"), "invalid frontend message type 112"],
    ["?", Buffer.alloc(0), "invalid frontend message type 63"],
  ])("words the refusal of %s %j as PostgreSQL does", (type, body, message) => {
    expect(refusal(() => decode(type, body)).message).toBe(message);
  });

  test("checks a count against the bytes left before it reads or makes anything", () => {
    const reader = new MessageReader(Buffer.concat([int16(1000), Buffer.alloc(1000 * 4 - 1)]));
    let itemsRead = 0;
    const read = () => {
      itemsRead += 1;
      return reader.int32();
    };
    expect(refusal(() => reader.list(4, read)).message).toBe("insufficient data left in message");
    expect(itemsRead).toBe(0);
  });

  test("refuses a count of 65535 with nothing behind it", () => {
    const claims65535 = Buffer.from([0xff, 0xff]);
    for (const parts of [
      ["P", cstring(""), cstring(""), claims65535],
      ["B", cstring(""), cstring(""), claims65535],
      ["B", cstring(""), cstring(""), int16(0), claims65535],
      ["F", int32(1), claims65535],
    ] as const) {
      const [type, ...body] = parts;
      expect(refusal(() => decode(type, ...body)).message).toBe("insufficient data left in message");
    }
  });

  test.each([-2, -2147483648, 5, 2147483647])("refuses a value that claims %i bytes", (length) => {
    const body = [cstring(""), cstring(""), int16(0), int16(1), int32(length), Buffer.from("abcd")];
    expect(refusal(() => decode("B", ...body)).message).toBe("insufficient data left in message");
  });

  test("reports formats and parameters that differ in number as an ERROR, as PostgreSQL does", () => {
    const body = [cstring(""), cstring(""), list([int16(0), int16(0)]), list([value(null)]), int16(0)];
    const error = refusal(() => decode("B", ...body));
    expect([error.severity, error.message]).toEqual([
      "ERROR",
      "bind message has 2 parameter formats but 1 parameters",
    ]);
    const call = [int32(1), list([int16(0), int16(0)]), list([value(null)]), int16(0)];
    expect(refusal(() => decode("F", ...call)).message).toBe(
      "function call message contains 2 argument formats but 1 arguments",
    );
  });

  test("takes one parameter format for all parameters", () => {
    const body = [cstring(""), cstring(""), list([int16(1)]), list([value(null), value(null)]), int16(0)];
    expect(decode("B", ...body)).toMatchObject({ parameterFormats: [1], parameters: [null, null] });
  });
});

describe("messages of type p", () => {
  test("reads SASLInitialResponse with and without an initial response", () => {
    const { body } = split(serialize.sendSASLInitialResponseMessage("SCRAM-SHA-256", "n,,n=,r=x"));
    expect(decodeSaslInitialResponse(body)).toEqual({
      mechanism: "SCRAM-SHA-256",
      initialResponse: Buffer.from("n,,n=,r=x"),
    });
    const without = Buffer.concat([cstring("SCRAM-SHA-256"), int32(-1)]);
    expect(decodeSaslInitialResponse(without).initialResponse).toBeNull();
  });

  test("refuses every truncation of SASLInitialResponse", () => {
    const { body } = split(serialize.sendSASLInitialResponseMessage("SCRAM-SHA-256", "n,,n=,r=x"));
    for (let length = 0; length < body.length; length += 1) {
      const error = refusal(() => decodeSaslInitialResponse(body.subarray(0, length)));
      expect([error.sqlstate, error.severity]).toEqual(["08P01", "FATAL"]);
    }
  });

  test("refuses a SASLInitialResponse with bytes left over or a false length", () => {
    const body = Buffer.concat([cstring("SCRAM-SHA-256"), value(Buffer.from("x")), Buffer.from("y")]);
    expect(refusal(() => decodeSaslInitialResponse(body)).message).toBe("invalid message format");
    const long = Buffer.concat([cstring("SCRAM-SHA-256"), int32(0x7fffffff), Buffer.from("y")]);
    expect(refusal(() => decodeSaslInitialResponse(long)).message).toBe("insufficient data left in message");
  });

  test("reads SASLResponse and PasswordMessage", () => {
    expect(decodeSaslResponse(split(serialize.sendSCRAMClientFinalMessage("c=biws")).body)).toEqual(
      Buffer.from("c=biws"),
    );
    expect(decodePasswordMessage(split(serialize.password("geheim")).body)).toEqual(Buffer.from("geheim"));
    expect(refusal(() => decodePasswordMessage(Buffer.from("x"))).message).toBe("invalid string in message");
  });
});
