/** Whom a client certificate names, and whom it lets in (RFC 5280). */

import { X509Certificate } from "node:crypto";
import type * as x509 from "@peculiar/x509";
import { beforeAll, describe, expect, it } from "vitest";
import { authenticateCertificate } from "../../../src/auth/certificate.ts";
import {
  type CertificateIdentity,
  certificateId,
  principalNameIn,
  revokedIn,
} from "../../../src/auth/certificate-fields.ts";
import type { PrincipalRecord } from "../../../src/catalog/users.ts";
import {
  type ClientAuthority,
  type ClientCertificateOptions,
  makeClientAuthority,
} from "../../support/client-certificates.ts";
import { makePrincipal } from "../../support/principals.ts";

let authority: ClientAuthority;

beforeAll(async () => {
  authority = await makeClientAuthority();
});

async function derOf(options: ClientCertificateOptions): Promise<Buffer> {
  return Buffer.from(new X509Certificate((await authority.issue(options)).cert).raw);
}

/** Exchanges bytes for others of the same length, so that everything else still fits. */
function patched(der: Buffer, from: string, to: string): Buffer {
  const bytes = Buffer.from(to, "latin1");
  const at = der.indexOf(Buffer.from(from, "latin1"));
  expect(at).toBeGreaterThan(0);
  expect(bytes.length).toBe(from.length);
  const copy = Buffer.from(der);
  bytes.copy(copy, at);
  return copy;
}

const nameIn = async (options: ClientCertificateOptions, identity: CertificateIdentity = "cn") =>
  principalNameIn(await derOf(options), identity);

describe("the common name", () => {
  it("is the principal's, whatever else is in the subject", async () => {
    expect(await nameIn({ name: "CN=alice" })).toBe("alice");
    expect(await nameIn({ name: "C=DE, O=Example, OU=CN=mallory, CN=alice" })).toBe("alice");
  });

  it.each<[string, x509.JsonNameParams, string | undefined]>([
    ["UTF-8", [{ CN: [{ utf8String: "Ölaf" }] }], "Ölaf"],
    ["PrintableString", [{ CN: [{ printableString: "alice" }] }], "alice"],
    ["IA5String", [{ CN: [{ ia5String: "alice@example.com" }] }], "alice@example.com"],
    ["BMPString, which others read as bytes", [{ CN: [{ bmpString: "alice" }] }], undefined],
    ["UniversalString", [{ CN: [{ universalString: "alice" }] }], undefined],
  ])("is read in %s or not at all", async (_, name, expected) => {
    expect(await nameIn({ name })).toBe(expected);
  });

  it.each<[string, x509.JsonNameParams]>([
    ["several of them", [{ CN: [{ utf8String: "alice" }] }, { CN: [{ utf8String: "mallory" }] }]],
    ["the same one twice", [{ CN: [{ utf8String: "alice" }] }, { CN: [{ utf8String: "alice" }] }]],
    ["several in one part of the subject", [{ CN: [{ utf8String: "alice" }, { utf8String: "mallory" }] }]],
    ["none", [{ O: [{ utf8String: "alice" }] }]],
    ["an empty one", [{ CN: [{ utf8String: "" }] }]],
    ["one of 64 bytes", [{ CN: [{ utf8String: "é".repeat(32) }] }]],
    ["a wildcard", [{ CN: [{ utf8String: "*" }] }]],
    ["a wildcard in a name", [{ CN: [{ utf8String: "*.example.com" }] }]],
    ["a NUL", [{ CN: [{ utf8String: "alice\0mallory" }] }]],
    ["a line break", [{ CN: [{ utf8String: "alice\nCN=mallory" }] }]],
  ])("names nobody where there is %s", async (_, name) => {
    expect(await nameIn({ name })).toBeUndefined();
  });

  it("names nobody where its bytes are not of its encoding", async () => {
    const utf8 = await derOf({ name: [{ CN: [{ utf8String: "alicealice" }] }] });
    expect(principalNameIn(patched(utf8, "alicealice", "alice\xc3alic"), "cn")).toBeUndefined();
    expect(principalNameIn(patched(utf8, "alicealice", "\xc0\x80licealic"), "cn")).toBeUndefined();
    const ascii = await derOf({ name: [{ CN: [{ printableString: "alicealice" }] }] });
    expect(principalNameIn(patched(ascii, "alicealice", "alicealic\xe9"), "cn")).toBeUndefined();
  });

  it("is not read out of what is no certificate", async () => {
    const der = await derOf({ name: "CN=alice" });
    for (const length of [0, 1, 5, 40, 100]) {
      expect(principalNameIn(der.subarray(0, length), "cn")).toBeUndefined();
      expect(certificateId(der.subarray(0, length))).toBeUndefined();
    }
  });
});

describe("a subject alternative name", () => {
  const alternativeNames: x509.JsonGeneralNames = [
    { type: "email", value: "alice@example.com" },
    { type: "dns", value: "alice.example.com" },
    { type: "url", value: "spiffe://example.com/alice" },
  ];

  it.each<[CertificateIdentity, string]>([
    ["san_email", "alice@example.com"],
    ["san_dns", "alice.example.com"],
    ["san_uri", "spiffe://example.com/alice"],
  ])("of the kind %s is the principal's where the configuration says so", async (identity, expected) => {
    expect(await nameIn({ name: "CN=mallory", alternativeNames }, identity)).toBe(expected);
    expect(await nameIn({ name: "CN=alice" }, identity)).toBeUndefined();
  });

  it("names nobody where there are several of the kind", async () => {
    const two: x509.JsonGeneralNames = [...alternativeNames, { type: "dns", value: "mallory.example.com" }];
    expect(await nameIn({ name: "CN=a", alternativeNames: two }, "san_dns")).toBeUndefined();
    expect(await nameIn({ name: "CN=a", alternativeNames: two }, "san_email")).toBe("alice@example.com");
  });

  it("names nobody as a wildcard or with a NUL", async () => {
    const wildcard: x509.JsonGeneralNames = [{ type: "dns", value: "*.example.com" }];
    expect(await nameIn({ name: "CN=a", alternativeNames: wildcard }, "san_dns")).toBeUndefined();
    const der = await derOf({ name: "CN=a", alternativeNames });
    const cut = patched(der, "alice@example.com", "alice\0example.com");
    expect(principalNameIn(cut, "san_email")).toBeUndefined();
  });
});

describe("a revocation list", () => {
  it("names the certificates that it revokes by issuer and serial number", async () => {
    const [revoked, other] = [
      await authority.issue({ name: "CN=a" }),
      await authority.issue({ name: "CN=b" }),
    ];
    const stranger = await makeClientAuthority("CN=another authority");
    const idOf = (pem: string) => certificateId(new X509Certificate(pem).raw) ?? "";
    const ids = async (from: ClientAuthority) => revokedIn(derOfPem(await from.revocationList([revoked])));
    expect(await ids(authority)).toEqual(new Set([idOf(revoked.cert)]));
    expect((await ids(authority))?.has(idOf(other.cert))).toBe(false);
    expect((await ids(stranger))?.has(idOf(revoked.cert))).toBe(false);
    expect(revokedIn(derOfPem(await authority.revocationList([])))).toEqual(new Set());
    expect(revokedIn(Buffer.from("no list"))).toBeUndefined();
  });

  function derOfPem(pem: string): Buffer {
    return Buffer.from(pem.replaceAll(/-----[^-]+-----/g, ""), "base64");
  }
});

describe("a login with a certificate", () => {
  const now = new Date();
  const later = new Date(now.getTime() + 60_000);
  const alice: PrincipalRecord = makePrincipal({
    kind: "user",
    name: "alice",
    roles: ["readonly"],
    effectiveRoles: ["readonly"],
  });

  async function attempt(
    changes: Partial<PrincipalRecord> = {},
    options: { user?: string; at?: Date; revoked?: boolean; issued?: Partial<ClientCertificateOptions> } = {},
  ) {
    const record = { ...alice, ...changes };
    const { cert } = await authority.issue({ name: "CN=alice", notAfter: later, ...options.issued });
    const cache = { findByName: (name: string) => (name === record.name ? record : undefined) };
    const policy = { identity: "cn" as const, isRevoked: () => options.revoked === true };
    return authenticateCertificate(cache, policy, new X509Certificate(cert), options.at ?? now, options.user);
  }

  it("is its principal's until the certificate or the principal expires", async () => {
    const endOfSecond = new Date(Math.floor(later.getTime() / 1000) * 1000);
    expect(await attempt({}, { user: "alice" })).toMatchObject({
      ok: true,
      identity: {
        role: "alice",
        method: "certificate",
        expiresAt: endOfSecond,
        certificateId: expect.any(String),
      },
    });
    const validUntil = new Date(now.getTime() + 1000);
    expect(await attempt({ validUntil })).toMatchObject({ ok: true, identity: { expiresAt: validUntil } });
    expect(await attempt({ kind: "service_account" })).toMatchObject({ ok: true });
  });

  it.each<[string, Parameters<typeof attempt>[0], Parameters<typeof attempt>[1]]>([
    ["certificate_of_another", {}, { user: "bob" }],
    ["certificate_of_another", {}, { user: "Alice" }],
    ["certificate_of_another", {}, { user: "" }],
    ["certificate_expired", {}, { at: later }],
    [
      "certificate_expired",
      {},
      { issued: { notBefore: later, notAfter: new Date(later.getTime() + 60_000) } },
    ],
    ["certificate_revoked", {}, { revoked: true }],
    ["certificate_without_name", {}, { issued: { name: "O=alice" } }],
    ["unknown_user", { name: "bob" }, {}],
    ["certificate_of_no_user", { kind: "api_key" }, {}],
    ["certificate_of_no_user", { kind: "external" }, {}],
    ["login_disabled", { canLogin: false }, {}],
    ["expired", { validUntil: now }, {}],
  ])("is refused: %s", async (reason, changes, options) => {
    expect(await attempt(changes, options)).toEqual({ ok: false, reason });
  });
});
