import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SqlError } from "../../../src/errors/sql-error.ts";
import * as encode from "../../../src/wire/backend-message.ts";
import * as decode from "../../../src/wire/backend-message-decoding.ts";
import { int32, split } from "./wire-bytes.ts";

function body(message: Buffer): Buffer {
  return split(message).body;
}

describe("messages of the server side", () => {
  test.each<[string, Buffer, string]>([
    ["AuthenticationOk", encode.encodeAuthenticationOk(), "R\0\0\0\x08\0\0\0\0"],
    ["AuthenticationSASL", encode.encodeAuthenticationSasl(["A", "B"]), "R\0\0\0\x0d\0\0\0\x0aA\0B\0\0"],
    [
      "AuthenticationSASLContinue",
      encode.encodeAuthenticationSaslContinue("r=x"),
      "R\0\0\0\x0b\0\0\0\x0br=x",
    ],
    ["AuthenticationSASLFinal", encode.encodeAuthenticationSaslFinal("v=x"), "R\0\0\0\x0b\0\0\0\x0cv=x"],
    ["BackendKeyData", encode.encodeBackendKeyData(1, Buffer.from("abcde")), "K\0\0\0\x0d\0\0\0\x01abcde"],
    ["ParameterStatus", encode.encodeParameterStatus("a", "b"), "S\0\0\0\x08a\0b\0"],
    ["ReadyForQuery", encode.encodeReadyForQuery("T"), "Z\0\0\0\x05T"],
    [
      "NegotiateProtocolVersion",
      encode.encodeNegotiateProtocolVersion(2, ["_pq_.x"]),
      "v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.x\0",
    ],
    ["CommandComplete", encode.encodeCommandComplete("CREATE USER"), "C\0\0\0\x10CREATE USER\0"],
    ["EmptyQueryResponse", encode.encodeEmptyQueryResponse(), "I\0\0\0\x04"],
    ["ParseComplete", encode.encodeParseComplete(), "1\0\0\0\x04"],
    ["BindComplete", encode.encodeBindComplete(), "2\0\0\0\x04"],
    ["CloseComplete", encode.encodeCloseComplete(), "3\0\0\0\x04"],
    ["PortalSuspended", encode.encodePortalSuspended(), "s\0\0\0\x04"],
    ["NoData", encode.encodeNoData(), "n\0\0\0\x04"],
    ["ParameterDescription", encode.encodeParameterDescription([25]), "t\0\0\0\x0a\0\x01\0\0\0\x19"],
    [
      "RowDescription",
      encode.encodeRowDescription([{ name: "a", typeOid: 25, typeSize: -1, format: 1 }]),
      "T\0\0\0\x1a\0\x01a\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\x01",
    ],
    [
      "DataRow",
      encode.encodeDataRow([Buffer.from("x"), null, Buffer.alloc(0)]),
      "D\0\0\0\x13\0\x03\0\0\0\x01x\xff\xff\xff\xff\0\0\0\0",
    ],
    ["NoticeResponse", encode.encodeNoticeResponse([["M", "hi"]]), "N\0\0\0\x09Mhi\0\0"],
  ])("%s is these bytes", (_, message, bytes) => {
    expect(message.toString("latin1")).toBe(bytes);
  });

  test("an SqlError carries every field that it has, severity twice", () => {
    const error = new SqlError("syntax_error", "bad é", { detail: "D.", hint: "H.", position: 7 });
    expect(split(encode.encodeSqlError(error)).type).toBe("E");
    expect([...decode.decodeErrorFields(body(encode.encodeSqlError(error)))]).toEqual([
      ["S", "ERROR"],
      ["V", "ERROR"],
      ["C", "42601"],
      ["M", "bad é"],
      ["D", "D."],
      ["H", "H."],
      ["P", "7"],
    ]);
  });

  test("an SqlError without options has four fields, and its cause never shows", () => {
    const error = new SqlError("invalid_password", "no", { severity: "FATAL", cause: new Error("secret") });
    const message = encode.encodeSqlError(error);
    expect([...decode.decodeErrorFields(body(message)).keys()]).toEqual(["S", "V", "C", "M"]);
    expect(message.includes("secret")).toBe(false);
  });

  test("a notice is a NOTICE with SQLSTATE 00000", () => {
    const fields = decode.decodeErrorFields(body(encode.encodeNotice('user "x" does not exist, skipping')));
    expect([fields.get("V"), fields.get("C")]).toEqual(["NOTICE", "00000"]);
  });

  test("a NUL in a text cannot forge a field", () => {
    const fields = decode.decodeErrorFields(body(encode.encodeErrorResponse([["M", "a\0Cb"]])));
    expect(fields).toEqual(new Map([["M", "aCb"]]));
  });

  test("fields of any length and any characters arrive as they were sent", () => {
    const text = fc.string({ unit: "grapheme", maxLength: 2000 }).filter((s) => !s.includes("\0"));
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.tuple(fc.constantFrom(..."SVCMDHPpqWstcdnFLR"), text), { selector: (f) => f[0] }),
        (f) => {
          expect([...decode.decodeErrorFields(body(encode.encodeErrorResponse(f)))]).toEqual(f);
        },
      ),
    );
  });
});

describe("messages of the upstream", () => {
  test("are read as they were written", () => {
    expect(decode.decodeAuthentication(body(encode.encodeAuthenticationOk()))).toEqual({
      type: "AuthenticationOk",
    });
    expect(decode.decodeAuthentication(body(encode.encodeAuthenticationSasl(["A", "B"])))).toEqual({
      type: "AuthenticationSASL",
      mechanisms: ["A", "B"],
    });
    expect(decode.decodeAuthentication(body(encode.encodeAuthenticationSaslContinue("x")))).toEqual({
      type: "AuthenticationSASLContinue",
      data: Buffer.from("x"),
    });
    expect(decode.decodeAuthentication(body(encode.encodeAuthenticationSaslFinal("x")))).toEqual({
      type: "AuthenticationSASLFinal",
      data: Buffer.from("x"),
    });
    expect(decode.decodeAuthentication(int32(3))).toEqual({ type: "AuthenticationOther", code: 3 });
    expect(decode.decodeParameterStatus(body(encode.encodeParameterStatus("TimeZone", "UTC")))).toEqual({
      name: "TimeZone",
      value: "UTC",
    });
    expect(decode.decodeReadyForQuery(body(encode.encodeReadyForQuery("E")))).toBe("E");
    expect(decode.decodeCommandComplete(body(encode.encodeCommandComplete("COMMIT")))).toBe("COMMIT");
    expect(
      decode.decodeNegotiateProtocolVersion(body(encode.encodeNegotiateProtocolVersion(0, ["_pq_.a"]))),
    ).toEqual({ major: 3, minor: 0, unrecognizedOptions: ["_pq_.a"] });
  });

  test("the cancel key is a copy of the read buffer", () => {
    const bytes = body(encode.encodeBackendKeyData(-5, Buffer.from("keyk")));
    const data = decode.decodeBackendKeyData(bytes);
    bytes.fill(0);
    expect(data).toEqual({ processId: -5, secretKey: Buffer.from("keyk") });
  });

  test("are refused when cut short anywhere, and with bytes left over", () => {
    const messages: [(b: Buffer) => unknown, Buffer][] = [
      [decode.decodeAuthentication, encode.encodeAuthenticationSasl(["A", "B"])],
      [decode.decodeAuthentication, encode.encodeAuthenticationOk()],
      [decode.decodeErrorFields, encode.encodeErrorResponse([["M", "m"]])],
      [decode.decodeParameterStatus, encode.encodeParameterStatus("a", "b")],
      [decode.decodeBackendKeyData, encode.encodeBackendKeyData(1, Buffer.from("abcd"))],
      [decode.decodeReadyForQuery, encode.encodeReadyForQuery("I")],
      [decode.decodeCommandComplete, encode.encodeCommandComplete("x")],
      [decode.decodeNegotiateProtocolVersion, encode.encodeNegotiateProtocolVersion(1, ["a", "b"])],
    ];
    for (const [read, message] of messages) {
      const whole = body(message);
      for (let length = 0; length < whole.length; length += 1) {
        expect(() => read(whole.subarray(0, length))).toThrow(SqlError);
      }
      if (read !== decode.decodeBackendKeyData) {
        expect(() => read(Buffer.concat([whole, Buffer.from("x")]))).toThrow(SqlError);
      }
    }
  });

  test("a status that is none, a key of 257 bytes and a count without options are refused", () => {
    expect(() => decode.decodeReadyForQuery(Buffer.from("X"))).toThrow(SqlError);
    expect(() => decode.decodeBackendKeyData(Buffer.alloc(4 + 257))).toThrow(SqlError);
    expect(() => decode.decodeNegotiateProtocolVersion(Buffer.concat([int32(0x30000), int32(-1)]))).toThrow(
      SqlError,
    );
    expect(() =>
      decode.decodeNegotiateProtocolVersion(Buffer.concat([int32(0x30000), int32(0x7fffffff)])),
    ).toThrow(SqlError);
  });
});
