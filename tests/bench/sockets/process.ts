/** Processes beside the one that measures, asked one thing at a time by lines of JSON, and what the kernel knows of a process. */
import { fileURLToPath } from "node:url";
import { projectFile } from "../../support/paths.ts";

/** A process that answers. `await using` kills it at the end of the block. */
export interface AskedProcess extends AsyncDisposable {
  readonly pid: number;
  /** Sends `message` and waits for the answer. @throws {Error} what the process says went wrong, or that it ended. */
  ask<T>(message: unknown): Promise<T>;
}

/** Starts a module as a process of its own. Its stderr is this one's. */
export function startAsked(module: URL, args: readonly string[] = []): AskedProcess {
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-q",
      "-A",
      "--config",
      projectFile("deno.json"),
      ...V8_FLAGS,
      fileURLToPath(module),
      ...args,
    ],
    stdin: "piped",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const writer = child.stdin.getWriter();
  const lines = linesOf(child.stdout);
  return {
    pid: child.pid,
    async ask<T>(message: unknown) {
      await writer.write(encoder.encode(`${JSON.stringify(message)}\n`));
      const { value, done } = await lines.next();
      if (done) throw new Error(`${module.pathname} ended`);
      const answer = JSON.parse(value) as { readonly ok: T } | { readonly error: string };
      if ("error" in answer) throw new Error(answer.error);
      return answer.ok;
    },
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.status;
      await writer.abort().catch(() => {}); // the pipe is gone
      await lines.return();
    },
  };
}

/** In such a process: answers each line with what `handle` gives for it. */
export async function answerLines<T>(handle: (message: T) => unknown): Promise<void> {
  for await (const line of linesOf(Deno.stdin.readable)) {
    let answer: unknown;
    try {
      answer = { ok: await handle(JSON.parse(line) as T) ?? null };
    } catch (error) {
      answer = { error: error instanceof Error ? error.stack ?? error.message : String(error) };
    }
    Deno.stdout.writeSync(encoder.encode(`${JSON.stringify(answer)}\n`));
  }
  Deno.exit(0); // who asked has gone
}

/** Time that all threads of a process have had a core, in ms, by steps of 10. */
export async function cpuMs(pid: number): Promise<number> {
  const stat = await Deno.readTextFile(`/proc/${pid}/stat`);
  // After the name, which may have spaces: state is field 3, utime 14, stime 15.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

/** What a process has in memory, in bytes: now and at most so far. */
export async function memoryOf(pid: number): Promise<{ readonly rss: number; readonly peak: number }> {
  const status = await Deno.readTextFile(`/proc/${pid}/status`);
  const of = (name: string) => Number(new RegExp(`${name}:\\s*(\\d+) kB`).exec(status)![1]) * 1_024;
  return { rss: of("VmRSS"), peak: of("VmHWM") };
}

/** Lets the peak begin anew at what is in memory now. */
export async function resetPeak(pid: number): Promise<void> {
  await Deno.writeTextFile(`/proc/${pid}/clear_refs`, "5");
}

/** Files that a process of this user may have open at most. */
export async function openFilesMax(): Promise<number> {
  const limits = await Deno.readTextFile("/proc/self/limits");
  return Number(/Max open files\s+\d+\s+(\d+)/.exec(limits)![1]);
}

const encoder = new TextEncoder();
const V8_FLAGS = ["--v8-flags=--max-old-space-size=4096"];

async function* linesOf(stream: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<string, void, void> {
  let rest = "";
  for await (const chunk of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop()!;
    yield* lines;
  }
}
