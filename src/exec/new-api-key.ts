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
import { type ScramParameters, scramParametersOf } from "../auth/scram-parameters.ts";
import type { ApiKeyRecord, KeyVerifiers } from "../catalog/api-keys.ts";
import type { PrincipalRecord } from "../catalog/users.ts";
import type { ExecutionContext, ExecutorDependencies } from "./context.ts";
import { material } from "./materials.ts";

export class NewApiKey {
  /** For a key that has none yet. */
  readonly keyId = generateKeyId();
  readonly #secret = generateKeySecret();
  readonly #verifiers = new Map<string, Promise<string>>();

  /** What is stored; the expensive part is done once per salt, so that it can be asked for ahead of the transaction. */
  async verifiers(keyId: string, parameters: ScramParameters): Promise<KeyVerifiers> {
    const name = JSON.stringify([keyId, parameters.salt.toString("hex"), parameters.iterations]);
    let verifier = this.#verifiers.get(name);
    if (verifier === undefined) {
      verifier = makeKeyVerifier(this.#keyOf(keyId), parameters);
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
export function newApiKey(context: ExecutionContext): NewApiKey {
  return material(context, "api key", () => new NewApiKey());
}

/**
 * What a new key is hashed with: as the password of its owner and the keys that there are, so that each of them can log in.
 *
 * @param keys those of the owner
 */
export function newKeyParameters(
  deps: Pick<ExecutorDependencies, "apiKeySaltSecret" | "scramIterations">,
  holder: KeyHolder,
  owner?: { readonly record: PrincipalRecord; readonly keys: readonly ApiKeyRecord[] },
): ScramParameters {
  const known = owner && scramParametersOf(owner.record, owner.keys, new Date());
  return known ?? { salt: keySalt(deps.apiKeySaltSecret, holder), iterations: deps.scramIterations };
}
