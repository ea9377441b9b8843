/**
 * Logins one after another by clients that know their SCRAM keys: without libpq's PBKDF2 for each of them many more can be made,
 * and a proxy has run all of its code often when it is measured.
 */

import { beginClientExchange, type ClientSecret } from "../../src/scram/client-exchange.ts";
import { deriveKeysSync } from "../../src/scram/keys.ts";
import { encodeSaslInitialResponse, encodeTerminate } from "../../src/wire/frontend-message-encoding.ts";
import { RawClient, startupMessage } from "../support/raw-client.ts";
import type { PgbenchResult } from "./pgbench.ts";
import { cpuTimeNs, processTree } from "./process-cost.ts";
import type { Target } from "./targets.ts";

/** One login with one query each, by so many clients at a time. */
export async function runLogins(target: Target, clients: number, seconds: number): Promise<PgbenchResult> {
  const pids = target.proxyPid === undefined ? [] : processTree(target.proxyPid);
  const secret = await learnKeys(target);
  const before = cpuTimeNs(pids);
  const startedAt = performance.now();
  const endsAt = startedAt + seconds * 1000;
  let logins = 0;
  const logInAgain = async () => {
    while (performance.now() < endsAt) {
      await logIn(target, secret);
      logins += 1;
    }
  };
  await Promise.all(Array.from({ length: clients }, logInAgain));
  const took = performance.now() - startedAt;
  return {
    transactions: logins,
    transactionsPerSecond: (logins / took) * 1000,
    latencyMs: (took * clients) / logins,
    proxyCpuUs: target.proxyPid === undefined ? undefined : (cpuTimeNs(pids) - before) / logins / 1000,
  };
}

async function logIn({ endpoint }: Target, secret: ClientSecret): Promise<void> {
  const client = await RawClient.open({ host: endpoint.host, port: endpoint.port });
  await client.send(startupMessage(endpoint));
  const answer = await client.authenticate(secret);
  if (answer.at(-1)?.type !== "R") throw new Error("a login was refused");
  await client.readReady();
  await client.query("SELECT 1");
  await client.send(encodeTerminate());
  await client.readToClose();
}

/** Asks the server for the salt, and derives the keys once. */
async function learnKeys({ endpoint }: Target): Promise<ClientSecret> {
  const { host, port, password } = endpoint;
  const client = await RawClient.open({ host, port });
  const begun = beginClientExchange({ secret: { kind: "password", password }, clientNonce: "salt" });
  await client.send(startupMessage(endpoint));
  await client.read();
  await client.send(encodeSaslInitialResponse(begun.mechanism, begun.clientFirst));
  const first = (await client.read()).body.toString("latin1");
  client.close();
  const [, salt, iterations] = /s=([^,]+),i=(\d+)/.exec(first) ?? [];
  if (salt === undefined) throw new Error("the server names no salt");
  const pinned = { salt: Buffer.from(salt, "base64"), iterations: Number(iterations) };
  return { kind: "keys", ...pinned, ...deriveKeysSync(password, pinned.salt, pinned.iterations) };
}
