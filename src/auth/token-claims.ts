/** From the claims of a verified token to what `$auth` reads of its bearer. */

import { findClaim, type TokenPayload } from "./claim-mapping.ts";
import type { Claims, JsonValue } from "./identity.ts";

/** Name behind `$auth.` → claim, or dotted path to one; `auth.jwks.claims` of the configuration. */
export type ClaimNames = Readonly<Record<string, string>>;

/** Names that are the catalog's to say, never a token's. */
export const claimsOfCatalog: readonly string[] = ["roles", "tenant_id"];

/** Largest JSON text of the claims of one identity, in bytes: it is sent to PostgreSQL with every checkout. */
export const maxClaimsBytes = 4_096;

/**
 * The claims by the configured names. `role` is the token's word, as an application's policies want it, and gives no right; the
 * name superuser is not taken from a token even there.
 *
 * @returns undefined when the token has no `id`, or when they are too large or hold what PostgreSQL has no text for
 */
export function claimsOfToken(payload: TokenPayload, names: ClaimNames): Claims | undefined {
  // Without a prototype, so that `__proto__` is a name like others.
  const claims: Record<string, JsonValue> = Object.create(null);
  // An address that nobody has verified is one that its bearer may have chosen.
  if (payload.email_verified === true && typeof payload.email === "string") claims.email = payload.email;
  for (const [name, claim] of Object.entries(names)) {
    const value = findClaim(payload, claim);
    if (value === undefined || value === null || claimsOfCatalog.includes(name)) continue;
    if (name === "role" && value === "superuser") continue;
    claims[name] = name === "scopes" ? scopesOf(value) : (value as JsonValue);
  }
  if (typeof claims.id !== "string" || claims.id === "") return undefined;
  const text = JSON.stringify(claims);
  // Half a surrogate pair and NUL come out as escapes; an escaped backslash before such text is no escape.
  const isUsable = !/\\u0000|\\ud[89a-f]/i.test(text.replaceAll("\\\\", ""));
  return isUsable && Buffer.byteLength(text) <= maxClaimsBytes ? claims : undefined;
}

/** A list, whether the provider writes one or separates by blanks (RFC 8693 section 4.2). */
function scopesOf(value: unknown): JsonValue {
  const list = typeof value === "string" ? value.split(" ") : Array.isArray(value) ? value : [];
  return list.filter((scope) => typeof scope === "string" && scope !== "");
}
