/** Cancel keys of the sessions: which CancelRequest belongs to whom (PostgreSQL manual 54.2.9). */

import { timingSafeEqual } from "node:crypto";

/** What a CancelRequest that carries the right key does. */
export interface Cancelable {
  /** Resolves when the cancel has been passed on, or had nothing to hit. */
  cancel(): Promise<void>;
}

interface Registration {
  readonly secretKey: Buffer;
  readonly session: Cancelable;
}

/** Bytes of a cancel key: fixed at 4 up to protocol 3.1, up to 256 from 3.2. */
export function cancelKeyBytes(minorVersion: number): number {
  return minorVersion >= 2 ? 32 : 4;
}

export class CancelRegistry {
  readonly #byProcessId = new Map<number, Registration[]>();

  /** @returns what takes the registration back */
  register(processId: number, secretKey: Buffer, session: Cancelable): () => void {
    const registration: Registration = { secretKey, session };
    const sameProcess = this.#byProcessId.get(processId);
    if (sameProcess === undefined) this.#byProcessId.set(processId, [registration]);
    else sameProcess.push(registration);
    return () => {
      const left = (this.#byProcessId.get(processId) ?? []).filter((other) => other !== registration);
      if (left.length === 0) this.#byProcessId.delete(processId);
      else this.#byProcessId.set(processId, left);
    };
  }

  /** Passes a CancelRequest on; one that fits nobody is ignored, as in PostgreSQL. */
  async cancel(processId: number, secretKey: Buffer): Promise<void> {
    for (const registration of this.#byProcessId.get(processId) ?? []) {
      if (
        registration.secretKey.length === secretKey.length &&
        timingSafeEqual(registration.secretKey, secretKey)
      ) {
        await registration.session.cancel();
        return;
      }
    }
  }
}
