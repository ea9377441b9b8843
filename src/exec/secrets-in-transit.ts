/** What statements store of passwords and keys, sent ahead of the SQL that stores it. */

import type { KeyVerifiers, KeyVerifiersInTransit } from "../catalog/api-keys.ts";
import type { InTransit, Queryable } from "../catalog/users.ts";
import { byteaText } from "../upstream/copy-in.ts";
import { sendInTransit } from "../upstream/in-transit.ts";

/** A user's verifier; undefined and null, which are none, stay what they are. */
export async function verifierInTransit<None extends null | undefined>(
  client: Queryable,
  verifier: string | None,
): Promise<InTransit | None> {
  if (typeof verifier !== "string") return verifier;
  return (await sendInTransit(client, { scram_verifier: verifier })).scram_verifier;
}

/** What is stored of a new secret of a key. */
export async function keyInTransit(
  client: Queryable,
  verifiers: KeyVerifiers,
): Promise<KeyVerifiersInTransit> {
  const sent = await sendInTransit(client, {
    key_secret_hash: byteaText(verifiers.secretHash),
    key_scram_verifier: verifiers.scramVerifier,
  });
  return { secretHash: sent.key_secret_hash, scramVerifier: sent.key_scram_verifier };
}
