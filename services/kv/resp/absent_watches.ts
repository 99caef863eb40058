/** WATCHed keys that do not exist. A key that exists is told by its revision; one that came and went in between looks as if
 *  nothing had happened, so writes by Redis commands are compared with this list. */
import { toBinaryString } from "../key.ts";
import type { Session } from "./session.ts";

/** Who watches which absent key. Bounded by what each connection may watch. */
export class AbsentWatches {
  readonly #byKey = new Map<string, Set<Session>>();

  get isEmpty(): boolean {
    return this.#byKey.size === 0;
  }

  add(storeKey: Uint8Array, session: Session): void {
    const name = toBinaryString(storeKey);
    const sessions = this.#byKey.get(name);
    if (sessions === undefined) this.#byKey.set(name, new Set([session]));
    else sessions.add(session);
  }

  remove(storeKey: Uint8Array, session: Session): void {
    const name = toBinaryString(storeKey);
    const sessions = this.#byKey.get(name);
    if (sessions?.delete(session) && sessions.size === 0) this.#byKey.delete(name);
  }

  /** A command changes these keys, even if nothing remains of it. */
  touch(storeKeys: readonly Uint8Array[]): void {
    for (const storeKey of storeKeys) {
      for (const session of this.#byKey.get(toBinaryString(storeKey)) ?? NOBODY) session.isTouched = true;
    }
  }
}

const NOBODY: ReadonlySet<Session> = new Set();
