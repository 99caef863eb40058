/** One worker's life, as a pure state machine: what happened goes in with the time it happened, what to do comes out.
 *
 *  ```
 *             start            ready              drain           stopped
 *  (stopped) ───────► starting ───────► ready ─────────► draining ───────► stopped
 *                       │  ▲              │                                   ▲
 *      died, or too     │  │ backoff      │ died, or silent for timeoutMs     │ drain
 *      late, but was    │  │ is over      │                                   │
 *      ready before     ▼  │              ▼                                   │
 *                     restarting ◄────────┘ ──────────────────────────────────┘
 *                       │
 *                       │ more than maxInWindow restarts in windowMs,
 *                       ▼ the first start failed, or (from starting) the life before holds its ports: stuck
 *                     failed
 *  ```
 *  Restarts wait 0, min, 2 min, 4 min … max milliseconds, counted within the window; all but the first are shortened by
 *  up to a half at random, so that workers that died together do not come back together. */
import type { FailureCode } from "../runtime/worker_context.ts";

/** Limits of one life; the configuration's `host.restart`, `host.heartbeat` and `host.startTimeoutMs`. */
export interface WorkerLimits {
  readonly maxInWindow: number;
  readonly windowMs: number;
  readonly backoffMinMs: number;
  readonly backoffMaxMs: number;
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly startTimeoutMs: number;
}

/** Where a worker is in its life. */
export type WorkerState = "starting" | "ready" | "restarting" | "draining" | "stopped" | "failed";

/** What the owner must do, in this order. */
export type WorkerAction =
  /** Run a new worker. */
  | { readonly type: "spawn"; readonly incarnation: number }
  /** End the worker that runs now, if one does. */
  | { readonly type: "terminate" }
  /** Ask for its health, and report the answer with `alive`. */
  | { readonly type: "ping" }
  /** It serves. */
  | { readonly type: "up"; readonly incarnation: number }
  /** It served and does no more. */
  | { readonly type: "down"; readonly reason: string; readonly restartInMs: number }
  /** Its thread cannot be ended, so no worker of this process can take its place. */
  | { readonly type: "restart_process" }
  /** It will not come back. */
  | { readonly type: "give_up"; readonly code: FailureCode; readonly reason: string };

/** The machine. Each call may leave actions for `poll`; `nextTimeout` says when `timeout` is due. */
export class WorkerMachine {
  #state: WorkerState = "stopped";
  #sinceMs = 0;
  #reason = "not started";
  #incarnation = 0;
  #wasReady = false;
  #restarts = 0;
  /** Times of the restarts within the window; at most maxInWindow of them. */
  #recent: number[] = [];
  /** When a start or the silence of a ready worker has lasted too long, or a backoff is over. */
  #deadline: number | undefined;
  #nextPing: number | undefined;
  /** Bounded: no call adds more than three, and the owner polls after each call. */
  #actions: WorkerAction[] = [];

  /** `fraction` gives numbers in [0, 1) for the jitter. */
  constructor(readonly limits: WorkerLimits, private readonly fraction: () => number) {}

  get state(): WorkerState {
    return this.#state;
  }
  /** Why it is not ready; empty when it is. */
  get reason(): string {
    return this.#reason;
  }
  /** When the state began. */
  get sinceMs(): number {
    return this.#sinceMs;
  }
  /** Restarts since `start`. */
  get restarts(): number {
    return this.#restarts;
  }
  /** Number of the life that runs or ran last, from 1. */
  get incarnation(): number {
    return this.#incarnation;
  }

  /** The first start. @throws {TypeError} if it was started before. */
  start(now: number): void {
    if (this.#incarnation > 0) throw new TypeError("Cannot start: the worker was started before");
    this.#spawn(now);
  }

  /** The worker says that it serves. */
  ready(now: number): void {
    if (this.#state !== "starting") return;
    this.#wasReady = true;
    this.#enter("ready", now, "");
    this.#deadline = now + this.limits.timeoutMs;
    this.#nextPing = now + this.limits.intervalMs;
    this.#actions.push({ type: "up", incarnation: this.#incarnation });
  }

  /** The worker answered a ping of its life `incarnation`. */
  alive(now: number, incarnation: number): void {
    if (this.#state === "ready" && incarnation === this.#incarnation) {
      this.#deadline = now + this.limits.timeoutMs;
    }
  }

  /** The worker has ended, or said that it cannot go on. */
  died(now: number, code: FailureCode, reason: string): void {
    switch (this.#state) {
      case "starting":
      case "ready":
        return this.#lost(now, code, reason);
      case "draining":
        return this.stopped(now);
    }
  }

  /** The life before this one was ended and did not end: its thread holds the ports that the new one needs. */
  stuck(now: number): void {
    if (this.#state !== "starting" || this.#incarnation < 2) return;
    this.#clear();
    this.#enter("failed", now, "stuck, and its thread cannot be ended");
    this.#actions.push({ type: "terminate" }, { type: "restart_process" });
  }

  /** Stop for good: no restart follows. */
  drain(now: number): void {
    switch (this.#state) {
      case "ready":
        this.#clear();
        return this.#enter("draining", now, "stopping");
      case "starting":
      case "restarting":
        // Nothing is under way in it that could be finished.
        this.#actions.push({ type: "terminate" });
        return this.stopped(now);
    }
  }

  /** Draining has ended, well or by its deadline. */
  stopped(now: number): void {
    if (this.#state === "stopped" || this.#state === "failed") return;
    this.#clear();
    this.#enter("stopped", now, "stopped");
  }

  /** When `timeout` is due; undefined when nothing waits. */
  nextTimeout(): number | undefined {
    if (this.#deadline === undefined || this.#nextPing === undefined) return this.#deadline ?? this.#nextPing;
    return Math.min(this.#deadline, this.#nextPing);
  }

  /** Runs whatever was due at `now`. Calling early is harmless. */
  timeout(now: number): void {
    if (this.#deadline !== undefined && now >= this.#deadline) this.#expired(now, this.#deadline);
    if (this.#nextPing !== undefined && now >= this.#nextPing) {
      this.#nextPing = now + this.limits.intervalMs;
      this.#actions.push({ type: "ping" });
    }
  }

  /** The next thing to do. */
  poll(): WorkerAction | undefined {
    return this.#actions.shift();
  }

  #expired(now: number, deadline: number): void {
    switch (this.#state) {
      case "restarting":
        return this.#spawn(now);
      case "starting":
        return this.#lost(now, "internal", `did not start within ${this.limits.startTimeoutMs} ms`);
      case "ready":
        if (now > deadline + this.limits.intervalMs) {
          // Our own thread was late, so an answer may wait behind us: the worker gets one more interval to be heard.
          this.#deadline = now + this.limits.intervalMs;
          return;
        }
        return this.#lost(now, "internal", `gave no sign of life for ${this.limits.timeoutMs} ms`);
    }
  }

  #lost(now: number, code: FailureCode, reason: string): void {
    const wasUp = this.#state === "ready";
    this.#clear();
    this.#actions.push({ type: "terminate" });
    if (!this.#wasReady) {
      this.#enter("failed", now, reason);
      this.#actions.push({ type: "give_up", code, reason });
      return;
    }
    this.#recent = this.#recent.filter((at) => at > now - this.limits.windowMs);
    if (this.#recent.length >= this.limits.maxInWindow) {
      const times = `${this.#recent.length} restarts within ${this.limits.windowMs} ms`;
      this.#enter("failed", now, `${reason}; given up after ${times}`);
      this.#actions.push({ type: "give_up", code, reason: this.#reason });
      return;
    }
    const wait = this.#backoff(this.#recent.length);
    this.#recent.push(now);
    this.#restarts++;
    this.#enter("restarting", now, reason);
    this.#deadline = now + wait;
    if (wasUp) this.#actions.push({ type: "down", reason, restartInMs: wait });
  }

  #backoff(before: number): number {
    if (before === 0) return 0;
    // 2^30 times the least wait is past every allowed maximum.
    const full = Math.min(this.limits.backoffMaxMs, this.limits.backoffMinMs * 2 ** Math.min(before - 1, 30));
    return Math.round(full * (1 - this.fraction() / 2));
  }

  #spawn(now: number): void {
    this.#incarnation++;
    this.#enter("starting", now, this.#incarnation === 1 ? "starting" : `starting again: ${this.#reason}`);
    this.#deadline = now + this.limits.startTimeoutMs;
    this.#actions.push({ type: "spawn", incarnation: this.#incarnation });
  }

  #clear(): void {
    this.#deadline = undefined;
    this.#nextPing = undefined;
  }

  #enter(state: WorkerState, now: number, reason: string): void {
    this.#state = state;
    this.#sinceMs = now;
    this.#reason = reason;
  }
}
