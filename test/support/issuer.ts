/** An issuer of tokens on a port of its own: a real HTTP server with real keys, whose answers a test can spoil. */

import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { exportJWK, generateKeyPair, type JWK, SignJWT } from "jose";

export interface IssuerKey {
  readonly kid: string;
  readonly alg: string;
  readonly privateKey: Awaited<ReturnType<typeof generateKeyPair>>["privateKey"];
  readonly publicJwk: JWK;
}

export interface Issuer {
  /** Its URL, with a trailing slash. */
  readonly issuer: string;
  readonly jwksUrl: string;
  /** What the JWK set holds now. */
  keys: readonly JWK[];
  /** Answers instead of the issuer while it is set. */
  answer: RequestListener | undefined;
  /** Paths that were asked for, in order. */
  readonly requests: string[];
  /** A token of this issuer for the audience "api", valid for five minutes, with these claims and header on top. */
  sign(
    key: IssuerKey,
    claims?: Readonly<Record<string, unknown>>,
    header?: Readonly<Record<string, unknown>>,
  ): Promise<string>;
  /** Stops answering: connections are refused. */
  close(): Promise<void>;
}

export async function makeKey(alg: string, kid: string): Promise<IssuerKey> {
  const { publicKey, privateKey } = await generateKeyPair(alg, {
    extractable: true,
    ...(alg === "EdDSA" ? { crv: "Ed25519" } : {}),
  });
  return { kid, alg, privateKey, publicJwk: { ...(await exportJWK(publicKey)), kid, alg, use: "sig" } };
}

/** @param port 0 for any free one; a stopped issuer comes back on its own */
export async function startIssuer(keys: readonly IssuerKey[], port = 0): Promise<Issuer> {
  const requests: string[] = [];
  const server = createServer((request, response) => {
    requests.push(request.url ?? "");
    if (issuer.answer !== undefined) {
      issuer.answer(request, response);
      return;
    }
    const document =
      request.url === "/jwks"
        ? { keys: issuer.keys }
        : request.url === "/.well-known/openid-configuration"
          ? { issuer: issuer.issuer, jwks_uri: issuer.jwksUrl }
          : undefined;
    response.writeHead(document === undefined ? 404 : 200, { "content-type": "application/json" });
    response.end(JSON.stringify(document ?? {}));
  });
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  const issuer: Issuer = {
    issuer: url,
    jwksUrl: `${url}jwks`,
    keys: keys.map(({ publicJwk }) => publicJwk),
    answer: undefined,
    requests,
    sign: (key, claims = {}, header = {}) => {
      const now = Math.floor(Date.now() / 1000);
      return new SignJWT({ iss: url, aud: "api", sub: "user-1", iat: now, exp: now + 300, ...claims })
        .setProtectedHeader({ alg: key.alg, kid: key.kid, typ: "JWT", ...header })
        .sign(key.privateKey);
    },
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return issuer;
}
