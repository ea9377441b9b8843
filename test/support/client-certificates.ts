/** An authority for client certificates and what it signs, made anew each time: no key is kept in the project. */

import "reflect-metadata";
import { webcrypto } from "node:crypto";
import { mkdtempSync, renameSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as x509 from "@peculiar/x509";
import type { TestCertificate } from "./certificates.ts";

export interface ClientCertificate extends TestCertificate {
  /** Hexadecimal. */
  readonly serial: string;
}

export interface ClientCertificateOptions {
  /** "CN=alice", or its parts with their encodings. */
  readonly name: string | x509.JsonNameParams;
  readonly alternativeNames?: x509.JsonGeneralNames;
  readonly notBefore?: Date;
  readonly notAfter?: Date;
  /** The purpose; that of clients where absent. */
  readonly usage?: "clientAuth" | "serverAuth";
}

export interface ClientAuthority {
  readonly directory: string;
  readonly cert: string;
  readonly certPath: string;
  issue(options: ClientCertificateOptions): Promise<ClientCertificate>;
  /** A list that revokes these. @returns PEM text */
  revocationList(revoked: readonly ClientCertificate[], nextUpdate?: Date): Promise<string>;
}

// The package's types are a browser's; node:crypto's keys are the same at run time.
type Keys = Parameters<typeof x509.X509CertificateGenerator.createSelfSigned>[0]["keys"];

const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const dayMs = 24 * 60 * 60 * 1000;
const daysFromNow = (days: number) => new Date(Date.now() + days * dayMs);

export async function makeClientAuthority(name = "CN=authority of the clients"): Promise<ClientAuthority> {
  x509.cryptoProvider.set(webcrypto as unknown as Parameters<typeof x509.cryptoProvider.set>[0]);
  const directory = mkdtempSync(join(tmpdir(), "nodedb-clients-"));
  const keys = (await makeKeys()) as unknown as Keys;
  const authority = await x509.X509CertificateGenerator.createSelfSigned({
    name,
    notBefore: daysFromNow(-2),
    notAfter: daysFromNow(2),
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
    ],
  });
  const cert = authority.toString("pem");
  const certPath = join(directory, "authority.crt");
  writeFileSync(certPath, cert);
  let count = 0;
  return {
    directory,
    cert,
    certPath,
    issue: async (options) => {
      count += 1;
      const own = await makeKeys();
      const certificate = await x509.X509CertificateGenerator.create({
        // The highest bit is set, so that DER has to put a zero before it.
        serialNumber: `f0${count.toString(16).padStart(6, "0")}`,
        subject: typeof options.name === "string" ? options.name : new x509.Name(options.name),
        issuer: authority.subject,
        notBefore: options.notBefore ?? daysFromNow(-1),
        notAfter: options.notAfter ?? daysFromNow(1),
        signingAlgorithm: algorithm,
        publicKey: (own as unknown as Keys).publicKey,
        signingKey: keys.privateKey,
        extensions: [
          new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage[options.usage ?? "clientAuth"]]),
          ...(options.alternativeNames === undefined
            ? []
            : [new x509.SubjectAlternativeNameExtension(options.alternativeNames)]),
        ],
      });
      const text = certificate.toString("pem");
      const key = x509.PemConverter.encode(
        await webcrypto.subtle.exportKey("pkcs8", own.privateKey),
        "PRIVATE KEY",
      );
      const paths = { certPath: join(directory, `${count}.crt`), keyPath: join(directory, `${count}.key`) };
      writeFileSync(paths.certPath, text);
      writeFileSync(paths.keyPath, key, { mode: 0o600 });
      return { ...paths, cert: text, key, serial: certificate.serialNumber };
    },
    revocationList: async (revoked, nextUpdate = daysFromNow(1)) => {
      const list = await x509.X509CrlGenerator.create({
        issuer: authority.subject,
        thisUpdate: daysFromNow(-1),
        nextUpdate,
        entries: revoked.map(({ serial }) => ({ serialNumber: serial, revocationDate: daysFromNow(-1) })),
        signingAlgorithm: algorithm,
        signingKey: keys.privateKey,
      });
      // The package calls the block something else than RFC 7468 section 6 and OpenSSL do.
      return x509.PemConverter.encode(list.rawData, "X509 CRL");
    },
  };
}

/** Puts a file in the place of another as a careful administrator does: written beside it, then renamed. */
export function replaceFile(path: string, text: string): void {
  writeFileSync(`${path}.new`, text);
  renameSync(`${path}.new`, path);
}

function makeKeys() {
  return webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
}
