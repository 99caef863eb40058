/** One Redis connection: takes commands in, runs them in order, answers in order.
 *
 *      bytes ─► parser ─► command ─┬─ reads, with nothing under way ──────────────► answer
 *                                  ├─ writes: started at once, all of a pipeline ─► slot ─► durable ─► answer
 *                                  └─ after MULTI: queued until EXEC, which is one transaction
 *
 *  Slots are answered in the order of their commands. A read behind an unfinished write goes through `transact`, which sees
 *  that write. On engines that do not apply writes in the order of the calls, a connection runs one command at a time. */
import type { Caller, KvApi } from "../api.ts";
import type { KeyValue, RangeResult } from "../mvcc.ts";
import { NOBODY } from "../auth/guard.ts";
import { KvError } from "../errors.ts";
import { Queue } from "../queue.ts";
import type { PutOp } from "../txn.ts";
import { copyBytes, latin1, Refusal } from "./args.ts";
import {
  type AnyCommand,
  arityText,
  type DataCommand,
  fitsArity,
  keysOf,
  type SessionCommand,
} from "./command.ts";
import { failureOf, oneLine } from "./errors.ts";
import type { Link, LinkedConnection } from "./link.ts";
import { WINDOW_BYTES } from "./link.ts";
import { type Command, RespParser } from "./parser.ts";
import { Failure, NIL_ARRAY, OK, QUEUED, type Reply } from "./reply.ts";
import type { RedisLogin, RedisServer } from "./server.ts";
import { LeaseWanted, View } from "./view.ts";

/** Commands of one connection that may be under way; further ones wait in its buffer. */
const PIPELINE_MAX = 4_096;
/** Commands that one connection may run before others have their turn. */
const TURN_COMMANDS = 2_048;
/** Unread bytes of answers above which a connection's commands wait. */
const UNREAD_PAUSE_BYTES = 4 * 1_024 * 1_024;
/** Most commands and bytes between MULTI and EXEC. */
const QUEUED_COMMANDS_MAX = 100_000;
const QUEUED_BYTES_MAX = 16 * 1_024 * 1_024;
/** Most keys that a connection may WATCH. */
const WATCHED_KEYS_MAX = 10_000;
/** Leases whose time may be asked for while one command is tried again. */
const LEASE_TRIES_MAX = 1_000;
/** Taken bytes below this are not told of. */
const TAKEN_BYTES_MIN = WINDOW_BYTES / 4;

/** A command whose answer is not there yet. */
interface Slot {
  reply: Reply | undefined;
  readonly isResp3: boolean;
  readonly isMuted: boolean;
  readonly bytes: number;
}

interface Queued {
  readonly command: DataCommand | SessionCommand;
  readonly name: string;
  readonly parts: Command;
}

interface Watched {
  readonly storeKey: Uint8Array;
  readonly modRevision: number;
}

/** Where a session is and what it is called. */
export interface Peer {
  readonly remoteAddress: string;
  readonly localAddress: string;
  /** Whether it must show who it is, since the product has users. */
  readonly mustAuthenticate: boolean;
}

/** A connection. */
export class Session implements LinkedConnection {
  unreadBytes = 0;
  name = "";
  libraryName = "";
  libraryVersion = "";
  isResp3 = false;
  /** CLIENT REPLY. */
  replies: "on" | "off" | "skip" = "on";
  isNoEvict = false;
  /** A key that was absent when it was watched has been written since. */
  isTouched = false;
  lastCommand = "NULL";
  lastActiveMs: number;
  readonly createdMs: number;
  /** Channels and patterns subscribed to, as binary strings. */
  readonly channels: Set<string> = new Set();
  readonly patterns: Set<string> = new Set();
  user = "default";
  api: KvApi;

  readonly #parser: RespParser;
  readonly #slots = new Queue<Slot>();
  /** A command that waits for those before it. */
  #held: (() => void) | undefined;
  #isBlocked = false;
  #isRunning = false;
  #isPaused = false;
  #isEnding = false;
  isClosed = false;
  #receivedBytes = 0;
  #takenBytes = 0;
  /** Buffered bytes as the server knows them. */
  #countedBytes = 0;
  #onIdle: (() => void) | undefined;
  #multi: Queued[] | undefined;
  #multiBytes = 0;
  #isMultiBroken = false;
  #watched: Watched[] | undefined;
  /** Of a user of the product. */
  #login: RedisLogin | undefined;

  constructor(
    readonly server: RedisServer,
    readonly link: Link,
    readonly number: number,
    readonly id: number,
    readonly peer: Peer,
  ) {
    this.createdMs = this.lastActiveMs = server.clock.nowMs();
    this.api = server.backend.as(NOBODY);
    this.#parser = new RespParser(server.parserLimits);
    this.#parser.isAuthenticated = !this.takesLogin;
  }

  /** Whether nothing can be done without a login. */
  get takesLogin(): boolean {
    return this.peer.mustAuthenticate || this.server.isAuthEnabled();
  }

  get isAuthenticated(): boolean {
    return this.#parser.isAuthenticated || !this.takesLogin;
  }

  get isSubscribed(): boolean {
    return this.channels.size + this.patterns.size > 0;
  }

  /** Commands queued since MULTI; -1 outside. */
  get queuedCommands(): number {
    return this.#multi?.length ?? -1;
  }

  get watchedKeys(): number {
    return this.#watched?.length ?? 0;
  }

  get bufferedBytes(): number {
    return this.#countedBytes;
  }

  /** Takes what the client sent. */
  receive(bytes: Uint8Array): void {
    if (this.isClosed || this.#isEnding) return;
    this.#receivedBytes += bytes.length;
    this.#parser.push(bytes);
    this.run();
    this.#account();
  }

  /** The client took bytes of answers. */
  written(bytes: number): void {
    this.server.unread(this, -Math.min(bytes, this.unreadBytes));
    if (this.#isPaused && this.unreadBytes <= UNREAD_PAUSE_BYTES) this.run();
  }

  /** Runs what can be run. */
  run(): void {
    if (this.#isRunning || this.isClosed) return;
    this.#isRunning = true;
    this.#isPaused = false;
    let budget = TURN_COMMANDS;
    while (!this.#isBlocked && !this.#isEnding && !this.isClosed) {
      if (this.#held !== undefined) {
        if (this.#slots.size > 0) break;
        const held = this.#held;
        this.#held = undefined;
        held();
        continue;
      }
      if (this.#slots.size >= PIPELINE_MAX || this.unreadBytes > UNREAD_PAUSE_BYTES) {
        this.#isPaused = true;
        break;
      }
      if (this.server.isFull) {
        this.#isPaused = true;
        this.server.whenRoom(this);
        break;
      }
      if (budget-- === 0) {
        this.#isPaused = true;
        this.server.endOfTurn(() => this.run());
        break;
      }
      const next = this.#parser.next();
      if (next === undefined) break;
      if (next instanceof Failure) {
        this.respond(next);
        this.end();
        break;
      }
      this.#execute(next);
    }
    this.#isRunning = false;
    this.#account();
    const { bufferedBytes } = this.#parser;
    // A command that is not whole yet counts as taken: more of it must be able to come.
    const waits = this.#isPaused || this.#isBlocked || this.#held !== undefined;
    const taken = this.#receivedBytes - (waits ? bufferedBytes : 0) - this.#takenBytes;
    if (taken >= TAKEN_BYTES_MIN && !this.isClosed) {
      this.#takenBytes += taken;
      this.link.taken(this, taken);
    }
  }

  /** Answers, behind the answers that are still to come. */
  respond(reply: Reply): void {
    const isMuted = this.#mutes();
    if (this.#slots.size === 0) {
      if (!isMuted) this.send(reply, this.isResp3);
    } else this.#slots.push({ reply, isResp3: this.isResp3, isMuted, bytes: 0 });
  }

  /** Sends at once what is no answer: a message of a channel. */
  send(reply: Reply, isResp3 = this.isResp3): void {
    if (this.isClosed) return;
    const before = this.unreadBytes;
    this.link.reply(this, reply, isResp3);
    this.server.sent(this, this.unreadBytes - before);
  }

  /** Closes the connection once its answers are sent. */
  end(): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    if (this.#slots.size === 0) this.#finish();
  }

  /** Closes the connection now: it broke a bound, or somebody asked for it. */
  abort(): void {
    if (this.isClosed) return;
    this.link.abort(this);
    this.server.remove(this);
  }

  /** The connection is no more. What its commands have begun goes on. */
  closed(): void {
    this.isClosed = true;
    this.#isEnding = true;
    this.unwatch();
    this.#multi = this.#held = undefined;
    this.#login?.close();
    this.#login = undefined;
    this.#onIdle?.();
  }

  /** Resolves when nothing is under way. No more must be received. */
  idle(): Promise<void> {
    if (this.#slots.size === 0 || this.isClosed) return Promise.resolve();
    return new Promise((resolve) => this.#onIdle = resolve);
  }

  /** Logs in with a name and a password, or an API key as the password: as a user of the product, or else of the store.
   *  @throws {KvError} `authFailed`; another when that cannot be found out. */
  async logIn(username: string, secret: string): Promise<void> {
    const { backend, products, isAuthEnabled } = this.server;
    if (this.peer.mustAuthenticate && products !== undefined) {
      try {
        const login = await products.login({ username, secret }, (caller) => this.#onRights(caller));
        if (this.isClosed) return login.close();
        this.become(login.caller, login.username);
        this.#login = login;
        return;
      } catch (error) {
        if (!isAuthEnabled() || !(error instanceof KvError && error.kind === "authFailed")) throw error;
      }
    }
    this.become(await backend.login(username, secret), username);
  }

  /** What the session may do has changed; with undefined it may do nothing more, and its client hears of it by the end of
   *  the connection. */
  #onRights(caller: Caller | undefined): void {
    if (caller === undefined) this.abort();
    else this.api = this.server.backend.as(caller);
  }

  /** Makes the session one of this caller. */
  become(caller: Caller, user: string): void {
    this.#login?.close();
    this.#login = undefined;
    this.api = this.server.backend.as(caller);
    this.user = user;
    this.#parser.isAuthenticated = true;
  }

  /** RESET. */
  reset(): void {
    this.#discard();
    this.unwatch();
    this.server.pubsub.leaveAll(this);
    this.isResp3 = false;
    this.replies = "on";
    this.name = "";
    this.become(NOBODY, "default");
    this.#parser.isAuthenticated = !this.takesLogin;
  }

  #account(): void {
    const { bufferedBytes } = this.#parser;
    if (bufferedBytes === this.#countedBytes || this.isClosed) return;
    const more = bufferedBytes - this.#countedBytes;
    this.#countedBytes = bufferedBytes;
    this.server.buffered(this, more);
  }

  // ---- transactions ----

  multi(): Reply {
    if (this.#multi !== undefined) return new Failure("ERR MULTI calls can not be nested");
    this.#multi = [];
    this.#multiBytes = 0;
    this.#isMultiBroken = false;
    return OK;
  }

  discard(): Reply {
    if (this.#multi === undefined) return new Failure("ERR DISCARD without MULTI");
    this.#discard();
    this.unwatch();
    return OK;
  }

  /** Remembers the keys' revisions, for EXEC. */
  watch(keys: readonly Uint8Array[]): Reply | Promise<Reply> {
    if (this.#multi !== undefined) return new Failure("ERR WATCH inside MULTI is not allowed");
    const storeKeys = keys.map((key) => this.server.storeKey(key));
    if (this.watchedKeys + keys.length > WATCHED_KEYS_MAX) {
      return new Failure(`ERR at most ${WATCHED_KEYS_MAX} keys can be watched`);
    }
    const remember = (found: readonly (KeyValue | undefined)[]) => {
      this.#watched ??= [];
      for (let i = 0; i < storeKeys.length; i++) {
        const storeKey = storeKeys[i]!;
        this.#watched.push({ storeKey, modRevision: found[i]?.modRevision ?? 0 });
        if (found[i] === undefined) this.server.absentWatches.add(storeKey, this);
      }
      return OK;
    };
    const found = this.#readNow(storeKeys);
    if (found !== undefined) return remember(found);
    return this.api.transact(storeKeys, (all) => ({ writes: [], result: all })).then(remember);
  }

  unwatch(): Reply {
    for (const { storeKey, modRevision } of this.#watched ?? []) {
      if (modRevision === 0) this.server.absentWatches.remove(storeKey, this);
    }
    this.#watched = undefined;
    this.isTouched = false;
    return OK;
  }

  /** Runs what was queued as one transaction. The caller answers with what it resolves to. */
  exec(): Reply | Promise<Reply> {
    const queue = this.#multi;
    if (queue === undefined) return new Failure("ERR EXEC without MULTI");
    const watched = this.#watched ?? [];
    const isBroken = this.#isMultiBroken;
    const { isTouched } = this;
    this.#discard();
    this.unwatch();
    if (isBroken) return new Failure("EXECABORT Transaction discarded because of previous errors.");
    if (isTouched) return NIL_ARRAY;
    const keys = queue.flatMap(({ command, parts }) => command.kind === "data" ? keysOf(command, parts) : []);
    const dataKeys = keys.map((key) => this.server.storeKey(key));
    if (dataKeys.length + watched.length === 0) return this.#fill(queue, []);
    const storeKeys = [...dataKeys, ...watched.map((each) => each.storeKey)];
    const result = this.#transact(storeKeys, keys, (view, found) => {
      for (let i = 0; i < watched.length; i++) {
        const { modRevision } = watched[i]!;
        if ((found[dataKeys.length + i]?.modRevision ?? 0) !== modRevision) return NIL_ARRAY;
      }
      return queue.map(({ command, name, parts }) =>
        command.kind === "data" ? this.#runData(command, name, parts, view) : null
      );
    });
    return result.then((replies) => Array.isArray(replies) ? this.#fill(queue, replies) : replies);
  }

  /** Runs the queued commands that are about the connection. */
  #fill(queue: readonly Queued[], replies: readonly Reply[]): Reply | Promise<Reply> {
    const all = queue.map(({ command, name, parts }, i) =>
      command.kind === "data" ? replies[i]! : this.#runQueued(command, name, parts)
    );
    if (!all.some((each) => each instanceof Promise)) return all as Reply[];
    return Promise.all(all);
  }

  #runQueued(command: SessionCommand, name: string, parts: Command): Reply | Promise<Reply> {
    try {
      const reply = command.run(this, parts, name) ?? null;
      if (!(reply instanceof Promise)) return reply;
      return reply.then((value) => value ?? null, (error) => this.#failure(error));
    } catch (error) {
      return this.#failure(error);
    }
  }

  #discard(): void {
    this.#multi = undefined;
    this.#isMultiBroken = false;
  }

  // ---- running commands ----

  #execute(parts: Command): void {
    this.lastActiveMs = this.server.clock.nowMs();
    this.server.commandsProcessed++;
    const found = this.server.commands.find(parts);
    if (found === undefined) return this.#refuse(unknownCommand(parts));
    let command: AnyCommand = found;
    let { name } = command;
    if (command.kind === "family") {
      if (parts.length < 2) return this.#refuse(arityText(name));
      const sub = command.subcommands.get(latin1(parts[1]!).toLowerCase());
      if (sub === undefined) return this.#refuse(unknownSubcommand(name, parts));
      command = sub;
      name = sub.name;
    }
    this.lastCommand = name;
    if (!fitsArity(command, parts)) {
      return name === "exec" ? this.#abortExec(arityText(name)) : this.#refuse(arityText(name));
    }
    if (!this.isAuthenticated && !command.flags.includes("no_auth")) {
      return this.#refuse("NOAUTH Authentication required.");
    }
    if (this.isSubscribed && !this.isResp3 && !command.flags.includes("pubsub_context")) {
      return this.#refuse(
        `ERR Can't execute '${name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context`,
      );
    }
    if (this.#multi !== undefined && !command.flags.includes("in_multi")) {
      return this.#enqueue(command, name, parts);
    }
    if (command.kind === "data") this.#data(command, name, parts);
    else this.#session(command, name, parts);
  }

  #refuse(text: string): void {
    if (this.#multi !== undefined) this.#isMultiBroken = true;
    this.respond(new Failure(oneLine(text)));
  }

  /** An EXEC that cannot be run ends the transaction. */
  #abortExec(text: string): void {
    this.#discard();
    this.unwatch();
    this.respond(new Failure(`EXECABORT Transaction discarded because of: ${text.slice("ERR ".length)}`));
  }

  #enqueue(command: DataCommand | SessionCommand, name: string, parts: Command): void {
    if (command.flags.includes("no_multi")) {
      return this.#refuse("ERR Command not allowed inside a transaction");
    }
    const queue = this.#multi!;
    for (const part of parts) this.#multiBytes += part.length;
    if (queue.length >= QUEUED_COMMANDS_MAX || this.#multiBytes > QUEUED_BYTES_MAX) {
      return this.#refuse("ERR the transaction is too large");
    }
    queue.push({ command, name, parts: copyOf(parts) });
    this.respond(QUEUED);
  }

  #session(command: SessionCommand, name: string, parts: Command): void {
    if (command.order === "now" || this.#slots.size === 0) return this.#runSession(command, name, parts);
    const kept = copyOf(parts);
    this.#held = () => this.#runSession(command, name, kept);
  }

  #runSession(command: SessionCommand, name: string, parts: Command): void {
    let reply: Reply | undefined | Promise<Reply | undefined>;
    try {
      reply = command.run(this, parts, name);
    } catch (error) {
      reply = this.#failure(error);
    }
    if (reply instanceof Promise) this.#await(reply as Promise<Reply>, 0, true);
    else if (reply !== undefined) this.respond(reply);
  }

  #data(command: DataCommand, name: string, parts: Command): void {
    const { server } = this;
    const isRead = command.flags[0] === "readonly";
    if (isRead && this.#slots.size === 0) {
      const reply = this.#readReply(command, name, parts);
      if (reply !== undefined) return this.respond(reply);
    }
    const kept = server.startsInOrder ? parts : copyOf(parts);
    let bytes = 0;
    for (let i = 0; i < kept.length; i++) bytes += kept[i]!.length;
    if (name === "set" && kept.length === 3) return this.#put(kept[1]!, kept[2]!, bytes);
    const keys = keysOf(command, kept);
    const storeKeys = keys.length === 1
      ? [server.storeKey(keys[0]!)]
      : keys.map((key) => server.storeKey(key));
    const reply = this.#transact(storeKeys, keys, (view) => this.#runData(command, name, kept, view));
    this.#await(reply, bytes, !server.startsInOrder);
  }

  /** SET without options: nothing has to be read. */
  #put(key: Uint8Array, value: Uint8Array, bytes: number): void {
    const { server } = this;
    const op: PutOp = {
      kind: "put",
      key: server.storeKey(key),
      value,
      lease: 0n,
      prevKv: false,
      ignoreValue: false,
      ignoreLease: false,
    };
    if (server.events.isWatched) server.events.expect([op]);
    if (!server.absentWatches.isEmpty) server.absentWatches.touch([op.key]);
    let written: Promise<unknown>;
    try {
      written = this.api.put(op);
    } catch (error) {
      return this.respond(this.#failure(error));
    }
    const slot: Slot = { reply: undefined, isResp3: this.isResp3, isMuted: this.#mutes(), bytes };
    this.#slots.push(slot);
    server.started(bytes);
    if (!server.startsInOrder) this.#isBlocked = true;
    written.then(() => this.#settle(slot, OK), (error) => this.#settle(slot, this.#failure(error)));
  }

  /** A read answered at once; undefined when it cannot be. */
  #readReply(command: DataCommand, name: string, parts: Command): Reply | undefined {
    try {
      const keys = keysOf(command, parts);
      const { server } = this;
      if (keys.length === 1) {
        const storeKey = server.storeKey(keys[0]!);
        const result = this.api.range({ key: storeKey, range: "single" });
        if (result instanceof Promise) return undefined;
        if (name === "get") return result.kvs[0]?.value ?? null;
        return this.#runData(command, name, parts, this.#view([storeKey], keys, result.kvs));
      }
      const storeKeys = keys.map((key) => server.storeKey(key));
      const found = this.#readNow(storeKeys);
      if (found === undefined) return undefined;
      return this.#runData(command, name, parts, this.#view(storeKeys, keys, found));
    } catch (error) {
      if (error instanceof LeaseWanted) return undefined;
      return this.#failure(error);
    }
  }

  /** Reads keys in one turn, so at one revision; undefined on engines that answer later. */
  #readNow(storeKeys: readonly Uint8Array[]): (KeyValue | undefined)[] | undefined {
    const found: (KeyValue | undefined)[] = [];
    let bytes = 0;
    for (const key of storeKeys) {
      const result: RangeResult | Promise<RangeResult> = this.api.range({ key, range: "single" });
      if (result instanceof Promise) {
        result.catch(() => {});
        return undefined;
      }
      const [kv] = result.kvs;
      bytes += kv?.value.length ?? 0;
      if (bytes > this.server.limits.outputBytesMax) throw new Refusal("ERR the answer is too large");
      found.push(kv);
    }
    return found;
  }

  #view(
    storeKeys: readonly Uint8Array[],
    keys: readonly Uint8Array[],
    found: readonly (KeyValue | undefined)[],
    known?: ReadonlyMap<bigint, number | undefined>,
  ): View {
    const ttl = (lease: bigint) => {
      if (known?.has(lease)) return known.get(lease);
      const left = this.api.leaseTtlMs(lease);
      if (!(left instanceof Promise)) return left;
      left.catch(() => {});
      throw new LeaseWanted(lease);
    };
    return new View(storeKeys, keys, found, ttl, this.server.clock.nowMs());
  }

  /** Runs `body` on the keys as the newest write left them, and writes what it changed, atomically. */
  #transact(
    storeKeys: readonly Uint8Array[],
    keys: readonly Uint8Array[],
    body: (view: View, found: readonly (KeyValue | undefined)[]) => Reply,
    known?: Map<bigint, number | undefined>,
  ): Promise<Reply> {
    const { server } = this;
    let result: Promise<Reply>;
    try {
      result = this.api.transact(storeKeys, (found) => {
        const view = this.#view(storeKeys, keys, found, known);
        const reply = body(view, found);
        const writes = view.writes();
        if (server.events.isWatched) server.events.expect(writes);
        if (!server.absentWatches.isEmpty) server.absentWatches.touch(view.changedKeys());
        return { writes, result: reply };
      });
    } catch (error) {
      return Promise.reject(error);
    }
    if (server.startsInOrder) return result;
    return result.catch(async (error: unknown) => {
      if (!(error instanceof LeaseWanted) || (known?.size ?? 0) >= LEASE_TRIES_MAX) throw error;
      const more = new Map(known);
      more.set(error.lease, await this.api.leaseTtlMs(error.lease));
      return this.#transact(storeKeys, keys, body, more);
    });
  }

  #runData(command: DataCommand, name: string, parts: Command, view: View): Reply {
    try {
      return command.run(view, parts, { name, valueBytesMax: this.server.limits.valueBytesMax });
    } catch (error) {
      if (error instanceof Refusal) return error.failure;
      throw error;
    }
  }

  /** Answers when `reply` is there; with `blocks`, no further command runs before. */
  #await(reply: Promise<Reply | undefined>, bytes: number, blocks: boolean): void {
    const slot: Slot = { reply: undefined, isResp3: this.isResp3, isMuted: this.#mutes(), bytes };
    this.#slots.push(slot);
    this.server.started(bytes);
    if (blocks) this.#isBlocked = true;
    reply.then(
      (value) => this.#settle(slot, value === undefined ? NOTHING : value),
      (error) => this.#settle(slot, this.#failure(error)),
    );
  }

  #settle(slot: Slot, reply: Reply): void {
    slot.reply = reply;
    const slots = this.#slots;
    for (let first = slots.first; first?.reply !== undefined; first = slots.first) {
      slots.shift();
      if (!first.isMuted && first.reply !== NOTHING) this.send(first.reply, first.isResp3);
    }
    this.server.finished(slot.bytes);
    this.#isBlocked = this.#isBlocked && slots.size > 0;
    if (slots.size === 0) this.#onIdle?.();
    else if (!this.#isPaused) return;
    if (this.#isEnding && slots.size === 0) this.#finish();
    else if (this.#isPaused || this.#held !== undefined || this.#parser.bufferedBytes > 0) this.run();
  }

  #finish(): void {
    if (this.isClosed) return;
    this.link.close(this);
    this.server.remove(this);
  }

  #failure(error: unknown): Failure {
    return failureOf(error) ?? this.server.fault(error);
  }

  #mutes(): boolean {
    if (this.replies === "on") return false;
    // CLIENT REPLY SKIP is about one command.
    if (this.replies === "skip") this.replies = "on";
    return true;
  }
}

const NOTHING: Reply = [];

function copyOf(parts: Command): Command {
  return parts.map(copyBytes);
}

/** As Redis 7 says it: up to 128 chars of the name and of the arguments. */
function unknownCommand(parts: Command): string {
  let shown = "";
  for (let i = 1; i < parts.length && shown.length < 128; i++) {
    shown += `'${untilNul(parts[i]!).slice(0, 128 - shown.length)}' `;
  }
  return `ERR unknown command '${untilNul(parts[0]!).slice(0, 128)}', with args beginning with: ${shown}`;
}

function unknownSubcommand(name: string, parts: Command): string {
  const shown = untilNul(parts[1]!).slice(0, 128);
  return `ERR unknown subcommand '${shown}'. Try ${name.toUpperCase()} HELP.`;
}

function untilNul(bytes: Uint8Array): string {
  const text = latin1(bytes.subarray(0, 256));
  const end = text.indexOf("\0");
  return end < 0 ? text : text.slice(0, end);
}
