/** A channel: who hears it, and what they missed. Two kinds: one whose messages are made here, and one that follows a
 *  stream of another service. Either tells a subscriber everything behind the position it names, in order and once, or
 *  that it must reload. */
import type { GatewayError } from "../problem.ts";
import { History, type HistoryLimits, type Position, type Publication } from "./history.ts";

/** Why a subscriber did not get what it missed. */
export type LossReason =
  /** The offsets have begun anew since. */
  | "new_epoch"
  /** What was missed is not kept any more. */
  | "too_old"
  /** The position is none that the channel has had. */
  | "unknown_offset";

/** How a subscription begins. */
export interface Subscribed {
  /** The subscriber has seen everything up to here, once it has seen `missed`. */
  readonly position: Position;
  /** Whether what it missed is in `missed`; false too when it named no position. */
  readonly recovered: boolean;
  /** Set when it named a position that could not be recovered: it must reload. */
  readonly lost: LossReason | undefined;
  readonly missed: readonly Publication[];
}

/** Who hears a channel. Calls come in the order of the channel; none comes before `begin`. */
export interface Subscriber {
  /** Offset up to which it has seen everything; the channel's to write. */
  cursor: number;
  /** Whether it still waits for its beginning. */
  readonly isWanted: boolean;
  begin(subscribed: Subscribed): void;
  deliver(publication: Publication, epoch: string): void;
  /** What it missed cannot be told: it goes on from `position` and must reload. */
  reload(reason: LossReason, position: Position): void;
  /** It hears nothing any more. */
  drop(error: GatewayError): void;
}

/** What both kinds offer. */
export interface Channel {
  /** Begins a subscription; resolves when `begin` was called, or it is not wanted any more.
   *  @throws {GatewayError} (or rejects) why it cannot begin. */
  subscribe(subscriber: Subscriber, from: Position | undefined): void | Promise<void>;
  /** Ends one. Idempotent. */
  unsubscribe(subscriber: Subscriber): void;
  /** Where it is; undefined while that is not known. */
  readonly position: Position | undefined;
  /** What it has kept. */
  readonly history: History | undefined;
  /** Subscribers that have begun. */
  readonly size: number;
  /** Lets go of everything. */
  close(): void;
}

/** Encodes a message of a channel, once. */
export type Encode = (position: Position, event: string, data: string) => Publication;

/** A channel whose messages are made in this worker. */
export class LogChannel implements Channel {
  readonly history: History;
  readonly #epoch: string;
  readonly #encode: Encode;
  readonly #subscribers = new Set<Subscriber>();
  #offset = 0;

  constructor(
    deps: {
      /** Never used before. */
      readonly epoch: string;
      readonly encode: Encode;
      readonly limits: HistoryLimits;
      readonly onBytes?: (change: number) => void;
    },
  ) {
    this.#epoch = deps.epoch;
    this.#encode = deps.encode;
    this.history = new History(0, deps.limits, deps.onBytes);
  }

  get position(): Position {
    return { epoch: this.#epoch, offset: this.#offset };
  }

  get size(): number {
    return this.#subscribers.size;
  }

  subscribe(subscriber: Subscriber, from: Position | undefined): void {
    const { position } = this;
    const { missed, lost } = missedOf(this.history, position, from);
    this.#subscribers.add(subscriber);
    subscriber.cursor = position.offset;
    subscriber.begin({ position, recovered: from !== undefined && lost === undefined, lost, missed });
  }

  unsubscribe(subscriber: Subscriber): void {
    this.#subscribers.delete(subscriber);
  }

  /** Says something to everybody. `data` is JSON. */
  publish(event: string, data: string): Publication {
    const publication = this.#encode({ epoch: this.#epoch, offset: ++this.#offset }, event, data);
    this.history.push(publication);
    for (const subscriber of this.#subscribers) {
      subscriber.cursor = this.#offset;
      subscriber.deliver(publication, this.#epoch);
    }
    return publication;
  }

  close(): void {
    this.history.reset(this.#offset);
  }
}

/** What lies between a position and a channel's present, if it can be told. */
export function missedOf(
  history: History,
  position: Position,
  from: Position | undefined,
): { missed: readonly Publication[]; lost: LossReason | undefined } {
  if (from === undefined) return { missed: [], lost: undefined };
  if (from.epoch !== position.epoch) return { missed: [], lost: "new_epoch" };
  if (from.offset > position.offset) return { missed: [], lost: "unknown_offset" };
  const missed = history.since(from.offset);
  return missed === undefined ? { missed: [], lost: "too_old" } : { missed, lost: undefined };
}
