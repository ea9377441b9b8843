/** A session of this process as the table of all front-ends has it. */

import type { SessionRow, SessionTableState } from "../catalog/session-table.ts";
import type { ManagedSession } from "./sessions.ts";

export interface SeenSession {
  readonly session: ManagedSession;
  readonly state: SessionTableState;
  readonly lastActiveAtMs: number;
}

export function sessionRowOf({ session, state, lastActiveAtMs }: SeenSession): SessionRow {
  const { id, identity, database, clientAddress, protocol } = session.profile;
  return {
    id,
    principalId: identity.principal.id,
    username: identity.principal.name,
    database,
    tenantId: identity.tenantId,
    authMethod: identity.method,
    clientAddress,
    protocol,
    state,
    connectedAtMs: session.connectedAtMs,
    lastActiveAtMs,
    expiresAtMs: identity.expiresAt?.getTime(),
  };
}
