/** Every way in, for tests that must come out the same whichever one takes: a statement goes in, rows or an SQLSTATE come out. */

import { request } from "node:https";
import { decodeAuthentication } from "../../src/wire/backend-message-decoding.ts";
import { encodeSaslInitialResponse } from "../../src/wire/frontend-message-encoding.ts";
import { httpClient } from "./http.ts";
import { errorOf, RawClient, rowsOf, startupMessage } from "./raw-client.ts";
import { runProgram } from "./run-program.ts";

export type Row = readonly (string | null)[];

/** What came of one statement: its rows as text, or the SQLSTATE of its refusal. */
export type Outcome = readonly Row[] | string;

/** Each call is a login, or a request, of its own. */
export type Door = (sql: string) => Promise<Outcome>;

/** Where a front-end listens. */
export interface Address {
  readonly host: string;
  readonly port: number;
  readonly httpPort: number;
  /** Where requests go over HTTP; absent: postgres. */
  readonly database?: string;
}

export interface ClientFiles {
  readonly certPath: string;
  readonly keyPath: string;
  readonly cert: string;
  readonly key: string;
}

const separator = "\u0001";
const nothing = "\u0002";

/** psql; it proves itself by a password (an API key is one), or by a certificate. */
export function psqlDoor(
  { host, port }: Address,
  user: string,
  proof: { readonly password: string } | { readonly certificate: ClientFiles; readonly serverCa: string },
): Door {
  const environment = {
    PATH: process.env.PATH,
    PGHOST: host,
    PGPORT: String(port),
    PGUSER: user,
    PGDATABASE: "postgres",
    ...("password" in proof
      ? { PGPASSWORD: proof.password, PGSSLMODE: "disable" }
      : {
          PGSSLMODE: "verify-ca",
          PGSSLROOTCERT: proof.serverCa,
          PGSSLCERT: proof.certificate.certPath,
          PGSSLKEY: proof.certificate.keyPath,
        }),
  };
  return async (sql) => {
    const format = ["-P", `null=${nothing}`, "-F", separator, "-v", "VERBOSITY=sqlstate"];
    const { stdout, stderr } = await runProgram("psql", ["-XAqtw", ...format, "-c", sql], environment);
    const state = /ERROR: {2}(\w{5})/.exec(stderr)?.[1];
    if (state !== undefined) return state;
    if (stderr !== "") throw new Error(stderr);
    const lines = stdout.split("\n").slice(0, -1);
    return lines.map((line) => line.split(separator).map((value) => (value === nothing ? null : value)));
  };
}

/** The PostgreSQL protocol with OAUTHBEARER (RFC 7628). @param user whose token it is: `oidc:<provider>` */
export function bearerDoor({ host, port }: Address, user: string, token: string): Door {
  return async (sql) => {
    const client = await RawClient.open({ host, port });
    try {
      await client.send(startupMessage({ user, database: "postgres" }));
      await client.read();
      await client.send(encodeSaslInitialResponse("OAUTHBEARER", `n,,\x01auth=Bearer ${token}\x01\x01`));
      const answer = await client.read();
      if (answer.type === "E") throw new Error(errorOf([answer]).get("M"));
      const { type } = decodeAuthentication(answer.body);
      if (type !== "AuthenticationOk") throw new Error(`the token was refused: ${type}`);
      await client.readReady();
      const messages = await client.query(sql);
      if (messages.some((message) => message.type === "E")) return errorOf(messages).get("C") ?? "";
      return rowsOf(messages);
    } finally {
      client.close();
    }
  };
}

/** POST /v1/query with an API key or a token as bearer. */
export function httpDoor({ host, httpPort, database }: Address, token: string): Door {
  const http = httpClient(`http://${host}:${httpPort}`);
  return async (sql) => outcomeOf((await http.query(token, bodyOf(sql, database))).body);
}

/** POST /v1/query with a certificate. @param token as bearer besides; absent: nothing else is presented */
export function httpCertificateDoor(
  { host, httpPort, database }: Address,
  files: ClientFiles,
  serverCa: string,
  token?: string,
): Door {
  return (sql) =>
    new Promise((resolve, reject) => {
      const { cert, key } = files;
      const tls = { ca: serverCa, servername: "localhost", cert, key, agent: false };
      const authorization = token === undefined ? {} : { authorization: `Bearer ${token}` };
      const headers = { "content-type": "application/json", ...authorization };
      const sent = request(
        { host, port: httpPort, path: "/v1/query", method: "POST", headers, ...tls },
        (answer) => {
          let text = "";
          answer.setEncoding("utf8").on("data", (part: string) => {
            text += part;
          });
          answer.on("end", () => resolve(outcomeOf(JSON.parse(text))));
        },
      );
      sent.on("error", reject);
      sent.end(JSON.stringify(bodyOf(sql, database)));
    });
}

function bodyOf(sql: string, database = "postgres") {
  return { sql, database, rowMode: "array" };
}

interface Body {
  readonly rows?: readonly (readonly unknown[])[];
  readonly error?: { readonly code: string };
}

function outcomeOf({ rows, error }: Body): Outcome {
  if (rows === undefined) return error?.code ?? "no answer";
  return rows.map((row) => row.map((value) => (value === null ? null : String(value))));
}
