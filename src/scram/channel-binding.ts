/** The tls-server-end-point channel binding: a hash of the server's certificate (RFC 5929 section 4.1). */

import { createHash } from "node:crypto";
import { derTags, readElement } from "./der.ts";

/** Content bytes of the object identifiers, in hexadecimal, of signatures whose hash they name. */
const hashBySignatureOid: Readonly<Record<string, string>> = {
  "2a864886f70d010104": "sha256", // md5WithRSAEncryption; RFC 5929 replaces MD5 and SHA-1
  "2a864886f70d010105": "sha256", // sha1WithRSAEncryption
  "2a864886f70d01010e": "sha224", // sha224WithRSAEncryption
  "2a864886f70d01010b": "sha256", // sha256WithRSAEncryption
  "2a864886f70d01010c": "sha384", // sha384WithRSAEncryption
  "2a864886f70d01010d": "sha512", // sha512WithRSAEncryption
  "2a8648ce3d0401": "sha256", // ecdsa-with-SHA1
  "2a8648ce3d040301": "sha224", // ecdsa-with-SHA224
  "2a8648ce3d040302": "sha256", // ecdsa-with-SHA256
  "2a8648ce3d040303": "sha384", // ecdsa-with-SHA384
  "2a8648ce3d040304": "sha512", // ecdsa-with-SHA512
};

const rsaPssOid = "2a864886f70d01010a";

const hashByDigestOid: Readonly<Record<string, string>> = {
  "2b0e03021a": "sha256", // SHA-1, replaced
  "608648016503040204": "sha224",
  "608648016503040201": "sha256",
  "608648016503040202": "sha384",
  "608648016503040203": "sha512",
};

/** [0] of RSASSA-PSS-params. */
const hashAlgorithmTag = 0xa0;

/**
 * Channel binding data of a certificate.
 *
 * @returns undefined when its signature names no one hash (Ed25519, Ed448), an unknown one, or it is no
 * certificate: then SCRAM-SHA-256-PLUS cannot be offered.
 */
export function tlsServerEndPoint(certificateDer: Buffer): Buffer | undefined {
  const hash = signatureHash(certificateDer);
  return hash === undefined ? undefined : createHash(hash).update(certificateDer).digest();
}

/** Certificate ::= SEQUENCE { tbsCertificate SEQUENCE, signatureAlgorithm SEQUENCE { OID, parameters }, … } */
function signatureHash(certificateDer: Buffer): string | undefined {
  const certificate = readElement(certificateDer, derTags.sequence);
  const tbsCertificate = certificate && readElement(certificate.content, derTags.sequence);
  const algorithm = tbsCertificate && readElement(tbsCertificate.rest, derTags.sequence);
  const oid = algorithm && readElement(algorithm.content, derTags.objectIdentifier);
  if (oid === undefined) return undefined;
  const oidHex = oid.content.toString("hex");
  return oidHex === rsaPssOid ? pssHash(oid.rest) : hashBySignatureOid[oidHex];
}

/** RSASSA-PSS-params (RFC 4055 section 3.1); an absent hashAlgorithm is SHA-1, which is replaced. */
function pssHash(parametersDer: Buffer): string | undefined {
  const parameters = readElement(parametersDer, derTags.sequence);
  if (parameters === undefined) return undefined;
  const tagged = readElement(parameters.content, hashAlgorithmTag);
  if (tagged === undefined) return "sha256";
  const algorithm = readElement(tagged.content, derTags.sequence);
  const oid = algorithm && readElement(algorithm.content, derTags.objectIdentifier);
  return oid && hashByDigestOid[oid.content.toString("hex")];
}
