/** A channel that follows a stream of another service: one stream for all who hear it.
 *
 *      nobody ──subscribe──► opening ──in place──► live ──stream ends──► away ──in place──► live
 *                               │                    │                     │
 *                               └─ refused: error    └─ gone: reload ◄─────┘ what was missed is not kept
 *
 *  A subscriber that comes back from further behind than this worker has kept gets a lane of its own: a second stream
 *  from its position, which joins the first one as soon as it has caught up. */
import { GatewayError } from "../problem.ts";
import type { Channel, Encode, LossReason, Subscriber } from "./channel.ts";
import { History, type HistoryLimits, type Position, type Publication } from "./history.ts";

/** One event of a stream. */
export interface SourceEvent extends Position {
  readonly event: string;
  /** JSON. */
  readonly data: string;
  /** The whole message where another worker has encoded it already. */
  readonly text?: string;
  /** It may have changed who may hear the channel. */
  readonly changesAccess: boolean;
}

/** A stream in place. */
export interface SourceStream {
  /** Where it begins: its first event is the first one behind this. */
  readonly position: Position;
  /** Events in order; ends or throws when the stream does. `changesAccess` events come alone. */
  readonly events: AsyncIterable<SourceEvent>;
}

/** Where streams of a channel come from. */
export interface Source {
  /** Opens a stream behind `from`, or from now on. `signal` ends it.
   *  @throws {GatewayError} `out_of_range`: what lies behind `from` is not kept, or `from` is none; others as the service says. */
  open(from: Position | undefined, signal: AbortSignal): Promise<SourceStream>;
}

/** Streams of one channel at once: the first, and those that catch up. Others wait for one of them. */
export const LANES_MAX = 3;
/** How often a subscription looks for its place until it is told to come back later: each time a lane has changed. */
const PLACINGS_MAX = 64;
/** How long it waits for that each time, in milliseconds. */
const PLACING_MS = 5_000;
/** Events of a stream after which others have their turn. */
const EVENTS_PER_TURN = 64;
/** Pauses before a stream that ended is opened again, in milliseconds; they double. Chance takes up to half of one. */
const REOPEN_MIN_MS = 50;
const REOPEN_MAX_MS = 2_000;

/** What it is made of. */
export interface FollowedChannelDeps {
  readonly source: Source;
  readonly encode: Encode;
  readonly limits: HistoryLimits;
  readonly onBytes?: (change: number) => void;
  /** Why a subscriber may not hear it any more; undefined when it may. Rejects when that cannot be found out. */
  recheck(subscriber: Subscriber): Promise<GatewayError | undefined>;
  /** Waits; ends early when `signal` aborts. */
  pause(delayMs: number, signal: AbortSignal): Promise<void>;
  /** Gives numbers in [0, 1). */
  chance(): number;
  /** Makes errors of streams the gateway's own. */
  toError(error: unknown): GatewayError;
}

/** One stream and who hears it. */
interface Lane {
  readonly abort: AbortController;
  readonly subscribers: Set<Subscriber>;
  history: History;
  epoch: string;
  offset: number;
}

/** The channel. */
export class FollowedChannel implements Channel {
  readonly #deps: FollowedChannelDeps;
  /** The first is the one that others join. Up to LANES_MAX. */
  readonly #lanes: Lane[] = [];
  #opening = false;
  #change = Promise.withResolvers<void>();
  #isClosed = false;
  /** Raised with each event that changes access, so that who was let in before it is looked at again. */
  accessVersion = 0;

  constructor(deps: FollowedChannelDeps) {
    this.#deps = deps;
  }

  get position(): Position | undefined {
    const lane = this.#lanes[0];
    return lane && { epoch: lane.epoch, offset: lane.offset };
  }

  get history(): History | undefined {
    return this.#lanes[0]?.history;
  }

  get size(): number {
    let size = 0;
    for (const { subscribers } of this.#lanes) size += subscribers.size;
    return size;
  }

  /** Streams that are open. */
  get lanes(): number {
    return this.#lanes.length;
  }

  async subscribe(subscriber: Subscriber, from: Position | undefined): Promise<void> {
    let lost: LossReason | undefined;
    for (let i = 0; i < PLACINGS_MAX && subscriber.isWanted && !this.#isClosed; i++) {
      const primary = this.#lanes[0];
      if (from !== undefined && primary !== undefined && from.epoch !== primary.epoch) lost = "new_epoch";
      const wanted = lost === undefined ? from : undefined;
      if (this.#lanes.some((lane) => place(lane, subscriber, wanted, lost))) return;
      if (this.#opening || this.#lanes.length >= LANES_MAX) {
        if (!await this.#changedInTime()) break;
        continue;
      }
      this.#opening = true;
      try {
        const found = await this.#open(subscriber, wanted, lost);
        if (found === "begun") return;
        lost = found;
      } finally {
        this.#opening = false;
        this.#changed();
      }
    }
    if (subscriber.isWanted) throw new GatewayError("unavailable", "the channel is busy, come back");
  }

  unsubscribe(subscriber: Subscriber): void {
    for (const lane of [...this.#lanes]) {
      if (!lane.subscribers.delete(subscriber)) continue;
      if (lane.subscribers.size === 0 && lane !== this.#lanes[0]) this.#end(lane);
    }
  }

  close(): void {
    this.#isClosed = true;
    for (const lane of [...this.#lanes]) this.#end(lane);
    this.#changed();
  }

  /** Waits until a lane has come or gone; false when that takes too long. */
  async #changedInTime(): Promise<boolean> {
    const done = new AbortController();
    const late = this.#deps.pause(PLACING_MS, done.signal).then(() => false);
    const isInTime = await Promise.race([this.#change.promise.then(() => true), late]);
    done.abort();
    return isInTime;
  }

  /** Opens a lane behind `from`, and lets the subscriber begin there. Resolves to why that is not possible. */
  async #open(
    subscriber: Subscriber,
    from: Position | undefined,
    lost: LossReason | undefined,
  ): Promise<LossReason | "begun"> {
    const abort = new AbortController();
    let stream: SourceStream;
    try {
      stream = await this.#deps.source.open(from, abort.signal);
    } catch (error) {
      const mapped = this.#deps.toError(error);
      if (mapped.code === "out_of_range" && from !== undefined) return "too_old";
      throw mapped;
    }
    if (this.#isClosed) {
      abort.abort();
      throw new GatewayError("unavailable", "the channel was closed, come back");
    }
    const { epoch, offset } = stream.position;
    if (from !== undefined && epoch !== from.epoch) {
      abort.abort();
      return "new_epoch";
    }
    const lane: Lane = {
      abort,
      subscribers: new Set(),
      history: new History(offset, this.#deps.limits, this.#deps.onBytes),
      epoch,
      offset,
    };
    this.#lanes.push(lane);
    if (subscriber.isWanted) place(lane, subscriber, from, lost);
    else if (this.#lanes[0] !== lane) {
      this.#end(lane);
      return "begun";
    }
    this.#run(lane, stream);
    // It may be ahead: another worker's stream told it more than this one's has yet.
    if (this.#lanes[0] !== lane) this.#join(lane);
    return "begun";
  }

  async #run(lane: Lane, first: SourceStream): Promise<void> {
    const { signal } = lane.abort;
    let stream: SourceStream | undefined = first;
    let pauseMs = REOPEN_MIN_MS;
    let taken = 0;
    while (!signal.aborted) {
      try {
        stream ??= await this.#reopen(lane);
        pauseMs = REOPEN_MIN_MS;
        for await (const event of stream.events) {
          if (signal.aborted) return;
          await this.#take(lane, event);
          if (signal.aborted) return;
          // What was missed comes faster than sockets are written to.
          if (++taken % EVENTS_PER_TURN === 0) await this.#deps.pause(0, signal);
        }
      } catch (error) {
        if (signal.aborted) return;
        const mapped = this.#deps.toError(error);
        if (isFinal(mapped)) return this.#refuse(lane, mapped);
      }
      if (signal.aborted) return;
      stream = undefined;
      await this.#deps.pause(pauseMs * (1 - this.#deps.chance() / 2), signal);
      pauseMs = Math.min(pauseMs * 2, REOPEN_MAX_MS);
    }
  }

  /** Opens a lane's stream again where it ended, or tells everybody that this is not possible. */
  async #reopen(lane: Lane): Promise<SourceStream> {
    const from = { epoch: lane.epoch, offset: lane.offset };
    const { source } = this.#deps;
    let reason: LossReason = "too_old";
    try {
      const stream = await source.open(from, lane.abort.signal);
      if (stream.position.epoch === from.epoch) return stream;
      reason = "new_epoch";
    } catch (error) {
      if (this.#deps.toError(error).code !== "out_of_range") throw error;
    }
    const stream = await source.open(undefined, lane.abort.signal);
    if (!lane.abort.signal.aborted) this.#restart(lane, stream.position, reason);
    return stream;
  }

  /** Everybody of the lane goes on from `position`, without what was before. */
  #restart(lane: Lane, position: Position, reason: LossReason): void {
    lane.epoch = position.epoch;
    lane.offset = position.offset;
    lane.history.reset(position.offset);
    for (const subscriber of [...lane.subscribers]) {
      subscriber.cursor = position.offset;
      subscriber.reload(reason, position);
    }
    this.#join(lane);
    this.#changed();
  }

  async #take(lane: Lane, event: SourceEvent): Promise<void> {
    if (event.epoch !== lane.epoch) {
      this.#restart(lane, { epoch: event.epoch, offset: event.offset }, "new_epoch");
      return;
    }
    if (event.offset <= lane.offset) return;
    if (event.changesAccess) {
      this.accessVersion++;
      await this.#recheckAll(lane);
      if (lane.abort.signal.aborted) return;
    }
    const publication = event.text === undefined
      ? this.#deps.encode(event, event.event, event.data)
      : { offset: event.offset, event: event.event, text: event.text };
    lane.history.push(publication);
    lane.offset = event.offset;
    for (const subscriber of lane.subscribers) this.#deliver(lane, subscriber, publication);
    this.#join(lane);
  }

  #deliver({ epoch }: Lane, subscriber: Subscriber, publication: Publication): void {
    if (subscriber.cursor >= publication.offset) return;
    subscriber.cursor = publication.offset;
    subscriber.deliver(publication, epoch);
  }

  /** Nobody hears what comes next before it is known that it may. */
  async #recheckAll(lane: Lane): Promise<void> {
    const verdicts = await Promise.all([...lane.subscribers].map(async (subscriber) => {
      try {
        return { subscriber, refusal: await this.#deps.recheck(subscriber) };
      } catch (error) {
        return { subscriber, refusal: this.#deps.toError(error) };
      }
    }));
    for (const { subscriber, refusal } of verdicts) {
      if (refusal === undefined || !lane.subscribers.delete(subscriber)) continue;
      subscriber.drop(refusal);
    }
  }

  /** A lane that has caught up with the first one ends; its subscribers go on there. */
  #join(lane: Lane): void {
    const primary = this.#lanes[0]!;
    const joining = lane === primary ? this.#lanes.slice(1) : [lane];
    for (const each of joining) {
      if (each.epoch !== primary.epoch || each.offset < primary.history.floor) continue;
      for (const subscriber of each.subscribers) {
        primary.subscribers.add(subscriber);
        for (const publication of primary.history.since(subscriber.cursor) ?? []) {
          this.#deliver(primary, subscriber, publication);
        }
      }
      each.subscribers.clear();
      primary.history.prepend(each.history);
      this.#end(each);
    }
  }

  #refuse(lane: Lane, error: GatewayError): void {
    const subscribers = [...lane.subscribers];
    this.#end(lane);
    for (const subscriber of subscribers) subscriber.drop(error);
    // Another one may be the first now.
    if (this.#lanes.length > 0) this.#join(this.#lanes[0]!);
  }

  #end(lane: Lane): void {
    const at = this.#lanes.indexOf(lane);
    if (at < 0) return;
    this.#lanes.splice(at, 1);
    lane.subscribers.clear();
    lane.history.reset(lane.offset);
    lane.abort.abort();
    this.#changed();
  }

  #changed(): void {
    this.#change.resolve();
    this.#change = Promise.withResolvers();
  }
}

/** Lets a subscriber begin in a lane that has what it missed. */
function place(
  lane: Lane,
  subscriber: Subscriber,
  from: Position | undefined,
  lost: LossReason | undefined,
): boolean {
  let missed: readonly Publication[] | undefined = [];
  if (from !== undefined) {
    if (from.epoch !== lane.epoch || from.offset > lane.offset) return false;
    missed = lane.history.since(from.offset);
    if (missed === undefined) return false;
  }
  lane.subscribers.add(subscriber);
  subscriber.cursor = lane.offset;
  const position = { epoch: lane.epoch, offset: lane.offset };
  subscriber.begin({ position, recovered: from !== undefined, lost, missed });
  return true;
}

/** Whether asking again does not help. */
function isFinal({ code }: GatewayError): boolean {
  return code === "not_found" || code === "permission_denied" || code === "unauthenticated" ||
    code === "invalid_argument" || code === "unimplemented";
}
