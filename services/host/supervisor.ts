/** Runs the plan: starts workers stage by stage, watches over them, restarts what dies, drains in reverse order. The
 *  decisions are worker_state.ts's; this carries them out. */
import type { Clock } from "../runtime/clock.ts";
import type { Logger, LogSettings } from "../runtime/log.ts";
import { type Random, randomFraction } from "../runtime/random.ts";
import type { FailureCode, HostMessage, Peer, WorkerMessage } from "../runtime/worker_context.ts";
import { EXIT, exitCodeOf, HostError } from "./exit_code.ts";
import { HOST_NAME, type Plan, type WorkerPlan } from "./plan.ts";
import { type WorkerLimits, WorkerMachine, type WorkerState } from "./worker_state.ts";

/** How long the sockets of a thread that ended by itself may take to close, in milliseconds. They close at once; on a
 *  machine without a free core it may be a while until the thread gets there. */
const RELEASE_MS = 1_000;

/** The same for a thread that was ended because it gave no sign of life. A busy one is gone when its turn is over, a stuck
 *  one never: `terminate` does not reach into a loop or a blocking call. The wait is part of each recovery from a hang,
 *  which shall take at most 2 s: 1 s of silence, this, the hurried drain, and a new process's start. One that ends later costs
 *  a new process that it need not have. */
const STUCK_RELEASE_MS = 100;

/** How long all other workers together may drain when the process must be restarted, in milliseconds. */
const HURRY_MS = 100;

/** How long a worker may take to apply a new configuration, in milliseconds. Its heartbeat would
 *  have ended a stuck one by then. */
const CONFIGURE_MS = 10_000;

/** What stands for the answer of a worker that took longer. */
const SILENT = "no answer";

/** A running worker, as the supervisor needs it. */
export interface WorkerHandle {
  post(message: HostMessage): void;
  /** Ends it at once, unless it is stuck. Idempotent. */
  terminate(): void;
}

/** What a running worker tells. */
export interface WorkerEvents {
  onMessage(message: WorkerMessage): void;
  /** An error that nobody caught: the worker is as good as dead. */
  onError(message: string): void;
}

/** The world around the supervisor. */
export interface SupervisorDeps {
  readonly plan: Plan;
  /** Shared by all nodes of this boot, 32 bytes. */
  readonly secret: Uint8Array;
  readonly limits: WorkerLimits;
  /** How long one stage may take to drain, in milliseconds. */
  readonly stageDeadlineMs: number;
  /** What the workers log. */
  readonly workerLog: LogSettings;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Calls `then` after `ms`; the returned function calls it off. */
  setTimer(ms: number, then: () => void): () => void;
  /** Starts a worker's thread; it waits for its boot message. */
  spawn(plan: WorkerPlan, events: WorkerEvents): WorkerHandle;
  /** Whether the ports of a worker that has just been ended are free again within `deadlineMs`. */
  portsFree(plan: WorkerPlan, deadlineMs: number): Promise<boolean>;
  /** Asks a worker for its health. Rejects when no answer came; settles by itself within a few heartbeats. */
  ping(name: string): Promise<{ ok: boolean; detail: string }>;
  /** Asks a worker to drain; resolves when it has. */
  drain(name: string, deadlineMs: number): Promise<void>;
  /** The host's own view of its peers. */
  updatePeers(peers: readonly Peer[]): void;
}

/** One worker's state, for readiness and metrics. */
export interface WorkerReport {
  readonly name: string;
  /** `unhealthy`: it runs and says that it does not serve. */
  readonly state: WorkerState | "unhealthy";
  readonly reason: string;
  readonly restarts: number;
  /** Milliseconds in this state. */
  readonly sinceMs: number;
}

/** One worker's things. */
interface Runner {
  /** What the next life is started with. */
  plan: WorkerPlan;
  readonly machine: WorkerMachine;
  /** The thread that runs or loads. */
  handle: WorkerHandle | undefined;
  /** Whether `handle` has its boot message, so that news of peers make sense to it. */
  booted: boolean;
  up: boolean;
  /** How long the ports of the last life may stay taken, in milliseconds. */
  releaseMs: number;
  health: { ok: boolean; detail: string };
  addresses: Record<string, string>;
  cancelTimer: () => void;
  /** Hears what the thread says to the configuration that it was sent. */
  onConfigured: (problem: string | undefined) => void;
}

/** Keeps the workers of a plan running. */
export class Supervisor {
  readonly #deps: SupervisorDeps;
  readonly #runners: readonly Runner[];
  readonly #started = Promise.withResolvers<"ready" | "stopped">();
  readonly #failed = Promise.withResolvers<HostError>();
  readonly #cut = Promise.withResolvers<void>();
  /** Workers of other hosts, by name; bounded by whoever finds them. */
  readonly #remote = new Map<string, Peer>();
  #workerLog: LogSettings;
  #isReady = false;
  /** When the drain must be over because the process must be restarted. */
  #hurryUntilMs: number | undefined;
  #stopping: Promise<boolean> | undefined;

  constructor(deps: SupervisorDeps) {
    this.#deps = deps;
    this.#runners = deps.plan.workers.map((plan) => ({
      plan,
      machine: new WorkerMachine(deps.limits, () => randomFraction(deps.random)),
      handle: undefined,
      booted: false,
      up: false,
      releaseMs: STUCK_RELEASE_MS,
      health: { ok: true, detail: "" },
      addresses: {},
      cancelTimer: () => {},
      onConfigured: () => {},
    }));
    this.#workerLog = deps.workerLog;
  }

  /** Settles when a worker was given up after the start, or cannot be replaced in this process; the owner stops then. */
  get failed(): Promise<HostError> {
    return this.#failed.promise;
  }

  /** What the workers listen on: `{http: "http://127.0.0.1:8080"}`. */
  get addresses(): Record<string, string> {
    return Object.assign({}, ...this.#runners.map((runner) => runner.addresses));
  }

  /** Starts everything; "stopped" when `stop` came first.
   *  @throws {HostError} when a worker cannot start; nothing runs any more then. */
  start(): Promise<"ready" | "stopped"> {
    this.#deps.updatePeers(this.#book());
    // All threads but late ones load their code at once; each stage boots when the one before it serves.
    for (const runner of this.#runners) if (!runner.plan.isLate) this.#load(runner);
    this.#openStages();
    return this.#started.promise;
  }

  /** Drains, last stage first, and ends every worker. True if all work was finished; the second call returns the first
   *  one's promise. */
  stop(): Promise<boolean> {
    return this.#stopping ??= this.#stop();
  }

  /** Ends at once what `stop` still waits for. */
  cutShort(): void {
    this.#cut.resolve();
  }

  /** The workers' states, in start order. */
  report(): WorkerReport[] {
    const now = this.#deps.clock.now();
    return this.#runners.map(({ plan, machine, health }) => {
      const sick = machine.state === "ready" && !health.ok;
      return {
        name: plan.name,
        state: sick ? "unhealthy" : machine.state,
        reason: sick ? health.detail : machine.reason,
        restarts: machine.restarts,
        sinceMs: Math.round(now - machine.sinceMs),
      };
    });
  }

  /** Takes news of workers on other hosts and passes them on. */
  updateRemote(peers: readonly Peer[], removed: readonly string[]): void {
    for (const name of removed) this.#remote.delete(name);
    for (const peer of peers) this.#remote.set(peer.name, peer);
    for (const runner of this.#runners) {
      if (runner.booted && seesOthers(runner)) runner.handle?.post({ type: "peers", peers, removed });
    }
  }

  /** Gives every worker its part of a new configuration, in which only keys differ that may change while it runs: all of
   *  them take it, or none does. Resolves to what is wrong with it, by worker; empty when it is in effect. */
  async reconfigure(plan: Plan, log: LogSettings): Promise<{ worker: string; problem: string }[]> {
    const before = { plans: this.#runners.map((runner) => runner.plan), log: this.#workerLog };
    const problems = await this.#configure(plan.workers, log);
    // What a worker refused would keep its next life from starting, and the others are not left half way.
    if (problems.length > 0) await this.#configure(before.plans, before.log);
    return problems;
  }

  async #configure(
    plans: readonly WorkerPlan[],
    log: LogSettings,
  ): Promise<{ worker: string; problem: string }[]> {
    const logChanged = log.level !== this.#workerLog.level;
    this.#workerLog = log;
    const answers = this.#runners.map(async (runner, i) => {
      const plan = plans[i]!;
      const isSame = JSON.stringify(plan.config) === JSON.stringify(runner.plan.config);
      runner.plan = plan;
      // A thread without its boot message gets the new plan with it.
      if ((isSame && !logChanged) || !runner.booted) return undefined;
      const { promise, resolve } = Promise.withResolvers<string | undefined>();
      const cancel = this.#deps.setTimer(CONFIGURE_MS, () => resolve(SILENT));
      runner.onConfigured = resolve;
      runner.handle?.post({ type: "config", log, ...(isSame ? {} : { config: plan.config }) });
      const problem = await promise;
      cancel();
      return problem === undefined ? undefined : { worker: plan.name, problem };
    });
    return (await Promise.all(answers)).filter((answer) => answer !== undefined);
  }

  #load(runner: Runner): void {
    const events: WorkerEvents = {
      onMessage: (message) => {
        if (runner.handle === handle) this.#onMessage(runner, message);
      },
      onError: (message) => {
        if (runner.handle === handle) this.#onDeath(runner, "internal", message);
      },
    };
    const handle = this.#deps.spawn(runner.plan, events);
    runner.handle = handle;
    runner.booted = false;
  }

  #openStages(): void {
    const waiting = this.#runners.filter(({ machine }) => machine.state !== "ready");
    const stage = Math.min(...waiting.map(({ plan }) => startStage(plan)));
    for (const runner of waiting) {
      if (startStage(runner.plan) !== stage || runner.machine.incarnation > 0) continue;
      runner.machine.start(this.#deps.clock.now());
      this.#turn(runner);
    }
    if (waiting.length > 0 || this.#isReady) return;
    this.#isReady = true;
    this.#started.resolve("ready");
  }

  #onMessage(runner: Runner, message: WorkerMessage): void {
    if (message.type === "failed") return this.#onDeath(runner, message.code, message.message);
    if (message.type === "configured") return runner.onConfigured(message.problem);
    runner.addresses = message.addresses;
    runner.machine.ready(this.#deps.clock.now());
    this.#turn(runner);
  }

  #onDeath(runner: Runner, code: FailureCode, reason: string): void {
    const now = this.#deps.clock.now();
    // It died while its code was loading, before its stage began.
    if (runner.machine.incarnation === 0) {
      runner.machine.start(now);
      this.#turn(runner);
    }
    runner.releaseMs = RELEASE_MS;
    runner.machine.died(now, code, reason);
    this.#turn(runner);
  }

  /** Carries out what the machine wants, then waits for its next timeout. */
  #turn(runner: Runner): void {
    const { machine } = runner;
    for (let action = machine.poll(); action !== undefined; action = machine.poll()) {
      switch (action.type) {
        case "spawn":
          if (runner.handle === undefined) this.#load(runner);
          this.#boot(runner, action.incarnation);
          break;
        case "terminate":
          this.#end(runner);
          break;
        case "ping":
          this.#ping(runner);
          break;
        case "up":
          this.#onUp(runner);
          break;
        case "down":
          this.#deps.log.error("worker lost", {
            worker: runner.plan.name,
            reason: action.reason,
            restartInMs: action.restartInMs,
          });
          break;
        case "restart_process":
          this.#hurryUntilMs ??= this.#deps.clock.now() + HURRY_MS;
          this.#fail(
            new HostError(
              `worker ${runner.plan.name} is stuck and its thread cannot be ended; the process must be restarted`,
              EXIT.restart,
            ),
          );
          break;
        case "give_up":
          this.#giveUp(runner, action.code, action.reason);
          break;
      }
    }
    runner.cancelTimer();
    const due = machine.nextTimeout();
    if (due === undefined) return;
    runner.cancelTimer = this.#deps.setTimer(Math.max(0, due - this.#deps.clock.now()), () => {
      machine.timeout(this.#deps.clock.now());
      this.#turn(runner);
    });
  }

  #boot(runner: Runner, incarnation: number): void {
    const { handle, plan } = runner;
    const post = () => {
      if (handle === undefined || runner.handle !== handle) return;
      runner.booted = true;
      handle.post({
        type: "boot",
        name: plan.name,
        instance: plan.instance,
        secret: this.#deps.secret,
        listen: plan.listen,
        peers: this.#book(runner).filter(({ name }) => name !== plan.name),
        config: runner.plan.config,
        dataDirectory: plan.dataDirectory,
        log: this.#workerLog,
      });
    };
    if (incarnation === 1) return post();
    const { releaseMs } = runner;
    runner.releaseMs = STUCK_RELEASE_MS;
    void this.#deps.portsFree(plan, releaseMs).then((free) => {
      if (free) return post();
      if (runner.handle !== handle) return;
      runner.machine.stuck(this.#deps.clock.now());
      this.#turn(runner);
    });
  }

  #onUp(runner: Runner): void {
    const { plan, machine } = runner;
    runner.up = true;
    runner.health = { ok: true, detail: "" };
    this.#deps.log.info("worker ready", { worker: plan.name, incarnation: machine.incarnation });
    this.#announce(runner);
    this.#openStages();
  }

  /** Ends the thread; if it served, everybody hears that it does no more. */
  #end(runner: Runner): void {
    runner.handle?.terminate();
    runner.handle = undefined;
    runner.booted = false;
    // Its next life starts with the new configuration.
    runner.onConfigured(undefined);
    if (!runner.up) return;
    runner.up = false;
    this.#announce(runner);
  }

  #announce(changed: Runner): void {
    const peers = [entryOf(changed)];
    this.#deps.updatePeers(peers);
    for (const runner of this.#runners) {
      if (runner !== changed && runner.booted) runner.handle?.post({ type: "peers", peers });
    }
  }

  #ping(runner: Runner): void {
    const { plan, machine } = runner;
    const { incarnation } = machine;
    this.#deps.ping(plan.name).then((health) => {
      if (machine.incarnation !== incarnation) return;
      if (health.ok !== runner.health.ok) {
        this.#deps.log.warn("worker health changed", { worker: plan.name, ...health });
      }
      runner.health = health;
      machine.alive(this.#deps.clock.now(), incarnation);
      this.#turn(runner);
    }, (error: unknown) => {
      // Silence is the machine's to judge.
      this.#deps.log.debug("heartbeat unanswered", { worker: plan.name, error });
    });
  }

  #giveUp(runner: Runner, code: FailureCode, reason: string): void {
    const { name } = runner.plan;
    if (this.#isReady) {
      return this.#fail(new HostError(`worker ${name} is given up: ${reason}`, EXIT.gaveUp));
    }
    this.#fail(new HostError(code === "internal" ? `worker ${name}: ${reason}` : reason, exitCodeOf(code)));
  }

  /** The product cannot go on. After the start the owner hears of it and stops; before, nothing is worth a drain. */
  #fail(error: HostError): void {
    if (this.#isReady) return this.#failed.resolve(error);
    for (const other of this.#runners) {
      other.machine.drain(this.#deps.clock.now());
      other.machine.stopped(this.#deps.clock.now());
      this.#turn(other);
      this.#end(other);
    }
    this.#started.reject(error);
  }

  async #stop(): Promise<boolean> {
    this.#started.resolve("stopped");
    let clean = true;
    const stages = new Set(this.#runners.map(({ plan }) => plan.stage));
    for (const stage of [...stages].sort((a, b) => b - a)) {
      const runners = this.#runners.filter(({ plan }) => plan.stage === stage);
      const ends = await Promise.all(runners.map((runner) => this.#drain(runner)));
      clean &&= ends.every((end) => end);
    }
    return clean;
  }

  /** Drains and ends one worker; true if it finished in time. */
  async #drain(runner: Runner): Promise<boolean> {
    const { machine, plan } = runner;
    const { clock, log } = this.#deps;
    machine.drain(clock.now());
    this.#turn(runner);
    let clean = true;
    if (machine.state === "draining") {
      const deadlineMs = this.#drainMs();
      log.info("worker draining", { worker: plan.name, deadlineMs });
      clean = await this.#drained(plan.name, deadlineMs);
      machine.stopped(clock.now());
      this.#turn(runner);
    }
    this.#end(runner);
    return clean;
  }

  /** How long the workers that drain now may take, in milliseconds. */
  #drainMs(): number {
    const { clock, stageDeadlineMs } = this.#deps;
    if (this.#hurryUntilMs === undefined) return stageDeadlineMs;
    return Math.min(stageDeadlineMs, Math.max(0, Math.floor(this.#hurryUntilMs - clock.now())));
  }

  async #drained(name: string, deadlineMs: number): Promise<boolean> {
    const { log } = this.#deps;
    const late = Promise.withResolvers<string>();
    const cancel = this.#deps.setTimer(deadlineMs, () => late.resolve(`not done in ${deadlineMs} ms`));
    const failure = await Promise.race([
      this.#deps.drain(name, deadlineMs).then(
        () => undefined,
        (error: unknown) => error instanceof Error ? error.message : String(error),
      ),
      late.promise,
      this.#cut.promise.then(() => "cut short by a second signal"),
    ]);
    cancel();
    if (failure !== undefined) {
      log.warn("worker ended before it had drained", { worker: name, reason: failure });
    }
    return failure === undefined;
  }

  /** The address book: the host first, then the workers in start order, then those of other hosts. */
  #book(reader?: Runner): Peer[] {
    const host: Peer = {
      name: HOST_NAME,
      address: this.#deps.plan.host.address,
      state: "up",
      incarnation: 1,
    };
    const remote = reader !== undefined && seesOthers(reader) ? this.#remote.values() : [];
    return [host, ...this.#runners.map(entryOf), ...remote];
  }
}

/** Who has no business on other hosts may not reach them either, see plan.ts. */
function seesOthers({ plan }: Runner): boolean {
  return plan.service !== "password";
}

function entryOf({ plan, machine, up }: Runner): Peer {
  return {
    name: plan.name,
    service: plan.service,
    address: plan.address,
    state: up ? "up" : "down",
    incarnation: machine.incarnation,
  };
}

/** With which stage a worker starts. */
function startStage({ stage, isLate }: WorkerPlan): number {
  return isLate ? stage + 1 : stage;
}
