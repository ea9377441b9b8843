/** The one file that knows Node's sockets from the inside: what the raw transports need, and whether this Node has it. */

import type { Socket } from "node:net";

/** What is used of Node's stream handles (lib/internal/stream_base_commons.js, src/stream_base.cc). */
export interface StreamHandle {
  onread: ((this: StreamHandle, arrayBuffer?: ArrayBuffer) => Buffer | undefined) | undefined;
  readStart(): number;
  readStop(): number;
  useUserBuffer(buffer: Uint8Array): void;
  writeBuffer(request: WriteRequest, buffer: Uint8Array): number;
  shutdown(request: ShutdownRequest): number;
  /** Of TLS: what was received cannot be decrypted. */
  onerror?: (error: Error) => void;
  /** Ours: whom `onread` belongs to. Node calls it with the handle as `this`, and so one function serves all handles. */
  reader?: { onRead(): Buffer | undefined };
}
export interface WriteRequest {
  oncomplete: ((status: number) => void) | undefined;
  /** Keeps the bytes alive while the kernel has not taken them. */
  buffer: Uint8Array | undefined;
  getAsyncId(): number;
}
interface ShutdownRequest {
  oncomplete: (() => void) | undefined;
}

/** Node's internals behind the raw transport. */
export interface StreamBinding {
  readonly WriteWrap: new () => WriteRequest;
  readonly ShutdownWrap: new () => ShutdownRequest;
  readonly streamBaseState: Int32Array;
  readonly kReadBytesOrError: number;
  readonly kLastWriteWasAsync: number;
}

function isStreamBinding(value: unknown): value is StreamBinding {
  if (typeof value !== "object" || value === null) return false;
  const candidate = value as Partial<Record<keyof StreamBinding, unknown>>;
  return (
    typeof candidate.WriteWrap === "function" &&
    typeof candidate.ShutdownWrap === "function" &&
    candidate.streamBaseState instanceof Int32Array &&
    typeof candidate.kReadBytesOrError === "number" &&
    typeof candidate.kLastWriteWasAsync === "number"
  );
}

/** @returns undefined where this Node does not lend its internals out */
export function findStreamBinding(): StreamBinding | undefined {
  const { binding } = process as unknown as { binding?: (name: string) => unknown };
  if (typeof binding !== "function") return undefined;
  try {
    const found = binding.call(process, "stream_wrap");
    return isStreamBinding(found) ? found : undefined;
  } catch {
    // This Node does not lend the binding out: the public API serves.
    return undefined;
  }
}

/** Whether Node has the request: only then it has an id (AsyncWrap::GetAsyncId, src/async_wrap.cc). */
export function isInFlight(request: WriteRequest): boolean {
  return request.getAsyncId() !== -1;
}

/** @returns undefined where the socket has none, or not such a one */
export function rawHandleOf(socket: Socket): StreamHandle | undefined {
  const handle = (socket as unknown as { _handle?: Partial<StreamHandle> | null })._handle;
  if (handle === null || handle === undefined) return undefined;
  const isUsable =
    typeof handle.readStart === "function" &&
    typeof handle.readStop === "function" &&
    typeof handle.useUserBuffer === "function" &&
    typeof handle.writeBuffer === "function" &&
    typeof handle.shutdown === "function";
  return isUsable ? (handle as StreamHandle) : undefined;
}
