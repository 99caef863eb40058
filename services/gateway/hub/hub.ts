/** The hub: all channels of one gateway worker, and all connections that hear them. Pure: time, chance, sockets and services
 *  are passed in. */
import { GatewayError } from "../problem.ts";
import type { Caller } from "../stages.ts";
import type { Timer } from "../timer.ts";
import { type Channel, type Encode, LogChannel, missedOf } from "./channel.ts";
import type { ChannelName } from "./channel_name.ts";
import type { HubConfig } from "./config.ts";
import { Connection, type HubSocket } from "./connection.ts";
import { encodeNotify, type Stamp } from "./envelope.ts";
import { FollowedChannel, type Source } from "./followed_channel.ts";
import type { Position } from "./history.ts";
import type { HubMetrics } from "./metrics.ts";
import { type Member, memberJson, Presence } from "./presence.ts";
import type { Subscription } from "./subscription.ts";

/** How often channels that nobody hears are looked after, in milliseconds. */
const SWEEP_MS = 1_000;
/** How long a channel that follows a stream keeps following it when nobody hears it, in milliseconds: clients that were cut off
 *  together come back to what is still here. */
const FOLLOW_LINGER_MS = 5_000;

/** What free channels are at other gateway workers of this host. */
export interface Relay {
  /** Where a free channel's messages are kept: undefined for this worker. */
  ownerOf(channel: string): string | undefined;
  /** A stream of a channel that another worker keeps. */
  source(owner: string, channel: string): Source;
  publish(owner: string, channel: string, data: string): Promise<Published>;
  history(owner: string, channel: string, since: Position | undefined, limit: number): Promise<HistoryAnswer>;
  /** Tells the other workers by how many connections a user is in a channel here. */
  announce(channel: string, member: Member): void;
}

/** What the hub asks other services. */
export interface HubServices {
  /** Key of the channel that a caller means by a name: the name's own text, unless callers mean different things by it.
   *  @throws {GatewayError} (or rejects) why the caller may not hear it or, with `isWrite`, publish in it. */
  authorize(name: ChannelName, caller: Caller, isWrite: boolean): Promise<string> | string;
  /** The stream behind a channel that is not free. */
  source(name: ChannelName, key: string): Source;
  /** Applies an operation to a document; its answer as JSON. */
  operate(data: Readonly<Record<string, unknown>>, caller: Caller, requestId: string): Promise<string>;
}

/** What it is made of. */
export interface HubDeps {
  readonly config: HubConfig;
  readonly clock: { now(): number; wallMs(): number };
  readonly timer: Timer;
  /** Gives numbers in [0, 1). */
  chance(): number;
  newId(): string;
  /** RFC 3339 of milliseconds since 1970. */
  formatTime(ms: number): string;
  /** Who shows a token. @throws {GatewayError} (or rejects) `unauthenticated`, `unavailable`. */
  authenticate(token: string): Caller | Promise<Caller>;
  /** Rejects when what has shown who the caller is holds no more. */
  confirm(caller: Caller): Promise<void>;
  /** Calls `revoke` when the caller may not go on, until the returned function is called. */
  follow(caller: Caller, revoke: (error: GatewayError) => void): () => void;
  readonly services: HubServices;
  /** Undefined where this is the only gateway worker. */
  readonly relay: Relay | undefined;
  readonly metrics: HubMetrics;
  pause(delayMs: number, signal: AbortSignal): Promise<void>;
  /** Makes any error the gateway's own, and reports those that are faults. */
  toError(error: unknown): GatewayError;
}

/** Answer to a publication. */
export interface Published extends Position {
  /** Who heard it. */
  readonly subscribers: number;
}

/** Answer to a question for history. */
export interface HistoryAnswer {
  /** `notify` messages as they were sent, oldest first. */
  readonly messages: readonly string[];
  /** Where the channel is; undefined when nobody has used it. */
  readonly position: Position | undefined;
  /** Whether nothing is missing: everything since the position asked for, or since the channel began. */
  readonly isComplete: boolean;
}

/** Figures of the hub. */
export interface HubStats {
  readonly connections: number;
  readonly users: number;
  readonly channels: number;
}

/** One channel, and what belongs to it. */
export interface Entry {
  readonly key: string;
  readonly name: ChannelName;
  readonly channel: Channel;
  readonly presence: Presence;
  /** Subscriptions that asked for joins and leaves. */
  readonly watchers: Set<Subscription>;
  /** Subscriptions that begin now. */
  pending: number;
}

/** The hub of one gateway worker. */
export class Hub {
  readonly deps: HubDeps;
  /** Up to gateway.hub.maxChannels. */
  readonly #entries = new Map<string, Entry>();
  /** Those that nobody hears, by when that began, oldest first. */
  readonly #idle = new Map<Entry, number>();
  /** Channels with joins or leaves to tell at the next tick. */
  readonly #presenceChanged = new Set<Entry>();
  /** Up to gateway.hub.maxSockets. */
  readonly #connections = new Set<Connection>();
  readonly #users = new Map<string, number>();
  readonly #cancels: { sweep?: () => void; tick?: () => void } = {};
  readonly #emptied = Promise.withResolvers<void>();
  #historyBytes = 0;
  #isDraining = false;

  constructor(deps: HubDeps) {
    this.deps = deps;
    deps.metrics.watch(() => ({ ...this.stats, historyBytes: this.#historyBytes }));
  }

  get stats(): HubStats {
    return {
      connections: this.#connections.size,
      users: this.#users.size,
      channels: this.#entries.size,
    };
  }

  // ---- connections ----

  /** Refuses a connection before its handshake. @throws {GatewayError} `unavailable`, `too_many_streams`. */
  admit(): void {
    if (this.#isDraining) throw new GatewayError("unavailable", "the gateway is draining");
    const { maxSockets } = this.deps.config;
    if (this.#connections.size >= maxSockets) {
      throw new GatewayError("too_many_streams", `${maxSockets} sockets are open (gateway.hub.maxSockets)`);
    }
  }

  /** Begins a connection; `caller` is undefined for who has not shown yet who they are. */
  open(socket: HubSocket, caller: Caller | undefined): Connection {
    const connection = new Connection(this, socket, caller);
    this.#connections.add(connection);
    if (this.#isDraining) connection.sendAway();
    return connection;
  }

  /** The socket of a connection is gone. */
  forget(connection: Connection): void {
    this.#connections.delete(connection);
    if (this.#connections.size === 0) this.#emptied.resolve();
  }

  /** Counts a user of a connection that begins (1) or ends (-1). */
  countUser({ principal }: Caller, change: 1 | -1): void {
    const key = principal.userId || principal.username;
    const count = (this.#users.get(key) ?? 0) + change;
    if (count === 0) this.#users.delete(key);
    else this.#users.set(key, count);
  }

  /** Sends everybody away, each to come back at a time of its own, and takes nobody any more. Resolves when all have gone.
   *  Idempotent. */
  async drain(): Promise<void> {
    this.#isDraining = true;
    for (const connection of [...this.#connections]) connection.sendAway();
    if (this.#connections.size > 0) await this.#emptied.promise;
  }

  /** Lets go of channels and timers. */
  close(): void {
    this.#isDraining = true;
    for (const entry of [...this.#entries.values()]) this.#remove(entry);
    this.#cancels.sweep?.();
    this.#cancels.tick?.();
  }

  /** When somebody who is sent away had better come back, in milliseconds. */
  hintMs(): number {
    return Math.round(this.deps.chance() * this.deps.config.reconnectMs);
  }

  /** Id and time of a new message. */
  stamp(): Stamp {
    const atMs = this.deps.clock.wallMs();
    return { id: this.deps.newId(), atMs, at: this.deps.formatTime(atMs) };
  }

  // ---- channels ----

  /** Begins a subscription, of a caller that `authorize` let in with this key.
   *  @throws {GatewayError} (as a rejection) why it cannot begin. */
  async subscribe(
    subscription: Subscription,
    key: string,
    from: Position | undefined,
  ): Promise<void> {
    const entry = this.#entryOf(subscription.name, key);
    entry.pending++;
    this.#idle.delete(entry);
    subscription.entry = entry;
    try {
      await entry.channel.subscribe(subscription, from);
    } finally {
      entry.pending--;
      this.#noteIdle(entry);
    }
  }

  /** A subscription has begun: its user is in the channel. */
  entered(subscription: Subscription, { principal }: Caller): void {
    const entry = subscription.entry!;
    const { userId, username } = principal;
    this.#setPresence(entry, userId, username, entry.presence.own(userId, username) + 1);
    if (subscription.wantsPresence) entry.watchers.add(subscription);
    this.deps.metrics.subscribed(1);
  }

  /** A subscription that had begun is over. */
  left(subscription: Subscription, { principal }: Caller): void {
    const entry = subscription.entry!;
    const { userId, username } = principal;
    entry.channel.unsubscribe(subscription);
    entry.watchers.delete(subscription);
    this.#setPresence(entry, userId, username, Math.max(0, entry.presence.own(userId, username) - 1));
    this.deps.metrics.subscribed(-1);
    this.#noteIdle(entry);
  }

  /** Says something in a free channel. `data` is JSON. @throws {GatewayError} (as a rejection). */
  async publish(name: ChannelName, data: string): Promise<Published> {
    const owner = this.deps.relay?.ownerOf(name.text);
    return owner === undefined
      ? this.publishHere(name, data)
      : await this.deps.relay!.publish(owner, name.text, data);
  }

  /** Says something in a free channel that this worker keeps. @throws {GatewayError} */
  publishHere(name: ChannelName, data: string): Published {
    const entry = this.#entryOf(name, name.text);
    const channel = entry.channel as LogChannel;
    const { offset } = channel.publish("publish", data);
    this.#shrink(channel);
    this.#noteIdle(entry);
    return { offset, epoch: channel.position.epoch, subscribers: entry.presence.connections };
  }

  /** What a channel carried lately. */
  async history(
    name: ChannelName,
    key: string,
    since: Position | undefined,
    limit: number,
  ): Promise<HistoryAnswer> {
    const owner = name.kind === "free" ? this.deps.relay?.ownerOf(name.text) : undefined;
    return owner === undefined
      ? this.historyHere(key, since, limit)
      : await this.deps.relay!.history(owner, name.text, since, limit);
  }

  /** The same of what this worker has kept. */
  historyHere(key: string, since: Position | undefined, limit: number): HistoryAnswer {
    const channel = this.#entries.get(key)?.channel;
    const { history, position } = channel ?? {};
    if (history === undefined || position === undefined) {
      return { messages: [], position: undefined, isComplete: since === undefined };
    }
    const { missed, lost } = missedOf(history, position, since);
    const all = since === undefined || lost !== undefined ? history.newest(limit) : missed;
    // Of what lies behind a position the oldest come first, so that the next question goes on from the last of them.
    const messages = since !== undefined && lost === undefined ? all.slice(0, limit) : all;
    const isWhole = messages.length === (since === undefined ? history.size : all.length);
    const isComplete = lost === undefined && isWhole && (since !== undefined || history.floor === 0);
    return { messages: messages.map(({ text }) => text), position, isComplete };
  }

  /** Who is in a channel. */
  present(key: string): Member[] {
    return this.#entries.get(key)?.presence.list() ?? [];
  }

  /** A worker says by how many connections a user is in a channel there. */
  presentElsewhere(worker: string, name: ChannelName, member: Member): void {
    if (member.connections === 0 && !this.#entries.has(name.text)) return;
    const entry = this.#entryOf(name, name.text);
    entry.presence.set(worker, member.userId, member.username, member.connections);
    this.#notePresence(entry);
    this.#noteIdle(entry);
  }

  /** Nobody is at a worker any more. */
  workerGone(worker: string): void {
    for (const entry of this.#entries.values()) {
      entry.presence.removeWorker(worker);
      this.#notePresence(entry);
      this.#noteIdle(entry);
    }
  }

  /** Who is in which channel at this worker. */
  *ownPresence(): Generator<{ readonly channel: string; readonly member: Member }> {
    for (const { key, name, presence } of this.#entries.values()) {
      if (key !== name.text) continue; // a caller's own view of a name
      for (const member of presence.list("")) yield { channel: key, member };
    }
  }

  /** A channel that this worker keeps, for those who hear it at others. @throws {GatewayError} */
  kept(name: ChannelName): LogChannel {
    return this.#entryOf(name, name.text).channel as LogChannel;
  }

  /** Somebody of another worker has looked at a channel, or hears it. */
  looked(key: string): void {
    const entry = this.#entries.get(key);
    if (entry !== undefined) this.#noteIdle(entry);
  }

  /** Raised by each event that changes who may hear a channel. */
  accessVersion(key: string): number {
    const channel = this.#entries.get(key)?.channel;
    return channel instanceof FollowedChannel ? channel.accessVersion : 0;
  }

  #entryOf(name: ChannelName, key: string): Entry {
    let entry = this.#entries.get(key);
    if (entry !== undefined) return entry;
    const { maxChannels } = this.deps.config;
    if (this.#entries.size >= maxChannels && !this.#evictIdle()) {
      throw new GatewayError(
        "resource_exhausted",
        `${maxChannels} channels are in use (gateway.hub.maxChannels)`,
      );
    }
    entry = {
      key,
      name,
      channel: this.#createChannel(name, key),
      presence: new Presence(),
      watchers: new Set(),
      pending: 0,
    };
    this.#entries.set(key, entry);
    return entry;
  }

  #createChannel(name: ChannelName, key: string): Channel {
    const { config, relay, services } = this.deps;
    const limits = { messages: config.historyMessages, bytes: config.historyBytes };
    const encode: Encode = ({ epoch, offset }, event, data) => {
      const text = encodeNotify(this.stamp(), name.text, event, data, epoch, offset);
      this.deps.metrics.encoded(text.length);
      return { offset, event, text };
    };
    const onBytes = (change: number) => {
      this.#historyBytes += change;
      if (this.#historyBytes > config.historyTotalBytes) this.#armSweep();
    };
    const owner = name.kind === "free" ? relay?.ownerOf(name.text) : undefined;
    if (name.kind === "free" && owner === undefined) {
      return new LogChannel({ epoch: this.deps.newId(), encode, limits, onBytes });
    }
    const source = owner === undefined ? services.source(name, key) : relay!.source(owner, name.text);
    return new FollowedChannel({
      source,
      encode,
      limits,
      onBytes,
      recheck: (subscriber) => (subscriber as Subscription).recheck(),
      pause: this.deps.pause,
      chance: this.deps.chance,
      toError: this.deps.toError,
    });
  }

  /** Keeps all histories together within their bound: channels that nobody hears go first, then the one that grew. */
  #shrink(grown: Channel): void {
    const { historyTotalBytes } = this.deps.config;
    while (this.#historyBytes > historyTotalBytes) {
      if (!this.#evictIdle() && grown.history?.dropOldest() !== true) return;
    }
  }

  #evictIdle(): boolean {
    const [entry] = this.#idle.keys();
    if (entry === undefined) return false;
    this.#remove(entry);
    return true;
  }

  #noteIdle(entry: Entry): void {
    if (this.#entries.get(entry.key) !== entry) return;
    const isUsed = entry.pending > 0 || entry.channel.size > 0 || entry.presence.size > 0;
    if (isUsed) {
      this.#idle.delete(entry);
    } else if (!this.#idle.has(entry)) {
      this.#idle.set(entry, this.deps.clock.now());
      this.#armSweep();
    }
  }

  #armSweep(): void {
    if (this.#cancels.sweep !== undefined || this.#isDraining) return;
    this.#cancels.sweep = this.deps.timer.after(SWEEP_MS, () => {
      delete this.#cancels.sweep;
      const now = this.deps.clock.now();
      for (const [entry, sinceMs] of this.#idle) {
        const keepMs = entry.channel instanceof LogChannel
          ? this.deps.config.idleChannelMs
          : FOLLOW_LINGER_MS;
        if (now - sinceMs >= keepMs) this.#remove(entry);
      }
      for (const { channel } of this.#entries.values()) this.#shrink(channel);
      if (this.#idle.size > 0) this.#armSweep();
    });
  }

  #remove(entry: Entry): void {
    this.#entries.delete(entry.key);
    this.#idle.delete(entry);
    this.#presenceChanged.delete(entry);
    entry.channel.close();
  }

  // ---- presence ----

  #setPresence(entry: Entry, userId: string, username: string, connections: number): void {
    entry.presence.set("", userId, username, connections);
    this.#notePresence(entry);
    if (entry.key === entry.name.text) {
      this.deps.relay?.announce(entry.key, { userId, username, connections });
    }
  }

  #notePresence(entry: Entry): void {
    this.#presenceChanged.add(entry);
    if (this.#cancels.tick !== undefined || this.#isDraining) return;
    this.#cancels.tick = this.deps.timer.after(this.deps.config.presenceTickMs, () => {
      delete this.#cancels.tick;
      const entries = [...this.#presenceChanged];
      this.#presenceChanged.clear();
      for (const each of entries) this.#tellPresence(each);
    });
  }

  /** One message for all that asked, however many came and went. */
  #tellPresence({ name, presence, watchers }: Entry): void {
    const change = presence.takeChange();
    if (change === undefined || watchers.size === 0) return;
    const data = JSON.stringify({
      joined: change.joined.map(memberJson),
      left: change.left.map(memberJson),
      total: presence.size,
    });
    const { id, at } = this.stamp();
    const text = `{"id":"${id}","type":"notify","timestamp":"${at}","data":{"channel":${
      JSON.stringify(name.text)
    },"event":"presence","data":${data}}}`;
    for (const watcher of watchers) watcher.connection.send("notify", text);
  }
}
