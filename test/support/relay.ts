/** A TCP relay that stands between two programs and fragments, delays, pauses and cuts what they say. */

import { connect, createServer, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

export type Direction = "to_server" | "to_client";

/** One connection through the relay. */
export interface Link {
  /** The first bytes that the client sent, as Latin-1: the startup packet is in them. */
  readonly opening: string;
  /** Resets both sides. */
  cut(): void;
}

/** Looks at a chunk before it goes on. @returns how many of its bytes still pass before the link is cut; undefined: all, and no cut; a promise: when it settles */
export type Judge = (
  direction: Direction,
  chunk: Buffer,
  link: Link,
) => number | undefined | Promise<undefined>;

export interface TcpRelay {
  readonly port: number;
  /** Live connections. */
  readonly links: ReadonlySet<Link>;
  /** Chunks go on in pieces of this size; undefined: whole. */
  fragmentBytes: number | undefined;
  /** Wait before each piece, in ms. */
  delayMs: number;
  judge: Judge | undefined;
  /** Nothing is read from this direction's sender any more; new links are accepted and stay silent too. */
  pause(direction: Direction): void;
  resume(direction: Direction): void;
  /** Bytes that have gone on, of all links. */
  readonly passed: Readonly<Record<Direction, number>>;
  close(): Promise<void>;
}

/** Longest opening that is kept of a link, in characters. */
const openingLength = 2_000;

/** Listens on a free port of 127.0.0.1 and passes connections on to `port`. */
export async function startRelay(port: number): Promise<TcpRelay> {
  const links = new Set<TcpLink>();
  const paused = new Set<Direction>();
  const passed = { to_server: 0, to_client: 0 };
  const server = createServer({ allowHalfOpen: true }, (client) => {
    const link = new TcpLink(
      client,
      connect({ port, host: "127.0.0.1", allowHalfOpen: true }),
      relay,
      paused,
    );
    links.add(link);
    link.onClosed = () => links.delete(link);
  });
  const relay: TcpRelay & { readonly passed: Record<Direction, number> } = {
    port: 0,
    links,
    fragmentBytes: undefined,
    delayMs: 0,
    judge: undefined,
    passed,
    pause(direction) {
      paused.add(direction);
      for (const link of links) link.sender(direction).pause();
    },
    resume(direction) {
      paused.delete(direction);
      for (const link of links) link.sender(direction).resume();
    },
    async close() {
      for (const link of [...links]) link.cut();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no TCP port");
  return Object.assign(relay, { port: address.port });
}

class TcpLink implements Link {
  opening = "";
  onClosed: () => void = () => {};
  readonly #client: Socket;
  readonly #server: Socket;
  readonly #relay: TcpRelay & { readonly passed: Record<Direction, number> };
  #isCut = false;

  constructor(
    client: Socket,
    server: Socket,
    relay: TcpRelay & { readonly passed: Record<Direction, number> },
    paused: ReadonlySet<Direction>,
  ) {
    this.#client = client;
    this.#server = server;
    this.#relay = relay;
    this.#carry("to_server", client, server, paused);
    this.#carry("to_client", server, client, paused);
  }

  sender(direction: Direction): Socket {
    return direction === "to_server" ? this.#client : this.#server;
  }

  cut(): void {
    if (this.#isCut) return;
    this.#isCut = true;
    this.#client.resetAndDestroy();
    this.#server.resetAndDestroy();
    this.onClosed();
  }

  #carry(direction: Direction, from: Socket, to: Socket, paused: ReadonlySet<Direction>): void {
    from.setNoDelay(true);
    // Pieces go on in their order, each when the one before has.
    let last = Promise.resolve();
    const then = (work: () => Promise<void> | void) => {
      last = last.then(work).catch(() => this.cut());
    };
    from.on("data", (chunk: Buffer) => {
      from.pause();
      then(async () => {
        await this.#pass(direction, chunk, to);
        if (!paused.has(direction)) from.resume();
      });
    });
    from.on("end", () => then(() => void to.end()));
    from.on("error", () => this.cut());
    from.on("close", () => {
      then(() => {
        if (from.destroyed && to.destroyed) this.onClosed();
      });
    });
    if (paused.has(direction)) from.pause();
  }

  async #pass(direction: Direction, chunk: Buffer, to: Socket): Promise<void> {
    if (this.#isCut) return;
    if (direction === "to_server" && this.opening.length < openingLength)
      this.opening += chunk.toString("latin1");
    const limit = await this.#relay.judge?.(direction, chunk, this);
    const end = Math.min(limit ?? chunk.length, chunk.length);
    const step = this.#relay.fragmentBytes ?? chunk.length;
    for (let position = 0; position < end; position += step) {
      if (this.#relay.delayMs > 0) await delay(this.#relay.delayMs);
      const piece = chunk.subarray(position, Math.min(end, position + step));
      await new Promise<void>((resolve) => void to.write(piece, () => resolve()));
      this.#relay.passed[direction] += piece.length;
    }
    if (limit !== undefined) {
      // Let what was passed arrive: a reset could overtake it.
      await delay(5);
      this.cut();
    }
  }
}
