/** One connection's hearing of one channel. */
import type { GatewayError } from "../problem.ts";
import type { LossReason, Subscribed, Subscriber } from "./channel.ts";
import type { ChannelName } from "./channel_name.ts";
import type { Connection } from "./connection.ts";
import type { Position, Publication } from "./history.ts";
import type { Entry } from "./hub.ts";

/** What a client asks for with a channel. */
export interface SubscriptionOptions {
  readonly requestId: string;
  readonly events: ReadonlySet<string> | undefined;
  readonly wantsPresence: boolean;
  readonly from: Position | undefined;
}

/** A subscription, from when it is asked for until it is over. */
export class Subscription implements Subscriber {
  cursor = 0;
  entry: Entry | undefined;
  /** Of the channel, when its caller was last found to be allowed. */
  accessVersion = 0;
  hasBegun = false;
  isOver = false;

  readonly requestId: string;
  /** Names of events; undefined: all. */
  readonly events: ReadonlySet<string> | undefined;
  readonly wantsPresence: boolean;
  /** What it has seen before. */
  readonly from: Position | undefined;

  constructor(readonly connection: Connection, readonly name: ChannelName, options: SubscriptionOptions) {
    this.requestId = options.requestId;
    this.events = options.events;
    this.wantsPresence = options.wantsPresence;
    this.from = options.from;
  }

  /** Not any more when access has changed since it was looked at: then it is looked at again. */
  get isWanted(): boolean {
    return !this.isOver && !this.connection.isOver && this.connection.isCurrent(this);
  }

  begin(subscribed: Subscribed): void {
    this.hasBegun = true;
    this.connection.begun(this, subscribed);
  }

  deliver(publication: Publication, epoch: string): void {
    if (this.events !== undefined && !this.events.has(publication.event)) return;
    this.connection.sendPublication(this, publication, epoch);
  }

  reload(reason: LossReason, position: Position): void {
    this.connection.sendReload(this, reason, position);
  }

  drop(error: GatewayError): void {
    this.connection.dropped(this, error);
  }

  /** Why its caller may not hear the channel any more; undefined when it may. */
  async recheck(): Promise<GatewayError | undefined> {
    return await this.connection.recheck(this);
  }
}
