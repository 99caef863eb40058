/** etcdctl against a real etcd and against the product: the same command lines to both, and what both said as text in
 *  which nothing is left that each server has of its own (ids, addresses, times, sizes). */
import { type Outcome, type Product, startProduct } from "../support/product.ts";
import { BINARIES, requireBinary, type Server, startEtcd } from "../support/server.ts";
import { assertEquals } from "@std/assert";

/** How long one command may take until it counts as hung, in ms. */
const COMMAND_DEADLINE_MS = 30_000;

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
  const server = await startEtcd(t, { unsafeNoFsync: true });
  if (server === undefined) return undefined;
  started.use(server);
  const product = started.use(await startProduct({ args: ["--set", "kv.durability=none", ...args] }));
  const folder = await Deno.makeTempDir({ prefix: "aetherflow-test-" });
  started.defer(() => Deno.remove(folder, { recursive: true }));
  const [etcd, ours] = await Promise.all([target("etcd", server.address), target("ours", product.grpc)]);
  const all = started.move();
  return { etcd, ours, server, product, folder, [Symbol.asyncDispose]: () => all.disposeAsync() };
}

async function target(name: Target["name"], address: string): Promise<Target> {
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
    const latin1 = new TextDecoder("latin1");
    return { code: output.code, stdout: latin1.decode(output.stdout), stderr: latin1.decode(output.stderr) };
  } finally {
    clearTimeout(timer);
  }
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

function spawn(address: string, args: readonly string[], run: Run): Deno.ChildProcess {
  return new Deno.Command("etcdctl", {
    args: [`--endpoints=${address}`, ...args],
    clearEnv: true,
    env: { PATH: Deno.env.get("PATH") ?? "", ETCDCTL_API: "3", ...run.env },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** One step of a script: a command line, where `'…'` keeps blanks and `{name}` is what that server chose. */
export type Step =
  | string
  | (Run & {
    readonly run: string;
    /** Makes equal what may differ, on top of what always is. */
    readonly leaveOut?: readonly RegExp[];
    /** The name for the lease that the command grants. */
    readonly lease?: string;
  });

/** Runs every step at both, and fails with all the differences in what they said. */
export async function compare({ etcd, ours }: Pair, script: readonly Step[]): Promise<void> {
  const expected: string[] = [];
  const actual: string[] = [];
  for (const step of script) {
    const [real, mine] = await Promise.all([say(etcd, step), say(ours, step)]);
    if (real === mine) continue;
    expected.push(real);
    actual.push(mine);
  }
  assertEquals(actual.join("\n"), expected.join("\n"));
}

async function say(target: Target, step: Step): Promise<string> {
  const { run: line, leaveOut = [], lease, ...run } = typeof step === "string" ? { run: step } : step;
  const known = new Map([...target.names].map(([value, name]) => [name.slice(1, -1), value]));
  const args = words(line.replaceAll(/\{(\w+)\}/g, (whole, name) => known.get(name) ?? whole));
  const { code, stdout, stderr } = await etcdctl(target, args, run);
  if (lease !== undefined) {
    const [, id] = /lease (\w+) granted/.exec(stdout) ?? [];
    // The hexadecimal last: it is the one that scripts get.
    if (id !== undefined) nameId(target.names, BigInt(`0x${id}`), `<${lease}>`);
  }
  const said = [stdout, stderr].map((text) => neutral(target, text, leaveOut));
  return `$ etcdctl ${line}\nexit ${code}\n${said.join("--\n")}`;
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
  for (const [pattern, replacement] of OWN) result = result.replaceAll(pattern, replacement);
  for (const pattern of leaveOut) result = result.replaceAll(pattern, "…");
  return result;
}

function escape(text: string): string {
  return text.replaceAll(/[.[\]]/g, "\\$&");
}

/** What differs from run to run anywhere. */
const OWN: readonly [RegExp, string][] = [
  [/"ts":"[^"]*"/g, '"ts":"…"'],
  [/endpoint:\/\/client-[-\w]*\//g, "endpoint://client/"],
  [/("raft_term":)\d+/g, "$1…"],
  [/("RaftTerm" :) \d+/g, "$1 …"],
  [/(took = |"took":"|took )[\d.]+[µmn]?s/g, "$1…"],
];
