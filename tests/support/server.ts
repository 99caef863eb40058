/** Starts the real servers that tests compare with: private instances on free ports of 127.0.0.1 with temporary folders.
 *
 *  ```ts
 *  Deno.test("a put is seen", async (t) => {
 *    await using etcd = await startEtcd(t);
 *    if (etcd === undefined) return; // skipped, and reported as such
 *    …
 *  });
 *  ```
 *
 *  Where a server's binary is missing, the test has an ignored step that names the Debian package. With
 *  `AETHERFLOW_REQUIRE_SERVERS=1` it fails instead, so that CI cannot pass by skipping. */

/** How long a start may take until it counts as hung, in ms: far above what a busy machine needs. */
const READY_DEADLINE_MS = 30_000;
/** How long a server may take to end after SIGTERM, in ms; it is killed then. */
const STOP_DEADLINE_MS = 10_000;
/** Pause between two questions whether a server is ready, in ms. */
const POLL_MS = 10;
/** Starts on other ports when somebody took the chosen ones between choosing and binding. */
const PORT_ATTEMPTS = 5;

/** What servers of tests have in common. */
export interface ServerOptions {
  /** Further arguments of the command; they win over the defaults made here. */
  readonly args?: readonly string[];
  /** Data folder; a temporary one, removed at the end, when left out. */
  readonly dataDirectory?: string;
}

/** What can be chosen of an etcd. */
export interface EtcdOptions extends ServerOptions {
  /** Whether commits skip fsync, which is faster and durable against SIGKILL still; false when left out. */
  readonly unsafeNoFsync?: boolean;
}

/** What can be chosen of a Redis. */
export interface RedisOptions extends ServerOptions {
  /** When the append-only file is synced; no file at all when left out. */
  readonly appendFsync?: "always" | "everysec" | "no";
}

/** As whom tests connect to a PostgreSQL server, and to which database. */
export const POSTGRES_LOGIN = {
  username: "aetherflow",
  password: "not a secret",
  database: "postgres",
} as const;

/** A running server. `await using` kills it at the end of the block and removes what it wrote. */
export interface Server extends AsyncDisposable {
  /** Where clients connect, `127.0.0.1:port`. It stays the same over restarts. */
  readonly address: string;
  readonly port: number;
  readonly dataDirectory: string;
  /** The process that runs now. */
  readonly pid: number;
  /** Everything it wrote to stdout and stderr so far. */
  log(): Promise<string>;
  /** Sends SIGTERM and waits for the end; does nothing when it has ended. */
  stop(): Promise<void>;
  /** Sends SIGKILL and waits for the end; does nothing when it has ended. */
  kill(): Promise<void>;
  /** Stops it if it runs, starts it again on the same port and data, and waits until it answers. */
  restart(): Promise<void>;
}

/** A command tests may need, and where Debian has it. */
export interface Binary {
  readonly name: string;
  readonly debianPackage: string;
}

/** Where Debian has the commands that tests use. */
export const BINARIES = {
  etcd: { name: "etcd", debianPackage: "etcd-server" },
  etcdctl: { name: "etcdctl", debianPackage: "etcd-client" },
  redisServer: { name: "redis-server", debianPackage: "redis-server" },
  redisCli: { name: "redis-cli", debianPackage: "redis-tools" },
  chromium: { name: "chromium", debianPackage: "chromium" },
  postgres: { name: "postgres", debianPackage: "postgresql" },
  redisBenchmark: { name: "redis-benchmark", debianPackage: "redis-tools" },
} as const satisfies Record<string, Binary>;

/** Whether the command is there. If not, the test gets an ignored step that says which package to install; the test
 *  should return then.
 *  @throws {Error} if it is missing and `AETHERFLOW_REQUIRE_SERVERS` is 1. */
export async function requireBinary(
  t: Deno.TestContext,
  name: string,
  debianPackage: string,
): Promise<boolean> {
  if (await isInstalled(name)) return true;
  const missing = `${name} is not installed: apt-get install ${debianPackage}`;
  if (Deno.env.get("AETHERFLOW_REQUIRE_SERVERS") === "1") throw new Error(missing);
  await t.step({ name: missing, ignore: true, fn() {} });
  return false;
}

/** Starts an etcd with one member and waits until it answers; undefined, with an ignored step, if it is not installed.
 *  @throws {Error} with its log if it ends or hangs before it is ready. */
export async function startEtcd(
  t: Deno.TestContext,
  options: EtcdOptions = {},
): Promise<Server | undefined> {
  const { name, debianPackage } = BINARIES.etcd;
  return await requireBinary(t, name, debianPackage) ? await openEtcd(options) : undefined;
}

/** Starts a Redis and waits until it answers; undefined, with an ignored step, if it is not installed.
 *  @throws {Error} with its log if it ends or hangs before it is ready. */
export async function startRedis(
  t: Deno.TestContext,
  options: RedisOptions = {},
): Promise<Server | undefined> {
  const { name, debianPackage } = BINARIES.redisServer;
  return await requireBinary(t, name, debianPackage) ? await openRedis(options) : undefined;
}

/** Starts an etcd, which must be installed; for what is no test, such as a bench. See `startEtcd`. */
export function openEtcd(options: EtcdOptions = {}): Promise<Server> {
  return open(options, {
    command: "etcd",
    ports: 2,
    args: ([client, peer], data) => [
      `--data-dir=${data}/etcd`,
      `--listen-client-urls=http://127.0.0.1:${client}`,
      `--advertise-client-urls=http://127.0.0.1:${client}`,
      `--listen-peer-urls=http://127.0.0.1:${peer}`,
      `--initial-advertise-peer-urls=http://127.0.0.1:${peer}`,
      `--initial-cluster=default=http://127.0.0.1:${peer}`,
      "--logger=zap",
      ...(options.unsafeNoFsync ? ["--unsafe-no-fsync"] : []),
    ],
    async answers(port) {
      const response = await fetch(`http://127.0.0.1:${port}/health`);
      return (await response.text()).includes('"health":"true"');
    },
  });
}

/** Starts a Redis, which must be installed; for what is no test, such as a bench. See `startRedis`. */
export function openRedis(options: RedisOptions = {}): Promise<Server> {
  return open(options, {
    command: "redis-server",
    ports: 1,
    args: ([port], data) =>
      [
        `--port ${port}`,
        "--bind 127.0.0.1",
        `--dir ${data}`,
        '--save ""',
        ...(options.appendFsync === undefined
          ? ["--appendonly no"]
          : ["--appendonly yes", `--appendfsync ${options.appendFsync}`]),
      ].flatMap((setting) => setting.split(" ").map((word) => word === '""' ? "" : word)),
    async answers(port) {
      using connection = await Deno.connect({ hostname: "127.0.0.1", port });
      await connection.write(new TextEncoder().encode("PING\r\n"));
      const answer = new Uint8Array(64);
      const length = await connection.read(answer) ?? 0;
      return new TextDecoder().decode(answer.subarray(0, length)) === "+PONG\r\n";
    },
  });
}

/** Starts a PostgreSQL and waits until it answers; undefined, with an ignored step, if it is not installed. Clients log in as
 *  POSTGRES_LOGIN says.
 *  @throws {Error} with its log if it ends or hangs before it is ready. */
export async function startPostgres(
  t: Deno.TestContext,
  options: ServerOptions = {},
): Promise<Server | undefined> {
  if (await postgresFolder() !== undefined) return await openPostgres(options);
  const { name, debianPackage } = BINARIES.postgres;
  await requireBinary(t, name, debianPackage);
  return undefined;
}

/** Starts a PostgreSQL, which must be installed; for what is no test, such as a bench. See `startPostgres`. */
export async function openPostgres(options: ServerOptions = {}): Promise<Server> {
  const folder = await postgresFolder();
  if (folder === undefined) throw new Error(`${BINARIES.postgres.name} is not installed`);
  // It does not run as root; the package's own user has nothing else to do here.
  const isRoot = Deno.uid() === 0;
  const runner = isRoot ? ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] : [];
  return await open(options, {
    command: `${folder}/postgres`,
    runner,
    ports: 1,
    // Fast: it does not wait for its clients to go.
    stopSignal: "SIGINT",
    // After a kill, what the last one's processes shared may be there for a moment.
    startsAgain: /pre-existing shared memory block|lock file "postmaster.pid" already exists/,
    async prepare(scratch, data) {
      if (isRoot) await run(["chown", "postgres:", scratch, data], scratch);
      const passwordFile = `${scratch}/password`;
      await Deno.writeTextFile(passwordFile, POSTGRES_LOGIN.password);
      await Deno.chmod(passwordFile, 0o644);
      if (await isFile(`${data}/postgres/PG_VERSION`)) return;
      await run([
        ...runner,
        `${folder}/initdb`,
        `--pgdata=${data}/postgres`,
        `--username=${POSTGRES_LOGIN.username}`,
        `--pwfile=${passwordFile}`,
        "--auth-host=scram-sha-256",
        "--auth-local=trust",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--no-sync",
      ], scratch);
    },
    args: ([port], data, scratch) => [
      "-D",
      `${data}/postgres`,
      "-p",
      String(port),
      "-c",
      "listen_addresses=127.0.0.1",
      "-c",
      `unix_socket_directories=${scratch}`,
    ],
    async answers(port) {
      const { code } = await new Deno.Command(`${folder}/pg_isready`, {
        args: ["-h", "127.0.0.1", "-p", String(port)],
        stdout: "null",
        stderr: "null",
      }).output();
      return code === 0;
    },
  });
}

/** Where PostgreSQL's commands are: Debian has them outside the PATH, a folder for each version. */
async function postgresFolder(): Promise<string | undefined> {
  const versions: string[] = [];
  try {
    for await (const { name } of Deno.readDir("/usr/lib/postgresql")) versions.push(name);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  for (const version of versions.sort((a, b) => Number(b) - Number(a))) {
    const folder = `/usr/lib/postgresql/${version}/bin`;
    if (await isFile(`${folder}/initdb`)) return folder;
  }
  return undefined;
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await Deno.stat(path)).isFile;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Runs a command to its end. @throws {Error} with what it wrote, if it fails. */
async function run([command, ...args]: readonly string[], cwd: string): Promise<void> {
  const { success, stderr } = await new Deno.Command(command!, { args, cwd, stdout: "null" }).output();
  if (!success) throw new Error(`${command} ${args.join(" ")} failed: ${new TextDecoder().decode(stderr)}`);
}

/** How one kind of server is run. */
interface Kind {
  readonly command: string;
  /** The command that runs it, if one is needed, with its arguments. */
  readonly runner?: readonly string[];
  /** What asks it to end; SIGTERM when left out. */
  readonly stopSignal?: Deno.Signal;
  /** What it says when it cannot start yet, but will soon. */
  readonly startsAgain?: RegExp;
  /** Runs once, before the first start. */
  readonly prepare?: (scratch: string, dataDirectory: string) => Promise<void>;
  /** How many ports it listens on; the first is the clients'. */
  readonly ports: number;
  args(ports: readonly number[], dataDirectory: string, scratch: string): readonly string[];
  /** Asks something real of it. May throw while nobody listens. */
  answers(port: number): Promise<boolean>;
}

/** One process of a server. */
interface Run {
  readonly child: Deno.ChildProcess;
  /** Settles when it has ended and its output is in the log. */
  readonly ended: Promise<void>;
}

async function open(options: ServerOptions, kind: Kind): Promise<Server> {
  const ownData = options.dataDirectory === undefined;
  const name = kind.command.split("/").at(-1)!;
  const scratch = await Deno.makeTempDir({ prefix: `aetherflow-${name}-` });
  const dataDirectory = options.dataDirectory ?? scratch;
  const logFile = `${scratch}/output.log`;

  function start(ports: readonly number[]): Run {
    const args = [...kind.args(ports, dataDirectory, scratch), ...(options.args ?? [])];
    const [command, ...words] = [...kind.runner ?? [], kind.command, ...args];
    const child = new Deno.Command(command!, {
      args: words,
      clearEnv: true, // etcd reads ETCD_* as flags
      env: { PATH: Deno.env.get("PATH") ?? "" },
      cwd: scratch,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const ended = Promise.all([child.status, append(child.stdout), append(child.stderr)]).then(() => {});
    return { child, ended };
  }

  async function append(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> {
    const file = await Deno.open(logFile, { create: true, append: true });
    await stream.pipeTo(file.writable);
  }

  const log = () => Deno.readTextFile(logFile);

  /** Resolves to whether it answers; false if it has ended. */
  async function ready(run: Run, port: number): Promise<boolean> {
    let ended = false;
    run.ended.then(() => ended = true);
    const deadline = performance.now() + READY_DEADLINE_MS;
    while (performance.now() < deadline) {
      if (ended) return false;
      try {
        if (await kind.answers(port)) return true;
      } catch {
        // Nobody listens yet.
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
    signal(run, "SIGKILL");
    await run.ended;
    return false;
  }

  async function end(run: Run, first: Deno.Signal): Promise<void> {
    signal(run, first);
    const timer = setTimeout(() => signal(run, "SIGKILL"), STOP_DEADLINE_MS);
    await run.ended;
    clearTimeout(timer);
  }

  async function clean(): Promise<void> {
    await Deno.remove(scratch, { recursive: true });
    if (ownData && dataDirectory !== scratch) await Deno.remove(dataDirectory, { recursive: true });
  }

  let ports: readonly number[] = [];
  let run: Run | undefined;
  try {
    await kind.prepare?.(scratch, dataDirectory);
  } catch (error) {
    await clean();
    throw error;
  }
  for (let attempt = 1; run === undefined; attempt++) {
    ports = freePorts(kind.ports);
    const started = start(ports);
    if (await ready(started, ports[0] ?? 0)) {
      run = started;
    } else {
      const said = await log();
      if (attempt < PORT_ATTEMPTS && /address already in use/i.test(said)) continue;
      await clean();
      throw new Error(`${name} did not get ready\n${said}`);
    }
  }

  let current: Run = run;
  const stopSignal = kind.stopSignal ?? "SIGTERM";
  const port = ports[0] ?? 0;
  return {
    address: `127.0.0.1:${port}`,
    port,
    dataDirectory,
    get pid() {
      return current.child.pid;
    },
    log,
    stop: () => end(current, stopSignal),
    kill: () => end(current, "SIGKILL"),
    async restart() {
      await end(current, stopSignal);
      for (let attempt = 1;; attempt++) {
        current = start(ports);
        if (await ready(current, port)) return;
        const said = await log();
        if (attempt < PORT_ATTEMPTS && kind.startsAgain?.test(said)) continue;
        throw new Error(`${name} did not get ready again\n${said}`);
      }
    },
    async [Symbol.asyncDispose]() {
      await end(current, "SIGKILL");
      await clean();
    },
  };
}

/** Sends a signal; nothing happens if the process has ended. */
function signal({ child }: Run, name: Deno.Signal): void {
  try {
    child.kill(name);
  } catch (error) {
    if (!(error instanceof TypeError) && !(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** Ports nobody listened on a moment ago, all different. */
function freePorts(count: number): number[] {
  const listeners = Array.from({ length: count }, () => Deno.listen({ hostname: "127.0.0.1", port: 0 }));
  const ports = listeners.map((listener) => listener.addr.port);
  for (const listener of listeners) listener.close();
  return ports;
}

async function isInstalled(name: string): Promise<boolean> {
  for (const folder of (Deno.env.get("PATH") ?? "").split(":")) {
    try {
      const { isFile, mode } = await Deno.stat(`${folder || "."}/${name}`);
      if (isFile && ((mode ?? 0) & 0o111) !== 0) return true;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound) && !(error instanceof Deno.errors.NotADirectory)) {
        throw error;
      }
    }
  }
  return false;
}
