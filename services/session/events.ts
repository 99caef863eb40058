/** What happened to sessions, kept in a ring for those who watch.
 *
 *  Offsets rise by one with each event. They begin at a number made of the time of the start, so that one of an earlier life
 *  of the worker is never taken for one of this life. An event is told when what it tells of is kept. */
import { SessionError } from "./errors.ts";
import type { Session } from "./session.ts";

/** What happened. */
export type SessionEventType = "created" | "updated" | "ended" | "expired";

/** One event. */
export interface SessionEvent {
  readonly offset: number;
  readonly type: SessionEventType;
  /** The session after it. */
  readonly session: Session;
  readonly reason: string;
  readonly atMs: number;
}

/** Offsets that one millisecond of uptime has on average before the next life's could overlap: far beyond the fastest store. */
const OFFSETS_PER_MS = 1_000;

/** The ring. */
export class SessionEvents {
  readonly #ring: (SessionEvent | undefined)[];
  readonly #kept: number;
  /** Offset of the next event that is added, and of the next that is told. */
  #next: number;
  #told: number;
  readonly #first: number;
  readonly #watches = new Set<SessionWatch>();
  #isClosed = false;

  constructor(options: { readonly kept: number; readonly watchersMax: number; readonly startMs: number }) {
    this.#kept = options.kept;
    this.#ring = [];
    this.#first = Math.floor(options.startMs) * OFFSETS_PER_MS;
    this.#next = this.#first;
    this.#told = this.#first;
    this.watchersMax = options.watchersMax;
  }

  readonly watchersMax: number;

  /** Watchers now. */
  get watchers(): number {
    return this.#watches.size;
  }

  /** Offset of the next event that will be told. */
  get nextOffset(): number {
    return this.#told;
  }

  /** Adds an event; it is told with the next `tell`. */
  add(type: SessionEventType, session: Session, reason: string, atMs: number): void {
    const offset = this.#next++;
    this.#ring[(offset - this.#first) % this.#kept] = { offset, type, session, reason, atMs };
  }

  /** Tells of everything that was added. */
  tell(): void {
    if (this.#told === this.#next) return;
    this.#told = this.#next;
    for (const watch of this.#watches) watch.wake();
  }

  /** Ends all watches. */
  close(): void {
    this.#isClosed = true;
    for (const watch of this.#watches) watch.wake();
  }

  /** A watch from `startOffset` on; 0 is from now on.
   *  @throws {SessionError} `tooManyWatchers`; `eventsGone` when `startOffset` is not kept or not given out yet. */
  watch(startOffset: number): SessionWatch {
    if (this.#isClosed) throw new SessionError("stopped");
    if (this.#watches.size >= this.watchersMax) {
      throw new SessionError("tooManyWatchers", `${this.#watches.size}, at most session.watchersMax`);
    }
    const start = startOffset === 0 ? this.#told : startOffset;
    if (start < this.oldest || start > this.#told) {
      throw new SessionError(
        "eventsGone",
        `start_offset is ${start}, kept are ${this.oldest} to ${this.#told - 1}`,
      );
    }
    const watch = new SessionWatch(this, start, () => this.#watches.delete(watch));
    this.#watches.add(watch);
    return watch;
  }

  /** Offset of the oldest event that is kept. */
  get oldest(): number {
    return Math.max(this.#first, this.#next - this.#kept);
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** The event at `offset`; undefined when it was not told yet. @throws {SessionError} `eventsGone`. */
  at(offset: number): SessionEvent | undefined {
    if (offset >= this.#told) return undefined;
    if (offset < this.oldest) {
      throw new SessionError("eventsGone", `the watcher is at ${offset}, the oldest kept is ${this.oldest}`);
    }
    return this.#ring[(offset - this.#first) % this.#kept];
  }
}

/** One watcher's place in the ring. It holds no events: one that is too slow finds them gone. */
export class SessionWatch {
  #isOpen = true;
  #wake: (() => void) | undefined;

  /** Use `SessionEvents.watch`. */
  constructor(readonly events: SessionEvents, public offset: number, private readonly left: () => void) {}

  /** Whether nothing follows any more. */
  get isClosed(): boolean {
    return !this.#isOpen || this.events.isClosed;
  }

  /** The next event if there is one. @throws {SessionError} `eventsGone`. */
  take(): SessionEvent | undefined {
    const event = this.events.at(this.offset);
    if (event !== undefined) this.offset++;
    return event;
  }

  /** Resolves when there may be something to take, or the end came. One at a time. */
  changed(): Promise<void> {
    if (this.isClosed || this.offset < this.events.nextOffset) return Promise.resolve();
    return new Promise((resolve) => this.#wake = resolve);
  }

  /** Lets `changed` resolve. */
  wake(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }

  /** Gives the place back. Idempotent. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.left();
    this.wake();
  }
}
