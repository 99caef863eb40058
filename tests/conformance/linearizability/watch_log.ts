/** etcd's promises of a watch, checked as its answers come. See etcd's API guarantees: ordered, unique, reliable, atomic,
 *  resumable, bookmarkable. */

/** One event. */
export interface WatchedEvent {
  readonly revision: number;
  readonly key: string;
  /** undefined: deleted. */
  readonly value: string | undefined;
  /** Version and create revision after a put. */
  readonly version: number;
  readonly create: number;
  /** Value before, if there was one; null if the watch did not tell. */
  readonly previous: string | undefined | null;
}

/** One answer. */
export interface WatchedAnswer {
  /** The header's revision. */
  readonly revision: number;
  readonly events: readonly WatchedEvent[];
}

/** Everything one watcher of the whole store was told, over as many connections as it took. */
export class WatchLog {
  /** Events by revision, in the order they came. */
  readonly byRevision = new Map<number, WatchedEvent[]>();
  /** Everything up to it was told: where to go on, minus one. */
  revision: number;
  /** Broken promises, in words. */
  readonly broken: string[] = [];
  #last: number;
  readonly #values = new Map<string, { value: string; version: number; create: number }>();

  /** `from` is the first revision asked for; the store is empty before it. */
  constructor(from: number) {
    this.revision = from - 1;
    this.#last = from - 1;
  }

  /** Takes one answer. */
  take({ revision, events }: WatchedAnswer): void {
    for (const [i, event] of events.entries()) {
      const seen = this.byRevision.get(event.revision);
      if (event.revision < this.#last) this.broken.push(`not ordered: ${event.revision} after ${this.#last}`);
      else if (seen?.some(({ key }) => key === event.key)) {
        this.broken.push(`not unique: ${event.key} at ${event.revision} came twice`);
      } else if (event.revision === this.#last && i === 0) {
        this.broken.push(`not atomic: ${event.revision} came in two answers`);
      } else if (event.revision > this.#last + 1) {
        this.broken.push(`not reliable: ${event.revision} came after ${this.#last}`);
      }
      if (event.revision > revision) {
        this.broken.push(`not bookmarkable: ${event.revision} came under revision ${revision}`);
      }
      this.#follow(event);
      if (seen === undefined) this.byRevision.set(event.revision, [event]);
      else seen.push(event);
      this.#last = Math.max(this.#last, event.revision);
    }
    // An answer says that everything up to its revision was told: what comes later must be newer.
    if (revision > this.#last) {
      this.broken.push(`not bookmarkable: told of ${revision} when the last event was ${this.#last}`);
    }
    this.revision = Math.max(this.revision, this.#last);
  }

  /** Compares with what another watcher of the same store was told.
   *  @returns differences in words. */
  differences(other: WatchLog): string[] {
    const revisions = new Set([...this.byRevision.keys(), ...other.byRevision.keys()]);
    return [...revisions].sort((a, b) => a - b).flatMap((revision) => {
      const [one, two] = [this, other].map((log) => JSON.stringify(log.byRevision.get(revision)));
      return one === two ? [] : [`revision ${revision} is ${one} to one and ${two} to the other`];
    });
  }

  /** Versions, create revisions and previous values follow from what was told before. */
  #follow(event: WatchedEvent): void {
    const before = this.#values.get(event.key);
    if (event.previous !== null && event.previous !== before?.value) {
      this.broken.push(`${event.key} at ${event.revision}: prev_kv ${event.previous}, was ${before?.value}`);
    }
    if (event.value === undefined) {
      if (before === undefined) this.broken.push(`${event.key} at ${event.revision}: deleted, but not there`);
      this.#values.delete(event.key);
      return;
    }
    const after = {
      value: event.value,
      version: (before?.version ?? 0) + 1,
      create: before?.create ?? event.revision,
    };
    if (event.version !== after.version || event.create !== after.create) {
      this.broken.push(
        `${event.key} at ${event.revision}: version ${event.version} created ${event.create}, ` +
          `expected ${after.version} and ${after.create}`,
      );
    }
    this.#values.set(event.key, after);
  }
}
