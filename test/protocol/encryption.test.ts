/** TLS and channel binding (PostgreSQL 18 manual 54.2.11, 54.3.1; RFC 5929 section 4.1). */

import { connect as connectTls } from "node:tls";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { decodeAuthentication } from "../../src/wire/backend-message-decoding.ts";
import {
  encodeCancelRequest,
  encodeQuery,
  encodeSaslInitialResponse,
} from "../../src/wire/frontend-message-encoding.ts";
import { makeServerCertificate, type TestCertificate } from "../support/certificates.ts";
import { isRunnable } from "../support/client-program.ts";
import { openProtocolStage, type ProtocolStage } from "../support/protocol-stage.ts";
import {
  type Cutting,
  DeadlinePassed,
  describeMessages,
  errorOf,
  RawClient,
  rowsOf,
  startupMessage,
  startupPacket,
} from "../support/raw-client.ts";
import { runProgram } from "../support/run-program.ts";
import { requireClient } from "../support/skips.ts";

const sslRequest = startupPacket((1234 << 16) | 5679);
const gssencRequest = startupPacket((1234 << 16) | 5680);
const cuttings = ["whole", "bytes"] as const;

let certificate: TestCertificate;
let stage: ProtocolStage;
let strict: ProtocolStage;
const clients: RawClient[] = [];

beforeAll(async () => {
  certificate = await makeServerCertificate();
  const tls = `[server.tls]\ncert = "${certificate.certPath}"\nkey = "${certificate.keyPath}"\n`;
  [stage, strict] = await Promise.all([
    openProtocolStage({ configuration: tls }),
    openProtocolStage({ configuration: `${tls}required = true\n` }),
  ]);
});
afterEach(() => {
  stage.closeClients();
  strict.closeClients();
  for (const client of clients.splice(0)) client.close();
});
afterAll(async () => {
  await stage?.close();
  await strict?.close();
});

const addressOf = ({ frontEnd }: ProtocolStage) => ({ host: frontEnd.host, port: frontEnd.port });

async function upgraded(on: ProtocolStage, cutting: Cutting): Promise<RawClient> {
  const client = await on.connect(cutting);
  await client.send(sslRequest);
  expect(await client.readByte()).toBe("S");
  await client.upgrade({ ca: certificate.cert, rejectUnauthorized: true, servername: "localhost" });
  return client;
}

async function direct(on: ProtocolStage, cutting: Cutting): Promise<RawClient> {
  const client = await RawClient.openTls({ ...addressOf(on), ALPNProtocols: ["postgresql"] }, cutting);
  clients.push(client);
  return client;
}

/** The mechanisms that the server offers. */
async function offered(client: RawClient, user: string): Promise<readonly string[]> {
  await client.send(startupMessage({ user }));
  const answer = decodeAuthentication((await client.read()).body);
  if (answer.type !== "AuthenticationSASL") throw new Error(answer.type);
  return answer.mechanisms;
}

describe.each(cuttings)("sent %s", (cutting) => {
  test("SSLRequest is answered with S, and the login goes on in TLS", async () => {
    const client = await upgraded(stage, cutting);
    await client.logIn(stage.admin);
    expect(rowsOf(await client.query("SELECT 1"))).toEqual([["1"]]);
    expect(rowsOf(await client.query("SHOW SESSION"))[0]?.[3]).toBe("scram-sha-256");
  });

  test("GSSENCRequest is answered with N, and SSLRequest may follow", async () => {
    const client = await stage.connect(cutting);
    await client.send(gssencRequest);
    expect(await client.readByte()).toBe("N");
    await client.send(sslRequest);
    expect(await client.readByte()).toBe("S");
    await client.upgrade();
    await client.logIn(stage.admin);
    expect(rowsOf(await client.query("SELECT 1"))).toEqual([["1"]]);
  });

  test("direct TLS is spoken with a client that names the protocol", async () => {
    const client = await direct(stage, cutting);
    expect(client.alpnProtocol).toBe("postgresql");
    await client.logIn(stage.admin);
    expect(rowsOf(await client.query("SELECT 1"))).toEqual([["1"]]);
  });

  test("encryption is not asked for within encryption", async () => {
    for (const request of [sslRequest, gssencRequest]) {
      const client = await upgraded(stage, cutting);
      await client.send(request);
      const messages = await client.readToClose();
      expect([errorOf(messages).get("S"), errorOf(messages).get("C")]).toEqual(["FATAL", "08P01"]);
    }
  });

  test("SCRAM-SHA-256-PLUS binds the login to the server's certificate", async () => {
    for (const open of [upgraded, direct]) {
      const client = await open(stage, cutting);
      await client.logIn({ ...stage.admin, channelBinding: client.channelBinding });
      expect(rowsOf(await client.query("SHOW SESSION"))[0]?.[3]).toBe("scram-sha-256-plus");
    }
  });

  test("a login bound to another certificate is refused like a wrong password", async () => {
    const client = await upgraded(stage, cutting);
    await client.send(startupMessage(stage.admin));
    const channelBinding = { kind: "tls-server-end-point", data: Buffer.alloc(32, 7) } as const;
    const messages = await client.authenticate(stage.admin.password, channelBinding);
    expect(describeMessages(messages)).toBe("RRE");
    expect(errorOf(messages).get("C")).toBe("28P01");
  });

  test("a client that was made to believe that there is no channel binding is refused", async () => {
    const client = await upgraded(stage, cutting);
    await client.send(startupMessage(stage.admin));
    const messages = await client.authenticate(stage.admin.password, { kind: "not_offered" });
    expect([errorOf(messages).get("S"), errorOf(messages).get("C")]).toEqual(["FATAL", "28P01"]);
  });

  test("a message with channel binding is refused for the mechanism without", async () => {
    const client = await upgraded(stage, cutting);
    await client.send(startupMessage(stage.admin));
    await client.read();
    await client.send(encodeSaslInitialResponse("SCRAM-SHA-256", "p=tls-server-end-point,,n=,r=abcdefgh"));
    expect(errorOf(await client.readToClose()).get("C")).toBe("08P01");
  });

  test("plaintext is refused before authentication where TLS is required", async () => {
    const client = await strict.connect(cutting);
    await client.send(startupMessage(strict.admin));
    const messages = await client.readToClose();
    expect(describeMessages(messages)).toBe("E");
    expect([errorOf(messages).get("S"), errorOf(messages).get("C")]).toEqual(["FATAL", "28000"]);
    const declined = await strict.connect(cutting);
    await declined.send(gssencRequest);
    expect(await declined.readByte()).toBe("N");
    await declined.send(startupMessage(strict.admin));
    expect(errorOf(await declined.readToClose()).get("C")).toBe("28000");
  });

  test("TLS of either kind is accepted where it is required", async () => {
    for (const open of [upgraded, direct]) {
      const client = await open(strict, cutting);
      await client.logIn(strict.admin);
      expect(rowsOf(await client.query("SELECT 1"))).toEqual([["1"]]);
    }
  });
});

test("PLUS is offered in TLS only", async () => {
  expect(await offered(await stage.connect(), "anybody")).toEqual(["SCRAM-SHA-256"]);
  expect(await offered(await upgraded(stage, "whole"), "anybody")).toEqual([
    "SCRAM-SHA-256-PLUS",
    "SCRAM-SHA-256",
  ]);
});

test.each([
  ["no protocol", undefined],
  ["another protocol", ["http/1.1"]],
])("direct TLS is closed for a client that names %s", async (_, ALPNProtocols) => {
  const attempt = RawClient.openTls({ ...addressOf(stage), ...(ALPNProtocols && { ALPNProtocols }) }).then(
    async (client) => {
      clients.push(client);
      await client.send(startupMessage(stage.admin));
      return client.readToClose();
    },
  );
  // Closed in the handshake or right behind it; a server that answers or waits for more would be the fault.
  const seen = await attempt.catch((error: unknown) => {
    if (error instanceof DeadlinePassed) throw error;
    return [];
  });
  expect(seen).toEqual([]);
});

test("a ClientHello in the same segment as SSLRequest closes the connection", async () => {
  const client = await stage.connect();
  await client.send(sslRequest, Buffer.from([0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0]));
  expect(await client.readToClose()).toEqual([]);
  expect(client.unread).toHaveLength(0);
});

test("plaintext sent behind SSLRequest is never read as if it had been encrypted", async () => {
  const client = await stage.connect();
  await client.send(sslRequest);
  expect(await client.readByte()).toBe("S");
  await client.send(startupMessage(stage.admin), encodeQuery("SELECT 1"));
  const seen = await client.readToClose();
  expect(describeMessages(seen)).not.toContain("R");
});

test("TLS older than 1.2 is not spoken", async () => {
  const client = await stage.connect();
  await client.send(sslRequest);
  expect(await client.readByte()).toBe("S");
  await expect(
    client.upgrade({ maxVersion: "TLSv1.1", minVersion: "TLSv1", ciphers: "DEFAULT@SECLEVEL=0" }),
  ).rejects.toThrow();
});

test("a CancelRequest may be encrypted", async () => {
  const session = await upgraded(stage, "whole");
  const { processId, secretKey } = await session.logIn(stage.admin);
  await session.send(encodeQuery("SELECT pg_sleep(60)"));
  const deadline = Date.now() + 10_000;
  // Until it hits: a cancel that comes before the statement has begun is ignored.
  const answer = session.readReady();
  let isAnswered = false;
  void answer.then(() => {
    isAnswered = true;
  });
  while (!isAnswered && Date.now() < deadline) {
    const canceller = await upgraded(stage, "whole");
    await canceller.send(encodeCancelRequest(processId, secretKey));
    await canceller.readToClose();
  }
  expect(errorOf(await answer).get("C")).toBe("57014");
});

test("values of 5 MB pass through TLS in both directions", async () => {
  const client = await direct(stage, "whole");
  await client.logIn(stage.admin);
  const bytes = 5 * 1024 * 1024;
  const [[value] = []] = rowsOf(await client.query(`SELECT repeat('x', ${bytes}) || '${"y".repeat(bytes)}'`));
  expect(value?.length).toBe(2 * bytes);
});

test("a client that breaks off its TLS handshake leaves the server at work", async () => {
  const client = await stage.connect();
  await client.send(sslRequest);
  await client.readByte();
  await client.send(Buffer.from([0x16, 3, 1, 2, 0, 1]));
  client.close();
  const socket = connectTls({ ...addressOf(stage), rejectUnauthorized: false });
  socket.on("error", () => undefined);
  socket.destroy();
  expect(await stage.userNames()).toContain(stage.admin.user);
});

describe("psql of PostgreSQL 15", () => {
  const hasPsql = requireClient("psql", isRunnable("psql", "--version"));

  test.skipIf(!hasPsql)("logs in with channel_binding=require", async () => {
    const { host, port } = stage.frontEnd;
    const target = `host=${host} port=${port} user=${stage.admin.user} dbname=${stage.admin.database} sslmode=verify-full sslrootcert=${certificate.certPath} channel_binding=require`;
    const finished = await runProgram("psql", ["-XAt", "-c", "SHOW SESSION", target], {
      PATH: process.env.PATH,
      PGPASSWORD: stage.admin.password,
    });
    expect(finished.stderr).toBe("");
    expect(finished.stdout).toContain("|scram-sha-256-plus|");
  });
});
