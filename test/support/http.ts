/** An HTTP client of the front-end, for tests: Node's own fetch. */

import type { Stage } from "./stage.ts";

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  /** The body as JSON; undefined when it is none. */
  // biome-ignore lint/suspicious/noExplicitAny: what an answer holds is what the tests look at
  readonly body: any;
  readonly text: string;
}

export interface Ask {
  /** The bearer token; absent: none is sent. */
  readonly token?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly method?: string;
  readonly signal?: AbortSignal;
}

export interface HttpClient {
  readonly base: string;
  /** POSTs a JSON body. */
  post(path: string, body: unknown, ask?: Ask): Promise<Answer>;
  get(path: string, ask?: Ask): Promise<Answer>;
  /** POST /v1/query. */
  query(token: string, body: unknown, ask?: Ask): Promise<Answer>;
}

export function httpClient(base: string): HttpClient {
  const send = async (path: string, init: RequestInit, { token, headers, signal }: Ask): Promise<Answer> => {
    const response = await fetch(base + path, {
      ...init,
      headers: {
        ...init.headers,
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...headers,
      },
      ...(signal === undefined ? {} : { signal }),
    });
    const text = await response.text();
    return { status: response.status, headers: response.headers, text, body: asJson(text) };
  };
  const post: HttpClient["post"] = (path, body, ask = {}) =>
    send(
      path,
      {
        method: ask.method ?? "POST",
        headers: { "content-type": "application/json" },
        body: typeof body === "string" ? body : JSON.stringify(body),
      },
      ask,
    );
  return {
    base,
    post,
    get: (path, ask = {}) => send(path, { method: ask.method ?? "GET" }, ask),
    query: (token, body, ask = {}) => post("/v1/query", body, { ...ask, token }),
  };
}

function asJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** A new API key of a user, or with a role of its own. @param clause for example `FOR alice` or `ROLE admin` */
export async function createKey(stage: Stage, name: string, clause: string): Promise<string> {
  const { rows } = await stage.asAdmin(`CREATE API KEY '${name}' ${clause}`);
  return String(rows[0]?.api_key);
}
