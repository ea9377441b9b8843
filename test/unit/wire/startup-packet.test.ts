import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SqlError } from "../../../src/errors/sql-error.ts";
import { encodeCancelRequest, encodeStartupMessage } from "../../../src/wire/frontend-message-encoding.ts";
import { maxStartupPacketBytes } from "../../../src/wire/limits.ts";
import { decodeStartupPacket } from "../../../src/wire/startup-packet.ts";
import { cstring, int32 } from "./wire-bytes.ts";

const version30 = int32(0x30000);

function startup(...fields: (string | Buffer)[]): Buffer {
  return Buffer.concat([version30, ...fields.map(cstring), Buffer.from([0])]);
}

function refusal(body: Buffer): SqlError {
  try {
    decodeStartupPacket(body);
  } catch (error) {
    if (error instanceof SqlError) return error;
    throw error;
  }
  throw new Error("was not refused");
}

describe("startup packet", () => {
  test("tells SSLRequest and GSSENCRequest apart", () => {
    expect(decodeStartupPacket(int32(80877103))).toEqual({ kind: "ssl_request" });
    expect(decodeStartupPacket(int32(80877104))).toEqual({ kind: "gssenc_request" });
  });

  test("refuses an SSLRequest with bytes behind its code", () => {
    expect(refusal(Buffer.concat([int32(80877103), Buffer.from([0])])).condition).toBe("protocol_violation");
  });

  test.each([4, 32, 256])("takes a cancel key of %i bytes", (length) => {
    const secretKey = Buffer.alloc(length, 7);
    expect(decodeStartupPacket(encodeCancelRequest(-2, secretKey).subarray(4))).toEqual({
      kind: "cancel_request",
      processId: -2,
      secretKey,
    });
  });

  test.each([0, 3, 257])("refuses a cancel key of %i bytes", (length) => {
    expect(refusal(encodeCancelRequest(1, Buffer.alloc(length)).subarray(4)).message).toBe(
      "invalid length of cancel key in cancel request packet",
    );
  });

  test("copies the cancel key out of the read buffer", () => {
    const body = encodeCancelRequest(1, Buffer.from([1, 2, 3, 4])).subarray(4);
    const packet = decodeStartupPacket(body);
    body.fill(0);
    expect(packet).toMatchObject({ secretKey: Buffer.from([1, 2, 3, 4]) });
  });

  test("reads a StartupMessage byte for byte", () => {
    const body = Buffer.from("0003000275736572007a6fc3ab006461746162617365006462000000", "hex").subarray(
      0,
      -1,
    );
    expect(decodeStartupPacket(body)).toEqual({
      kind: "startup",
      major: 3,
      minor: 2,
      user: "zoë",
      parameters: new Map([
        ["user", "zoë"],
        ["database", "db"],
      ]),
      unrecognizedProtocolOptions: [],
    });
  });

  test("leaves a newer minor version and unknown protocol options to the caller", () => {
    const body = startup("user", "u", "_pq_.b", "1", "_pq_.a", "");
    body.writeUInt16BE(9999, 2);
    const packet = decodeStartupPacket(body);
    expect(packet).toMatchObject({ minor: 9999, unrecognizedProtocolOptions: ["_pq_.b", "_pq_.a"] });
    expect(packet).toMatchObject({ parameters: new Map([["user", "u"]]) });
  });

  test("lets the last of equal names win", () => {
    const packet = decodeStartupPacket(startup("user", "a", "user", "b"));
    expect(packet).toMatchObject({ user: "b", parameters: new Map([["user", "b"]]) });
  });

  test.each([
    [0x20000, "unsupported frontend protocol 2.0: server supports 3.0 to 3.2"],
    [0x40001, "unsupported frontend protocol 4.1: server supports 3.0 to 3.2"],
    [-1, "unsupported frontend protocol 65535.65535: server supports 3.0 to 3.2"],
  ])("refuses protocol %i as unsupported", (code, message) => {
    const error = refusal(int32(code));
    expect([error.condition, error.severity, error.message]).toEqual([
      "feature_not_supported",
      "FATAL",
      message,
    ]);
  });

  test.each([
    ["without terminator", startup("user", "u").subarray(0, -1)],
    ["with a name that has no value", Buffer.concat([version30, cstring("user"), Buffer.from([0])])],
    ["with a value that has no NUL", Buffer.concat([version30, cstring("user"), Buffer.from("u")])],
    ["with bytes after the terminator", Buffer.concat([startup("user", "u"), Buffer.from([0])])],
    ["with a version and nothing else", version30],
  ])("refuses a packet %s", (_, body) => {
    const error = refusal(body);
    expect([error.sqlstate, error.severity, error.message]).toEqual([
      "08P01",
      "FATAL",
      "invalid startup packet layout: expected terminator as last byte",
    ]);
  });

  test.each([0, 3, maxStartupPacketBytes + 1])("refuses a body of %i bytes", (length) => {
    expect(refusal(Buffer.alloc(length)).message).toBe("invalid length of startup packet");
  });

  test.each([[startup()], [startup("database", "db")], [startup("user", "")]])(
    "refuses a packet without a user",
    (body) => {
      const error = refusal(body);
      expect([error.sqlstate, error.severity]).toEqual(["28000", "FATAL"]);
      expect(error.message).toBe("no PostgreSQL user name specified in startup packet");
    },
  );

  test("refuses a name that is not UTF-8 instead of blending it into another", () => {
    expect(refusal(startup("user", Buffer.from([0x61, 0xff]))).condition).toBe("character_not_in_repertoire");
  });

  test("reads what encodeStartupMessage writes", () => {
    const text = fc.string({ unit: "grapheme", minLength: 1 }).filter((s) => !s.includes("\0"));
    const name = text.filter((s) => !s.startsWith("_pq_."));
    fc.assert(
      fc.property(fc.array(fc.tuple(name, text)), fc.nat(2), (pairs, minor) => {
        const parameters = new Map([...pairs, ["user", "u"]] as [string, string][]);
        const packet = encodeStartupMessage(parameters, minor);
        expect(packet.readInt32BE(0)).toBe(packet.length);
        fc.pre(packet.length <= maxStartupPacketBytes);
        expect(decodeStartupPacket(packet.subarray(4))).toMatchObject({ minor, parameters });
      }),
    );
  });

  test("throws nothing but FATAL SqlErrors on any bytes", () => {
    const codes = fc.constantFrom(0x30000, 0x30002, 80877102, 80877103, 80877104);
    fc.assert(
      fc.property(codes, fc.uint8Array({ maxLength: 300 }), (code, rest) => {
        try {
          decodeStartupPacket(Buffer.concat([int32(code), rest]));
        } catch (error) {
          expect(error).toBeInstanceOf(SqlError);
          expect(error).toMatchObject({ severity: "FATAL" });
        }
      }),
    );
  });
});
