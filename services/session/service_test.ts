import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { createManualClock } from "../runtime/clock.ts";
import { createSeededRandom } from "../runtime/random.ts";
import { SESSION_ERRORS, SessionError, type SessionErrorKind } from "./errors.ts";
import type { SessionEvent } from "./events.ts";
import { type CreateSession, SessionService } from "./service.ts";
import { type Journal, LocalStore } from "./stores/local.ts";
import { createMemoryStore } from "./stores/memory.ts";

const CONFIG = {
  idleTimeoutMs: 60_000,
  absoluteTimeoutMs: 600_000,
  sessionsMax: 1_000,
  eventsKept: 8,
  watchersMax: 2,
};

function open(config: Partial<typeof CONFIG> = {}, store = memory()) {
  const clock = createManualClock(1_800_000_000_000);
  const service = new SessionService({
    store,
    config: { ...CONFIG, ...config },
    clock,
    random: createSeededRandom(5),
    pause: () => Promise.resolve(),
  });
  return { service, clock, store };
}

function memory() {
  return createMemoryStore({ sessionsMax: 1_000, perUserMax: 100, seed: 3 });
}

function request(more: Partial<CreateSession> = {}): CreateSession {
  return { userId: "ann", clientIp: "192.0.2.1", clientPort: 1, serverAddr: "", metadata: {}, ...more };
}

async function refusal(run: () => unknown): Promise<[SessionErrorKind, string]> {
  const error = await assertRejects(async () => await run(), SessionError) as SessionError;
  return [error.kind, error.message.slice(SESSION_ERRORS[error.kind].text.length + 2)];
}

function takeAll(watch: { take(): SessionEvent | undefined }): SessionEvent[] {
  const events: SessionEvent[] = [];
  for (let event = watch.take(); event !== undefined; event = watch.take()) events.push(event);
  return events;
}

Deno.test("SessionService.create() honours the timeout that is asked for", async () => {
  const { service, clock } = open();
  const { session: short } = await service.create(request({ idleTimeoutMs: 5_000 }));
  const { session: usual } = await service.create(request());
  assertEquals(usual.expiresAtMs - usual.createdAtMs, 60_000);
  assertEquals([short.state, short.expiresAtMs - short.createdAtMs], ["connecting", 5_000]);
  clock.advance(4_999);
  assert(await service.get(short.id) !== undefined);
  clock.advance(1);
  assertEquals(await service.get(short.id), undefined);
  assert(await service.get(usual.id) !== undefined);
});

Deno.test("SessionService ends a session at its absolute timeout however much it is used", async () => {
  const { service, clock } = open();
  const { session, token } = await service.create(request({ absoluteTimeoutMs: 100_000 }));
  for (let i = 0; i < 9; i++) {
    clock.advance(10_000);
    assertEquals((await service.heartbeat(session.id)).state, "active");
  }
  assertEquals((await service.verify(token))?.expiresAtMs, session.createdAtMs + 100_000);
  clock.advance(10_000);
  assertEquals(await service.verify(token), undefined);
  assertEquals(await refusal(() => service.heartbeat(session.id)), ["notFound", ""]);
});

Deno.test("SessionService.verify() knows the session's token and nothing else", async () => {
  const { service } = open();
  const { session, token } = await service.create(request());
  const other = await service.create(request());
  assertEquals(token.length, 43);
  assert(/^[A-Za-z0-9_-]+$/.test(token));
  assert(token !== other.token);
  assertEquals((await service.verify(token))?.id, session.id);
  for (const wrong of ["", "x", `${token}=`, token.slice(1), token.slice(0, -1) + "!", session.id]) {
    assertEquals(await service.verify(wrong), undefined);
  }
  await service.end(session.id, "");
  assertEquals(await service.verify(token), undefined);
  assertEquals(service.figures().verifyFailures, 7);
});

Deno.test("SessionService keeps a token's hash, never the token", async () => {
  const stored: unknown[] = [];
  const journal: Journal = {
    insert: (item) => stored.push(item),
    update: () => {},
    updateActivity: () => {},
    updateHidden: () => {},
    remove: () => {},
    setEpoch: () => {},
    isKept: true,
    kept: () => Promise.resolve(),
    onKept: () => {},
    failure: undefined,
    stats: () => ({ groups: 0, groupSeconds: 0, writes: 0, failures: 0 }),
    close: () => Promise.resolve(),
  };
  const { service } = open({}, new LocalStore(journal, { sessionsMax: 10, perUserMax: 10, seed: 1 }));
  const { token } = await service.create(request());
  const text = JSON.stringify(stored);
  assert(/"tokenHash":"[0-9a-f]{64}"/.test(text));
  assert(!text.includes(token));
});

Deno.test("SessionService.create() says which field is over which limit", async () => {
  const { service } = open({ sessionsMax: 2 }, createMemoryStore({ sessionsMax: 2, perUserMax: 9, seed: 1 }));
  const cases: [Partial<CreateSession>, string][] = [
    [{ userId: "" }, "user_id is empty, expected 1 to 256 bytes"],
    [{ userId: "ж".repeat(129) }, "user_id has 258 bytes, expected at most 256"],
    [{ clientIp: "1".repeat(65) }, "client_ip has 65 bytes, expected at most 64"],
    [{ clientPort: 65_536 }, "client_port is 65536, expected 0 to 65535"],
    [{ serverAddr: "s".repeat(257) }, "server_addr has 257 bytes, expected at most 256"],
    [
      { idleTimeoutMs: 601_000 },
      "timeout is 601 s, expected at most 600 s (session.absoluteTimeoutMs)",
    ],
    [
      { absoluteTimeoutMs: 600_001 },
      "absolute timeout is 600.001 s, expected at most 600 s (session.absoluteTimeoutMs)",
    ],
    [{ metadata: { "": "x" } }, "metadata has an empty name"],
    [{ metadata: { ["n".repeat(129)]: "" } }, "a name of metadata has 129 bytes, expected at most 128"],
    [{ metadata: { a: "v".repeat(1_025) } }, "metadata.a has 1025 bytes, expected at most 1024"],
    [
      { metadata: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`n${i}`, ""])) },
      "metadata has 65 entries, expected at most 64",
    ],
    [
      { metadata: Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`n${i}`, "v".repeat(1_000)])) },
      "metadata has 17041 bytes, expected at most 16384",
    ],
  ];
  for (const [more, detail] of cases) {
    assertEquals(await refusal(() => service.create(request(more))), ["invalid", detail]);
  }
  await service.create(request());
  await service.create(request({ userId: "u".repeat(256), clientPort: 65_535, idleTimeoutMs: 600_000 }));
  assertEquals(await refusal(() => service.create(request())), [
    "tooMany",
    "at most 2 (session.sessionsMax)",
  ]);
});

Deno.test("SessionService.update() lets only states follow that may", async () => {
  const { service } = open();
  const next = {
    connecting: ["connecting", "active", "idle", "disconnecting"],
    active: ["active", "idle", "disconnecting"],
    idle: ["active", "idle", "disconnecting"],
    disconnecting: ["disconnecting"],
  } as const;
  const states = Object.keys(next) as (keyof typeof next)[];
  for (const from of states) {
    for (const to of states) {
      const { session } = await service.create(request());
      if (from !== "connecting") await service.update(session.id, { state: from });
      const may = (next[from] as readonly string[]).includes(to);
      if (may) assertEquals((await service.update(session.id, { state: to })).state, to);
      else {
        assertEquals(await refusal(() => service.update(session.id, { state: to })), [
          "badTransition",
          `${from} is not followed by ${to}`,
        ]);
      }
      await service.end(session.id, "");
    }
  }
  const { session, token } = await service.create(request());
  await service.update(session.id, { state: "disconnecting" });
  assertEquals((await refusal(() => service.heartbeat(session.id)))[0], "disconnecting");
  assertEquals((await service.verify(token))?.state, "disconnecting");
  assertEquals((await service.update(session.id, { state: "closed" })).state, "closed");
  assertEquals(await service.get(session.id), undefined);
  assertEquals(await refusal(() => service.update(session.id, { state: "closed" })), ["notFound", ""]);
  assertEquals(await service.count(), { connecting: 0, active: 0, idle: 0, disconnecting: 0, closed: 0 });
});

Deno.test("SessionService.update() replaces metadata whole, or sets and removes entries", async () => {
  const { service } = open();
  const { session } = await service.create(request({ metadata: { a: "1", b: "2" } }));
  const entries = { b: "3", c: "4", a: undefined };
  assertEquals((await service.update(session.id, { metadataEntries: entries })).metadata, { b: "3", c: "4" });
  assertEquals((await service.update(session.id, { metadata: { x: "y" } })).metadata, { x: "y" });
  const tooLong = { metadataEntries: { x: "v".repeat(1_025) } };
  assertEquals((await refusal(() => service.update(session.id, tooLong)))[0], "invalid");
  assertEquals((await service.get(session.id))?.metadata, { x: "y" });
});

Deno.test("SessionService authenticates nothing once revokeUser() has resolved", async () => {
  const { service } = open();
  const epoch = await service.userEpoch("ann");
  const first = await service.create(request({ userEpoch: epoch, hidden: new Uint8Array([1]) }));
  const kept = await service.create(request());
  const bob = await service.create(request({ userId: "bob" }));
  const hidden = await service.readHidden(first.session.id);
  assertEquals(hidden, { bytes: new Uint8Array([1]), version: 1 });
  const during = service.create(request({ userEpoch: epoch }));
  assertEquals(await service.revokeUser("ann", "stolen", kept.session.id), 2);
  await during;
  const { total, sessions } = await service.list({ userId: "ann" }, "", 10);
  assertEquals([total, sessions[0]!.id], [1, kept.session.id]);
  assertEquals(await service.verify(first.token), undefined);
  assertEquals(await service.use(first.session.id), undefined);
  assertEquals(await service.compareAndSetHidden(first.session.id, 1, new Uint8Array(0)), false);
  assertEquals(await refusal(() => service.create(request({ userEpoch: epoch }))), ["revoked", ""]);
  assert(await service.verify(kept.token) !== undefined);
  assert(await service.verify(bob.token) !== undefined);
  const again = await service.userEpoch("ann");
  assert(await service.create(request({ userEpoch: again })) !== undefined);
});

Deno.test("SessionService tells of each change once, in order", async () => {
  const { service, clock } = open();
  const watch = service.watch(0);
  const { session } = await service.create(request());
  await service.heartbeat(session.id);
  await service.heartbeat(session.id);
  await service.update(session.id, { state: "idle" });
  await service.end(session.id, "bye");
  await service.end(session.id, "again");
  const { session: lost } = await service.create(request({ idleTimeoutMs: 1_000 }));
  clock.advance(1_000);
  assertEquals(await service.get(lost.id), undefined);
  await service.sweep();
  const told = takeAll(watch);
  assertEquals(
    told.map(({ type, session: { id, state }, reason }) => [type, id === lost.id, state, reason]),
    [
      ["created", false, "connecting", ""],
      ["updated", false, "active", ""],
      ["updated", false, "idle", ""],
      ["ended", false, "idle", "bye"],
      ["created", true, "connecting", ""],
      ["expired", true, "connecting", ""],
    ],
  );
  assertEquals(told.map(({ offset }) => offset - told[0]!.offset), [0, 1, 2, 3, 4, 5]);
  assertEquals(told[5]!.atMs - told[0]!.atMs, 1_000);
  const { created, updated, ended, expired, heartbeats } = service.figures();
  assertEquals([created, updated, ended, expired, heartbeats], [2, 2, 1, 1, 2]);
});

Deno.test("SessionService goes on where a watcher was, or says that it must list anew", async () => {
  const { service } = open({ eventsKept: 4 });
  const before = service.watch(0);
  const start = before.offset;
  before.close();
  for (let i = 0; i < 4; i++) await service.create(request());
  assertEquals(takeAll(service.watch(start)).length, 4);
  const resumed = service.watch(start + 2);
  assertEquals(takeAll(resumed).map(({ offset }) => offset), [start + 2, start + 3]);
  for (let i = 0; i < 5; i++) await service.create(request());
  // The slow watcher, the one that comes back late, the one from the future, the one of an earlier life.
  assertThrows(() => resumed.take(), SessionError);
  resumed.close();
  for (const offset of [start + 4, service.events.nextOffset + 1, 1]) {
    assertEquals((await refusal(() => service.watch(offset)))[0], "eventsGone");
  }
  assertEquals(takeAll(service.watch(start + 5)).length, 4);
});

Deno.test("SessionService bounds its watchers", async () => {
  const { service } = open();
  const first = service.watch(0);
  service.watch(0);
  assertEquals(await refusal(() => service.watch(0)), ["tooManyWatchers", "2, at most session.watchersMax"]);
  first.close();
  first.close();
  service.watch(0);
  assertEquals(service.figures().watchers, 2);
});

Deno.test("SessionService tells of a change when it is kept, and not before", async () => {
  let keep = () => {};
  let isKept = true;
  const journal: Journal = {
    insert: () => isKept = false,
    update: () => {},
    updateActivity: () => {},
    updateHidden: () => {},
    remove: () => {},
    setEpoch: () => {},
    get isKept() {
      return isKept;
    },
    kept: () => new Promise<void>((resolve) => keep = resolve),
    onKept: () => {},
    failure: undefined,
    stats: () => ({ groups: 0, groupSeconds: 0, writes: 0, failures: 0 }),
    close: () => Promise.resolve(),
  };
  const { service } = open({}, new LocalStore(journal, { sessionsMax: 10, perUserMax: 10, seed: 1 }));
  const watch = service.watch(0);
  const created = service.create(request());
  assertEquals(watch.take(), undefined);
  let isTold = false;
  const change = watch.changed().then(() => isTold = true);
  await Promise.resolve();
  assertEquals(isTold, false);
  isKept = true;
  journal.onKept();
  await change;
  assertEquals(watch.take()?.type, "created");
  keep();
  await created;
});

Deno.test("SessionService sweeps in slices and lets others run between them", async () => {
  let pauses = 0;
  const clock = createManualClock();
  const service = new SessionService({
    store: createMemoryStore({ sessionsMax: 2_000, perUserMax: 2_000, seed: 1 }),
    config: { ...CONFIG, eventsKept: 2_000 },
    clock,
    random: createSeededRandom(1),
    pause: () => {
      pauses++;
      return Promise.resolve();
    },
  });
  for (let i = 0; i < 1_200; i++) await service.create(request());
  clock.advance(60_000);
  const first = service.sweep();
  assertEquals(service.sweep(), first);
  await first;
  assertEquals([pauses, service.figures().expired], [2, 1_200]);
});

Deno.test("SessionService's time never goes back, and sessions outlive no jump of the clock", async () => {
  const { service, clock } = open();
  const { session } = await service.create(request());
  clock.setWall(1_700_000_000_000);
  clock.advance(59_999);
  assert(await service.get(session.id) !== undefined);
  clock.advance(1);
  assertEquals(await service.get(session.id), undefined);
  const { session: second } = await service.create(request());
  assert(second.createdAtMs >= session.expiresAtMs);
  assert(second.id !== session.id);
  clock.setWall(1_900_000_000_000);
  assertEquals(await service.get(second.id), undefined);
});

Deno.test("SessionService.close() ends watches and opens nothing any more", async () => {
  const { service } = open();
  const changed = service.watch(0).changed();
  await service.close();
  await service.close();
  await changed;
  assertEquals(await refusal(() => service.create(request())), ["stopped", ""]);
  assertEquals(await refusal(() => service.watch(0)), ["stopped", ""]);
});
