/**
 * Calls functions of PostgreSQL's by their OID on a connection that waits for a command (PostgreSQL manual 54.2.4).
 *
 * No name is looked up, so that nothing can stand in its place; each call is a transaction of its own, which no statement of a
 * client's shares; no prepared statement or portal of a client's is touched; and what is handed over shows up neither in
 * pg_stat_activity nor in the log, whatever log_statement says.
 */

import { SqlError } from "../errors/sql-error.ts";
import { encodeFunctionCall } from "../wire/frontend-message-encoding.ts";
import { Conversation } from "./conversation.ts";
import { noteParameterStatus, type UpstreamConnection } from "./upstream-connection.ts";
import { UpstreamError } from "./upstream-error.ts";

/** As pg_proc.dat has them, in every version. */
export const functionOids = { set_config: 2078, inet_client_port: 2197 } as const;

/** Calls that take longer have lost their upstream, in ms. */
const callTimeoutMs = 5_000;

const idle = 0x49; // I
const isNull = -1;

/** `set_config(name, value, false)`: for the rest of the session. */
export function encodeSetting(name: string, value: string): Buffer {
  return encodeFunctionCall(functionOids.set_config, [name, value, "f"]);
}

export function encodeClientPortQuestion(): Buffer {
  return encodeFunctionCall(functionOids.inet_client_port, []);
}

/**
 * Sends calls and waits until each has been answered.
 *
 * @param calls encoded FunctionCall messages, sent in one write
 * @returns their results as text
 * @throws UpstreamError when PostgreSQL refuses one, SqlError connection_failure when it does not answer
 */
export function callFunctions(
  connection: UpstreamConnection,
  calls: readonly Buffer[],
): Promise<readonly (string | null)[]> {
  const { transport } = connection;
  return new Promise((resolve, reject) => {
    const results: (string | null)[] = [];
    let failure: Error | undefined;
    let answered = 0;
    const settle = (error: Error | undefined) => {
      clearTimeout(timer);
      transport.stop();
      if (error === undefined) resolve(results);
      else reject(error);
    };
    const timer = setTimeout(() => settle(broken()), callTimeoutMs);
    const conversation: Conversation = new Conversation(transport, {
      onMessage: (type, body) => {
        if (type === "S") noteParameterStatus(connection, body);
        else if (type === "V") results.push(decodeResult(body));
        else if (type === "E") failure ??= new UpstreamError(body);
        else if (type === "Z") {
          answered += 1;
          if (body[0] !== idle) failure ??= broken();
          if (answered < calls.length) return;
          queueMicrotask(() => settle(conversation.isAtBoundary ? failure : broken()));
        } else if (type !== "N" && type !== "A") settle(broken());
      },
      onEnd: () => settle(broken()),
    });
    transport.write(Buffer.concat(calls));
  });
}

function decodeResult(body: Buffer): string | null {
  const length = body.readInt32BE(0);
  return length === isNull ? null : body.toString("utf8", 4, 4 + length);
}

function broken(): SqlError {
  return new SqlError("connection_failure", "the upstream server closed the connection unexpectedly", {
    severity: "FATAL",
  });
}
