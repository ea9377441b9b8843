/** Which addresses a URL may lead to, in whatever spelling. */

import type { LookupAddress } from "node:dns";
import { describe, expect, it } from "vitest";
import { fetchDocument } from "../../../src/auth/fetch-document.ts";
import { isReachable } from "../../../src/auth/reachable-address.ts";

const inner = [
  "0.0.0.0",
  "10.1.2.3",
  "100.64.0.1",
  "127.0.0.1",
  "127.255.255.254",
  "169.254.169.254",
  "172.16.0.1",
  "172.31.255.255",
  "192.168.1.1",
  "192.0.2.1",
  "198.18.0.1",
  "203.0.113.9",
  "224.0.0.1",
  "240.0.0.1",
  "255.255.255.255",
  "::",
  "::1",
  "::127.0.0.1",
  "::ffff:127.0.0.1",
  "::ffff:7f00:1",
  "0:0:0:0:0:ffff:a9fe:a9fe",
  "::ffff:10.0.0.1",
  "64:ff9b::a00:1",
  "64:ff9b:1::a00:1",
  "100::1",
  "2001::1",
  "2001:db8::1",
  "2002:a00:1::",
  "3fff::1",
  "5f00::1",
  "fc00::1",
  "fd12:3456::1",
  "fe80::1",
  "fe80::1%eth0",
  "fec0::1",
  "ff02::1",
];
const outer = [
  "1.1.1.1",
  "8.8.8.8",
  "172.32.0.1",
  "192.167.1.1",
  "::ffff:1.1.1.1",
  "2606:4700::1111",
  "2a00:1450::1",
];

describe("an address", () => {
  it.each(inner)("%s is not of the internet", (address) => {
    expect(isReachable(address, "public")).toBe(false);
    expect(isReachable(address, "any")).toBe(true);
  });

  it.each(outer)("%s is of the internet, and not this machine", (address) => {
    expect(isReachable(address, "public")).toBe(true);
    expect(isReachable(address, "loopback")).toBe(false);
  });

  it.each(["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])("%s is this machine", (address) => {
    expect(isReachable(address, "loopback")).toBe(true);
  });

  it.each(["", "localhost", "127.1", "0x7f000001", "1.1.1.1.", "a:b"])("%j is none", (text) => {
    expect(isReachable(text, "any")).toBe(false);
  });
});

describe("fetching", () => {
  function resolving(addresses: readonly string[]) {
    const asked: string[] = [];
    const lookup = (
      hostname: string,
      _options: unknown,
      callback: (error: null, found: LookupAddress[]) => void,
    ) => {
      asked.push(hostname);
      callback(
        null,
        addresses.map((address) => ({ address, family: address.includes(":") ? 6 : 4 })),
      );
    };
    return { asked, lookup: lookup as unknown as typeof import("node:dns").lookup };
  }
  const options = { mayAskPrivate: false, timeoutMs: 500, maxBytes: 1_000 };

  it.each(inner)("from a name that resolves to %s connects to nothing", async (address) => {
    const { asked, lookup } = resolving([address, address]);
    await expect(fetchDocument("https://id.example.com/jwks", { ...options, lookup })).rejects.toThrow(
      "id.example.com has no address that may be asked",
    );
    expect(asked).toEqual(["id.example.com"]);
  });

  it.each([
    "https://127.0.0.2/",
    "https://10.0.0.1/",
    "https://0x7f000001:1/",
    "https://2130706433:1/",
    "https://[::1]:1/",
    "https://[::ffff:10.0.0.1]/",
    "https://169.254.169.254/",
    "http://localhost:1/",
  ])("%s connects to no private address that is not written as this machine", async (url) => {
    const { lookup } = resolving(["10.0.0.1"]);
    const isHere = new URL(url).hostname.match(/^(127\.|\[::1\]|localhost)/) !== null;
    await expect(fetchDocument(url, { ...options, lookup })).rejects.toThrow(
      isHere && !url.includes("localhost") ? "cannot be asked (" : "has no address that may be asked",
    );
  });

  it.each([
    "http://id.example.com/",
    "ftp://id.example.com/",
    "file:///etc/passwd",
    "data:application/json,{}",
  ])("%s is not done", async (url) => {
    const { asked, lookup } = resolving(["1.1.1.1"]);
    await expect(fetchDocument(url, { ...options, lookup })).rejects.toThrow(
      /is asked with TLS only|is not fetched/,
    );
    expect(asked).toEqual([]);
  });
});
