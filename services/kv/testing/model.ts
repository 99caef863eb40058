/** The store as one would write it without a thought for speed: every revision is a whole copy. Tests compare with it. */
import { compareBytes, type KeyRange, toBinaryString } from "../key.ts";
import { isCutBeforeSort, type KeyValue, type RangeQuery, type RangeResult } from "../mvcc.ts";

export interface ModelEvent {
  readonly kind: "put" | "delete";
  readonly revision: number;
  readonly key: Uint8Array;
  readonly kv: KeyValue | undefined;
  readonly prevKv: KeyValue | undefined;
}

export class Model {
  revision = 1;
  compactRevision = 0;
  readonly events: ModelEvent[] = [];
  readonly #revisions: Map<string, KeyValue>[] = [new Map(), new Map()];
  #next: Map<string, KeyValue> | undefined;
  #nextEvents: ModelEvent[] = [];

  put(key: Uint8Array, value: Uint8Array, lease = 0n): void {
    const revision = this.revision + 1;
    const next = this.#begin();
    const name = toBinaryString(key);
    const before = next.get(name);
    const kv = {
      key,
      value,
      createRevision: before?.createRevision ?? revision,
      modRevision: revision,
      version: (before?.version ?? 0) + 1,
      lease,
    };
    next.set(name, kv);
    this.#nextEvents.push({ kind: "put", revision, key, kv, prevKv: before });
  }

  delete(key: Uint8Array, range: KeyRange | "single"): number {
    const gone = this.#select(this.#next ?? this.#revisions[this.revision]!, key, range);
    for (const kv of gone) {
      this.#begin().delete(toBinaryString(kv.key));
      this.#nextEvents.push({
        kind: "delete",
        revision: this.revision + 1,
        key: kv.key,
        kv: undefined,
        prevKv: kv,
      });
    }
    return gone.length;
  }

  commit(): void {
    if (this.#next === undefined || this.#nextEvents.length === 0) return;
    this.#revisions.push(this.#next);
    this.events.push(...this.#nextEvents);
    this.revision++;
    this.rollback();
  }

  rollback(): void {
    this.#next = undefined;
    this.#nextEvents = [];
  }

  /** The answer to a query whose revision is readable. */
  range(query: RangeQuery): RangeResult {
    const wanted = query.revision ?? 0;
    const all = this.#select(
      this.#revisions[wanted > 0 ? wanted : this.revision]!,
      query.key,
      query.range,
    );
    const count = all.length;
    const within = (value: number, low = 0, high = 0) =>
      (low === 0 || value >= low) && (high === 0 || value <= high);
    const kvs = all.filter((kv) =>
      within(kv.modRevision, query.minModRevision, query.maxModRevision) &&
      within(kv.createRevision, query.minCreateRevision, query.maxCreateRevision)
    );
    const by = {
      key: (a: KeyValue, b: KeyValue) => compareBytes(a.key, b.key),
      version: (a: KeyValue, b: KeyValue) => a.version - b.version,
      create: (a: KeyValue, b: KeyValue) => a.createRevision - b.createRevision,
      mod: (a: KeyValue, b: KeyValue) => a.modRevision - b.modRevision,
      value: (a: KeyValue, b: KeyValue) => compareBytes(a.value, b.value),
    }[query.sortTarget ?? "key"];
    if (query.countOnly) return { revision: this.revision, kvs: [], more: false, count };
    const limit = query.limit ?? 0;
    // As etcd does: without an order asked for, the limit cuts first, one key late, and again after the sort.
    if (limit > 0 && isCutBeforeSort(query)) kvs.splice(limit + 1);
    kvs.sort(query.sortOrder === "descend" ? (a, b) => -by(a, b) : by);
    const more = limit > 0 && kvs.length > limit;
    const shown = (more ? kvs.slice(0, limit) : kvs).map((kv) =>
      query.keysOnly ? { ...kv, value: new Uint8Array(0) } : kv
    );
    return { revision: this.revision, kvs: shown, more, count };
  }

  #begin(): Map<string, KeyValue> {
    return this.#next ??= new Map(this.#revisions[this.revision]);
  }

  #select(at: Map<string, KeyValue>, key: Uint8Array, range: KeyRange | "single"): KeyValue[] {
    const matches = (kv: KeyValue) =>
      range === "single" ? compareBytes(kv.key, key) === 0 : compareBytes(kv.key, range.start) >= 0 &&
        (range.end === undefined || compareBytes(kv.key, range.end) < 0);
    return [...at.values()].filter(matches).sort((a, b) => compareBytes(a.key, b.key));
  }
}
