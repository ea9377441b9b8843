/** How many logins may fail within a minute, per address and per name: fixed windows in bounded memory. */

/** Windows that are counted at once; each takes about 100 bytes. */
const maxWindows = 20_000;
const windowMs = 60_000;

interface Window {
  failures: number;
  readonly endsAtMs: number;
}

/** Counts what happens under a key within windows of one minute each, which begin with the first count. */
export class FailureWindows {
  readonly #limit: () => number;
  readonly #clock: () => number;
  /** In the order in which they end. */
  readonly #windows = new Map<string, Window>();

  /** @param limit asked each time; 0 is unlimited */
  constructor(limit: () => number, clock: () => number = () => performance.now()) {
    this.#limit = limit;
    this.#clock = clock;
  }

  get size(): number {
    return this.#windows.size;
  }

  isOver(key: string): boolean {
    const limit = this.#limit();
    const window = this.#windows.get(key);
    return limit > 0 && window !== undefined && window.endsAtMs > this.#clock() && window.failures >= limit;
  }

  /** @returns true when this one has reached the limit */
  add(key: string): boolean {
    const limit = this.#limit();
    if (limit === 0) return false;
    const now = this.#clock();
    let window = this.#windows.get(key);
    if (window === undefined || window.endsAtMs <= now) {
      this.#forgetPast(now);
      window = { failures: 0, endsAtMs: now + windowMs };
      this.#windows.delete(key);
      this.#windows.set(key, window);
    }
    window.failures += 1;
    return window.failures === limit;
  }

  // With no room left the window that ends first goes: whoever fills the table has to do so anew every minute.
  #forgetPast(now: number): void {
    for (const [key, window] of this.#windows) {
      if (window.endsAtMs > now && this.#windows.size < maxWindows) return;
      this.#windows.delete(key);
    }
  }
}

/** What one client is counted under: an IPv4 address, or the /64 that an IPv6 host has to itself. */
export function addressKey(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address);
  if (mapped?.[1] !== undefined) return mapped[1];
  if (!address.includes(":")) return address;
  const [head = "", tail] = address.split("%")[0]?.split("::") ?? [];
  const left = head === "" ? [] : head.split(":");
  const right = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeros =
    tail === undefined ? [] : Array<string>(Math.max(0, 8 - left.length - right.length)).fill("0");
  const groups = [...left, ...zeros, ...right].slice(0, 4);
  return `${groups.map((group) => Number.parseInt(group, 16).toString(16)).join(":")}::/64`;
}
