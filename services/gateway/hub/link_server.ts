/** The answering half between gateway workers: what this worker keeps, for those who follow it from others. */
import { create } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import { toConnectError } from "./connect_error.ts";
import {
  type ChannelFollow,
  type HubLinkService,
  type LinkRequest,
  type LinkResponse,
  LinkResponseSchema,
} from "$proto/aetherflow/gateway/v1/hub_pb.ts";
import { GatewayError } from "../problem.ts";
import type { LogChannel, LossReason, Subscribed, Subscriber } from "./channel.ts";
import { parseChannelName } from "./channel_name.ts";
import type { Position, Publication } from "./history.ts";
import type { Hub } from "./hub.ts";
import type { Member } from "./presence.ts";

/** Characters that may wait for one link; one that takes them no faster is ended, and its worker goes on from where it was. */
const QUEUED_CHARS_MAX = 16 * 1_024 * 1_024;
/** Characters, and rows, of one message. */
const MESSAGE_CHARS_MAX = 1_024 * 1_024;
const MESSAGE_ROWS_MAX = 1_024;

/** Serves links. */
export class LinkServer {
  /** One for each other worker. */
  readonly #links = new Set<Outgoing>();

  /** Tells all other workers by how many connections a user is in a channel here. */
  announce(channel: string, member: Member): void {
    for (const link of this.#links) announceTo(link, channel, member);
  }

  /** The implementation of HubLinkService. */
  handlers(hub: Hub): ServiceImpl<typeof HubLinkService> {
    const links = this.#links;
    return {
      async *link(requests, { signal }) {
        const link = new Outgoing(signal);
        const follower = new Follower(link, hub);
        links.add(link);
        try {
          for (const { channel, member } of hub.ownPresence()) announceTo(link, channel, member);
          follower.run(requests).catch((error) => link.fail(error));
          yield create(LinkResponseSchema); // says that it is in place
          yield* link.messages();
        } finally {
          links.delete(link);
          follower.close();
        }
      },
      relayPublish({ channel, data }) {
        try {
          const { offset, epoch, subscribers } = hub.publishHere(parseChannelName(channel), data);
          return { offset: BigInt(offset), epoch, subscribers };
        } catch (error) {
          throw toConnectError(error);
        }
      },
      relayHistory({ channel, epoch, offset, limit }) {
        const since = epoch === "" ? undefined : { epoch, offset: Number(offset) };
        const { messages, position, isComplete } = hub.historyHere(channel, since, limit);
        return {
          messages: [...messages],
          epoch: position?.epoch ?? "",
          offset: BigInt(position?.offset ?? 0),
          complete: isComplete,
        };
      },
    };
  }
}

function announceTo(link: Outgoing, channel: string, { userId, username, connections }: Member): void {
  const row = {
    $typeName: "aetherflow.gateway.v1.RelayedUser" as const,
    channel,
    userId,
    username,
    connections,
  };
  link.push((message) => message.users.push(row), channel.length + userId.length + username.length);
}

/** What one worker follows here. */
class Follower {
  readonly #channels = new Map<
    number,
    { readonly name: string; readonly channel: LogChannel; readonly subscriber: Subscriber }
  >();

  constructor(readonly link: Outgoing, readonly hub: Hub) {}

  async run(requests: AsyncIterable<LinkRequest>): Promise<void> {
    for await (const { follows, unfollows } of requests) {
      for (const follow of follows) this.#follow(follow);
      for (const number of unfollows) this.#unfollow(number);
    }
  }

  close(): void {
    for (const number of [...this.#channels.keys()]) this.#unfollow(number);
  }

  #follow({ number, channel: text, epoch, offset }: ChannelFollow): void {
    const name = parseChannelName(text);
    const channel = this.hub.kept(name);
    const from = epoch === "" ? undefined : { epoch, offset: Number(offset) };
    const subscriber = new RemoteSubscriber(number, this.link, from);
    channel.subscribe(subscriber, from);
    if (subscriber.isLost) channel.unsubscribe(subscriber);
    else this.#channels.set(number, { name: text, channel, subscriber });
    this.hub.looked(text);
  }

  #unfollow(number: number): void {
    const found = this.#channels.get(number);
    if (found === undefined) return;
    this.#channels.delete(number);
    found.channel.unsubscribe(found.subscriber);
    this.hub.looked(found.name);
  }
}

/** A worker that hears a channel for its own subscribers. */
class RemoteSubscriber implements Subscriber {
  cursor = 0;
  isLost = false;
  readonly isWanted = true;

  constructor(readonly number: number, readonly link: Outgoing, readonly from: Position | undefined) {}

  begin({ position, lost, missed }: Subscribed): void {
    this.isLost = lost !== undefined;
    const { epoch, offset } = this.from !== undefined && lost === undefined ? this.from : position;
    const row = {
      $typeName: "aetherflow.gateway.v1.ChannelFollowed" as const,
      number: this.number,
      epoch,
      offset: BigInt(offset),
      // Another epoch is told by itself; whoever asked sees that it is not the one it named.
      lost: lost !== undefined,
    };
    this.link.push((message) => message.followed.push(row), 64);
    for (const publication of missed) this.deliver(publication, position.epoch);
  }

  deliver({ offset, event, text }: Publication, epoch: string): void {
    const row = {
      $typeName: "aetherflow.gateway.v1.RelayedMessage" as const,
      number: this.number,
      offset: BigInt(offset),
      epoch,
      event,
      text,
    };
    this.link.push((message) => message.messages.push(row), text.length);
  }

  reload(_reason: LossReason, _position: Position): void {
    throw new TypeError("a channel that is kept here begins anew for nobody");
  }

  drop(error: GatewayError): void {
    this.link.fail(error);
  }
}

/** What waits to be sent over one link. */
class Outgoing {
  readonly #waiting: { readonly add: (message: LinkResponse) => void; readonly chars: number }[] = [];
  #chars = 0;
  #error: unknown;
  #wake = () => {};

  constructor(readonly signal: AbortSignal) {
    signal.addEventListener("abort", () => this.#wake(), { once: true });
  }

  push(add: (message: LinkResponse) => void, chars: number): void {
    this.#waiting.push({ add, chars });
    this.#chars += chars;
    if (this.#chars > QUEUED_CHARS_MAX) {
      this.fail(new GatewayError("resource_exhausted", "the other worker takes what it follows too slowly"));
    }
    this.#wake();
  }

  fail(error: unknown): void {
    this.#error ??= error;
    this.#wake();
  }

  async *messages(): AsyncGenerator<LinkResponse> {
    while (!this.signal.aborted) {
      if (this.#error !== undefined) throw toConnectError(this.#error);
      if (this.#waiting.length === 0) {
        await new Promise<void>((resolve) => this.#wake = resolve);
        continue;
      }
      yield this.#take();
    }
  }

  #take(): LinkResponse {
    const message = create(LinkResponseSchema);
    let rows = 0;
    let chars = 0;
    for (const { add, chars: size } of this.#waiting) {
      if (rows > 0 && (rows >= MESSAGE_ROWS_MAX || chars + size > MESSAGE_CHARS_MAX)) break;
      add(message);
      rows++;
      chars += size;
    }
    this.#waiting.splice(0, rows);
    this.#chars -= chars;
    return message;
  }
}
