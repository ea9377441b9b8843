import { createHmac } from "node:crypto";
import { describe, expect, test } from "vitest";
import { hmac } from "../../../src/scram/keys.ts";

const hex = (text: string) => Buffer.from(text, "hex");

describe("HMAC-SHA-256", () => {
  test.each([
    // RFC 4231 sections 4.2, 4.3, 4.4 and 4.7: a short key, a key of text, a long message of one byte, a key over one block.
    ["0b".repeat(20), "4869205468657265", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"],
    [
      "4a656665",
      "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
      "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    ],
    ["aa".repeat(20), "dd".repeat(50), "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"],
    [
      "aa".repeat(131),
      Buffer.from("Test Using Larger Than Block-Size Key - Hash Key First").toString("hex"),
      "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    ],
  ])("is that of RFC 4231", (key, data, expected) => {
    expect(hmac(hex(key), hex(data)).toString("hex")).toBe(expected);
  });

  test("is OpenSSL's for keys around the size of a block, and for text", () => {
    for (const length of [0, 1, 31, 32, 63, 64, 65, 200]) {
      const key = Buffer.alloc(length, length);
      const text = "grüße\0".repeat(length);
      expect(hmac(key, text)).toEqual(createHmac("sha256", key).update(text).digest());
    }
  });
});
