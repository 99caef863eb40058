/** Where locks are, for their times and for the sessions that they end with. */
import type { LockRecord } from "./records.ts";

/** The locks of all documents, as many as the store has. */
export class LockIndex {
  readonly #byDocument = new Map<string, Map<string, LockRecord>>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  put(lock: LockRecord): void {
    let locks = this.#byDocument.get(lock.docId);
    if (locks === undefined) this.#byDocument.set(lock.docId, locks = new Map());
    if (!locks.has(lock.id)) this.#size++;
    locks.set(lock.id, lock);
  }

  remove({ docId, id }: LockRecord): void {
    const locks = this.#byDocument.get(docId);
    if (locks === undefined || !locks.delete(id)) return;
    this.#size--;
    if (locks.size === 0) this.#byDocument.delete(docId);
  }

  /** A document is gone with its locks. */
  forget(docId: string): void {
    this.#size -= this.#byDocument.get(docId)?.size ?? 0;
    this.#byDocument.delete(docId);
  }

  /** Takes these in place of all. */
  replace(locks: readonly LockRecord[]): void {
    this.#byDocument.clear();
    this.#size = 0;
    for (const lock of locks) this.put(lock);
  }

  /** Up to `limit` documents with locks whose time is up. */
  expired(nowMs: number, limit: number): string[] {
    const found: string[] = [];
    for (const [docId, locks] of this.#byDocument) {
      if (found.length === limit) break;
      for (const { expiresAtMs } of locks.values()) {
        if (expiresAtMs > nowMs) continue;
        found.push(docId);
        break;
      }
    }
    return found;
  }

  /** Documents in which a session holds locks. */
  documentsOf(sessionId: string): string[] {
    const found: string[] = [];
    for (const [docId, locks] of this.#byDocument) {
      if ([...locks.values()].some((lock) => lock.sessionId === sessionId)) found.push(docId);
    }
    return found;
  }

  /** Sessions that hold locks. */
  sessions(): string[] {
    const found = new Set<string>();
    for (const locks of this.#byDocument.values()) {
      for (const { sessionId } of locks.values()) if (sessionId !== "") found.add(sessionId);
    }
    return [...found];
  }
}
