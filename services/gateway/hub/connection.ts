/** One client of the hub: what it may do, in which order, and how much of it. */
import { GatewayError } from "../problem.ts";
import { CLOSE, type CloseName, closeReason } from "../sockets/close_codes.ts";
import type { Caller } from "../stages.ts";
import type { LossReason, Subscribed } from "./channel.ts";
import { type ChannelName, parseChannelName } from "./channel_name.ts";
import {
  CLIENT_TYPES,
  type ClientMessage,
  type ClientType,
  encodeError,
  encodeMessage,
  isObject,
  parseMessage,
  type ServerType,
} from "./envelope.ts";
import { HISTORY_ENTRIES_MAX, type Position, type Publication } from "./history.ts";
import type { Hub } from "./hub.ts";
import { memberJson } from "./presence.ts";
import { Subscription } from "./subscription.ts";

/** What a connection is written to. */
export interface HubSocket {
  /** With `channel`: the client has seen everything in it up to the place; for clients that say later where they were. */
  send(text: string, channel?: string, epoch?: string, offset?: number): void;
  /** Bytes that were sent and not yet taken. */
  readonly queuedBytes: number;
  close(code: number, reason: string): void;
}

/** Messages of one client that may wait for their turn; they are carried out in the order they came. */
const WAITING_MAX = 256;
/** Messages above the rate until a client is closed: it may be told a few times before. */
const STRIKES_MAX = 32;
/** Credentials that are none until a client is closed. */
const AUTH_FAILURES_MAX = 3;
/** Longest token, in characters. */
const TOKEN_CHARS_MAX = 16_384;
/** Names of events in one filter. */
const FILTER_EVENTS_MAX = 32;
/** Users in one answer to `presence`. */
const PRESENCE_USERS_MAX = 1_000;
const HISTORY_ENTRIES_DEFAULT = 100;
/** Share of gateway.hub.maxQueuedBytes that is sent between two looks at how much waits. */
const UNCHECKED_SHARE = 1 / 16;
/** How long a client may take to read what was sent before it gets what it missed, in milliseconds, and how often that is looked
 *  at: sockets do not tell when they have drained. */
const DRAIN_MS = 10_000;
const DRAIN_POLL_MS = 10;
/** Times that access is looked at again because it has just changed. */
const ACCESS_LOOKS_MAX = 16;

const encoder = new TextEncoder();
const NEVER = new AbortController().signal;
const KNOWN: ReadonlySet<string> = new Set(CLIENT_TYPES);

/** A client, from its handshake to its end. */
export class Connection {
  readonly hub: Hub;
  caller: Caller | undefined;
  /** Nothing is taken from it or sent to it any more. */
  isOver = false;
  readonly #socket: HubSocket;
  /** Up to gateway.hub.maxChannelsPerSocket. */
  readonly #subscriptions = new Map<string, Subscription>();
  #cancelAuth = () => {};
  #unfollow: (() => void) | undefined;
  #tokens: number;
  #tokensAtMs: number;
  #strikes = 0;
  #authFailures = 0;
  #waiting = 0;
  #turn: Promise<void> | undefined;
  /** What was sent at once of what it had missed, which may wait besides gateway.hub.maxQueuedBytes. */
  #graceBytes = 0;
  #isCatchingUp = false;
  /** What was sent since it was last looked at how much waits. */
  #uncheckedChars = 0;

  /** `caller` is undefined for who has not shown yet who it is, and must do so in time. */
  constructor(hub: Hub, socket: HubSocket, caller: Caller | undefined) {
    this.hub = hub;
    this.#socket = socket;
    const { clock, config, timer } = hub.deps;
    this.#tokens = config.messageBurst;
    this.#tokensAtMs = clock.now();
    if (caller !== undefined) {
      this.adopt(caller);
      return;
    }
    this.#cancelAuth = timer.after(config.authTimeoutMs, () => {
      this.end("authTimeout", new GatewayError("unauthenticated", "Not authenticated"));
    });
  }

  /** Channels it hears. */
  get channels(): number {
    return this.#subscriptions.size;
  }

  // ---- its life ----

  /** It is known who it is. */
  adopt(caller: Caller): void {
    const { hub } = this;
    this.#cancelAuth();
    this.#unfollow?.();
    if (this.caller !== undefined) hub.countUser(this.caller, -1);
    this.caller = caller;
    hub.countUser(caller, 1);
    this.#unfollow = hub.deps.follow(caller, (error) => this.revoke(error));
  }

  /** Its caller may not go on. */
  revoke(error: GatewayError): void {
    this.end(error.code === "unauthenticated" ? "unauthenticated" : "unavailable", error);
  }

  /** The gateway goes: it had better come back, to another one or later. */
  sendAway(): void {
    this.end("draining", new GatewayError("unavailable", "the gateway is draining"));
  }

  /** Says why, if that can still be said, and ends it. Idempotent. */
  end(name: CloseName, error?: GatewayError): void {
    if (this.isOver) return;
    const hintMs = CLOSE[name].mayReconnect ? this.hub.hintMs() : undefined;
    if (error !== undefined) this.#write("error", encodeError(error, this.hub.stamp(), "", hintMs));
    this.#release();
    this.hub.deps.metrics.closed(CLOSE[name].code);
    this.#socket.close(
      CLOSE[name].code,
      closeReason(name, hintMs === undefined ? "" : `reconnect_after_ms=${hintMs}`),
    );
  }

  /** Its socket is gone. Idempotent. */
  gone(): void {
    this.#release();
    this.hub.forget(this);
  }

  #release(): void {
    if (this.isOver) return;
    this.isOver = true;
    this.#cancelAuth();
    this.#unfollow?.();
    for (const subscription of this.#subscriptions.values()) this.#leave(subscription);
    this.#subscriptions.clear();
    if (this.caller !== undefined) this.hub.countUser(this.caller, -1);
  }

  // ---- what it says ----

  /** A frame came. `text` is undefined for a binary one. */
  receive(text: string | undefined): void {
    if (this.isOver) return;
    const { config, metrics } = this.hub.deps;
    if (text !== undefined && isLonger(text, config.maxMessageBytes)) {
      return this.end(
        "tooLarge",
        new GatewayError("body_too_large", `a message has more than ${config.maxMessageBytes} bytes`),
      );
    }
    const message = text === undefined ? undefined : parseMessage(text);
    const type = message !== undefined && KNOWN.has(message.type) ? message.type as ClientType : "invalid";
    metrics.received(type, text?.length ?? 0);
    if (!this.#takeToken()) return this.#refuseRate(message?.id ?? "");
    if (message === undefined) {
      return this.#fail(new GatewayError("invalid_argument", "Invalid message format"), "");
    }
    if (type === "invalid") {
      return this.#fail(new GatewayError("unimplemented", "Unknown message type"), message.id);
    }
    if (type === "ping") return this.#pong(message.id);
    if (type === "pong") return;
    if (this.#waiting >= WAITING_MAX) {
      return this.#fail(new GatewayError("too_many_requests", `${WAITING_MAX} messages wait`), message.id);
    }
    this.#waiting++;
    const run = () => this.#run(type, message);
    this.#turn = this.#turn === undefined ? run() : this.#turn.then(run);
  }

  /** Carries out one message. Never rejects. */
  async #run(type: Exclude<ClientType, "ping" | "pong">, message: ClientMessage): Promise<void> {
    try {
      if (this.isOver) return;
      if (type === "auth") await this.#auth(message);
      else if (this.caller === undefined) throw new GatewayError("unauthenticated", "Not authenticated");
      else await this.#carryOut(type, message, this.caller);
    } catch (error) {
      if (!this.isOver) this.#fail(this.hub.deps.toError(error), message.id);
    } finally {
      if (--this.#waiting === 0) this.#turn = undefined;
    }
  }

  async #carryOut(
    type: Exclude<ClientType, "ping" | "pong" | "auth">,
    message: ClientMessage,
    caller: Caller,
  ): Promise<void> {
    if (type === "unsubscribe") return this.#unsubscribe(message);
    if (!await this.#confirm(caller)) return;
    switch (type) {
      case "subscribe":
        return await this.#drained() ? await this.#subscribe(message, caller) : undefined;
      case "publish":
        return await this.#publish(message, caller);
      case "history":
        return await this.#drained() ? await this.#history(message, caller) : undefined;
      case "presence":
        return await this.#presence(message, caller);
      case "operation":
        return this.#answer(
          "operation",
          message.id,
          await this.hub.deps.services.operate(message.data, caller, message.id),
        );
    }
  }

  /** Whether what has shown who it is still holds; else it is over. Asked for each message: what is sent after a revocation
   *  is not carried out, however soon it comes. */
  async #confirm(caller: Caller): Promise<boolean> {
    try {
      await this.hub.deps.confirm(caller);
    } catch (error) {
      const mapped = this.hub.deps.toError(error);
      if (mapped.code !== "unauthenticated") throw mapped;
      this.revoke(mapped);
    }
    return !this.isOver;
  }

  async #auth({ id, data }: ClientMessage): Promise<void> {
    const { token } = data;
    try {
      if (typeof token !== "string" || token === "" || token.length > TOKEN_CHARS_MAX) {
        throw new GatewayError("unauthenticated", "token is not a credential");
      }
      const caller = await this.hub.deps.authenticate(token);
      if (this.isOver) return;
      const before = this.caller?.principal;
      const { userId, sessionId, username } = caller.principal;
      if (before !== undefined && (before.userId !== userId || before.username !== username)) {
        throw new GatewayError("failed_precondition", "the socket is another user's: open one of your own");
      }
      this.adopt(caller);
      const told = {
        success: true,
        message: "authenticated",
        user_id: userId || username,
        session_id: sessionId,
      };
      this.#answer("auth_result", id, JSON.stringify(told));
    } catch (error) {
      if (this.isOver) return;
      const { code, message } = this.hub.deps.toError(error);
      const told = { success: false, message, user_id: "", session_id: "", code };
      this.#answer("auth_result", id, JSON.stringify(told));
      if (code === "unauthenticated" && ++this.#authFailures >= AUTH_FAILURES_MAX) {
        this.end("unauthenticated");
      }
    }
  }

  async #subscribe({ id, data }: ClientMessage, caller: Caller): Promise<void> {
    const name = parseChannelName(data.channel);
    const subscription = new Subscription(this, name, {
      requestId: id,
      events: filterOf(data.filter),
      wantsPresence: data.presence === true,
      from: positionOf(data),
    });
    await this.subscribe(subscription, caller);
  }

  /** Begins a subscription; it tells how it begins. @throws {GatewayError} (as a rejection) why it cannot. */
  async subscribe(subscription: Subscription, caller: Caller): Promise<void> {
    const { hub } = this;
    const { name, from } = subscription;
    const { maxChannelsPerSocket } = hub.deps.config;
    const before = this.#subscriptions.get(name.text);
    if (before === undefined && this.#subscriptions.size >= maxChannelsPerSocket) {
      throw new GatewayError(
        "resource_exhausted",
        `${maxChannelsPerSocket} channels are subscribed to (gateway.hub.maxChannelsPerSocket)`,
      );
    }
    // Who asks again begins anew, from where it says.
    if (before !== undefined) this.#leave(before);
    this.#subscriptions.set(name.text, subscription);
    try {
      for (let looks = 0; !subscription.hasBegun && looks < ACCESS_LOOKS_MAX; looks++) {
        subscription.accessVersion = hub.accessVersion(name.text);
        const key = await hub.deps.services.authorize(name, caller, false);
        if (subscription.isOver || this.isOver) return;
        // It does not begin when access has changed meanwhile: then it is looked at again.
        await hub.subscribe(subscription, key, from);
        if (subscription.isOver || this.isOver) return;
      }
      if (!subscription.hasBegun) {
        throw new GatewayError("unavailable", "access to the channel keeps changing");
      }
    } catch (error) {
      if (this.#subscriptions.get(name.text) === subscription) this.#subscriptions.delete(name.text);
      this.#leave(subscription);
      throw error;
    }
  }

  /** Whether nothing has changed since the subscription's caller was found to be allowed. */
  isCurrent({ entry, accessVersion }: Subscription): boolean {
    return entry === undefined || this.hub.accessVersion(entry.name.text) === accessVersion;
  }

  #unsubscribe({ id, data }: ClientMessage): void {
    const { text } = parseChannelName(data.channel);
    const subscription = this.#subscriptions.get(text);
    if (subscription !== undefined) {
      this.#subscriptions.delete(text);
      this.#leave(subscription);
    }
    this.#answer("unsubscribe", id, JSON.stringify({ channel: text, success: true }));
  }

  #leave(subscription: Subscription): void {
    if (subscription.isOver) return;
    subscription.isOver = true;
    if (subscription.hasBegun) this.hub.left(subscription, this.caller!);
  }

  async #publish({ id, data }: ClientMessage, caller: Caller): Promise<void> {
    const name = parseChannelName(data.channel);
    refusePublish(name);
    await this.hub.deps.services.authorize(name, caller, true);
    const { offset, epoch, subscribers } = await this.hub.publish(name, JSON.stringify(data.data ?? null));
    this.#answer(
      "publish",
      id,
      JSON.stringify({ channel: name.text, success: true, subscribers, offset, epoch }),
    );
  }

  async #history({ id, data }: ClientMessage, caller: Caller): Promise<void> {
    const name = parseChannelName(data.channel);
    const { limit = HISTORY_ENTRIES_DEFAULT, since } = data;
    if (!isOffset(limit) || limit < 1 || limit > HISTORY_ENTRIES_MAX) {
      throw new GatewayError("invalid_argument", `limit is ${limit}, expected 1 to ${HISTORY_ENTRIES_MAX}`);
    }
    if (since !== undefined && !isObject(since)) {
      throw new GatewayError("invalid_argument", "since is not {offset, epoch}");
    }
    const key = await this.hub.deps.services.authorize(name, caller, false);
    const answer = await this.hub.history(name, key, since && positionOf(since), limit);
    if (this.isOver) return;
    const place = answer.position === undefined
      ? ""
      : `,"offset":${answer.position.offset},"epoch":${JSON.stringify(answer.position.epoch)}`;
    const json =
      `{"channel":${JSON.stringify(name.text)},"success":true${place},"complete":${answer.isComplete}` +
      `,"messages":[${answer.messages.join(",")}]}`;
    this.#graceBytes += json.length;
    this.#answer("history", id, json);
  }

  async #presence({ id, data }: ClientMessage, caller: Caller): Promise<void> {
    const name = parseChannelName(data.channel);
    const users = this.hub.present(await this.hub.deps.services.authorize(name, caller, false));
    const listed = users.slice(0, PRESENCE_USERS_MAX).map(memberJson);
    this.#answer(
      "presence",
      id,
      JSON.stringify({ channel: name.text, success: true, users: listed, total: users.length }),
    );
  }

  // ---- what it is told ----

  /** A subscription begins. */
  begun(subscription: Subscription, { position, recovered, lost, missed }: Subscribed): void {
    this.hub.entered(subscription, this.caller!);
    if (lost !== undefined) this.hub.deps.metrics.recovered(lost);
    else if (recovered) this.hub.deps.metrics.recovered("recovered");
    for (const { text } of missed) this.#graceBytes += text.length;
    const told = JSON.stringify({
      channel: subscription.name.text,
      success: true,
      ...position,
      recovered,
      ...lost === undefined ? {} : { reason: lost, reload: true },
    });
    const text = encodeMessage("subscribe", this.hub.stamp(), subscription.requestId, told);
    // What it missed follows: until then it has seen what it had seen before.
    const seen = recovered ? subscription.from! : position;
    this.#socket.send(text, subscription.name.text, seen.epoch, seen.offset);
    this.hub.deps.metrics.sent("subscribe", text.length);
    this.#isCatchingUp = true;
    for (const publication of missed) subscription.deliver(publication, position.epoch);
    this.#isCatchingUp = false;
  }

  /** A message of a channel. */
  sendPublication({ name }: Subscription, { text, offset }: Publication, epoch: string): void {
    if (this.isOver) return;
    this.#socket.send(text, name.text, epoch, offset);
    this.hub.deps.metrics.delivered();
    // Asking how much waits costs as much as a tenth of sending does.
    this.#uncheckedChars += text.length;
    if (this.#uncheckedChars >= this.hub.deps.config.maxQueuedBytes * UNCHECKED_SHARE) this.#refuseQueue();
  }

  /** What a subscription missed cannot be told. */
  sendReload({ name }: Subscription, reason: LossReason, { offset, epoch }: Position): void {
    this.hub.deps.metrics.recovered(reason);
    const { id, at } = this.hub.stamp();
    const data = { channel: name.text, event: "reload", data: { reason }, offset, epoch };
    const text = `{"id":"${id}","type":"notify","timestamp":"${at}","data":${JSON.stringify(data)}}`;
    if (this.isOver) return;
    this.#socket.send(text, name.text, epoch, offset);
    this.hub.deps.metrics.sent("notify", text.length);
    this.#refuseQueue();
  }

  /** A subscription was ended by its channel. */
  dropped(subscription: Subscription, error: GatewayError): void {
    if (this.isOver || subscription.isOver) return;
    this.#subscriptions.delete(subscription.name.text);
    this.#leave(subscription);
    const told = { channel: subscription.name.text, success: true, code: error.code, reason: error.message };
    this.#answer("unsubscribe", "", JSON.stringify(told));
  }

  /** Why a subscription's caller may not hear it any more. */
  async recheck(subscription: Subscription): Promise<GatewayError | undefined> {
    try {
      await this.hub.deps.services.authorize(subscription.name, this.caller!, false);
      return undefined;
    } catch (error) {
      return this.hub.deps.toError(error);
    }
  }

  /** Any message of the hub. */
  send(type: ServerType, text: string): void {
    if (this.isOver) return;
    this.#write(type, text);
    this.#refuseQueue();
  }

  #answer(type: ServerType, requestId: string, data: string): void {
    this.send(type, encodeMessage(type, this.hub.stamp(), requestId, data));
  }

  #fail(error: GatewayError, requestId: string): void {
    this.send("error", encodeError(error, this.hub.stamp(), requestId, undefined));
  }

  #pong(requestId: string): void {
    const stamp = this.hub.stamp();
    this.send("pong", encodeMessage("pong", stamp, requestId, `{"timestamp":"${stamp.at}"}`));
  }

  #write(type: ServerType, text: string): void {
    this.#socket.send(text);
    this.hub.deps.metrics.sent(type, text.length);
  }

  /** Whether it has taken most of what was sent. What may be much, such as what it missed, waits for that: a client that comes back
   *  to many channels gets one after the other. */
  async #drained(): Promise<boolean> {
    const { config, pause, clock } = this.hub.deps;
    const lateAtMs = clock.now() + DRAIN_MS;
    while (!this.isOver && this.#socket.queuedBytes > config.maxQueuedBytes / 2) {
      if (clock.now() >= lateAtMs) this.end("slow");
      else await pause(DRAIN_POLL_MS, NEVER);
    }
    return !this.isOver;
  }

  /** Who does not read is closed: others do not wait, and memory does not grow. */
  #refuseQueue(): void {
    if (this.isOver) return;
    this.#uncheckedChars = 0;
    const { queuedBytes } = this.#socket;
    if (queuedBytes > this.hub.deps.config.maxQueuedBytes + this.#graceBytes) return this.end("slow");
    // What has been taken waits no more.
    if (!this.#isCatchingUp) this.#graceBytes = Math.min(this.#graceBytes, queuedBytes);
  }

  #takeToken(): boolean {
    const { clock, config } = this.hub.deps;
    const now = clock.now();
    const gained = (now - this.#tokensAtMs) / 1_000 * config.messagesPerSecond;
    this.#tokens = Math.min(config.messageBurst, this.#tokens + gained);
    this.#tokensAtMs = now;
    if (this.#tokens < 1) return false;
    this.#tokens--;
    if (this.#tokens > config.messageBurst / 2) this.#strikes = 0;
    return true;
  }

  #refuseRate(requestId: string): void {
    const { messagesPerSecond } = this.hub.deps.config;
    const error = new GatewayError(
      "rate_limited",
      `more than ${messagesPerSecond} messages a second (gateway.hub.messagesPerSecond)`,
    );
    if (++this.#strikes > STRIKES_MAX) this.end("tooFast", error);
    else this.#fail(error, requestId);
  }
}

/** @throws {GatewayError} `permission_denied` for channels that carry what others make. */
export function refusePublish({ kind, text }: ChannelName): void {
  if (kind === "free") return;
  throw new GatewayError(
    "permission_denied",
    `nobody publishes in ${text.slice(0, text.indexOf(":") + 1)} channels: they tell what happens elsewhere`,
  );
}

/** The position that a client names; undefined when it names none. @throws {GatewayError} `invalid_argument`. */
export function positionOf(data: Readonly<Record<string, unknown>>): Position | undefined {
  const { offset, epoch } = data;
  if (offset === undefined && epoch === undefined) return undefined;
  if (!isOffset(offset)) throw new GatewayError("invalid_argument", "offset is not a whole number from 0");
  if (typeof epoch !== "string" || epoch.length > 128) {
    throw new GatewayError("invalid_argument", "epoch is not the text that came with the offset");
  }
  return { offset, epoch };
}

function isOffset(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function filterOf(filter: unknown): ReadonlySet<string> | undefined {
  if (filter === undefined || filter === null || filter === "") return undefined;
  const events = isObject(filter) && Object.keys(filter).length === 1 ? filter.events : undefined;
  if (
    !Array.isArray(events) || events.length === 0 || events.length > FILTER_EVENTS_MAX ||
    !events.every((event) => typeof event === "string")
  ) {
    throw new GatewayError("invalid_argument", `filter is not {"events": [1 to ${FILTER_EVENTS_MAX} names]}`);
  }
  return new Set(events);
}

function isLonger(text: string, bytesMax: number): boolean {
  if (text.length > bytesMax) return true;
  return text.length * 3 > bytesMax && encoder.encode(text).length > bytesMax;
}
