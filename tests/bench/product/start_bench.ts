/** From nothing to the ready line, and what the idle product holds in memory, keeper included: from source and as one
 *  executable. And how long it takes from the hang of a worker until keys are served again by a new process. */
import { projectFile } from "../../support/paths.ts";
import { startProduct } from "../../support/product.ts";
import { buildExecutable } from "../../../deploy/compile.ts";
import { type BenchRow, median, spread } from "../row.ts";

const RUNS = 5;

/** Starts the product several times; the executable once more before, to unpack itself. */
export async function bench(): Promise<BenchRow[]> {
  const source = await starts(undefined);
  const directory = await Deno.makeTempDir();
  try {
    const { path } = await buildExecutable({ output: `${directory}/aetherflow` });
    const executable = await starts(path);
    return [
      row("start to ready, keeper included, from source", source.map((run) => run.readyMs), "ms", 1000),
      row("idle RSS of keeper, host and all workers, from source", source.map((run) => run.rssMb), "MB", 250),
      row("hang of a worker to keys served by a new process, from source", await recoveries(), "ms", 2000),
      row("start to ready, keeper included, executable", executable.map((run) => run.readyMs), "ms", 1200),
      row(
        "idle RSS of keeper, host and all workers, executable",
        executable.map((run) => run.rssMb),
        "MB",
        250,
      ),
    ];
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

interface Start {
  readonly readyMs: number;
  readonly rssMb: number;
}

async function starts(executable: string | undefined): Promise<Start[]> {
  await start(executable);
  const measured: Start[] = [];
  for (let run = 0; run < RUNS; run++) measured.push(await start(executable));
  return measured;
}

async function start(executable: string | undefined): Promise<Start> {
  const before = performance.now();
  const product = await startProduct(executable === undefined ? { keeper: true } : { executable });
  const readyMs = performance.now() - before;
  try {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const [keeper, host] = await Promise.all([residentMb(product.pid), residentMb(await product.hostPid())]);
    return { readyMs, rssMb: keeper + host };
  } finally {
    await product.stop();
  }
}

/** The heartbeat's own second is part of each. */
async function recoveries(): Promise<number[]> {
  await using product = await startProduct({
    keeper: true,
    main: projectFile("tests/support/faulty_product.ts"),
    args: ["--set", "log.level=off", "--set", "host.heartbeat.timeoutMs=1000"],
  });
  const measured: number[] = [];
  for (let run = 0; run < RUNS; run++) {
    await written(product.url);
    const before = performance.now();
    Deno.kill(await product.hostPid(), "SIGUSR1");
    await new Promise((resolve) => setTimeout(resolve, 500));
    await written(product.url);
    measured.push(performance.now() - before);
  }
  return measured;
}

/** Resolves when a key was written. */
async function written(url: string): Promise<void> {
  for (;;) {
    try {
      const signal = AbortSignal.timeout(500);
      const answer = await fetch(`${url}/api/v1/kv/a`, { method: "PUT", body: "x", signal });
      await answer.body?.cancel();
      if (answer.ok) return;
    } catch {
      // Nobody is there, or nobody answers.
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

async function residentMb(pid: number): Promise<number> {
  const status = await Deno.readTextFile(`/proc/${pid}/status`);
  return Number(status.match(/VmRSS:\s+(\d+)/)?.[1]) / 1024;
}

function row(name: string, values: readonly number[], unit: string, most: number): BenchRow {
  const value = median(values);
  return { name, value, unit, spread: spread(values), bar: `<= ${most} ${unit}`, pass: value <= most };
}
