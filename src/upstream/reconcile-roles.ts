/** Makes PostgreSQL's roles match the catalog: groups, one LOGIN role per user, memberships, credentials. */

import type { ClientBase } from "pg";

export interface RoleOptions {
  /** True where the front-end's own login is a superuser of the embedded PostgreSQL: built-in superusers become SUPERUSER. */
  readonly isEmbedded: boolean;
  /** Present on an external upstream: roles get SCRAM verifiers derived from it. Absent on the private socket. */
  readonly masterSecret: Buffer | undefined;
  /** The database on which the groups get CONNECT. */
  readonly defaultDatabase: string;
}

/** What one PostgreSQL role is to be. */
export interface DesiredRole {
  readonly name: string;
  readonly canLogin: boolean;
  /** Built-in roles held. */
  readonly roles: readonly string[];
  /** Part of the derivation of its credential. */
  readonly roleVersion: number;
}

export declare function reconcileGroups(client: ClientBase, options: RoleOptions): Promise<number>;
export declare function reconcileRoles(
  client: ClientBase,
  desired: readonly DesiredRole[],
  options: RoleOptions,
): Promise<number>;
