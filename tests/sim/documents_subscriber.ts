/** Subscribers of simulated worlds: they follow events from the last one that they saw, whatever service is there to ask. */
import { Code, ConnectError } from "@connectrpc/connect";
import type {
  SubscribeDocumentResponse,
  SubscribeEventsResponse,
} from "$proto/aetherflow/statesync/v1/statesync_pb.ts";
import { assert, assertEquals } from "@std/assert";
import type { Schedule } from "./documents_schedule.ts";
import type { SimRandom } from "./random.ts";

/** A stream of events. */
export interface EventStream {
  /** The next message; undefined at the end. */
  next(): Promise<SubscribeDocumentResponse | SubscribeEventsResponse | undefined>;
  stop(): void;
}

/** What a subscriber is made of. */
export interface SubscriberDeps {
  readonly schedule: Schedule;
  readonly random: SimRandom;
  /** Undefined: all documents. */
  readonly docId: string | undefined;
  /** Opens a stream from a position on (0: from now on), of an epoch; undefined while nobody is there. */
  open(start: number, epoch: string): EventStream | undefined;
  /** Whether an error is that of a service that has died or cannot answer now. */
  mayComeBack(error: unknown): boolean;
  /** Whether old entries go: what goes of one document is not told to those who follow all. */
  readonly isCompacted: boolean;
  /** Where a reader of everything is now. */
  last(): Promise<number>;
  told(event: { readonly docId: string; readonly offset: number; readonly id: string }): void;
  count(what: "reconnects" | "reloads"): void;
  fault(error: unknown): void;
}

const AWAY_MS = 60;
const LONG_AWAY_MS = 800;
/** Streams are left after so many events, at most. */
const EVENTS_MAX = 6;

/** Follows events until it is stopped. */
export class Subscriber {
  readonly docId: string | undefined;
  readonly #deps: SubscriberDeps;
  /** The last offset, or sequence, that it was told of; 0: it has not begun. */
  #position = 0;
  #epoch = "";
  #isStopped = false;
  /** Next offset of each document, of a subscriber of all. */
  readonly #offsets = new Map<string, number>();

  constructor(deps: SubscriberDeps) {
    this.docId = deps.docId;
    this.#deps = deps;
    this.#run().catch((error) => deps.fault(error));
  }

  get position(): number {
    return this.#position;
  }

  stop(): void {
    this.#isStopped = true;
  }

  async #run(): Promise<void> {
    const { schedule, random } = this.#deps;
    while (!this.#isStopped) {
      const stream = this.#deps.open(this.#position === 0 ? 0 : this.#position + 1, this.#epoch);
      if (stream !== undefined) {
        this.#deps.count("reconnects");
        try {
          await this.#follow(stream);
        } catch (error) {
          if (isCode(error, Code.OutOfRange)) await this.#reload();
          else if (!this.#deps.mayComeBack(error)) throw error;
        }
        stream.stop();
      }
      await schedule.pause(random.below(random.chance(0.1) ? LONG_AWAY_MS : AWAY_MS));
    }
  }

  async #follow(stream: EventStream): Promise<void> {
    const { random, schedule } = this.#deps;
    let left = 1 + random.below(EVENTS_MAX);
    // Now and then it goes in the middle of waiting.
    const leaving = random.chance(0.5)
      ? schedule.pause(random.below(1_000)).then(() => undefined)
      : new Promise<never>(() => {});
    while (left > 0) {
      const message = await Promise.race([stream.next(), leaving]);
      if (message === undefined) return;
      if (message.event === undefined) this.#begin(message);
      else {
        this.#take(message);
        left--;
      }
    }
  }

  /** The first message names the place before the first event. */
  #begin(message: SubscribeDocumentResponse | SubscribeEventsResponse): void {
    const before = positionOf(message);
    if (this.#position === 0) this.#position = before;
    else assertEquals(before, this.#position, "where a stream begins");
    if (this.#epoch !== "") assertEquals(message.epoch, this.#epoch, "epoch of a stream");
    this.#epoch = message.epoch;
  }

  #take(message: SubscribeDocumentResponse | SubscribeEventsResponse): void {
    const event = message.event!;
    const position = positionOf(message);
    const offset = Number(event.offset);
    if (this.docId !== undefined) {
      assertEquals(position, this.#position + 1, `offset of an event of ${this.docId}`);
    } else {
      assert(position > this.#position, `sequence ${position} after ${this.#position}`);
      const expected = this.#offsets.get(event.docId) ?? offset;
      const isNext = offset === expected || (this.#deps.isCompacted && offset > expected);
      assert(isNext, `event ${offset} of ${event.docId} among all, expected ${expected}`);
      this.#offsets.set(event.docId, offset + 1);
    }
    this.#position = position;
    this.#deps.told({ docId: event.docId, offset, id: event.id });
  }

  /** It was told that it has missed something: it reads everything, and goes on from there. */
  async #reload(): Promise<void> {
    this.#deps.count("reloads");
    this.#position = await this.#deps.last();
    this.#offsets.clear();
  }
}

function positionOf(message: SubscribeDocumentResponse | SubscribeEventsResponse): number {
  return Number("sequence" in message ? message.sequence : message.offset);
}

function isCode(error: unknown, code: Code): boolean {
  return error instanceof ConnectError && error.code === code;
}
