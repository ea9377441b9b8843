/** What a scripted test of the protocol plays on: a PostgreSQL, the front-end before it, and users. */

import { type FrontEnd, type FrontEndOptions, startFrontEnd } from "./front-end.ts";
import { startPostgres, type TestPostgres, type TestPostgresOptions } from "./postgres.ts";
import { type Cutting, type Greeting, type Login, RawClient, rowsOf } from "./raw-client.ts";

export interface Session {
  readonly client: RawClient;
  readonly greeting: Greeting;
}

export interface ProtocolStage {
  readonly frontEnd: FrontEnd;
  readonly postgres: TestPostgres;
  readonly admin: { readonly user: string; readonly password: string; readonly database: string };
  /** Connects without saying anything. */
  connect(cutting?: Cutting): Promise<RawClient>;
  /** Logs in; as the administrator when no user is named. */
  logIn(login?: Partial<Login>, cutting?: Cutting): Promise<Session>;
  /** Logs in to PostgreSQL itself, as any role: what it answers is what must arrive through the front-end. */
  logInUpstream(login: Login): Promise<Session>;
  /** Names of SHOW USERS, asked on a session of its own. */
  userNames(): Promise<string[]>;
  /** Closes the clients of a test. */
  closeClients(): void;
  close(): Promise<void>;
}

/** PostgreSQL 18, where nothing else is said, behind the front-end. */
export async function openProtocolStage(
  options: FrontEndOptions = {},
  postgresOptions: TestPostgresOptions = {},
): Promise<ProtocolStage> {
  const postgres = await startPostgres({ tcp: true, ...postgresOptions });
  let frontEnd: FrontEnd;
  try {
    frontEnd = await startFrontEnd({ ...options, upstreamUrl: postgres.url });
  } catch (error) {
    await postgres.dispose();
    throw error;
  }
  const admin = { user: frontEnd.adminUser, password: frontEnd.adminPassword, database: frontEnd.database };
  const clients: RawClient[] = [];
  const connect = async (cutting?: Cutting): Promise<RawClient> => {
    const client = await RawClient.open({ host: frontEnd.host, port: frontEnd.port }, cutting);
    clients.push(client);
    return client;
  };
  const logIn = async (login: Partial<Login> = {}, cutting?: Cutting): Promise<Session> => {
    const client = await connect(cutting);
    return { client, greeting: await client.logIn({ ...admin, ...login }) };
  };
  return {
    frontEnd,
    postgres,
    admin,
    connect,
    logIn,
    logInUpstream: async (login) => {
      const client = await RawClient.open({ path: `${postgres.socketDir}/.s.PGSQL.${postgres.port}` });
      clients.push(client);
      return { client, greeting: await client.logIn(login) };
    },
    userNames: async () => {
      const { client } = await logIn();
      const messages = await client.query("SHOW USERS");
      client.close();
      return rowsOf(messages).map(([name]) => name ?? "");
    },
    closeClients: () => {
      for (const client of clients.splice(0)) client.close();
    },
    close: async () => {
      for (const client of clients) client.close();
      await frontEnd.close();
      await postgres.dispose();
    },
  };
}
