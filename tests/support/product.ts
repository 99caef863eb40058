/** Starts the whole product as its users do, as a process of its own on free ports and a temporary data folder. */
import { projectFile, ROOT } from "./paths.ts";

/** How long a start may take until it counts as hung, in ms: far above any bar, so that only a hang meets it. */
const READY_DEADLINE_MS = 30_000;
/** How long a drain may take until it counts as hung, in ms: above the sum of the host's own deadlines per stage. */
const STOP_DEADLINE_MS = 30_000;

/** Arguments of `start` that put everything on free ports. */
export const FREE_PORTS: readonly string[] = [
  "gateway.http.port=0",
  "gateway.grpc.port=0",
  "gateway.resp.port=0",
  "quantum.basePort=0",
].flatMap((setting) => ["--set", setting]);

/** A busy machine keeps a healthy worker waiting for longer than the product's default lets pass for health. */
const PATIENCE: readonly string[] = ["--set", "host.heartbeat.timeoutMs=20000"];

/** What to start. */
export interface ProductOptions {
  /** Data folder; a temporary one, removed at the end, when left out. */
  readonly data?: string;
  /** An executable made by deploy/compile.ts; the source tree when left out. */
  readonly executable?: string;
  /** The module that runs in place of main.ts. */
  readonly main?: string;
  /** Whether a keeper runs the host; otherwise the host runs alone. Of no meaning for an executable. */
  readonly keeper?: boolean;
  /** Further arguments of `start`, such as `--set key=value`; they win over the defaults made here. */
  readonly args?: readonly string[];
  /** Variables set besides those of the test's own environment, which reaches the product without `AETHERFLOW_*`. */
  readonly env?: Readonly<Record<string, string>>;
  /** Working directory; the data folder when left out, so that no stray aetherflow.yaml is read. */
  readonly cwd?: string;
}

/** A running product. `await using` kills it at the end of the block if it still runs. */
export interface Product extends AsyncDisposable {
  /** Where HTTP is served, `http://127.0.0.1:port`. */
  readonly url: string;
  /** Where gRPC is served, `127.0.0.1:port`. */
  readonly grpc: string;
  /** Where the Redis protocol is served, `127.0.0.1:port`. */
  readonly resp: string;
  /** Every `name=value` of the ready line. */
  readonly addresses: Readonly<Record<string, string>>;
  /** The data folder. */
  readonly data: string;
  /** The process that was started: the keeper if there is one. */
  readonly pid: number;
  /** The process that has the data folder. */
  hostPid(): Promise<number>;
  /** Everything written to stdout so far. */
  stdout(): string;
  /** Everything written to stderr so far. */
  stderr(): string;
  /** Sends a signal; nothing happens if the process has ended. */
  kill(signal: Deno.Signal): void;
  /** Settles when the process has ended and its output was read. */
  readonly exited: Promise<Deno.CommandStatus>;
  /** Sends SIGTERM, waits for the drain and returns the exit code.
   *  @throws {Error} if it does not end in time; it is killed then. */
  stop(): Promise<number>;
}

/** What a command that ends by itself said. */
export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Starts the product and waits for its ready line.
 *  @throws {Error} with everything it wrote, if it ends or hangs before it is ready. */
export async function startProduct(options: ProductOptions = {}): Promise<Product> {
  const ownData = options.data === undefined;
  const data = options.data ?? await Deno.makeTempDir({ prefix: "aetherflow-test-" });
  await Deno.mkdir(data, { recursive: true });
  const start = ["start", "--data", data, ...FREE_PORTS, ...PATIENCE];
  const child = command(options.executable, [...start, ...(options.args ?? [])], {
    ...options,
    cwd: options.cwd ?? data,
  }).spawn();

  const stdout = collect(child.stdout);
  const stderr = collect(child.stderr);
  const exited = Promise.all([child.status, stdout.ended, stderr.ended]).then(async ([status]) => {
    if (ownData) await Deno.remove(data, { recursive: true });
    return status;
  });

  function kill(signal: Deno.Signal): void {
    try {
      child.kill(signal);
    } catch (error) {
      // It has ended: what the caller wants to reach.
      if (!(error instanceof TypeError) && !(error instanceof Deno.errors.NotFound)) throw error;
    }
  }

  const ready = await within(READY_DEADLINE_MS, Promise.race([stdout.line(/^ready /), exited]));
  if (typeof ready !== "string") {
    kill("SIGKILL");
    const status = await exited;
    const what = ready === undefined
      ? `was not ready within ${READY_DEADLINE_MS} ms`
      : `ended with ${status.code}`;
    throw new Error(`the product ${what}\n${stdout.text()}\n${stderr.text()}`);
  }
  const addresses = Object.fromEntries(
    [...ready.matchAll(/(\S+)=(\S+)/g)].map(([, name, value]) => [name, value]),
  );

  return {
    url: addresses.http ?? "",
    grpc: addresses.grpc ?? "",
    resp: addresses.resp ?? "",
    addresses,
    data,
    pid: child.pid,
    hostPid: async () => Number(await Deno.readTextFile(`${data}/host.lock`)),
    stdout: stdout.text,
    stderr: stderr.text,
    kill,
    exited,
    async stop() {
      kill("SIGTERM");
      const status = await within(STOP_DEADLINE_MS, exited);
      if (status !== undefined) return status.code;
      kill("SIGKILL");
      await exited;
      throw new Error(`the product did not stop within ${STOP_DEADLINE_MS} ms of SIGTERM\n${stderr.text()}`);
    },
    async [Symbol.asyncDispose]() {
      kill("SIGKILL");
      await exited;
    },
  };
}

/** Runs one command of the product's command line to its end.
 *  @throws {Error} if it does not end in time; it is killed then. */
export async function runProduct(
  args: readonly string[],
  options: Omit<ProductOptions, "data" | "args"> = {},
): Promise<Outcome> {
  const child = command(options.executable, args, options).spawn();
  const output = child.output();
  const ended = await within(STOP_DEADLINE_MS, output);
  if (ended === undefined) {
    child.kill("SIGKILL");
    await output;
    throw new Error(`\`${args.join(" ")}\` did not end within ${STOP_DEADLINE_MS} ms`);
  }
  const decoder = new TextDecoder();
  return { code: ended.code, stdout: decoder.decode(ended.stdout), stderr: decoder.decode(ended.stderr) };
}

function command(
  executable: string | undefined,
  args: readonly string[],
  options: ProductOptions,
): Deno.Command {
  const inherited = Object.entries(Deno.env.toObject()).filter(([name]) => !name.startsWith("AETHERFLOW_"));
  const permissions = options.keeper ? "-P=keep" : "-P=start";
  const main = options.main ?? projectFile("main.ts");
  const source = ["run", "-q", "--config", projectFile("deno.json"), permissions, main];
  return new Deno.Command(executable ?? Deno.execPath(), {
    args: executable === undefined ? [...source, ...args] : [...args],
    clearEnv: true,
    env: { ...Object.fromEntries(inherited), ...options.env },
    cwd: options.cwd ?? ROOT,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

/** The promise's value, or undefined after `ms`. */
async function within<T>(ms: number, promise: Promise<T>): Promise<T | undefined> {
  const late = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => late.resolve(undefined), ms);
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

interface Collected {
  /** Everything read so far. */
  text(): string;
  /** The first whole line that matches; never settles if none comes. */
  line(pattern: RegExp): Promise<string>;
  readonly ended: Promise<void>;
}

/** Reads a stream to its end and keeps the text. */
function collect(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Collected {
  let text = "";
  let look: () => void = () => {};

  async function read(): Promise<void> {
    for await (const chunk of stream.pipeThrough(new TextDecoderStream())) {
      text += chunk;
      look();
    }
  }

  return {
    text: () => text,
    line: (pattern) =>
      new Promise((resolve) => {
        look = () => {
          const line = text.split("\n").slice(0, -1).find((line) => pattern.test(line));
          if (line === undefined) return;
          look = () => {};
          resolve(line);
        };
        look();
      }),
    ended: read(),
  };
}
