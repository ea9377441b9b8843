/** What becomes of a bearer token. */

import type { Identity, RefusalReason } from "./identity.ts";

export type BearerOutcome =
  /** `provider` where it is a token that names one which there is. */
  | { readonly ok: true; readonly identity: Identity; readonly provider?: string }
  | { readonly ok: false; readonly reason: RefusalReason; readonly provider?: string };
