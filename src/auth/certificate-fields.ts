/** What identifies a client certificate: the names in it, its issuer and its serial number (RFC 5280 section 4.1). */

import { type DerElement, derTags, readElement, readElements, readSequence } from "../scram/der.ts";

/** Which part of a certificate names the principal. */
export const certificateIdentities = ["cn", "san_email", "san_dns", "san_uri"] as const;

export type CertificateIdentity = (typeof certificateIdentities)[number];

/** Content bytes, in hexadecimal. */
const commonNameOid = "550403";
const subjectAltNameOid = "551d11";

/** [3] EXPLICIT of TBSCertificate. */
const extensionsTag = 0xa3;
/** [0] EXPLICIT: the version, which is absent in version 1. */
const versionTag = 0xa0;

/** Tags of GeneralName (RFC 5280 section 4.2.1.6): rfc822Name, dNSName, uniformResourceIdentifier, all IA5String. */
const generalNameTags = { san_email: 0x81, san_dns: 0x82, san_uri: 0x86 } as const;

/** As PostgreSQL's names: NAMEDATALEN without the NUL. */
const maxNameBytes = 63;

interface TbsCertificate {
  readonly serial: Buffer;
  readonly issuer: DerElement;
  readonly subject: DerElement;
  readonly extensions: DerElement | undefined;
}

/**
 * The name of the principal in a certificate that has been verified.
 *
 * Exactly one name of the chosen kind must be there, in ASCII or UTF-8 and without control characters, so that no two readers
 * of the certificate can see two names in it; a wildcard names nobody.
 *
 * @returns undefined when there is no such name
 */
export function principalNameIn(certificateDer: Buffer, identity: CertificateIdentity): string | undefined {
  const tbs = readTbsCertificate(certificateDer);
  if (tbs === undefined) return undefined;
  const names = identity === "cn" ? commonNames(tbs) : alternativeNames(tbs, generalNameTags[identity]);
  const [name, ...others] = names ?? [];
  const text = name && others.length === 0 ? decodeName(name) : undefined;
  if (text === undefined || text === "" || Buffer.byteLength(text) > maxNameBytes) return undefined;
  return /[\p{Cc}*]/u.test(text) ? undefined : text;
}

/**
 * What tells a certificate from every other of any issuer, as revocation lists name it.
 *
 * @returns undefined when it is no certificate
 */
export function certificateId(certificateDer: Buffer): string | undefined {
  const tbs = readTbsCertificate(certificateDer);
  return tbs && revocationId(tbs.issuer, tbs.serial);
}

function revocationId(issuer: DerElement, serial: Buffer): string {
  return `${issuer.raw.toString("hex")} ${serial.toString("hex").replace(/^(00)+(?=..)/, "")}`;
}

function readTbsCertificate(certificateDer: Buffer): TbsCertificate | undefined {
  const tbs = readSequence(certificateDer)?.[0];
  const fields = tbs && readElements(tbs.content);
  if (fields === undefined) return undefined;
  const [serial, , issuer, , subject, ...more] = fields[0]?.tag === versionTag ? fields.slice(1) : fields;
  if (serial?.tag !== derTags.integer) return undefined;
  if (issuer?.tag !== derTags.sequence || subject?.tag !== derTags.sequence) return undefined;
  return {
    serial: serial.content,
    issuer,
    subject,
    extensions: more.find(({ tag }) => tag === extensionsTag),
  };
}

/** Name ::= SEQUENCE OF SET OF SEQUENCE { type OBJECT IDENTIFIER, value } */
function commonNames({ subject }: TbsCertificate): readonly DerElement[] | undefined {
  const names: DerElement[] = [];
  for (const part of readElements(subject.content) ?? []) {
    const attributes = part.tag === derTags.set ? readElements(part.content) : undefined;
    if (attributes === undefined) return undefined;
    for (const { raw } of attributes) {
      const [type, value] = readSequence(raw) ?? [];
      if (type?.tag !== derTags.objectIdentifier || value === undefined) return undefined;
      if (type.content.toString("hex") === commonNameOid) names.push(value);
    }
  }
  return names;
}

/** Extensions ::= SEQUENCE OF SEQUENCE { extnID, critical DEFAULT FALSE, extnValue OCTET STRING } */
function alternativeNames({ extensions }: TbsCertificate, tag: number): readonly DerElement[] | undefined {
  const found = (extensions && readSequence(extensions.content))?.filter(
    ({ raw }) => readSequence(raw)?.[0]?.content.toString("hex") === subjectAltNameOid,
  );
  const [extension, ...others] = found ?? [];
  const value = extension && others.length === 0 ? readSequence(extension.raw)?.at(-1) : undefined;
  if (value?.tag !== derTags.octetString) return undefined;
  return readSequence(value.content)?.filter((name) => name.tag === tag);
}

/** The text of a string. @returns undefined for an encoding that readers differ about, and for bytes that are not of it */
function decodeName({ tag, content }: DerElement): string | undefined {
  if (tag === derTags.utf8String) {
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(content);
    } catch {
      return undefined;
    }
  }
  const isAscii = content.every((byte) => byte < 0x80);
  const isAsciiString =
    tag === derTags.printableString ||
    tag === derTags.ia5String ||
    Object.values<number>(generalNameTags).includes(tag);
  return isAscii && isAsciiString ? content.toString("latin1") : undefined;
}

/** The certificates that a list revokes, each as `certificateId` has it (RFC 5280 section 5.1). Its signature is not looked at. */
export function revokedIn(listDer: Buffer): ReadonlySet<string> | undefined {
  const list = readSequence(listDer)?.[0];
  const fields = list && readElements(list.content);
  if (fields === undefined) return undefined;
  // version OPTIONAL, signature, issuer, thisUpdate, nextUpdate OPTIONAL, revokedCertificates OPTIONAL, [0] extensions
  const [, issuer, ...more] = fields[0]?.tag === derTags.integer ? fields.slice(1) : fields;
  if (issuer?.tag !== derTags.sequence) return undefined;
  const entries = more.find(({ tag }) => tag === derTags.sequence);
  const revoked = new Set<string>();
  for (const { raw } of (entries && readElements(entries.content)) ?? []) {
    const serial = readElement(readElement(raw, derTags.sequence)?.content ?? raw, derTags.integer);
    if (serial === undefined) return undefined;
    revoked.add(revocationId(issuer, serial.content));
  }
  return revoked;
}
