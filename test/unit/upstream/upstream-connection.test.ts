import { Socket } from "node:net";
import { expect, test } from "vitest";
import {
  encodeParameters,
  noteParameterStatus,
  type UpstreamConnection,
} from "../../../src/upstream/upstream-connection.ts";
import { StreamTransport } from "../../../src/wire/stream-transport.ts";

test("the parameters that a client is told are those that were last reported", () => {
  const connection: UpstreamConnection = {
    transport: new StreamTransport(new Socket(), false),
    processId: 1,
    secretKey: Buffer.alloc(4),
    clientPort: null,
    claimsDueAtMs: 0,
    claimsWithdrawnMs: 0,
    parameters: new Map(),
    openedAtMs: 0,
    cancels: new Set(),
    isReusable: true,
  };
  const report = (text: string) => noteParameterStatus(connection, Buffer.from(text, "latin1"));
  expect(encodeParameters(connection)).toHaveLength(0);
  report("TimeZone\0UTC\0");
  report("DateStyle\0ISO\0");
  expect(encodeParameters(connection).toString("latin1")).toBe(
    "S\0\0\0\x11TimeZone\0UTC\0S\0\0\0\x12DateStyle\0ISO\0",
  );
  report("TimeZone\0GMT\0");
  expect(encodeParameters(connection).toString("latin1")).toBe(
    "S\0\0\0\x11TimeZone\0GMT\0S\0\0\0\x12DateStyle\0ISO\0",
  );
});
