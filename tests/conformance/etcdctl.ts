/** etcdctl against a real etcd and against the product: the same command lines to both, and what both said as text in
 *  which nothing is left that each server has of its own (ids, addresses, times, sizes). */
import { type Outcome, type Product, startProduct } from "../support/product.ts";
import { BINARIES, requireBinary, type Server, startEtcd } from "../support/server.ts";
import { assert } from "@std/assert";
import { type DescMessage, fromBinary, toJsonString } from "@bufbuild/protobuf";

/** How long one command may take until it counts as hung, in ms. */
const COMMAND_DEADLINE_MS = 30_000;
/** Where commands give up by themselves; etcdctl's own 5 s would make a script over a dead server take minutes. */
const COMMAND_TIMEOUT = "20s";

/** How much of one answer a failure shows, in characters. */
const REPORTED_MAX = 4_000;

/** One server and what it chose by itself. */
export interface Target {
  readonly name: "etcd" | "ours";
  /** Where gRPC is served, `127.0.0.1:port`. */
  readonly address: string;
  /** What it chose (ids, addresses), and how scripts and comparisons call it. */
  readonly names: Map<string, string>;
}

/** A real etcd and the product, both fresh. */
export interface Pair extends AsyncDisposable {
  readonly etcd: Target;
  readonly ours: Target;
  readonly server: Server;
  readonly product: Product;
  /** A folder of their own for what commands write. */
  readonly folder: string;
}

/** Starts both; undefined, with an ignored step, where etcd or etcdctl is not installed. */
export async function startPair(
  t: Deno.TestContext,
  args: readonly string[] = [],
): Promise<Pair | undefined> {
  if (!await requireBinary(t, BINARIES.etcdctl.name, BINARIES.etcdctl.debianPackage)) return undefined;
  await using started = new AsyncDisposableStack();
  const server = await startEtcd(t, { unsafeNoFsync: true, args: ["--bcrypt-cost=4"] });
  if (server === undefined) return undefined;
  started.use(server);
  const product = started.use(await startProduct({ args: ["--set", "kv.durability=none", ...args] }));
  const folder = await Deno.makeTempDir({ prefix: "aetherflow-test-" });
  started.defer(() => Deno.remove(folder, { recursive: true }));
  const [etcd, ours] = await Promise.all([targetOf("etcd", server.address), targetOf("ours", product.grpc)]);
  const all = started.move();
  return { etcd, ours, server, product, folder, [Symbol.asyncDispose]: () => all.disposeAsync() };
}

/** What a server calls itself. */
export async function targetOf(name: Target["name"], address: string): Promise<Target> {
  const response = await fetch(`http://${address}/v3/maintenance/status`, { method: "POST", body: "{}" });
  const { header, version } = await response.json();
  const names = new Map([[address, "<address>"], [version, "<version>"]]);
  nameId(names, BigInt(header.cluster_id), "<cluster>");
  nameId(names, BigInt(header.member_id), "<member>");
  return { name, address, names };
}

/** Gives an id a name, in each of the ways in which it is written. */
function nameId(names: Map<string, string>, id: bigint, name: string): void {
  names.set(id.toString(), name);
  names.set(id.toString(16), name);
  // The way of leases last: it is the one that scripts get.
  names.set(id.toString(16).padStart(16, "0"), name);
}

/** How a command is run. */
export interface Run {
  readonly stdin?: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** Runs etcdctl to its end.
 *  @throws {Error} if it does not end in time; it is killed then. */
export async function etcdctl({ address }: Target, args: readonly string[], run: Run = {}): Promise<Outcome> {
  const child = spawn(address, args, run);
  const timer = setTimeout(() => child.kill("SIGKILL"), COMMAND_DEADLINE_MS);
  try {
    const writer = child.stdin.getWriter();
    const [output] = await Promise.all([child.output(), feed(writer, run.stdin ?? "")]);
    if (output.signal !== null) {
      throw new Error(`etcdctl ${args.join(" ")}: hung, or ended by ${output.signal}`);
    }
    return { code: output.code, stdout: latin1(output.stdout), stderr: latin1(output.stderr) };
  } finally {
    clearTimeout(timer);
  }
}

/** Bytes as text, a character a byte: what commands print is not always text. */
function latin1(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}

async function feed(writer: WritableStreamDefaultWriter<Uint8Array>, text: string): Promise<void> {
  try {
    await writer.write(new TextEncoder().encode(text));
    await writer.close();
  } catch (error) {
    // Commands that read nothing may have ended already.
    if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
  }
}

/** A command that goes on until it is killed; disposing kills it. */
export class Running implements AsyncDisposable {
  /** Settles with how it ended. */
  readonly ended: Promise<Deno.CommandStatus>;
  readonly #target: Target;
  readonly #line: string;
  readonly #child: Deno.ChildProcess;
  readonly #stdin: WritableStreamDefaultWriter<Uint8Array>;
  readonly #read: Promise<unknown>;
  #stdout = "";
  #stderr = "";
  #look: () => void = () => {};

  /** Starts it; stdin stays open after `stdin`. */
  constructor(target: Target, line: string, stdin = "") {
    this.#target = target;
    this.#line = line;
    this.#child = spawn(target.address, words(line), {});
    this.#stdin = this.#child.stdin.getWriter();
    const written = this.#stdin.write(new TextEncoder().encode(stdin));
    const stdout = this.#collect(this.#child.stdout, (text) => this.#stdout += text);
    const stderr = this.#collect(this.#child.stderr, (text) => this.#stderr += text);
    this.#read = Promise.all([written, stdout, stderr]);
    this.ended = this.#child.status;
  }

  /** What it wrote so far. */
  get stdout(): string {
    return this.#stdout;
  }

  /** What it wrote so far, without what the server has of its own. */
  neutral(): string {
    return [this.#stdout, this.#stderr].map((text) => neutral(this.#target, text)).join("--\n");
  }

  /** Settles when it wrote the pattern.
   *  @throws {Error} with what it wrote, if it does not within the deadline. */
  async until(pattern: RegExp): Promise<void> {
    const seen = Promise.withResolvers<void>();
    const timer = setTimeout(() => {
      const { name } = this.#target;
      seen.reject(new Error(`${name}: ${this.#line}: no ${pattern} in\n${this.#stdout}${this.#stderr}`));
    }, COMMAND_DEADLINE_MS);
    this.#look = () => {
      if (pattern.test(this.#stdout)) seen.resolve();
    };
    this.#look();
    try {
      await seen.promise;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Sends a signal; nothing happens if it has ended. */
  kill(signal: Deno.Signal): void {
    try {
      this.#child.kill(signal);
    } catch (error) {
      if (!(error instanceof TypeError) && !(error instanceof Deno.errors.NotFound)) throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.kill("SIGKILL");
    await Promise.all([this.ended, this.#read]);
    await this.#stdin.abort();
  }

  async #collect(stream: ReadableStream<Uint8Array>, add: (text: string) => void): Promise<void> {
    for await (const bytes of stream) {
      add(latin1(bytes));
      this.#look();
    }
  }
}

function spawn(address: string, args: readonly string[], run: Run): Deno.ChildProcess {
  return new Deno.Command("etcdctl", {
    args: [`--endpoints=${address}`, `--command-timeout=${COMMAND_TIMEOUT}`, ...args],
    clearEnv: true,
    env: { PATH: Deno.env.get("PATH") ?? "", ETCDCTL_API: "3", ...run.env },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** One step of a script: a command line, where `'…'` keeps blanks and `{name}` is what that server chose. */
export type Step = string | CommandStep;

/** A command line and more about it. */
export interface CommandStep extends Run {
  readonly run: string;
  /** Makes equal what may differ, on top of what always is. */
  readonly leaveOut?: readonly RegExp[];
  /** The name for the lease that the command grants. */
  readonly lease?: string;
  /** What the binary output is. */
  readonly as?: DescMessage;
  /** Whether the lines' order is left open. */
  readonly isUnordered?: boolean;
}

/** Runs every step at both, and fails with all the differences in what they said. Returns how many steps succeeded, so
 *  that a script can make sure that it did not compare refusals only. */
export async function compare({ etcd, ours }: Pair, script: readonly Step[]): Promise<number> {
  const [expected, actual] = await Promise.all([sayAll(etcd, script), sayAll(ours, script)]);
  const differences = expected.flatMap((real, i) => {
    const mine = actual[i]!;
    if (real === mine) return [];
    return [`-- etcd: ${real.slice(0, REPORTED_MAX)}\n-- ours: ${mine.slice(0, REPORTED_MAX)}`];
  });
  assert(differences.length === 0, `\n${differences.join("\n\n")}`);
  return expected.filter((said) => /^exit 0$/m.test(said)).length;
}

/** Runs every step at one, and returns what was said. */
export async function sayAll(target: Target, script: readonly Step[]): Promise<string[]> {
  const said: string[] = [];
  for (const step of script) {
    const text = await say(target, step);
    // No script waits for a server in vain; those steps that are to time out say so themselves.
    assert(
      !text.includes("deadline exceeded") || text.includes("--command-timeout"),
      `${target.name}: ${text}`,
    );
    said.push(text);
  }
  return said;
}

async function say(target: Target, step: Step): Promise<string> {
  const command: CommandStep = typeof step === "string" ? { run: step } : step;
  const { run: line, leaveOut = [], lease, as, isUnordered } = command;
  const known = new Map([...target.names].map(([value, name]) => [name.slice(1, -1), value]));
  const args = words(line.replaceAll(/\{(\w+)\}/g, (whole, name) => known.get(name) ?? whole));
  const { code, stdout: output, stderr } = await etcdctl(target, args, command);
  const stdout = as === undefined ? output : decoded(as, output);
  const [, id] = /^lease (\w+) granted with TTL\(\d+s\)$/m.exec(stdout) ?? [];
  if (id !== undefined) nameId(target.names, BigInt(`0x${id}`), `<${lease ?? "unnamed"}>`);
  const said = [stdout, stderr].map((text) => {
    const result = neutral(target, text, leaveOut);
    return isUnordered ? result.split("\n").sort().join("\n") : result;
  });
  return `$ etcdctl ${line}\nexit ${code}\n${said.join("--\n")}`;
}

/** A message printed as protobuf, as JSON. */
function decoded(schema: DescMessage, latin1: string): string {
  const bytes = Uint8Array.from(latin1, (character) => character.charCodeAt(0));
  return `${toJsonString(schema, fromBinary(schema, bytes), { useProtoFieldName: true })}\n`;
}

/** The words of a command line. */
export function words(line: string): string[] {
  return [...line.matchAll(/(?:'[^']*'|[^\s'])+/g)].map(([word]) => word.replaceAll("'", ""));
}

/** The text without what each server has of its own. */
export function neutral({ names }: Target, text: string, leaveOut: readonly RegExp[] = []): string {
  let result = text;
  for (const [value, name] of names) {
    result = result.replaceAll(new RegExp(`(?<![\\w.])${escape(value)}(?![\\w.])`, "g"), name);
  }
  for (const [pattern, replacement] of [...OWN, ...INTENDED]) {
    result = result.replaceAll(pattern, replacement);
  }
  for (const pattern of leaveOut) result = result.replaceAll(pattern, "…");
  return result;
}

function escape(text: string): string {
  return text.replaceAll(/[.[\]]/g, "\\$&");
}

/** What differs from run to run anywhere. */
const OWN: readonly [RegExp, string][] = [
  [/"ts":("[^"]*"|[\d.e+]+)/g, '"ts":"…"'],
  [/endpoint:\/\/client-[-\w]*\//g, "endpoint://client/"],
  [/("raft_term":"?)\d+/g, "$1…"],
  [/("RaftTerm" :) \d+/g, "$1 …"],
  [/(took = |"took":"|took )[\d.]+(?:µ|Âµ|m|n)?s/g, "$1…"],
];

/** Differences that are meant; services/kv/README.md says why. Put in the words of AetherFlow. */
const INTENDED: readonly [RegExp, string][] = [
  // Maintenance refuses with a code, as the other services do.
  [
    /(?<="error":"rpc error: code = )Unknown desc = auth(?=: permission denied")/g,
    "PermissionDenied desc = etcdserver",
  ],
  [/(?<=\()rpc error: code = Unknown desc = auth(?=: permission denied\))/g, "etcdserver"],
];
