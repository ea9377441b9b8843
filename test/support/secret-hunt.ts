/** Makes secrets, remembers what they are of, and finds them in texts. */

import { randomBytes } from "node:crypto";
import { createScramVerifierSync, formatScramVerifier } from "../../src/scram/verifier.ts";

export class SecretHunt {
  /** By the secret, what it is of: so that a failure says which one was seen without showing it. */
  readonly #secrets = new Map<string, string>();

  /** Kinds of secrets that are known, to be sure that none was forgotten. */
  get kinds(): Set<string> {
    return new Set([...this.#secrets.values()].map((what) => what.split(":")[0] ?? ""));
  }

  get size(): number {
    return this.#secrets.size;
  }

  /** @param what its kind, a colon, and of what it is */
  remember(what: string, secret: string): string {
    // A short one would be found by accident.
    if (secret.length < 20) throw new Error(`too short to be looked for: ${what}`);
    if (!this.#secrets.has(secret)) this.#secrets.set(secret, what);
    return secret;
  }

  rememberBytes(what: string, bytes: Buffer): void {
    this.remember(what, bytes.toString("hex"));
    this.remember(what, bytes.toString("base64"));
  }

  makePassword(what: string): string {
    return this.remember(`password: ${what}`, `pw-${randomBytes(9).toString("hex")}`);
  }

  makeVerifier(what: string): string {
    const password = this.makePassword(`of the verifier, ${what}`);
    const text = formatScramVerifier(
      createScramVerifierSync(password, { iterations: 4096, salt: randomBytes(16) }),
    );
    this.rememberVerifier(what, text);
    return text;
  }

  /** A verifier is secret in its keys; salt and iterations are told to everybody who begins to log in. */
  rememberVerifier(what: string, text: string): void {
    const [storedKey, serverKey] = text.split("$")[2]?.split(":") ?? [];
    if (storedKey === undefined || serverKey === undefined) throw new Error(`no verifier: ${what}`);
    this.rememberBytes(`StoredKey: ${what}`, Buffer.from(storedKey, "base64"));
    this.rememberBytes(`ServerKey: ${what}`, Buffer.from(serverKey, "base64"));
  }

  /** The secret part of an API key: its id may be seen. */
  rememberApiKey(what: string, key: unknown): string {
    if (typeof key !== "string") throw new Error(`no key was made: ${what}`);
    this.remember(`API key: ${what}`, key.split("_").slice(2).join("_"));
    return key;
  }

  /** Of what the secrets in a text are. */
  findIn(text: string): string[] {
    return [...this.#secrets].filter(([secret]) => text.includes(secret)).map(([, what]) => what);
  }
}
