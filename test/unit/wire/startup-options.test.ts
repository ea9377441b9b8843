import { describe, expect, test } from "vitest";
import { SqlError } from "../../../src/errors/sql-error.ts";
import { parseStartupOptions } from "../../../src/wire/startup-options.ts";

describe("the options startup parameter", () => {
  test.each<[string, [string, string][]]>([
    ["", []],
    ["   \t\n ", []],
    ["-c geqo=off", [["geqo", "off"]]],
    ["-cgeqo=off", [["geqo", "off"]]],
    ["-c\t geqo=off", [["geqo", "off"]]],
    ["--geqo=off", [["geqo", "off"]]],
    [
      "--statement-timeout=5s -c Date-Style=ISO",
      [
        ["statement_timeout", "5s"],
        ["Date_Style", "ISO"],
      ],
    ],
    ["-c search_path=a-b,c", [["search_path", "a-b,c"]]],
    ["-c a.b=x=y", [["a.b", "x=y"]]],
    ["-c application_name=", [["application_name", ""]]],
    ["-c application_name=my\\ app\\\\x", [["application_name", "my app\\x"]]],
    ["-c x=a\\\tb", [["x", "a\tb"]]],
    ["-c x=1\\", [["x", "1"]]],
    ["-c x=a\u00a0b", [["x", "a\u00a0b"]]],
    ["-c x='a'", [["x", "'a'"]]],
  ])("%j gives %j", (options, settings) => {
    expect(parseStartupOptions(options)).toEqual(settings);
  });

  test.each([
    ["-c", "invalid command-line argument for server process: -c"],
    ["-S 100", "invalid command-line argument for server process: -S"],
    ["-fs", "invalid command-line argument for server process: -fs"],
    ["postgres", "invalid command-line argument for server process: postgres"],
    ["-c a=1 b=2", "invalid command-line argument for server process: b=2"],
    ["--", "invalid command-line argument for server process: --"],
    ["-c =x", "invalid command-line argument for server process: -c"],
    ["--=x", "invalid command-line argument for server process: --=x"],
    ["\\", "invalid command-line argument for server process: "],
    ["--geqo", "--geqo requires a value"],
    ["-c geqo", "-c geqo requires a value"],
    ["-cgeqo", "-c geqo requires a value"],
  ])("%j is refused", (options, message) => {
    expect(() => parseStartupOptions(options)).toThrow(
      expect.objectContaining({ message, condition: "syntax_error", severity: "FATAL" }),
    );
    expect(() => parseStartupOptions(options)).toThrow(SqlError);
  });
});
