/** A store whose appends are spans, from the append until the record is durable. */
import type { Span } from "@opentelemetry/api";
import { startInnerSpan } from "../../runtime/tracing.ts";
import type { EntryChange } from "../record.ts";
import type { KvStore, StoreError, StoreStats } from "../store.ts";

/** The same store, with spans below the call that appends. `engine` names it in them. */
export function tracedStore(store: KvStore, engine: string): KvStore {
  return new TracedStore(store, engine);
}

class TracedStore implements KvStore {
  readonly takesSnapshots: boolean;
  readonly stopped: Promise<StoreError>;
  readonly openedLogBytes: number;
  readonly #store: KvStore;
  readonly #engine: string;
  /** Spans of records that wait to be durable, in the order of their numbers; bounded by what the store lets wait. */
  #waiting: { readonly seq: number; readonly span: Span }[] = [];

  constructor(store: KvStore, engine: string) {
    this.#store = store;
    this.#engine = engine;
    this.takesSnapshots = store.takesSnapshots;
    this.stopped = store.stopped;
    this.openedLogBytes = store.openedLogBytes;
    store.onDurable(() => this.#endDurable());
  }

  get durableSeq(): number {
    return this.#store.durableSeq;
  }

  append(record: Uint8Array, entries: readonly EntryChange[]): number {
    const seq = this.#store.append(record, entries);
    const span = startInnerSpan("kv store append", {
      "db.system.name": this.#engine,
      "db.operation.name": "append",
      "aetherflow.record_bytes": record.length,
    });
    if (span !== undefined) this.#waiting.push({ seq, span });
    return seq;
  }

  durable(seq: number): Promise<void> {
    return this.#store.durable(seq);
  }

  onDurable(listener: () => void): void {
    this.#store.onDurable(listener);
  }

  snapshot(records: Iterable<Uint8Array>, coversSeq: number): Promise<void> {
    return this.#store.snapshot(records, coversSeq);
  }

  stats(): StoreStats {
    return this.#store.stats();
  }

  async close(): Promise<void> {
    await this.#store.close();
    this.#endDurable();
  }

  #endDurable(): void {
    const waiting = this.#waiting;
    const durable = this.#store.durableSeq;
    let ended = 0;
    while (ended < waiting.length && waiting[ended]!.seq <= durable) waiting[ended++]!.span.end();
    if (ended > 0) this.#waiting = waiting.slice(ended);
  }
}
