/** Sessions in memory alone: a restart ends them all. */
import type { SessionStore } from "../store.ts";
import { type Journal, LocalStore, type LocalStoreOptions } from "./local.ts";

/** An empty store. */
export function createMemoryStore(options: LocalStoreOptions): SessionStore {
  return new LocalStore(new NoJournal(), options);
}

/** Keeps nothing, and says so at once. */
class NoJournal implements Journal {
  onKept = () => {};
  readonly isKept = true;
  readonly failure = undefined;
  #writes = 0;

  insert(): void {
    this.#writes++;
  }
  update(): void {
    this.#writes++;
  }
  updateActivity(): void {
    this.#writes++;
  }
  updateHidden(): void {
    this.#writes++;
  }
  remove(): void {
    this.#writes++;
  }
  setEpoch(): void {
    this.#writes++;
  }
  kept(): Promise<void> {
    return Promise.resolve();
  }
  stats() {
    return { groups: 0, groupSeconds: 0, writes: this.#writes, failures: 0 };
  }
  close(): Promise<void> {
    return Promise.resolve();
  }
}
