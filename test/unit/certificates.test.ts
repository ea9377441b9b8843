import { X509Certificate } from "node:crypto";
import { createSecureContext } from "node:tls";
import { expect, test } from "vitest";
import { makeServerCertificate } from "../support/certificates.ts";

test("makes a certificate that node:tls accepts with its key", async () => {
  const { cert, key } = await makeServerCertificate();
  expect(new X509Certificate(cert).subjectAltName).toContain("127.0.0.1");
  expect(() => createSecureContext({ cert, key })).not.toThrow();
});
