/** A certified OpenID provider (oidc-provider) on a port of its own, and the clients that get tokens from it. */

import { createHash, randomBytes } from "node:crypto";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { exportJWK, type JWK } from "jose";
import { Provider } from "oidc-provider";
import type { IssuerKey } from "./issuer.ts";

/** The audience of the access tokens: the resource that is asked for (RFC 8707). */
export const resource = "https://nodedb.example.com/";

export interface TokenAnswer {
  readonly accessToken: string;
  /** For the client itself; only where somebody has logged in. */
  readonly idToken: string | undefined;
}

export interface AuthorizationServer {
  readonly issuer: string;
  readonly port: number;
  /** Paths that were asked for, in order. */
  readonly requests: string[];
  /** Answers in its place while it is set. */
  answer: RequestListener | undefined;
  /** Publishes these keys, and signs with the first of its algorithm. */
  useKeys(keys: readonly IssuerKey[]): Promise<void>;
  /**
   * Of a machine (RFC 6749 section 4.4); its subject is the client.
   *
   * @param audience the resource by default; null asks for none, and gets a token that only the provider can read
   */
  clientCredentials(client?: string, audience?: string | null): Promise<TokenAnswer>;
  /** Of a person who logs in and agrees in a browser (RFC 6749 section 4.1, RFC 7636). */
  logIn(account: string): Promise<TokenAnswer>;
  /** Stops answering: connections are refused. */
  close(): Promise<void>;
}

export interface AuthorizationServerOptions {
  readonly keys: readonly IssuerKey[];
  /** 0 for any free one; a stopped one comes back on its own. */
  readonly port?: number;
  /** Claims of the access tokens of an account or client. */
  readonly claimsOf?: (subject: string) => Readonly<Record<string, unknown>>;
}

/** Machines that may ask for tokens of their own. */
export const machines = ["etl-job", "report-job"];
const webClient = "web-app";
const redirectUri = "http://127.0.0.1/callback";
const clientSecret = randomBytes(24).toString("base64url");
const scope = "read:orders";

export async function startAuthorizationServer(
  options: AuthorizationServerOptions,
): Promise<AuthorizationServer> {
  const requests: string[] = [];
  let handler: RequestListener = (_request, response) => response.writeHead(503).end();
  const server = createServer((request, response) => {
    requests.push(request.url ?? "");
    (self.answer ?? handler)(request, response);
  });
  await new Promise<void>((resolve) => server.listen(options.port ?? 0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const issuer = `http://127.0.0.1:${port}`;
  const self: AuthorizationServer = {
    issuer,
    port,
    requests,
    answer: undefined,
    useKeys: async (keys) => {
      handler = makeProvider(
        issuer,
        await Promise.all(keys.map(privateJwk)),
        keys[0]?.alg,
        options,
      ).callback();
    },
    clientCredentials: (client = "etl-job", audience = resource) =>
      askForToken(issuer, {
        grant_type: "client_credentials",
        client_id: client,
        client_secret: clientSecret,
        ...(audience === null ? {} : { resource: audience, scope }),
      }),
    logIn: async (account) => {
      const verifier = randomBytes(32).toString("base64url");
      const code = await authorize(issuer, account, verifier);
      return askForToken(issuer, {
        grant_type: "authorization_code",
        client_id: webClient,
        code,
        code_verifier: verifier,
        redirect_uri: redirectUri,
        resource,
      });
    },
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  await self.useKeys(options.keys);
  return self;
}

async function privateJwk({ privateKey, kid, alg }: IssuerKey): Promise<JWK> {
  return { ...(await exportJWK(privateKey)), kid, alg, use: "sig" };
}

function makeProvider(
  issuer: string,
  keys: readonly JWK[],
  alg: string | undefined,
  { claimsOf }: AuthorizationServerOptions,
): Provider {
  const noWebPages = { redirect_uris: [], response_types: [] };
  const provider = new Provider(issuer, {
    jwks: { keys },
    cookies: { keys: [randomBytes(24).toString("base64url")] },
    clients: [
      ...machines.map((id) => ({
        client_id: id,
        client_secret: clientSecret,
        token_endpoint_auth_method: "client_secret_post",
        grant_types: ["client_credentials"],
        id_token_signed_response_alg: alg,
        ...noWebPages,
      })),
      {
        client_id: webClient,
        application_type: "native",
        token_endpoint_auth_method: "none",
        grant_types: ["authorization_code"],
        redirect_uris: [redirectUri],
        id_token_signed_response_alg: alg,
      },
    ],
    pkce: { required: () => true },
    findAccount: (_context: unknown, accountId: string) => ({
      accountId,
      claims: () => ({ sub: accountId }),
    }),
    extraTokenClaims: (_context: unknown, token: { accountId?: string; clientId?: string }) =>
      claimsOf?.(token.accountId ?? token.clientId ?? ""),
    ttl: {
      AccessToken: 300,
      ClientCredentials: 300,
      Grant: 300,
      IdToken: 300,
      Interaction: 300,
      Session: 300,
    },
    features: {
      devInteractions: { enabled: true },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: () => ({
          scope,
          accessTokenFormat: "jwt",
          jwt: { sign: { alg, kid: keys[0]?.kid } },
        }),
        useGrantedResource: () => true,
      },
    },
  });
  return provider.on("server_error", (_context, error) => {
    throw error;
  });
}

async function askForToken(issuer: string, form: Record<string, string>): Promise<TokenAnswer> {
  const response = await fetch(`${issuer}/token`, { method: "POST", body: new URLSearchParams(form) });
  const answer = (await response.json()) as { access_token?: string; id_token?: string };
  if (answer.access_token === undefined) throw new Error(`no token: ${JSON.stringify(answer)}`);
  return { accessToken: answer.access_token, idToken: answer.id_token };
}

/** What a browser and the person before it do. @returns the code */
async function authorize(issuer: string, account: string, verifier: string): Promise<string> {
  const cookies = new Map<string, string>();
  const start = new URL(`${issuer}/auth`);
  start.search = new URLSearchParams({
    client_id: webClient,
    response_type: "code",
    scope: `openid ${scope}`,
    resource,
    redirect_uri: redirectUri,
    code_challenge: createHash("sha256").update(verifier).digest("base64url"),
    code_challenge_method: "S256",
  }).toString();
  let next = start;
  let form: Record<string, string> | undefined;
  for (let step = 0; step < 12; step += 1) {
    const response = await fetch(next, {
      redirect: "manual",
      headers: { cookie: Array.from(cookies, ([name, value]) => `${name}=${value}`).join("; ") },
      ...(form === undefined ? {} : { method: "POST", body: new URLSearchParams(form) }),
    });
    for (const cookie of response.headers.getSetCookie()) {
      const [, name = "", value = ""] = /^([^=]+)=([^;]*)/.exec(cookie) ?? [];
      cookies.set(name, value);
    }
    const location = response.headers.get("location");
    if (location === null) {
      // A page with a form: of the login, or of the consent after it.
      const [, prompt] = /name="prompt" value="(\w+)"/.exec(await response.text()) ?? [];
      if (prompt === undefined) throw new Error(`no form at ${next.pathname}: ${response.status}`);
      form = { prompt, login: account, password: "any" };
      continue;
    }
    form = undefined;
    next = new URL(location, next);
    if (!next.href.startsWith(redirectUri)) continue;
    const code = next.searchParams.get("code");
    if (code === null) throw new Error(`no code: ${next.search}`);
    return code;
  }
  throw new Error("the login does not end");
}
