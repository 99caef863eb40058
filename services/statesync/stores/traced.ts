/** A store whose operations are spans, below the call that asks for them where there is one. */
import { SpanStatusCode } from "@opentelemetry/api";
import { startInnerSpan } from "../../runtime/tracing.ts";
import type { ConflictRecord, DocumentRecord, LockRecord, NamedVersion, StoredEntry } from "../records.ts";
import type {
  Awaitable,
  Change,
  CommitResult,
  ContentParts,
  DocumentCounts,
  DocumentFilter,
  DocumentStore,
  DocumentStoreStats,
  LoadedDocument,
  OperationFilter,
  Snapshot,
} from "../store.ts";

/** The same store, with a span around each operation that belongs to a trace. `engine` names it in them. */
export function tracedStore(store: DocumentStore, engine: string): DocumentStore {
  return new TracedStore(store, engine);
}

class TracedStore implements DocumentStore {
  readonly #store: DocumentStore;
  readonly #engine: string;

  constructor(store: DocumentStore, engine: string) {
    this.#store = store;
    this.#engine = engine;
  }

  get epoch(): string {
    return this.#store.epoch;
  }

  // A promise in, a promise out.
  commit(changes: readonly Change[]): Promise<CommitResult[]> {
    return this.#traced("commit", () => this.#store.commit(changes)) as Promise<CommitResult[]>;
  }

  load(docId: string): Awaitable<LoadedDocument | undefined> {
    return this.#traced("load", () => this.#store.load(docId));
  }

  record(docId: string): Awaitable<DocumentRecord | undefined> {
    return this.#traced("record", () => this.#store.record(docId));
  }

  list(filter: DocumentFilter, after: string, limit: number): Awaitable<readonly DocumentRecord[]> {
    return this.#traced("list", () => this.#store.list(filter, after, limit));
  }

  entries(docId: string, offset: number, limit: number): Awaitable<readonly StoredEntry[]> {
    return this.#traced("entries", () => this.#store.entries(docId, offset, limit));
  }

  entriesBySequence(sequence: number, limit: number): Awaitable<readonly StoredEntry[]> {
    return this.#traced("entriesBySequence", () => this.#store.entriesBySequence(sequence, limit));
  }

  sequences(): Awaitable<{ readonly last: number; readonly oldest: number }> {
    return this.#traced("sequences", () => this.#store.sequences());
  }

  operations(
    docId: string,
    filter: OperationFilter,
    before: number,
    limit: number,
  ): Awaitable<readonly StoredEntry[]> {
    return this.#traced("operations", () => this.#store.operations(docId, filter, before, limit));
  }

  operationByKey(docId: string, key: string): Awaitable<StoredEntry | undefined> {
    return this.#traced("operationByKey", () => this.#store.operationByKey(docId, key));
  }

  conflicts(
    docId: string,
    isOpenOnly: boolean,
    before: string,
    limit: number,
  ): Awaitable<readonly ConflictRecord[]> {
    return this.#traced("conflicts", () => this.#store.conflicts(docId, isOpenOnly, before, limit));
  }

  conflict(docId: string, conflictId: string): Awaitable<ConflictRecord | undefined> {
    return this.#traced("conflict", () => this.#store.conflict(docId, conflictId));
  }

  versions(docId: string, before: number, limit: number): Awaitable<readonly StoredEntry[]> {
    return this.#traced("versions", () => this.#store.versions(docId, before, limit));
  }

  names(docId: string): Awaitable<readonly NamedVersion[]> {
    return this.#traced("names", () => this.#store.names(docId));
  }

  contentAt(docId: string, version: number): Awaitable<ContentParts | undefined> {
    return this.#traced("contentAt", () => this.#store.contentAt(docId, version));
  }

  versionAt(docId: string, atMs: number): Awaitable<number | undefined> {
    return this.#traced("versionAt", () => this.#store.versionAt(docId, atMs));
  }

  putSnapshot(docId: string, snapshot: Snapshot): Promise<void> {
    return this.#traced("putSnapshot", () => this.#store.putSnapshot(docId, snapshot)) as Promise<void>;
  }

  compact(docId: string, offset: number): Promise<void> {
    return this.#traced("compact", () => this.#store.compact(docId, offset)) as Promise<void>;
  }

  locks(): Awaitable<readonly LockRecord[]> {
    return this.#traced("locks", () => this.#store.locks());
  }

  counts(): Awaitable<DocumentCounts> {
    return this.#traced("counts", () => this.#store.counts());
  }

  get onForeign(): DocumentStore["onForeign"] {
    return this.#store.onForeign;
  }

  set onForeign(listener: DocumentStore["onForeign"]) {
    this.#store.onForeign = listener;
  }

  get onForeignGap(): () => void {
    return this.#store.onForeignGap;
  }

  set onForeignGap(listener: () => void) {
    this.#store.onForeignGap = listener;
  }

  get failure(): Error | undefined {
    return this.#store.failure;
  }

  stats(): DocumentStoreStats {
    return this.#store.stats();
  }

  close(): Promise<void> {
    return this.#store.close();
  }

  #traced<T>(operation: string, run: () => Awaitable<T>): Awaitable<T> {
    const span = startInnerSpan(`document store ${operation}`, {
      "db.system.name": this.#engine,
      "db.operation.name": operation,
    });
    if (span === undefined) return run();
    const fail = (error: unknown): never => {
      const { code, message } = error as { code?: unknown; message?: unknown };
      span.setAttribute("error.type", String(code ?? "Error"));
      span.setStatus({ code: SpanStatusCode.ERROR, message: String(message) });
      span.end();
      throw error;
    };
    let answer: Awaitable<T>;
    try {
      answer = run();
    } catch (error) {
      return fail(error);
    }
    if (!(answer instanceof Promise)) {
      span.end();
      return answer;
    }
    return answer.then((value) => {
      span.end();
      return value;
    }, fail);
  }
}
