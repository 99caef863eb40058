/** What every store has to do. */
import { assertEquals, assertThrows } from "@std/assert";
import type { SessionEventType } from "../events.ts";
import { expiryOf, type Session } from "../session.ts";
import type { NewSession, SessionStore } from "../store.ts";

/** Bounds of the stores that the suite opens. */
export const SUITE_BOUNDS = { sessionsMax: 40, perUserMax: 5, seed: 7 } as const;

/** The suite's time at its begin, in milliseconds. A store that asks a server must not let its keys run out by the server's
 *  clock first, so this lies ahead. */
export const SUITE_START_MS = 4_000_000_000_000;

/** An open, empty store; `await using` closes it. */
export interface OpenedStore extends AsyncDisposable {
  readonly store: SessionStore;
}

interface Change {
  readonly type: SessionEventType;
  readonly id: string;
  readonly reason: string;
}

/** A store with what it told of. */
export interface Bench {
  readonly store: SessionStore;
  /** Takes what was told since the last call. */
  changes(): Change[];
}

/** A session that can be told from others by `n`; ids rise with `n`. */
export function sessionOf(n: number, more: Partial<Session> = {}): Session {
  const base: Session = {
    id: `01ARYZ6S41${String(n).padStart(16, "0")}`,
    userId: "ann",
    connectionId: `01ARYZ6S42${String(n).padStart(16, "0")}`,
    clientIp: "192.0.2.1",
    clientPort: 4_242,
    serverAddr: "server:1",
    state: "connecting",
    createdAtMs: SUITE_START_MS,
    lastActiveMs: SUITE_START_MS,
    idleTimeoutMs: 60_000,
    endsAtMs: SUITE_START_MS + 600_000,
    expiresAtMs: 0,
    metadata: { device: "phone", "ключ": "значение" },
    stats: undefined,
    ...more,
  };
  return { ...base, expiresAtMs: expiryOf(base.lastActiveMs, base.idleTimeoutMs, base.endsAtMs) };
}

/** The same, ready to be created. */
export function newSession(
  n: number,
  more: Partial<Session> = {},
  rest: Partial<NewSession> = {},
): NewSession {
  return {
    session: sessionOf(n, more),
    tokenHash: tokenOf(n),
    hidden: undefined,
    userEpoch: undefined,
    ...rest,
  };
}

/** Hash of the n-th session's token. */
export function tokenOf(n: number): string {
  return n.toString(16).padStart(64, "0");
}

const T = SUITE_START_MS;

type Trial = (bench: Bench) => Promise<void>;

const TRIALS: Readonly<Record<string, Trial>> = {
  async "keeps a session as it was given, and finds it by id and by token"({ store, changes }) {
    const item = newSession(1);
    assertEquals(await store.create(item, T), "created");
    assertEquals(await store.get(item.session.id, T), item.session);
    assertEquals(await store.getByToken(tokenOf(1), T), item.session);
    assertEquals(await store.get(sessionOf(2).id, T), undefined);
    assertEquals(await store.getByToken(tokenOf(2), T), undefined);
    assertEquals(changes(), [{ type: "created", id: item.session.id, reason: "" }]);
  },
  async "prolongs a session that is used, up to its absolute end"({ store, changes }) {
    const { session } = newSession(1, { endsAtMs: T + 100_000 });
    await store.create(newSession(1, { endsAtMs: T + 100_000 }), T);
    changes();
    const first = await store.use(session.id, T + 50_000);
    const active = {
      ...session,
      state: "active" as const,
      lastActiveMs: T + 50_000,
      expiresAtMs: T + 100_000,
    };
    assertEquals(first, active);
    assertEquals(changes(), [{ type: "updated", id: session.id, reason: "" }]);
    assertEquals(await store.useByToken(tokenOf(1), T + 99_999), { ...active, lastActiveMs: T + 99_999 });
    assertEquals(changes(), []);
    assertEquals(await store.use(session.id, T + 100_000), undefined);
    assertEquals(changes(), [{ type: "expired", id: session.id, reason: "" }]);
  },
  async "does not prolong a session that is disconnecting"({ store }) {
    const { session } = newSession(1);
    await store.create(newSession(1), T);
    await store.update(session.id, T, (session) => ({ ...session, state: "disconnecting" }));
    const used = await store.use(session.id, T + 50_000);
    assertEquals([used?.state, used?.expiresAtMs], ["disconnecting", T + 60_000]);
    assertEquals(await store.use(session.id, T + 60_000), undefined);
  },
  async "finds nothing whose time is up, and tells of it once, whoever finds it first"({ store, changes }) {
    for (let n = 1; n <= 3; n++) await store.create(newSession(n, { idleTimeoutMs: n * 1_000 }), T);
    changes();
    const [first, second, third] = [1, 2, 3].map((n) => sessionOf(n).id);
    // Found by itself first, by the sweep afterwards.
    assertEquals(await store.get(first!, T + 999) !== undefined, true);
    assertEquals(await store.get(first!, T + 1_000), undefined);
    assertEquals(await store.get(first!, T + 1_000), undefined);
    assertEquals(await store.getByToken(tokenOf(1), T + 1_000), undefined);
    assertEquals(await store.expire(T + 1_000, 10), false);
    assertEquals(changes(), [{ type: "expired", id: first!, reason: "" }]);
    // The other way round.
    assertEquals(await store.expire(T + 2_000, 10), false);
    assertEquals(await store.getByToken(tokenOf(2), T + 2_000), undefined);
    assertEquals(await store.end(second!, T + 2_000, "late"), false);
    assertEquals(changes(), [{ type: "expired", id: second!, reason: "" }]);
    assertEquals(nonZero(await store.count(undefined, T + 2_000)), { connecting: 1 });
    // By a list or a count.
    assertEquals((await store.list({}, "", 10, T + 3_000)).total, 0);
    assertEquals(total(await store.count(undefined, T + 3_000)), 0);
    await store.expire(T + 3_000, 10);
    assertEquals(changes(), [{ type: "expired", id: third!, reason: "" }]);
  },
  async "sweeps a slice at a time"({ store, changes }) {
    for (let n = 1; n <= 5; n++) await store.create(newSession(n), T);
    changes();
    assertEquals(await store.expire(T + 60_000, 3), true);
    assertEquals(changes().length, 3);
    assertEquals(await store.expire(T + 60_000, 3), false);
    assertEquals(changes().length, 2);
  },
  async "counts what there is, also after sessions ran out unseen"({ store }) {
    await store.create(newSession(1, { idleTimeoutMs: 1_000 }), T);
    await store.create(newSession(2), T);
    await store.create(newSession(3, { userId: "bob" }), T);
    await store.use(sessionOf(3).id, T);
    assertEquals(nonZero(await store.count(undefined, T)), { connecting: 2, active: 1 });
    assertEquals(nonZero(await store.count("ann", T)), { connecting: 2 });
    assertEquals(nonZero(await store.count(undefined, T + 1_000)), { connecting: 1, active: 1 });
    assertEquals(nonZero(await store.count("ann", T + 1_000)), { connecting: 1 });
    assertEquals(nonZero(await store.count("carl", T + 1_000)), {});
    const page = await store.list({ userId: "ann" }, "", 10, T + 1_000);
    assertEquals([page.total, page.sessions.map(({ id }) => id)], [1, [sessionOf(2).id]]);
  },
  async "ends a session once, with everything of it"({ store, changes }) {
    await store.create(newSession(1), T);
    changes();
    const { id, connectionId } = sessionOf(1);
    assertEquals(await store.end(id, T, "bye"), true);
    assertEquals(await store.end(id, T, "again"), false);
    assertEquals(await store.get(id, T), undefined);
    assertEquals(await store.getByToken(tokenOf(1), T), undefined);
    assertEquals(await store.use(id, T), undefined);
    assertEquals(await store.readHidden(id, T), undefined);
    assertEquals(total(await store.count(undefined, T)), 0);
    for (const filter of [{}, { userId: "ann" }, { connectionId }]) {
      assertEquals(await store.list(filter, "", 10, T), { sessions: [], more: false, total: 0 });
    }
    assertEquals(changes(), [{ type: "ended", id, reason: "bye" }]);
  },
  async "changes a session at once or not at all"({ store, changes }) {
    await store.create(newSession(1), T);
    changes();
    const { id } = sessionOf(1);
    const stats = {
      packetsSent: 2n ** 64n - 1n,
      packetsReceived: 2n,
      bytesSent: 3n,
      bytesReceived: 4n,
      retransmissions: 5n,
      currentRttMs: 6,
    };
    const changed = await store.update(id, T + 1, (session) => ({
      ...session,
      state: "idle",
      metadata: { a: "1" },
      stats,
    }));
    assertEquals(changed, sessionOf(1, { state: "idle", metadata: { a: "1" }, stats }));
    assertEquals(await store.get(id, T + 1), changed);
    assertEquals(nonZero(await store.count(undefined, T)), { idle: 1 });
    assertEquals(changes(), [{ type: "updated", id, reason: "" }]);
    let refused: unknown;
    try {
      await store.update(id, T, () => {
        throw new RangeError("no");
      });
    } catch (error) {
      refused = error;
    }
    assertThrows(() => {
      throw refused;
    }, RangeError);
    assertEquals(await store.get(id, T), changed);
    assertEquals(await store.update(sessionOf(2).id, T, (session) => session), undefined);
    assertEquals(changes(), []);
    // Many at a time: none is lost.
    await Promise.all(Array.from({ length: 10 }, (_, n) =>
      store.update(id, T, (session) => ({
        ...session,
        metadata: { ...session.metadata, [`n${n}`]: "" },
      }))));
    assertEquals(Object.keys((await store.get(id, T))!.metadata).length, 11);
  },
  async "ends the session unused for longest when a user opens one too many"({ store, changes }) {
    for (let n = 1; n <= 5; n++) await store.create(newSession(n, { lastActiveMs: T + n }), T + n);
    // The first was used last.
    await store.use(sessionOf(1).id, T + 40_000);
    await store.create(newSession(6, { userId: "bob" }), T + 40_000);
    changes();
    const more = { lastActiveMs: T + 40_001 };
    assertEquals(await store.create(newSession(7, more), T + 40_001), "created");
    const told = changes();
    assertEquals(told.map(({ type }) => type), ["ended", "created"]);
    assertEquals(told[0]!.id, sessionOf(2).id);
    assertEquals((await store.list({ userId: "ann" }, "", 10, T + 40_001)).total, 5);
    assertEquals(await store.getByToken(tokenOf(2), T + 40_001), undefined);
  },
  async "refuses one session more than it may hold, until one has run out"({ store }) {
    for (let n = 1; n <= 40; n++) {
      const more = { userId: `user ${n}`, idleTimeoutMs: n === 3 ? 1_000 : 60_000 };
      assertEquals(await store.create(newSession(n, more), T), "created");
    }
    const one = newSession(41, { userId: "user 41" });
    assertEquals(await store.create(one, T), "full");
    assertEquals(await store.getByToken(tokenOf(41), T), undefined);
    assertEquals(await store.create(one, T + 1_000), "created");
    assertEquals(await store.create(newSession(42, { userId: "user 42" }), T + 1_000), "full");
  },
  async "lists page by page in the order of ids, and says how many there are"({ store }) {
    const order = [5, 3, 9, 1, 7, 2, 8, 4, 6];
    for (const n of order) {
      await store.create(newSession(n, { userId: `user ${n % 3}`, connectionId: sessionOf(n % 2).id }), T);
    }
    for (const n of [2, 4]) await store.use(sessionOf(n).id, T);
    const walk = async (filter: Parameters<SessionStore["list"]>[0], limit: number) => {
      const found: number[] = [];
      for (let after = "", pages = 0; pages < 20; pages++) {
        const page = await store.list(filter, after, limit, T);
        found.push(...page.sessions.map(({ id }) => Number(id.slice(-4))));
        if (!page.more) return { found, total: page.total };
        after = page.sessions.at(-1)!.id;
      }
      throw new Error("the pages do not end");
    };
    assertEquals(await walk({}, 4), { found: [1, 2, 3, 4, 5, 6, 7, 8, 9], total: 9 });
    assertEquals(await walk({}, 9), { found: [1, 2, 3, 4, 5, 6, 7, 8, 9], total: 9 });
    assertEquals(await walk({ userId: "user 2" }, 2), { found: [2, 5, 8], total: 3 });
    assertEquals(await walk({ connectionId: sessionOf(1).id }, 2), { found: [1, 3, 5, 7, 9], total: 5 });
    assertEquals(await walk({ state: "active" }, 1), { found: [2, 4], total: 2 });
    assertEquals(await walk({ state: "connecting" }, 3), { found: [1, 3, 5, 6, 7, 8, 9], total: 7 });
    assertEquals(await walk({ userId: "user 2", state: "active" }, 1), { found: [2], total: 1 });
    assertEquals(
      await walk({ userId: "user 1", connectionId: sessionOf(1).id }, 1),
      { found: [1, 7], total: 2 },
    );
    assertEquals(await walk({ userId: "nobody" }, 1), { found: [], total: 0 });
    assertEquals(await walk({ state: "closed" }, 1), { found: [], total: 0 });
  },
  async "refuses sessions whose user was revoked meanwhile"({ store, changes }) {
    const before = await store.userEpoch("ann");
    await store.create(newSession(1, {}, { userEpoch: before }), T);
    await store.create(newSession(2), T);
    await store.create(newSession(3), T);
    await store.create(newSession(4, { userId: "bob" }), T);
    changes();
    assertEquals(await store.revokeUser("ann", T + 1, "stolen", sessionOf(2).id), 2);
    assertEquals(
      changes().sort((a, b) => a.id < b.id ? -1 : 1),
      [1, 3].map((n) => ({ type: "ended" as const, id: sessionOf(n).id, reason: "stolen" })),
    );
    assertEquals(await store.create(newSession(5, {}, { userEpoch: before }), T + 2), "revoked");
    assertEquals(await store.get(sessionOf(5).id, T + 2), undefined);
    assertEquals(await store.getByToken(tokenOf(5), T + 2), undefined);
    assertEquals((await store.list({}, "", 10, T + 2)).sessions.map(({ id }) => id), [
      sessionOf(2).id,
      sessionOf(4).id,
    ]);
    const after = await store.userEpoch("ann");
    assertEquals(after > before, true);
    assertEquals(await store.create(newSession(6, {}, { userEpoch: after }), T + 2), "created");
    // In the same millisecond too.
    assertEquals(await store.revokeUser("ann", T + 2, "", undefined), 2);
    assertEquals(await store.revokeUser("ann", T + 2, "", undefined), 0);
    assertEquals(await store.create(newSession(7, {}, { userEpoch: after }), T + 2), "revoked");
    assertEquals(await store.userEpoch("bob"), before);
  },
  async "keeps a hidden part that only who saw it last may replace"({ store, changes }) {
    const bytes = new Uint8Array([0, 255, 13, 10]);
    await store.create(newSession(1, {}, { hidden: bytes }), T);
    await store.create(newSession(2), T);
    changes();
    const { id } = sessionOf(1);
    assertEquals(await store.readHidden(id, T), { bytes, version: 1 });
    assertEquals(await store.readHidden(sessionOf(2).id, T), { bytes: new Uint8Array(0), version: 0 });
    const next = new Uint8Array([1]);
    assertEquals(await store.compareAndSetHidden(id, 0, next, T), false);
    const racers = [store.compareAndSetHidden(id, 1, next, T), store.compareAndSetHidden(id, 1, bytes, T)];
    assertEquals(await Promise.all(racers), [true, false]);
    assertEquals(await store.readHidden(id, T), { bytes: next, version: 2 });
    assertEquals(await store.compareAndSetHidden(sessionOf(2).id, 0, next, T), true);
    await store.end(id, T, "");
    assertEquals(await store.compareAndSetHidden(id, 2, next, T), false);
    assertEquals(await store.compareAndSetHidden(sessionOf(2).id, 1, bytes, T + 60_000), false);
    assertEquals(changes().map(({ type }) => type), ["ended", "expired"]);
  },
  async "stays right through many random steps"({ store, changes }) {
    const seed = 20_261;
    let word = seed;
    const random = (below: number) => (word = (Math.imul(word, 1_664_525) + 1_013_904_223) >>> 0) % below;
    const live = new Map<number, Session>();
    let nowMs = T;
    for (let step = 1; step <= 300; step++) {
      const n = random(30) + 1;
      const { id } = sessionOf(n);
      nowMs += random(3_000);
      for (const [n, session] of live) if (session.expiresAtMs <= nowMs) live.delete(n);
      const where = `seed ${seed}, step ${step}`;
      const known = live.get(n);
      switch (random(5)) {
        case 0: {
          const ofUser = [...live.values()].filter(({ userId }) => userId === `user ${n % 8}`);
          if (known !== undefined || ofUser.length >= 5) break;
          // A session that ran out and was not found yet still has the id.
          await store.get(id, nowMs);
          const times = { createdAtMs: nowMs, lastActiveMs: nowMs, endsAtMs: nowMs + 60_000 };
          const more = { userId: `user ${n % 8}`, idleTimeoutMs: 5_000 + random(20_000), ...times };
          assertEquals(await store.create(newSession(n, more), nowMs), "created", where);
          live.set(n, sessionOf(n, more));
          break;
        }
        case 1: {
          const used = await store.use(id, nowMs);
          assertEquals(used !== undefined, known !== undefined, where);
          if (used !== undefined) live.set(n, used);
          break;
        }
        case 2:
          assertEquals(await store.end(id, nowMs, ""), live.delete(n), where);
          break;
        case 3: {
          const userId = `user ${n % 8}`;
          const theirs = [...live].filter(([, session]) => session.userId === userId);
          if (random(4) !== 0) break;
          assertEquals(await store.revokeUser(userId, nowMs, "", undefined), theirs.length, where);
          for (const [n] of theirs) live.delete(n);
          break;
        }
        default:
          await store.expire(nowMs, 100);
      }
      assertEquals(await store.get(id, nowMs), live.get(n), where);
      assertEquals(total(await store.count(undefined, nowMs)), live.size, where);
      const page = await store.list({}, "", 100, nowMs);
      const expected = [...live.values()].sort((a, b) => a.id < b.id ? -1 : 1);
      assertEquals(page, { sessions: expected, more: false, total: live.size }, where);
    }
    await store.expire(nowMs, 100);
    const told = changes();
    const count = (type: SessionEventType) => told.filter((change) => change.type === type).length;
    assertEquals(count("created"), count("ended") + count("expired") + live.size, `seed ${seed}`);
  },
};

/** Runs the trials, each on an empty store. */
export async function storeSuite(t: Deno.TestContext, open: () => Promise<OpenedStore>): Promise<void> {
  for (const [name, trial] of Object.entries(TRIALS)) {
    await t.step(name, async () => {
      await using opened = await open();
      await trial(watched(opened.store));
    });
  }
}

/** The store, and what it tells. */
export function watched(store: SessionStore): Bench {
  let told: Change[] = [];
  store.onChange = (type, { id }, reason) => told.push({ type, id, reason });
  return {
    store,
    changes() {
      const taken = told;
      told = [];
      return taken;
    },
  };
}

function nonZero(counts: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(counts).filter(([, count]) => count > 0));
}

function total(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((sum, count) => sum + count, 0);
}
