/** Free channels where several gateway workers share one host's ports. Each channel is kept by one worker, which the name
 *  decides; the others follow it there. Who is in a channel, every worker tells every other one.
 *
 *  Gateways of other hosts are not among them: a free channel is one host's. */
import type { Transport } from "@connectrpc/connect";
import {
  HubLinkService,
  type LinkRequest,
  LinkRequestSchema,
  type LinkResponse,
  type RelayedMessage,
} from "$proto/aetherflow/gateway/v1/hub_pb.ts";
import { create } from "@bufbuild/protobuf";
import { callUnary } from "../../../transport/rpc/mod.ts";
import { hashText } from "../balance/hash.ts";
import { GatewayError } from "../problem.ts";
import { parseChannelName } from "./channel_name.ts";
import type { Source, SourceEvent, SourceStream } from "./followed_channel.ts";
import type { Position } from "./history.ts";
import type { HistoryAnswer, Hub, Published, Relay } from "./hub.ts";
import type { LinkServer } from "./link_server.ts";
import type { Member } from "./presence.ts";

/** What it is made of. */
export interface RelayDeps {
  /** Name of this worker. */
  readonly self: string;
  /** Names of all gateway workers of this host. */
  workers(): readonly string[];
  transport(worker: string): Transport;
  readonly server: LinkServer;
  pause(delayMs: number, signal: AbortSignal): Promise<void>;
  log(message: string, fields: Record<string, unknown>): void;
}

/** How long a question may take, in milliseconds. */
const ANSWER_MS = 5_000;
/** Pause before a link is opened again, in milliseconds: about what a worker's restart takes. */
const REOPEN_MS = 250;
/** Messages of one followed channel that may wait to be taken; with more it is followed anew, from where it was. */
const WAITING_MAX = 4_096;

/** Follows channels at other workers. */
export class HubRelay implements Relay {
  readonly #deps: RelayDeps;
  /** One for each other worker. */
  readonly #links = new Map<string, Link>();
  readonly #closing = new AbortController();

  constructor(deps: RelayDeps) {
    this.#deps = deps;
  }

  /** Opens a link to each other worker, and keeps them open until `close`. */
  start(hub: Hub): void {
    for (const worker of this.#deps.workers()) {
      if (worker === this.#deps.self) continue;
      const link = new Link(worker, this.#deps, hub, this.#closing.signal);
      this.#links.set(worker, link);
      link.run();
    }
  }

  close(): void {
    this.#closing.abort();
  }

  ownerOf(channel: string): string | undefined {
    const owner = ownerOf(channel, this.#deps.workers());
    return owner === this.#deps.self ? undefined : owner;
  }

  source(owner: string, channel: string): Source {
    return {
      open: async (from, signal) => {
        const link = this.#links.get(owner);
        if (link === undefined) throw new GatewayError("unavailable", `${owner} is no gateway worker`);
        return await link.follow(channel, from, signal);
      },
    };
  }

  async publish(owner: string, channel: string, data: string): Promise<Published> {
    const { offset, epoch, subscribers } = await callUnary(
      this.#deps.transport(owner),
      HubLinkService.method.relayPublish,
      { channel, data },
      { timeoutMs: ANSWER_MS },
    );
    return { offset: Number(offset), epoch, subscribers };
  }

  async history(
    owner: string,
    channel: string,
    since: Position | undefined,
    limit: number,
  ): Promise<HistoryAnswer> {
    const { messages, epoch, offset, complete } = await callUnary(
      this.#deps.transport(owner),
      HubLinkService.method.relayHistory,
      { channel, limit, ...since === undefined ? {} : { epoch: since.epoch, offset: BigInt(since.offset) } },
      { timeoutMs: ANSWER_MS },
    );
    const position = epoch === "" ? undefined : { epoch, offset: Number(offset) };
    return { messages, position, isComplete: complete };
  }

  announce(channel: string, member: Member): void {
    this.#deps.server.announce(channel, member);
  }
}

/** The worker that keeps a channel: the one whose name and the channel's give the highest number together, so that a worker more
 *  or less moves only its own share. `workers` is not empty. */
export function ownerOf(channel: string, workers: readonly string[]): string {
  let owner = workers[0]!;
  if (workers.length === 1) return owner;
  let highest = -1;
  for (const worker of workers) {
    const weight = hashText(`${worker}\n${channel}`);
    if (weight < highest || (weight === highest && worker > owner)) continue;
    owner = worker;
    highest = weight;
  }
  return owner;
}

/** A channel followed over a link. */
interface Follow {
  readonly number: number;
  readonly opened: PromiseWithResolvers<{ position: Position; isLost: boolean }>;
  readonly waiting: RelayedMessage[];
  error: GatewayError | undefined;
  wake: () => void;
}

/** The stream to one other worker. */
class Link {
  readonly #worker: string;
  readonly #deps: RelayDeps;
  readonly #hub: Hub;
  readonly #signal: AbortSignal;
  /** Those of the present stream. As many as channels are followed. */
  readonly #follows = new Map<number, Follow>();
  #numbers = 0;
  #outgoing: LinkRequest | undefined;
  #isOpen = false;
  #open = Promise.withResolvers<void>();
  #wake = () => {};

  constructor(worker: string, deps: RelayDeps, hub: Hub, signal: AbortSignal) {
    this.#worker = worker;
    this.#deps = deps;
    this.#hub = hub;
    this.#signal = signal;
    signal.addEventListener("abort", () => this.#wake());
  }

  async run(): Promise<void> {
    while (!this.#signal.aborted) {
      try {
        await this.#once();
      } catch (error) {
        if (!this.#signal.aborted) {
          this.#deps.log("the link to another gateway worker ended", {
            worker: this.#worker,
            error: String(error),
          });
        }
      }
      this.#ended();
      if (!this.#signal.aborted) await this.#deps.pause(REOPEN_MS, this.#signal);
    }
  }

  async follow(channel: string, from: Position | undefined, signal: AbortSignal): Promise<SourceStream> {
    if (!this.#isOpen) await this.#opened();
    const follow: Follow = {
      number: ++this.#numbers,
      opened: Promise.withResolvers(),
      waiting: [],
      error: undefined,
      wake: () => {},
    };
    this.#follows.set(follow.number, follow);
    this.#next().follows.push({
      $typeName: "aetherflow.gateway.v1.ChannelFollow",
      number: follow.number,
      channel,
      epoch: from?.epoch ?? "",
      offset: BigInt(from?.offset ?? 0),
    });
    const { position, isLost } = await follow.opened.promise;
    if (isLost) {
      this.#follows.delete(follow.number);
      throw new GatewayError("out_of_range", "what was missed is not kept any more");
    }
    const end = () => this.#unfollow(follow);
    if (signal.aborted) end();
    else signal.addEventListener("abort", end, { once: true });
    return { position, events: this.#events(follow) };
  }

  /** Waits for the stream while it is being opened. */
  async #opened(): Promise<void> {
    const late = new AbortController();
    const closed = AbortSignal.any([this.#signal, late.signal]);
    await Promise.race([this.#open.promise, this.#deps.pause(ANSWER_MS, closed)]);
    late.abort();
    if (!this.#isOpen) throw new GatewayError("unavailable", `${this.#worker} cannot be reached`);
  }

  async *#events(follow: Follow): AsyncGenerator<SourceEvent> {
    try {
      for (;;) {
        for (const message of follow.waiting.splice(0)) {
          const { offset, epoch, event, text } = message;
          yield { offset: Number(offset), epoch, event, data: "", text, changesAccess: false };
        }
        if (follow.error !== undefined) throw follow.error;
        if (follow.waiting.length === 0) await new Promise<void>((resolve) => follow.wake = resolve);
      }
    } finally {
      this.#unfollow(follow);
    }
  }

  #unfollow(follow: Follow): void {
    follow.error ??= new GatewayError("unavailable", "not followed any more");
    follow.wake();
    if (this.#follows.delete(follow.number)) this.#next().unfollows.push(follow.number);
  }

  /** The next request, to which everything of this turn is added. */
  #next(): LinkRequest {
    this.#outgoing ??= create(LinkRequestSchema);
    this.#wake();
    return this.#outgoing;
  }

  async *#requests(signal: AbortSignal): AsyncGenerator<LinkRequest> {
    yield create(LinkRequestSchema);
    while (!signal.aborted) {
      const next = this.#outgoing;
      this.#outgoing = undefined;
      if (next !== undefined) yield next;
      else await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }

  async #once(): Promise<void> {
    const ended = new AbortController();
    const signal = AbortSignal.any([this.#signal, ended.signal]);
    this.#outgoing = undefined;
    try {
      const call = await this.#deps.transport(this.#worker)
        .stream(HubLinkService.method.link, signal, undefined, undefined, this.#requests(signal));
      for await (const answer of call.message) {
        this.#isOpen = true;
        this.#open.resolve();
        this.#take(answer);
      }
    } finally {
      ended.abort();
      this.#wake();
    }
  }

  #take({ followed, messages, users }: LinkResponse): void {
    for (const { number, epoch, offset, lost } of followed) {
      this.#follows.get(number)?.opened.resolve({
        position: { epoch, offset: Number(offset) },
        isLost: lost,
      });
    }
    for (const message of messages) {
      const follow = this.#follows.get(message.number);
      if (follow === undefined) continue;
      follow.waiting.push(message);
      if (follow.waiting.length > WAITING_MAX) this.#unfollow(follow);
      else follow.wake();
    }
    for (const { channel, userId, username, connections } of users) {
      try {
        this.#hub.presentElsewhere(this.#worker, parseChannelName(channel), {
          userId,
          username,
          connections,
        });
      } catch (error) {
        this.#deps.log("a user of another gateway worker has no place here", {
          channel,
          error: String(error),
        });
      }
    }
  }

  #ended(): void {
    this.#isOpen = false;
    this.#open = Promise.withResolvers();
    const error = new GatewayError("unavailable", `${this.#worker} has gone`);
    for (const follow of this.#follows.values()) {
      follow.error = error;
      follow.opened.promise.catch(() => {}); // told to who waits, if anybody does
      follow.opened.reject(error);
      follow.wake();
    }
    this.#follows.clear();
    this.#hub.workerGone(this.#worker);
  }
}
