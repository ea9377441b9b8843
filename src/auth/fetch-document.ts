/** Fetches one small document by HTTPS, from nowhere but where its URL says, and not for long. */

import dns from "node:dns";
import http from "node:http";
import https from "node:https";
import { isIP, type LookupFunction } from "node:net";
import { isLoopbackHost } from "../config/provider-url.ts";
import { type AddressScope, isReachable } from "./reachable-address.ts";

export interface FetchOptions {
  /** Whether hosts may be asked that have a private address. A host that is called localhost is this machine, and may be. */
  readonly mayAskPrivate: boolean;
  /** For the whole of it, redirects included. */
  readonly timeoutMs: number;
  readonly maxBytes: number;
  /** The system's, unless a test says otherwise. */
  readonly lookup?: typeof dns.lookup;
}

/** Why a document was not had. Its message names no more than the URL's host. */
export class FetchError extends Error {
  override readonly name = "FetchError";
}

const maxRedirects = 3;

/**
 * @returns the body of a 200
 * @throws FetchError when it is anything else, too large, too slow, elsewhere, or at an address out of scope
 */
export async function fetchDocument(url: string, options: FetchOptions): Promise<Buffer> {
  const signal = AbortSignal.timeout(options.timeoutMs);
  let target = new URL(url);
  for (let redirects = 0; redirects <= maxRedirects; redirects += 1) {
    const answer = await get(target, options, signal);
    if (answer.body !== undefined) return answer.body;
    const next = URL.canParse(answer.location, target.href) ? new URL(answer.location, target) : undefined;
    if (next === undefined || next.origin !== target.origin) {
      throw new FetchError(`${target.hostname} redirects elsewhere`);
    }
    target = next;
  }
  throw new FetchError(`${target.hostname} redirects too often`);
}

type Answer = { readonly body: Buffer } | { readonly body?: undefined; readonly location: string };

function get(url: URL, options: FetchOptions, signal: AbortSignal): Promise<Answer> {
  const isPlain = url.protocol === "http:";
  if (!isPlain && url.protocol !== "https:") throw new FetchError(`${url.protocol} is not fetched`);
  const isHere = isLoopbackHost(url.hostname);
  if (isPlain && !isHere) throw new FetchError(`${url.hostname} is asked with TLS only`);
  const scope = isHere ? "loopback" : options.mayAskPrivate ? "any" : "public";
  // An address in the URL is not looked up.
  const literal = url.hostname.replace(/^\[|\]$/g, "");
  if (isIP(literal) !== 0 && !isReachable(literal, scope)) throw outOfScope(url.hostname);
  return new Promise<Answer>((resolve, reject) => {
    const fail = (error: unknown) =>
      reject(
        error instanceof FetchError ? error : new FetchError(`${url.hostname} ${wordOf(error, signal)}`),
      );
    const request = (isPlain ? http : https).get(
      url,
      {
        agent: false,
        signal,
        headers: { accept: "application/json, application/jwk-set+json", connection: "close" },
        lookup: lookupWithin(scope, options.lookup ?? dns.lookup),
      },
      (response) => {
        response.on("error", fail);
        const { statusCode = 0, headers } = response;
        if (statusCode >= 300 && statusCode < 400 && headers.location !== undefined) {
          response.destroy();
          resolve({ location: headers.location });
          return;
        }
        if (statusCode !== 200) {
          response.destroy();
          reject(new FetchError(`${url.hostname} answers with status ${statusCode}`));
          return;
        }
        const chunks: Buffer[] = [];
        let size = 0;
        response.on("data", (chunk: Buffer) => {
          size += chunk.length;
          if (size > options.maxBytes) {
            reject(new FetchError(`${url.hostname} sends more than ${options.maxBytes} bytes`));
            response.destroy();
            return;
          }
          chunks.push(chunk);
        });
        response.on("end", () => {
          if (response.complete) resolve({ body: Buffer.concat(chunks) });
        });
        response.on("close", () => reject(new FetchError(`${url.hostname} stops in the middle`)));
      },
    );
    request.on("error", fail);
  });
}

/**
 * A lookup that gives only addresses in scope. The connection is made to what it gives, so that a name that resolves to another
 * address the next time (DNS rebinding) gains nothing.
 */
function lookupWithin(scope: AddressScope, lookup: typeof dns.lookup): LookupFunction {
  return (hostname, options, callback) => {
    lookup(hostname, { ...options, all: true }, (error, addresses) => {
      if (error !== null) {
        callback(error, "", 0);
        return;
      }
      const allowed = addresses.filter(({ address }) => isReachable(address, scope));
      const [first] = allowed;
      if (first === undefined) callback(outOfScope(hostname), "", 0);
      else if (options.all === true) callback(null, allowed);
      else callback(null, first.address, first.family);
    });
  };
}

function outOfScope(hostname: string): FetchError {
  return new FetchError(`${hostname} has no address that may be asked`);
}

function wordOf(error: unknown, signal: AbortSignal): string {
  if (signal.aborted) return "does not answer in time";
  const code = error instanceof Error && "code" in error ? ` (${String(error.code)})` : "";
  return `cannot be asked${code}`;
}
