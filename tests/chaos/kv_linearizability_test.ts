/** Concurrent clients while the kv worker or the whole process is killed and comes back: every history is linearizable,
 *  no acknowledged write is lost, no revision is used twice, and watchers are told everything once and in order. */
import { assertEquals } from "@std/assert";
import { createGrpcClient } from "../conformance/client.ts";
import { checkLinearizable } from "../conformance/linearizability/checker.ts";
import {
  call,
  follow,
  type Follower,
  type KvOperation,
  runClient,
} from "../conformance/linearizability/clients.ts";
import { kvModel, type KvState } from "../conformance/linearizability/kv_model.ts";
import type { WatchLog } from "../conformance/linearizability/watch_log.ts";
import { SimRandom } from "../sim/random.ts";
import { startFaultyHost } from "../support/faulty_host.ts";
import { startProduct } from "../support/product.ts";

const isSoak = Deno.env.get("AETHERFLOW_SOAK") === "1";
/** Times the process is killed, and times the worker is. */
const PROCESS_KILLS = isSoak ? 200 : 12;
const WORKER_KILLS = isSoak ? 200 : 12;
const CLIENTS = 6;
/** Answers before a kill, at most. */
const ANSWERS = 600;
/** Above what a restart takes on a busy machine. */
const BACK_DEADLINE_MS = 30_000;

const seed = Number(Deno.env.get("AETHERFLOW_SIM_SEED") ?? crypto.getRandomValues(new Uint32Array(1))[0]);

Deno.test(
  `SIGKILL under load keeps histories linearizable and watches whole, ${PROCESS_KILLS} times`,
  async () => {
    const random = new SimRandom(seed, "process");
    const data = await Deno.makeTempDir({ prefix: "aetherflow-linear-" });
    const args = ["--set", "log.level=off"];
    let product = await startProduct({ data, args });
    try {
      const address = () => product.addresses.grpc ?? "";
      const run = new Run(random, address());
      try {
        for (let round = 1; round <= PROCESS_KILLS; round++) {
          await run.round(`process.${round}`, address(), async () => {
            product.kill("SIGKILL");
            await product.exited;
            product = await startProduct({ data, args });
            return address();
          });
        }
        await run.finish(address());
      } finally {
        run[Symbol.dispose]();
      }
      assertEquals(await product.stop(), 0);
    } finally {
      product.kill("SIGKILL");
      await product.exited;
      await Deno.remove(data, { recursive: true });
    }
  },
);

Deno.test(
  `the death of the kv worker under load keeps histories linearizable and watches whole, ${WORKER_KILLS} times`,
  async () => {
    const random = new SimRandom(seed, "worker");
    const data = await Deno.makeTempDir({ prefix: "aetherflow-linear-" });
    const product = await startFaultyHost({
      data,
      set: { "host.restart.maxInWindow": "1000", "host.restart.backoffMaxMs": "100" },
    });
    try {
      const address = product.host.addresses().grpc ?? "";
      const run = new Run(random, address);
      try {
        for (let round = 1; round <= WORKER_KILLS; round++) {
          await run.round(`worker.${round}`, address, () => {
            product.order("kv", { type: "fault", do: "die" });
            return Promise.resolve(address);
          });
        }
        await run.finish(address);
      } finally {
        run[Symbol.dispose]();
      }
    } finally {
      await product.host.stop();
      await Deno.remove(data, { recursive: true });
    }
  },
);

/** Rounds of load and faults on one store. */
class Run implements Disposable {
  readonly #random: SimRandom;
  readonly #follower: Follower;
  #state: KvState = { revision: 1, entries: {} };
  /** Every answered call of all rounds. */
  readonly #answered: KvOperation[] = [];

  constructor(random: SimRandom, address: string) {
    this.#random = random;
    this.#follower = follow(address);
  }

  /** Load, a fault amid it, load again, and the check of everything since the last round. `fault` resolves with where the
   *  store is served afterwards. */
  async round(name: string, address: string, fault: () => Promise<string>): Promise<void> {
    const random = this.#random;
    const history = await underLoad(`${name}.before`, address, random, 1 + random.below(ANSWERS), fault);
    const next = history.address;
    if (next !== address) this.#follower.moveTo(next);
    await this.#settle(name, next, history.operations);
    const after = await underLoad(`${name}.after`, next, random, 50, () => Promise.resolve(next));
    await this.#settle(name, next, after.operations);
  }

  /** A watcher from the first revision on, all at once, is told what the one was told that followed all the time. */
  async finish(address: string): Promise<void> {
    const { revision } = this.#state;
    using late = follow(address);
    await late.reach(revision, BACK_DEADLINE_MS);
    await this.#follower.reach(revision, BACK_DEADLINE_MS);
    const { log } = this.#follower;
    assertEquals([...log.broken, ...late.log.broken, ...log.differences(late.log)], [], `seed ${seed}`);
    assertEquals(unheard(this.#answered, log), [], `seed ${seed}`);
  }

  [Symbol.dispose](): void {
    this.#follower[Symbol.dispose]();
  }

  /** Reads the store when nobody else does, and checks all that was asked since the last time, that read included. */
  async #settle(name: string, address: string, operations: readonly KvOperation[]): Promise<void> {
    const last = await readAll(address);
    const history = [...operations, last];
    const report = checkLinearizable(kvModel(this.#state), history);
    if (report.verdict !== "linearizable") {
      const around = JSON.stringify({ stuckAt: report.stuckAt, leftBehind: report.leftBehind });
      throw new Error(
        `seed ${seed}, ${name}: ${report.verdict} after ${report.ordered.length} of ${history.length}: ${around}`,
      );
    }
    this.#answered.push(...operations.filter(({ output }) => output !== undefined));
    this.#state = { revision: last.output!.revision, entries: last.output!.entries! };
    await this.#follower.reach(this.#state.revision, BACK_DEADLINE_MS);
    assertEquals(this.#follower.log.broken, [], `seed ${seed}, ${name}`);
  }
}

/** Runs the clients, lets the fault happen after so many answers and the clients go on until it is over. */
async function underLoad(
  name: string,
  address: string,
  random: SimRandom,
  answers: number,
  fault: () => Promise<string>,
): Promise<{ readonly operations: KvOperation[]; readonly address: string }> {
  const stop = { isSet: false };
  const enough = Promise.withResolvers<void>();
  let count = 0;
  const clients = Array.from(
    { length: CLIENTS },
    (_, i) =>
      runClient(address, `${name}.${i}`, random.fork(`${name}.${i}`), stop, () => {
        if (++count === answers) enough.resolve();
      }),
  );
  const failed = Promise.all(clients).then(() => {});
  try {
    await Promise.race([enough.promise, failed]);
    const next = await fault();
    stop.isSet = true;
    return { operations: (await Promise.all(clients)).flat(), address: next };
  } finally {
    stop.isSet = true;
    await Promise.allSettled(clients);
  }
}

/** The whole store, once it answers. */
async function readAll(address: string): Promise<KvOperation> {
  using client = createGrpcClient(address);
  const deadline = performance.now() + BACK_DEADLINE_MS;
  while (performance.now() < deadline) {
    const operation = await call(client, { kind: "getAll" });
    if (operation.output !== undefined) return operation;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`seed ${seed}: the store did not come back within ${BACK_DEADLINE_MS} ms`);
}

/** Acknowledged writes that the watcher was not told of as they were acknowledged. */
function unheard(operations: readonly KvOperation[], log: WatchLog): string[] {
  return operations.flatMap(({ input, output }) => {
    if (output === undefined || input.kind === "get" || input.kind === "getAll") return [];
    if (output.succeeded === false || output.deleted === 0) return [];
    const keys = input.kind === "putBoth" ? input.keys : [input.key];
    const value = input.kind === "delete" ? undefined : input.value;
    const told = log.byRevision.get(output.revision) ?? [];
    const isTold = told.length === keys.length &&
      keys.every((key) => told.some((event) => event.key === key && event.value === value));
    return isTold ? [] : [`${JSON.stringify(input)} at ${output.revision}: ${JSON.stringify(told)}`];
  });
}
