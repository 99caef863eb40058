/** Keyspace events: what the store's watch says, in Redis's words. They come from the store, so changes made through etcd's
 *  API, REST or another connection show alike, when they are durable.
 *
 *  | change                                        | events            |
 *  |-----------------------------------------------|-------------------|
 *  | a put                                         | `set`             |
 *  | a put with a time to live                     | `set`, `expire`   |
 *  | a put that changes only the time to live      | `expire`          |
 *  | a put that only takes the time to live away   | `persist`         |
 *  | a deletion by a client                        | `del`             |
 *  | a deletion of a key whose lease is gone       | `expired`         | */
import type { ApiWatch } from "../api.ts";
import { compareBytes, toBinaryString } from "../key.ts";
import type { DeleteOp, PutOp } from "../txn.ts";
import type { WatchEvent } from "../watch.ts";
import { bulk, Failure, textBytes } from "./reply.ts";
import type { RedisServer } from "./server.ts";
import type { Session } from "./session.ts";

/** Keys whose deletion by a command is remembered, twice: the older half is forgotten when the newer is full. Of more
 *  deletions that the watch has not shown yet, one of a key with a time to live may be called `expired`. */
const EXPECTED_MAX = 50_000;
/** Answers that one connection's watch may give before others have their turn. */
const TURN_ANSWERS = 64;

const KEYSPACE = textBytes("__keyspace@0__:");
const KEYEVENT = textBytes("__keyevent@0__:");

/** Watches for those who listen. */
export class KeyspaceEvents {
  readonly #server: RedisServer;
  /** One for each session that listens to events: each sees what its user may see. */
  readonly #watches = new Map<Session, ApiWatch>();
  /** Keys that a command is deleting. */
  #expected = new Set<string>();
  #expectedBefore = new Set<string>();

  constructor(server: RedisServer) {
    this.#server = server;
  }

  get isWatched(): boolean {
    return this.#watches.size > 0;
  }

  /** A command is about to delete keys: their deletion is no expiry. */
  expect(writes: readonly (PutOp | DeleteOp)[]): void {
    for (const op of writes) {
      const name = toBinaryString(op.key);
      if (op.kind === "put") {
        this.#expected.delete(name);
        this.#expectedBefore.delete(name);
        continue;
      }
      if (this.#expected.size >= EXPECTED_MAX) {
        this.#expectedBefore = this.#expected;
        this.#expected = new Set();
      }
      this.#expected.add(name);
    }
  }

  /** The session's subscriptions changed. */
  update(session: Session): void {
    const wanted = !session.isClosed && listensToEvents(session);
    const open = this.#watches.get(session);
    if (wanted === (open !== undefined)) return;
    if (open !== undefined) {
      this.#watches.delete(session);
      open.close();
      if (this.#watches.size === 0) {
        this.#expected.clear();
        this.#expectedBefore.clear();
      }
      return;
    }
    const watch = session.api.openWatch(() => this.#server.endOfTurn(() => this.#read(session)));
    this.#watches.set(session, watch);
    const { start, end } = this.#server.keyRange;
    watch.create({
      key: start,
      range: { start, end },
      startRevision: 0,
      watchId: 1n,
      prevKv: true,
      progressNotify: false,
      fragmentBytes: 0,
      noPut: false,
      noDelete: false,
    });
  }

  #read(session: Session): void {
    const watch = this.#watches.get(session);
    if (watch === undefined) return;
    for (let i = 0; i < TURN_ANSWERS; i++) {
      const answer = watch.take();
      if (answer === undefined) return;
      if (answer === "again") break;
      if (answer.canceled === true) return this.#fail(session, answer.cancelReason ?? "");
      for (const event of answer.events) this.#tell(session, event);
      if (session.isClosed) return;
    }
    this.#server.endOfTurn(() => this.#read(session));
  }

  /** Nothing is left out silently: who cannot be told is disconnected. */
  #fail(session: Session, reason: string): void {
    session.respond(
      new Failure(
        reason.includes("permission denied")
          ? "NOPERM this user has no permissions to access one of the channels used as arguments"
          : `ERR keyspace events were lost: ${reason === "" ? "the connection read too slowly" : reason}`,
      ),
    );
    session.end();
  }

  #tell(session: Session, event: WatchEvent): void {
    const key = this.#server.clientKey(event.kv.key);
    for (const name of this.#namesOf(session, event)) {
      const word = bulk(name);
      const { pubsub } = this.#server;
      pubsub.tell(session, joined(KEYSPACE, key), word);
      pubsub.tell(session, joined(KEYEVENT, word), key);
    }
  }

  #namesOf(session: Session, { kind, kv, prevKv }: WatchEvent): readonly string[] {
    if (kind === "put") {
      const isSame = prevKv !== undefined && kv.version > 1 && compareBytes(prevKv.value, kv.value) === 0;
      if (isSame && prevKv.lease !== kv.lease) return kv.lease === 0n ? PERSIST : EXPIRE;
      return kv.lease !== 0n && prevKv?.lease !== kv.lease ? SET_EXPIRE : SET;
    }
    if (prevKv === undefined || prevKv.lease === 0n) return DEL;
    const name = toBinaryString(kv.key);
    if (this.#expected.has(name) || this.#expectedBefore.has(name)) return DEL;
    const left = session.api.leaseTtlMs(prevKv.lease);
    return left instanceof Promise || left === undefined || left <= 0 ? EXPIRED : DEL;
  }
}

const SET = ["set"];
const SET_EXPIRE = ["set", "expire"];
const EXPIRE = ["expire"];
const PERSIST = ["persist"];
const DEL = ["del"];
const EXPIRED = ["expired"];

/** Whether a subscription of the session may be to events. */
function listensToEvents(session: Session): boolean {
  for (const channel of session.channels) if (channel.startsWith("__key")) return true;
  for (const pattern of session.patterns) if (/^(?:__key|[*?[\\]|_(?:$|[*?[\\_]))/.test(pattern)) return true;
  return false;
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const whole = new Uint8Array(a.length + b.length);
  whole.set(a);
  whole.set(b, a.length);
  return whole;
}
