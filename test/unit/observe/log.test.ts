/** createLog: both formats, redaction, and lines that a client's text cannot forge. */

import { describe, expect, test } from "vitest";
import { createLog, type Log, type LogFormat, type LogLevel } from "../../../src/observe/log.ts";

function capture(format: LogFormat, level: LogLevel = "info"): { log: Log; lines: string[] } {
  const lines: string[] = [];
  return { log: createLog({ level, format, destination: { write: (line) => lines.push(line) } }), lines };
}

describe.each(["json", "text"] as const)("as %s", (format) => {
  test("a line carries level, message, fields and the fields of its parents", () => {
    const { log, lines } = capture(format);
    log.child({ session: 7 }).warn({ reason: "unknown_user" }, "login refused");
    expect(lines).toHaveLength(1);
    if (format === "json") {
      expect(JSON.parse(lines[0] ?? "")).toEqual({
        level: "warn",
        time: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
        session: 7,
        reason: "unknown_user",
        msg: "login refused",
      });
    } else {
      expect(lines[0]).toMatch(
        /^\d\d:\d\d:\d\d\.\d{3} WARN {2}login refused session=7 reason=unknown_user\n$/,
      );
    }
  });

  test("lines below the level are not written, and the level can change", () => {
    const { log, lines } = capture(format, "warn");
    log.info("hidden");
    log.level = "debug";
    log.debug("shown");
    expect(lines.join("")).toContain("shown");
    expect(lines.join("")).not.toContain("hidden");
  });

  test("fields that are named like secrets are not printed, one level deep either", () => {
    const { log, lines } = capture(format);
    log.info(
      { password: "hunter2", credential: { clientKey: "hunter2", salt: "ok" } },
      "an object logged whole",
    );
    expect(lines.join("")).not.toContain("hunter2");
    expect(lines.join("")).toContain("[secret]");
  });

  test("API keys and tokens are cut out of names, messages and errors", () => {
    const { log, lines } = capture(format);
    const key = `ndb_abcdefghij23_${"s".repeat(43)}`;
    const token = `${Buffer.from('{"alg":"ES256"}').toString("base64url")}.${"p".repeat(30)}.${"s".repeat(86)}`;
    log.info({ user: key, nested: { user: token }, error: new Error(`about ${token}`) }, `refused ${key}`);
    const text = lines.join("");
    expect(text).not.toMatch(/s{20}|p{20}/);
    expect(text).toContain("refused ndb_[secret]");
    expect(text).toContain("about [token]");
    if (format === "json") expect(JSON.parse(lines[0] ?? "")).toMatchObject({ user: "ndb_[secret]" });
  });

  test("an error shows its stack and its cause", () => {
    const { log, lines } = capture(format);
    log.error({ error: new Error("outer", { cause: new Error("inner") }) }, "failed");
    expect(lines.join("")).toContain("outer");
    expect(lines.join("")).toContain("inner");
    expect(lines.join("")).toContain("log.test.ts");
  });

  test("text from a client cannot begin a line of its own or move the cursor", () => {
    const { log, lines } = capture(format);
    const name = "bob\n00:00:00.000 INFO  login accepted\u001b[2K\u009b2K\u202e";
    log.info({ user: name, error: new Error(name) }, `refused ${name}`);
    const text = lines.join("");
    expect(text.split("\n").filter((line) => line.startsWith("00:00"))).toEqual([]);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    expect(format === "json" || !/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/.test(text)).toBe(true);
  });
});
