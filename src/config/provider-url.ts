/** Which URLs an issuer of tokens may have, and its JWK set. */

/** True for a host as a URL's parser writes it: it has brought 127.1 to 127.0.0.1. */
export function isLoopbackHost(hostname: string): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127\.\d+\.\d+\.\d+$/.test(hostname);
}

/**
 * What is wrong with a URL, to follow the option's name; undefined when nothing is.
 *
 * @see OpenID Connect Core 1.0 section 2 (iss) and Discovery 1.0 section 3: https, neither query nor fragment.
 */
export function providerUrlMistake(option: "issuer" | "jwks_url", value: string): string | undefined {
  const url = URL.canParse(value) ? new URL(value) : undefined;
  // The parser drops white space and control characters; two texts for one URL would be two issuers.
  if (url === undefined || !/^[\x21-\x7e]+$/.test(value)) return "is not a URL";
  if (url.protocol !== "https:" && !(url.protocol === "http:" && isLoopbackHost(url.hostname))) {
    return "must begin with https://";
  }
  if (url.username !== "" || url.password !== "") return "must not hold a password";
  if (value.includes("#")) return "must not have a fragment";
  return option === "issuer" && value.includes("?") ? "must not have a query" : undefined;
}
