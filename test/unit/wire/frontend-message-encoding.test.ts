import { describe, expect, test } from "vitest";
import { SqlError } from "../../../src/errors/sql-error.ts";
import { decodeFrontendMessage } from "../../../src/wire/frontend-message.ts";
import * as encoding from "../../../src/wire/frontend-message-encoding.ts";
import { split } from "./wire-bytes.ts";

function decoded(message: Buffer) {
  const { type, body } = split(message);
  return decodeFrontendMessage(type.charCodeAt(0), body);
}

describe("messages that the front-end sends upstream", () => {
  test("a StartupMessage is these bytes, and adds no parameter of its own", () => {
    const parameters = new Map([
      ["user", "u"],
      ["local_preload_libraries", ""],
    ]);
    expect(encoding.encodeStartupMessage(parameters, 2).toString("latin1")).toBe(
      "\0\0\0\x29\0\x03\0\x02user\0u\0local_preload_libraries\0\0\0",
    );
  });

  test.each([
    ["an empty name", new Map([["", "x"]])],
    ["a NUL in a name", new Map([["a\0role", "x"]])],
    ["a NUL in a value", new Map([["application_name", "x\0role\0postgres"]])],
  ])("a StartupMessage with %s is refused, since it could smuggle in a parameter", (_, parameters) => {
    expect(() => encoding.encodeStartupMessage(parameters, 0)).toThrow(SqlError);
  });

  test("a CancelRequest carries a key of any length", () => {
    const packet = encoding.encodeCancelRequest(258, Buffer.from("abcdef"));
    expect(packet.toString("latin1")).toBe("\0\0\0\x12\x04\xd2\x16\x2e\0\0\x01\x02abcdef");
  });

  test("an SSLRequest is eight bytes", () => {
    expect(encoding.encodeSslRequest().toString("hex")).toBe("0000000804d2162f");
  });

  test("each message decodes to what was asked for", () => {
    expect(decoded(encoding.encodeQuery("SELECT 'é'"))).toEqual({
      type: "Query",
      text: Buffer.from("SELECT 'é'"),
    });
    expect(decoded(encoding.encodeParse("s", Buffer.from([0x80, 0x41]), [25, 4294967295]))).toEqual({
      type: "Parse",
      statement: "s",
      text: Buffer.from([0x80, 0x41]),
      parameterTypeOids: [25, 4294967295],
    });
    expect(decoded(encoding.encodeBind(["a", null]))).toMatchObject({
      type: "Bind",
      portal: "",
      statement: "",
      parameters: [Buffer.from("a"), null],
      resultFormats: [0],
    });
    expect(decoded(encoding.encodeDescribe("portal", ""))).toEqual({
      type: "Describe",
      target: "portal",
      name: "",
    });
    expect(decoded(encoding.encodeClose("statement", "s"))).toEqual({
      type: "Close",
      target: "statement",
      name: "s",
    });
    expect(decoded(encoding.encodeExecute("p", 5))).toEqual({ type: "Execute", portal: "p", maxRows: 5 });
    expect(decoded(encoding.encodeFlush())).toEqual({ type: "Flush" });
    expect(decoded(encoding.encodeSync())).toEqual({ type: "Sync" });
    expect(decoded(encoding.encodeTerminate())).toEqual({ type: "Terminate" });
    expect(decoded(encoding.encodeCopyFail("gone"))).toEqual({
      type: "CopyFail",
      reason: Buffer.from("gone"),
    });
    expect(split(encoding.encodeSaslResponse("c=biws")).body.toString()).toBe("c=biws");
    expect(split(encoding.encodeSaslInitialResponse("M", "ab")).body.toString("latin1")).toBe(
      "M\0\0\0\0\x02ab",
    );
  });

  test("a name that a client sent in another encoding comes out as it went in", () => {
    const name = Buffer.from([0xe4, 0x80]).toString("latin1");
    expect(decoded(encoding.encodeClose("statement", name))).toMatchObject({ name });
    expect(decoded(encoding.encodeParse(name, ""))).toMatchObject({ statement: name });
    expect(decoded(encoding.encodeExecute(name))).toMatchObject({ portal: name });
  });

  test("a NUL in a text is refused instead of cutting the message short", () => {
    expect(() => encoding.encodeQuery("SELECT 1\0")).toThrow(SqlError);
    expect(() => encoding.encodeParse("", Buffer.from([0x41, 0]))).toThrow(SqlError);
    expect(() => encoding.encodeDescribe("portal", "a\0")).toThrow(SqlError);
  });
});
