/**
 * Which addresses the front-end connects to when it fetches what somebody named in a URL. Who may name one could else have it
 * ask the machines behind it (server-side request forgery).
 */

import { BlockList, isIP } from "node:net";

export type AddressScope =
  /** Those of the internet. */
  | "public"
  /** Those of this machine only. */
  | "loopback"
  /** Those of the internet, of private networks, and of this machine. */
  | "any";

const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8, "ipv4");
loopback.addAddress("::1", "ipv6");

/** IANA's registries of special-purpose addresses: nothing that is reachable from everywhere, as of RFC 6890 and its updates. */
const special = new BlockList();
for (const [network, prefix] of [
  ["0.0.0.0", 8],
  ["10.0.0.0", 8],
  ["100.64.0.0", 10],
  ["127.0.0.0", 8],
  ["169.254.0.0", 16],
  ["172.16.0.0", 12],
  ["192.0.0.0", 24],
  ["192.0.2.0", 24],
  ["192.88.99.0", 24],
  ["192.168.0.0", 16],
  ["198.18.0.0", 15],
  ["198.51.100.0", 24],
  ["203.0.113.0", 24],
  ["224.0.0.0", 4],
  ["240.0.0.0", 4],
] as const) {
  special.addSubnet(network, prefix, "ipv4");
}

/** All of global unicast that is handed out; the rest of IPv6 is private, link-local, multicast, or a translation of IPv4. */
const globalUnicast = new BlockList();
globalUnicast.addSubnet("2000::", 3, "ipv6");
const specialUnicast = new BlockList();
for (const [network, prefix] of [
  // Teredo, ORCHID, benchmarks and their like.
  ["2001::", 23],
  ["2001:db8::", 32],
  // 6to4 carries an IPv4 address.
  ["2002::", 16],
  ["3fff::", 20],
] as const) {
  specialUnicast.addSubnet(network, prefix, "ipv6");
}

/** True when the address, as the system resolved it, may be connected to. */
export function isReachable(address: string, scope: AddressScope): boolean {
  const plain = unmapped(address);
  const family = isIP(plain);
  if (family === 0) return false;
  const type = family === 4 ? "ipv4" : "ipv6";
  if (scope === "any") return true;
  if (scope === "loopback") return loopback.check(plain, type);
  if (family === 4) return !special.check(plain, type);
  return globalUnicast.check(plain, type) && !specialUnicast.check(plain, type);
}

/** An IPv4 address that is written as an IPv6 one, in either notation, as what it is; without the zone of a link-local one. */
function unmapped(address: string): string {
  const [text = ""] = address.split("%");
  if (isIP(text) !== 6) return text;
  // The parser of URLs brings every spelling to one.
  const normal = new URL(`http://[${text}]/`).hostname.slice(1, -1);
  const match = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(normal);
  if (match === null) return normal;
  const [high, low] = [match[1], match[2]].map((group) => Number.parseInt(group ?? "", 16)) as [
    number,
    number,
  ];
  return [high >> 8, high & 255, low >> 8, low & 255].join(".");
}
