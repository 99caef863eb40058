import { assertEquals, assertRejects } from "@std/assert";
import { createManualClock } from "../runtime/clock.ts";
import { silentLogger } from "../runtime/log.ts";
import { createSeededRandom } from "../runtime/random.ts";
import type { HostMessage, Peer, WorkerMessage } from "../runtime/worker_context.ts";
import { HostError } from "./exit_code.ts";
import type { Plan, WorkerPlan } from "./plan.ts";
import { Supervisor, type WorkerEvents } from "./supervisor.ts";

const NONE = {
  env: false,
  ffi: false,
  import: false,
  net: [],
  read: false,
  run: false,
  sys: false,
  write: false,
};

function worker(name: "kv" | "gateway" | "statesync", stage: number, isLate = false): WorkerPlan {
  return {
    name,
    service: name,
    instance: 1,
    stage,
    isLate,
    listen: { hostname: "127.0.0.1", port: 7401 + stage },
    address: { hostname: "127.0.0.1", port: 7401 + stage },
    tcp: [],
    config: { of: name },
    dataDirectory: undefined,
    permissions: NONE as unknown as WorkerPlan["permissions"],
  };
}

const PLAN: Plan = {
  host: {
    listen: { hostname: "127.0.0.1", port: 7400 },
    address: { hostname: "127.0.0.1", port: 7400 },
  },
  workers: [worker("kv", 0), worker("gateway", 1)],
};

/** A thread as the supervisor sees it, played by the test. */
class FakeWorker {
  readonly received: HostMessage[] = [];
  terminated = false;
  constructor(readonly name: string, readonly events: WorkerEvents) {}
  say(message: WorkerMessage): void {
    this.events.onMessage(message);
  }
  ready(addresses: Record<string, string> = {}): void {
    this.say({ type: "ready", addresses });
  }
}

/** The supervisor in a world of which the test is the master. */
function world(plan = PLAN) {
  const clock = createManualClock();
  const timers = new Map<number, { at: number; then: () => void }>();
  let timerId = 0;
  const workers: FakeWorker[] = [];
  const story: string[] = [];
  const drains = new Map<string, PromiseWithResolvers<void>>();
  const peers: Peer[] = [];
  const silent = new Set<string>();
  const sick = new Map<string, string>();
  /** Workers whose threads do not end, and how long each wait for ports was. */
  const immortal = new Set<string>();
  const waits: number[] = [];
  const supervisor = new Supervisor({
    plan,
    secret: new Uint8Array(32).fill(7),
    limits: {
      maxInWindow: 2,
      windowMs: 60_000,
      backoffMinMs: 100,
      backoffMaxMs: 1_000,
      intervalMs: 250,
      timeoutMs: 1_000,
      startTimeoutMs: 5_000,
    },
    stageDeadlineMs: 3_000,
    workerLog: { level: "off", format: "json" },
    clock,
    random: createSeededRandom(1),
    log: silentLogger,
    setTimer(ms, then) {
      const id = ++timerId;
      timers.set(id, { at: clock.now() + ms, then });
      return () => timers.delete(id);
    },
    spawn(plan, events) {
      const fake = new FakeWorker(plan.name, events);
      workers.push(fake);
      story.push(`spawn ${plan.name}`);
      return {
        post: (message) => {
          fake.received.push(message);
          if (message.type === "boot") story.push(`boot ${plan.name}`);
        },
        terminate: () => {
          if (!fake.terminated) story.push(`end ${plan.name}`);
          fake.terminated = true;
        },
      };
    },
    portsFree({ name }, deadlineMs) {
      waits.push(deadlineMs);
      if (!immortal.has(name)) return Promise.resolve(true);
      const { promise, resolve } = Promise.withResolvers<boolean>();
      timers.set(++timerId, { at: clock.now() + deadlineMs, then: () => resolve(false) });
      return promise;
    },
    ping(name) {
      if (silent.has(name)) return Promise.reject(new Error("silence"));
      return Promise.resolve({ ok: !sick.has(name), detail: sick.get(name) ?? "" });
    },
    drain(name) {
      story.push(`drain ${name}`);
      const done = Promise.withResolvers<void>();
      drains.set(name, done);
      return done.promise;
    },
    updatePeers: (changed) => peers.push(...changed),
  });
  /** Lets promises that have settled be heard. */
  const settle = async () => {
    for (let i = 0; i < 10; i++) await Promise.resolve();
  };
  /** Moves time on, running the timers on the way at their times. */
  const pass = async (ms: number) => {
    const end = clock.now() + ms;
    while (true) {
      const due = [...timers].filter(([, { at }]) => at <= end).sort(([, a], [, b]) => a.at - b.at)[0];
      if (due === undefined) break;
      timers.delete(due[0]);
      clock.advance(Math.max(0, due[1].at - clock.now()));
      due[1].then();
      await settle();
    }
    clock.advance(end - clock.now());
  };
  const last = (name: string) => workers.findLast((fake) => fake.name === name)!;
  const up = async () => {
    const started = supervisor.start();
    last("kv").ready();
    last("gateway").ready({ http: "http://127.0.0.1:8080" });
    assertEquals(await started, "ready");
    story.length = 0;
  };
  return {
    supervisor,
    story,
    workers,
    last,
    pass,
    settle,
    up,
    drains,
    peers,
    silent,
    sick,
    immortal,
    waits,
    timers,
  };
}

const state = (peers: readonly Peer[]) =>
  peers.map(({ name, state, incarnation }) => `${name} ${state} ${incarnation}`);

Deno.test("Supervisor.start() loads all workers at once and boots a stage when the one before it serves", async () => {
  const { supervisor, story, last, timers } = world();
  const started = supervisor.start();
  assertEquals(story, ["spawn kv", "spawn gateway", "boot kv"]);
  last("kv").ready();
  assertEquals(story.slice(3), ["boot gateway"]);
  const [boot] = last("gateway").received;
  assertEquals(boot?.type === "boot" && state(boot.peers), ["host up 1", "kv up 1"]);
  assertEquals(boot?.type === "boot" && [boot.config, boot.secret.length, boot.listen.port], [
    { of: "gateway" },
    32,
    7402,
  ]);
  last("gateway").ready({ http: "http://127.0.0.1:8080" });
  assertEquals(await started, "ready");
  assertEquals(supervisor.addresses, { http: "http://127.0.0.1:8080" });
  assertEquals(supervisor.report().map(({ name, state }) => [name, state]), [["kv", "ready"], [
    "gateway",
    "ready",
  ]]);
  const stopping = supervisor.stop();
  supervisor.cutShort();
  await stopping;
  assertEquals(timers.size, 0);
});

Deno.test("Supervisor.start() loads what is late when the rest of its stage serves, and drains it with that", async () => {
  const { supervisor, story, last, drains, settle } = world({
    ...PLAN,
    workers: [worker("kv", 0), worker("statesync", 0, true), worker("gateway", 1)],
  });
  const started = supervisor.start();
  assertEquals(story, ["spawn kv", "spawn gateway", "boot kv"]);
  last("kv").ready();
  assertEquals(story.slice(3), ["spawn statesync", "boot statesync", "boot gateway"]);
  last("gateway").ready({ http: "http://127.0.0.1:8080" });
  last("statesync").ready();
  assertEquals(await started, "ready");
  story.length = 0;
  const stopping = supervisor.stop();
  await settle();
  assertEquals(story, ["drain gateway"]);
  drains.get("gateway")!.resolve();
  await settle();
  assertEquals(story.slice(1), ["end gateway", "drain kv", "drain statesync"]);
  for (const name of ["kv", "statesync"]) drains.get(name)!.resolve();
  assertEquals(await stopping, true);
});

Deno.test("Supervisor.start() fails with the worker's own words and ends all others when one cannot start", async () => {
  const { supervisor, story, last, timers } = world();
  const started = supervisor.start();
  last("kv").say({ type: "failed", code: "data_damaged", message: "log file x is damaged at byte 12" });
  const error = await assertRejects(() => started, HostError, "log file x is damaged at byte 12");
  assertEquals(error.exitCode, 12);
  assertEquals(story.slice(3), ["end kv", "end gateway"]);
  assertEquals(timers.size, 0);
});

Deno.test("Supervisor.start() fails when a worker's code does not load, even before its stage", async () => {
  const { supervisor, last } = world();
  const started = supervisor.start();
  last("gateway").events.onError("SyntaxError");
  const error = await assertRejects(() => started, HostError, "worker gateway: SyntaxError");
  assertEquals(error.exitCode, 1);
});

Deno.test("Supervisor replaces a worker that crashes and tells the others, both ways", async () => {
  const { story, last, up, pass, peers, workers } = world();
  await up();
  peers.length = 0;
  last("gateway").received.length = 0;
  const crashed = last("kv");
  crashed.events.onError("boom");
  assertEquals(state(peers), ["kv down 1"]);
  await pass(0);
  assertEquals(story, ["end kv", "spawn kv", "boot kv"]);
  last("kv").ready();
  assertEquals(state(peers), ["kv down 1", "kv up 2"]);
  assertEquals(
    last("gateway").received.flatMap((message) => message.type === "peers" ? state(message.peers) : []),
    ["kv down 1", "kv up 2"],
  );
  // A late word of the dead one changes nothing.
  crashed.events.onError("boom again");
  assertEquals([workers.length, last("kv").terminated], [3, false]);
});

Deno.test("Supervisor replaces a worker whose event loop is stuck, within the heartbeat's time", async () => {
  const { story, up, pass, silent, last } = world();
  await up();
  await pass(10_000);
  assertEquals(story, []);
  silent.add("kv");
  await pass(1_000);
  assertEquals(story, ["end kv", "spawn kv", "boot kv"]);
  silent.delete("kv");
  last("kv").ready();
  await pass(10_000);
  assertEquals(story.length, 3);
});

Deno.test("Supervisor asks for a new process when a stuck thread keeps its ports, and hurries the drain", async () => {
  const { supervisor, story, up, pass, settle, silent, immortal, waits, timers } = world();
  await up();
  silent.add("kv");
  immortal.add("kv");
  await pass(1_000);
  assertEquals(story, ["end kv", "spawn kv"]);
  await pass(200);
  const failure = await supervisor.failed;
  assertEquals([failure.exitCode, failure.message], [
    75,
    "worker kv is stuck and its thread cannot be ended; the process must be restarted",
  ]);
  assertEquals(waits, [100]);
  assertEquals(supervisor.report().map(({ state, reason }) => [state, reason]), [
    ["failed", "stuck, and its thread cannot be ended"],
    ["ready", ""],
  ]);
  const stopped = supervisor.stop();
  await settle();
  await pass(200);
  assertEquals(await stopped, false);
  assertEquals(story.slice(2), ["end kv", "drain gateway", "end gateway"]);
  assertEquals(timers.size, 0);
});

Deno.test("Supervisor asks for a new process when a worker that was ready is stuck during the start", async () => {
  const { supervisor, last, pass, silent, immortal } = world();
  const refused = assertRejects(() => supervisor.start(), HostError, "worker kv is stuck");
  last("kv").ready();
  silent.add("kv");
  immortal.add("kv");
  await pass(1_200);
  assertEquals((await refused).exitCode, 75);
});

Deno.test("Supervisor gives a crashed worker's thread more time to go, and judges none that is told to stop", async () => {
  const { supervisor, last, up, pass, immortal, waits, timers } = world();
  await up();
  immortal.add("kv");
  last("kv").events.onError("boom");
  await pass(900);
  assertEquals([waits, supervisor.report()[0]!.state], [[1_000], "starting"]);
  const stopped = supervisor.stop();
  supervisor.cutShort();
  await stopped;
  await pass(200);
  assertEquals(supervisor.report()[0]!.state, "stopped");
  assertEquals(timers.size, 0);
});

Deno.test("Supervisor gives a worker up after the configured restarts and says why", async () => {
  const { supervisor, up, pass, last } = world();
  await up();
  for (let i = 0; i < 3; i++) {
    last("kv").events.onError("boom");
    await pass(2_000);
    if (i < 2) last("kv").ready();
  }
  const failure = await supervisor.failed;
  assertEquals([failure.message, failure.exitCode], [
    "worker kv is given up: boom; given up after 2 restarts within 60000 ms",
    14,
  ]);
  assertEquals(supervisor.report()[0]!.state, "failed");
});

Deno.test("Supervisor.stop() drains the last stage first and ends each worker when it has drained", async () => {
  const { supervisor, story, up, drains, settle, timers } = world();
  await up();
  const stopped = supervisor.stop();
  await settle();
  assertEquals(story, ["drain gateway"]);
  drains.get("gateway")!.resolve();
  await settle();
  assertEquals(story, ["drain gateway", "end gateway", "drain kv"]);
  drains.get("kv")!.resolve();
  assertEquals(await stopped, true);
  assertEquals(story.slice(3), ["end kv"]);
  assertEquals(supervisor.report().map(({ state }) => state), ["stopped", "stopped"]);
  assertEquals(timers.size, 0);
});

Deno.test("Supervisor.stop() passes a stage's deadline without waiting on, and says that work was cut", async () => {
  const { supervisor, story, up, drains, settle, pass } = world();
  await up();
  const stopped = supervisor.stop();
  await settle();
  await pass(3_000);
  assertEquals(story, ["drain gateway", "end gateway", "drain kv"]);
  drains.get("kv")!.resolve();
  assertEquals(await stopped, false);
});

Deno.test("Supervisor.cutShort() ends what still drains", async () => {
  const { supervisor, story, up, settle } = world();
  await up();
  const stopped = supervisor.stop();
  await settle();
  supervisor.cutShort();
  assertEquals(await stopped, false);
  assertEquals(story, ["drain gateway", "end gateway", "drain kv", "end kv"]);
});

Deno.test("Supervisor.stop() during the start ends everything without a drain", async () => {
  const { supervisor, story } = world();
  const started = supervisor.start();
  assertEquals(await supervisor.stop(), true);
  assertEquals(await started, "stopped");
  assertEquals(story.slice(3), ["end gateway", "end kv"]);
});

Deno.test("Supervisor.report() tells of a worker that runs and says that it does not serve", async () => {
  const { supervisor, up, pass, sick } = world();
  await up();
  sick.set("kv", "the log has stopped");
  await pass(300);
  assertEquals(supervisor.report(), [
    { name: "kv", state: "unhealthy", reason: "the log has stopped", restarts: 0, sinceMs: 300 },
    { name: "gateway", state: "ready", reason: "", restarts: 0, sinceMs: 300 },
  ]);
  sick.clear();
  await pass(300);
  assertEquals(supervisor.report()[0]!.state, "ready");
});
