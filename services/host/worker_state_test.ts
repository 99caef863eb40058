import { assertEquals, assertThrows } from "@std/assert";
import { type WorkerAction, type WorkerLimits, WorkerMachine } from "./worker_state.ts";

const LIMITS: WorkerLimits = {
  maxInWindow: 3,
  windowMs: 10_000,
  backoffMinMs: 100,
  backoffMaxMs: 300,
  intervalMs: 250,
  timeoutMs: 1_000,
  startTimeoutMs: 5_000,
};

/** A machine in virtual time: `now` moves only when a test moves it. */
function machine(limits: Partial<WorkerLimits> = {}, fraction = 0) {
  const worker = new WorkerMachine({ ...LIMITS, ...limits }, () => fraction);
  const actions = () => {
    const all: WorkerAction[] = [];
    for (let action = worker.poll(); action !== undefined; action = worker.poll()) all.push(action);
    return all;
  };
  /** Runs every timeout that is due up to `to` at its time, and returns the actions with theirs. */
  const runTo = (to: number, onPing: (now: number) => void = () => {}) => {
    const all: [number, WorkerAction["type"]][] = [];
    for (let due = worker.nextTimeout(); due !== undefined && due <= to; due = worker.nextTimeout()) {
      worker.timeout(due);
      for (const { type } of actions()) {
        all.push([due, type]);
        if (type === "ping") onPing(due);
      }
    }
    return all;
  };
  return { worker, actions, runTo };
}

function started(limits: Partial<WorkerLimits> = {}, fraction = 0) {
  const all = machine(limits, fraction);
  all.worker.start(0);
  all.worker.ready(100);
  all.actions();
  return all;
}

Deno.test("WorkerMachine.start() spawns, ready() announces, and pings follow at their interval", () => {
  const { worker, actions, runTo } = machine();
  worker.start(0);
  assertEquals(actions(), [{ type: "spawn", incarnation: 1 }]);
  assertEquals([worker.state, worker.nextTimeout()], ["starting", 5_000]);
  worker.ready(100);
  assertEquals(actions(), [{ type: "up", incarnation: 1 }]);
  assertEquals([worker.state, worker.reason], ["ready", ""]);
  const seen = runTo(1_100, (now) => worker.alive(now, 1));
  assertEquals(seen, [[350, "ping"], [600, "ping"], [850, "ping"], [1_100, "ping"]]);
  assertThrows(() => worker.start(0), TypeError, "started before");
});

Deno.test("WorkerMachine replaces a worker that gives no sign of life, the first time without a wait", () => {
  const { worker, runTo } = started();
  assertEquals(runTo(1_100), [
    [350, "ping"],
    [600, "ping"],
    [850, "ping"],
    [1_100, "terminate"],
    [1_100, "down"],
    [1_100, "spawn"],
  ]);
  assertEquals([worker.state, worker.reason, worker.incarnation, worker.restarts], [
    "starting",
    "starting again: gave no sign of life for 1000 ms",
    2,
    1,
  ]);
});

Deno.test("WorkerMachine.stuck() ends the life that waits for its ports and asks for a new process", () => {
  const { worker, actions, runTo } = started();
  worker.stuck(200);
  assertEquals([worker.state, actions()], ["ready", []]);
  runTo(1_100);
  worker.stuck(1_350);
  assertEquals(actions(), [{ type: "terminate" }, { type: "restart_process" }]);
  assertEquals([worker.state, worker.reason, worker.nextTimeout()], [
    "failed",
    "stuck, and its thread cannot be ended",
    undefined,
  ]);
});

Deno.test("WorkerMachine does not take an answer of an earlier life for a sign of this one", () => {
  const { worker, actions, runTo } = started();
  worker.died(200, "internal", "boom");
  runTo(200);
  worker.ready(300);
  actions();
  worker.alive(1_299, 1);
  worker.timeout(1_300);
  assertEquals(worker.state, "restarting");
});

Deno.test("WorkerMachine.timeout() gives the worker one more interval when its own thread was late", () => {
  const { worker, actions } = started();
  worker.timeout(9_000);
  assertEquals(actions(), [{ type: "ping" }]);
  assertEquals(worker.state, "ready");
  worker.timeout(9_250);
  assertEquals(worker.state, "restarting");
});

Deno.test("WorkerMachine waits 0, min, 2 min … max between restarts, shortened by up to a half", () => {
  for (const [fraction, waits] of [[0, [0, 100, 200, 300]], [0.5, [0, 75, 150, 225]]] as const) {
    const { worker, actions } = started({ maxInWindow: 4 }, fraction);
    const seen: number[] = [];
    for (let now = 1_000; seen.length < 4; now += 1_000) {
      worker.died(now, "internal", "boom");
      for (const action of actions()) if (action.type === "down") seen.push(action.restartInMs);
      worker.timeout(now + 999);
      worker.ready(now + 999);
      actions();
    }
    assertEquals(seen, [...waits]);
  }
});

Deno.test("WorkerMachine gives up after maxInWindow restarts within the window, and not before", () => {
  const { worker, actions } = started();
  for (let now = 1_000; now <= 3_000; now += 1_000) {
    worker.died(now, "internal", "boom");
    worker.timeout(now + 500);
    worker.ready(now + 500);
  }
  actions();
  assertEquals([worker.state, worker.restarts], ["ready", 3]);
  worker.died(4_000, "internal", "boom");
  assertEquals(actions(), [
    { type: "terminate" },
    { type: "give_up", code: "internal", reason: "boom; given up after 3 restarts within 10000 ms" },
  ]);
  assertEquals([worker.state, worker.nextTimeout()], ["failed", undefined]);
});

Deno.test("WorkerMachine forgets restarts that are older than the window", () => {
  const { worker, actions } = started({ maxInWindow: 1 });
  worker.died(1_000, "internal", "boom");
  worker.timeout(1_000);
  worker.ready(1_001);
  actions();
  worker.died(11_001, "internal", "boom");
  assertEquals(actions()[1], { type: "down", reason: "boom", restartInMs: 0 });
});

Deno.test("WorkerMachine gives up at once when the first start fails or takes too long", () => {
  const failing = machine();
  failing.worker.start(0);
  failing.worker.died(10, "data_locked", "in use");
  assertEquals(failing.actions().slice(1), [
    { type: "terminate" },
    { type: "give_up", code: "data_locked", reason: "in use" },
  ]);
  const slow = machine();
  slow.worker.start(0);
  slow.worker.timeout(5_000);
  assertEquals(slow.actions().at(-1), {
    type: "give_up",
    code: "internal",
    reason: "did not start within 5000 ms",
  });
});

Deno.test("WorkerMachine.drain() waits for a ready worker, ends any other, and no restart follows", () => {
  const ready = started();
  ready.worker.drain(200);
  assertEquals([ready.worker.state, ready.worker.nextTimeout(), ready.actions()], [
    "draining",
    undefined,
    [],
  ]);
  ready.worker.died(300, "internal", "boom");
  assertEquals([ready.worker.state, ready.actions()], ["stopped", []]);

  const starting = machine();
  starting.worker.start(0);
  starting.actions();
  starting.worker.drain(100);
  assertEquals([starting.worker.state, starting.actions()], ["stopped", [{ type: "terminate" }]]);

  const restarting = started();
  restarting.worker.died(200, "internal", "boom");
  restarting.worker.drain(200);
  assertEquals([restarting.worker.state, restarting.worker.nextTimeout()], ["stopped", undefined]);
});
