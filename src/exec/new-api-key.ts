/** The secret of a key that is being created or rotated: made once, before the transaction, and never logged. */

import {
  type ApiKey,
  formatApiKey,
  generateKeyId,
  generateKeySecret,
  hashKeySecret,
  type KeyHolder,
  keySalt,
  makeKeyVerifier,
} from "../auth/api-key.ts";
import type { KeyVerifiers } from "../catalog/api-keys.ts";
import type { ExecutionContext, ExecutorDependencies } from "./context.ts";
import { material } from "./materials.ts";

export class NewApiKey {
  /** For a key that has none yet. */
  readonly keyId = generateKeyId();
  readonly #secret = generateKeySecret();
  readonly #saltSecret: Buffer;
  readonly #verifiers = new Map<string, Promise<string>>();

  constructor(saltSecret: Buffer) {
    this.#saltSecret = saltSecret;
  }

  /** What is stored; the expensive part is done once per holder, so that it can be asked for ahead of the transaction. */
  async verifiers(keyId: string, holder: KeyHolder): Promise<KeyVerifiers> {
    const name = JSON.stringify([keyId, holder]);
    let verifier = this.#verifiers.get(name);
    if (verifier === undefined) {
      verifier = makeKeyVerifier(this.#keyOf(keyId), keySalt(this.#saltSecret, holder));
      this.#verifiers.set(name, verifier);
    }
    return { secretHash: hashKeySecret(this.#secret), scramVerifier: await verifier };
  }

  /** The whole key in clear: for the one result row. */
  reveal(keyId: string): string {
    return formatApiKey(this.#keyOf(keyId)).reveal();
  }

  #keyOf(keyId: string): ApiKey {
    return { keyId, secret: this.#secret };
  }
}

/** The key of this statement; the same one each time that it is run. */
export function newApiKey(deps: ExecutorDependencies, context: ExecutionContext): NewApiKey {
  return material(context, "api key", () => new NewApiKey(deps.apiKeySaltSecret));
}
