import { assertEquals } from "@std/assert";
import {
  type HostEnd,
  keep,
  type KeptHost,
  LIFE_LINE_FLAG,
  TELEMETRY_FLAG,
  telemetryLine,
} from "./keeper.ts";

/** A child that the test plays. */
class FakeHost implements KeptHost {
  readonly #stdout = new TransformStream<Uint8Array, Uint8Array>(undefined, { highWaterMark: 100 });
  readonly #writer = this.#stdout.writable.getWriter();
  readonly #ended = Promise.withResolvers<HostEnd>();
  readonly stdout = this.#stdout.readable;
  readonly ended = this.#ended.promise;
  wishes = 0;
  killed = false;
  reloads = 0;
  constructor(readonly args: readonly string[], readonly env: Readonly<Record<string, string>>) {}
  say(text: string): void {
    void this.#writer.write(new TextEncoder().encode(text));
  }
  end(end: number | Deno.Signal): void {
    void this.#writer.close();
    this.#ended.resolve(typeof end === "number" ? { code: end, signal: null } : { code: 137, signal: end });
  }
  stop(): void {
    this.wishes++;
  }
  reload(): void {
    this.reloads++;
  }
  kill(): void {
    this.killed = true;
    this.end("SIGKILL");
  }
}

const READY = "ready http=http://127.0.0.1:4711 quantum=127.0.0.1:7400 data=./data in=400ms\n";

/** A keeper whose children and clock the test plays. */
function world(args = ["start", "--data", "d"]) {
  const hosts: FakeHost[] = [];
  const lines: string[] = [];
  const waits: { ms: number; over: () => void }[] = [];
  let printed = "";
  let now = 0;
  let signal = () => {};
  let hangUp = () => {};
  const code = keep(args, {
    spawn(args, env) {
      hosts.push(new FakeHost(args, env));
      return hosts.at(-1)!;
    },
    onStop: (then) => signal = then,
    onReload: (then) => hangUp = then,
    now: () => now,
    wait: (ms, signal) =>
      new Promise((over) => {
        waits.push({ ms, over });
        signal?.addEventListener("abort", () => over());
      }),
    print: (bytes) => printed += new TextDecoder().decode(bytes),
    complain: (line) => lines.push(line),
  });
  /** Lets everything that has happened be heard. */
  const settle = () => new Promise((resolve) => setTimeout(resolve));
  return {
    code,
    hosts,
    lines,
    waits,
    settle,
    printed: () => printed,
    signal: () => signal(),
    hangUp: () => hangUp(),
    pass: (ms: number) => now += ms,
    /** Ends the host that runs and lets the next one start, after its wait if it has one. */
    async end(how: number | Deno.Signal) {
      hosts.at(-1)!.end(how);
      await settle();
      const wait = waits.shift();
      if (wait === undefined) return;
      now += wait.ms;
      wait.over();
      await settle();
    },
  };
}

Deno.test("keep() passes output and exit code of a host that ends by itself on, and starts no other", async () => {
  for (const ended of [0, 1, 2, 10, 14, 15]) {
    const { code, hosts, lines, printed } = world();
    hosts[0]!.say("one: 1\ntw");
    hosts[0]!.say("o: 2");
    hosts[0]!.end(ended);
    assertEquals(await code, ended);
    assertEquals([hosts.length, lines, printed()], [1, [], "one: 1\ntwo: 2"]);
    assertEquals(hosts[0]!.args, ["start", "--life-line", "--data", "d"]);
  }
});

for (
  const [how, why] of [["SIGKILL", "it was ended by SIGKILL"], [75, "a worker is stuck"]] as const
) {
  Deno.test(`keep() starts a host that ended with ${how} again at once, on its port, with one ready line`, async () => {
    const { code, hosts, lines, waits, end, settle, printed } = world();
    hosts[0]!.say(READY.slice(0, 20));
    hosts[0]!.say(READY.slice(20));
    await settle();
    assertEquals(printed(), READY);
    await end(how);
    assertEquals([lines, waits], [[`restarting the product: ${why}`], []]);
    assertEquals(hosts[1]!.args, ["start", "--life-line", "--data", "d", "--set", "gateway.http.port=4711"]);
    hosts[1]!.say(READY);
    hosts[1]!.say("more\n");
    hosts[1]!.end(0);
    assertEquals([await code, printed()], [0, `${READY}more\n`]);
  });
}

Deno.test("keep() knows the ready line in JSON", async () => {
  const { code, hosts, end, printed } = world();
  const line = '{"ready":true,"http":"http://[::1]:4711","grpc":"[::1]:4712","tookMs":400}\n';
  hosts[0]!.say(line);
  await end("SIGSEGV");
  assertEquals(hosts[1]!.args.slice(-4), [
    "--set",
    "gateway.http.port=4711",
    "--set",
    "gateway.grpc.port=4712",
  ]);
  hosts[1]!.say(line);
  hosts[1]!.end(0);
  assertEquals([await code, printed()], [0, line]);
});

Deno.test("keep() prints the ready line of a host that was restarted before it was ready", async () => {
  const { code, hosts, end, printed } = world();
  await end("SIGKILL");
  assertEquals(hosts[1]!.args, ["start", "--life-line", "--data", "d"]);
  hosts[1]!.say(READY);
  hosts[1]!.end(0);
  assertEquals([await code, printed()], [0, READY]);
});

Deno.test("keep() puts more time between restarts each time and gives up after ten within a minute", async () => {
  const { code, hosts, lines, end } = world();
  for (let i = 0; i < 10; i++) await end("SIGKILL");
  assertEquals(hosts.length, 11);
  hosts[10]!.end(75);
  assertEquals(await code, 14);
  assertEquals(lines.map((line) => /in (\d+) ms/.exec(line)?.[1] ?? "0"), [
    ...["0", "100", "200", "400", "800", "1600", "3200", "6400", "10000", "10000"],
    "60000",
  ]);
  assertEquals(lines.at(-1), "given up after 10 restarts within 60000 ms: a worker is stuck");
});

Deno.test("keep() starts a host again at once that ran for longer than the wait", async () => {
  const { code, hosts, lines, end, pass } = world();
  for (const ranMs of [1, 99, 150, 401, 100]) {
    pass(ranMs);
    await end("SIGKILL");
  }
  assertEquals(lines.map((line) => /in (\d+) ms/.exec(line)?.[1] ?? "0"), ["0", "1", "50", "0", "700"]);
  hosts.at(-1)!.end(0);
  assertEquals(await code, 0);
});

Deno.test("keep() forgets restarts that are older than the window", async () => {
  const { code, hosts, lines, end, pass } = world();
  for (let i = 0; i < 25; i++) {
    await end("SIGKILL");
    pass(7_000);
  }
  assertEquals(lines.filter((line) => line.startsWith("given up")), []);
  hosts.at(-1)!.end(0);
  assertEquals(await code, 0);
});

Deno.test("keep() passes a wish to stop on and ends with the host, however that ends", async () => {
  for (const [how, expected] of [[0, 0], [15, 15], [75, 75], ["SIGTERM", 137]] as const) {
    const { code, hosts, lines, signal } = world();
    signal();
    assertEquals(hosts[0]!.wishes, 1);
    hosts[0]!.end(how);
    assertEquals([await code, lines, hosts.length], [expected, [], 1]);
  }
});

Deno.test("keep() passes the second wish on and kills a host that does not follow it", async () => {
  const { code, hosts, waits, signal } = world();
  signal();
  signal();
  assertEquals([hosts[0]!.wishes, waits.map(({ ms }) => ms)], [2, [2_000]]);
  waits[0]!.over();
  assertEquals(await code, 15);
  assertEquals(hosts[0]!.killed, true);
});

Deno.test("keep() starts no host when it is told to stop while it waits for a restart", async () => {
  const { code, hosts, waits, end, settle, signal } = world();
  await end("SIGKILL");
  hosts[1]!.end("SIGKILL");
  await settle();
  assertEquals(waits.map(({ ms }) => ms), [100]);
  signal();
  assertEquals([await code, hosts.length], [0, 2]);
});

Deno.test("keep() passes a signal to read the configuration again on to the host that runs", async () => {
  const { hosts, hangUp, end, code } = world();
  hangUp();
  await end(75);
  hangUp();
  hangUp();
  assertEquals(hosts.map(({ reloads }) => reloads), [1, 2]);
  await end(0);
  assertEquals(await code, 0);
});

Deno.test("keep() starts a host that wants to export its traces again with its variables, and every later one", async () => {
  const { hosts, end, code, lines, printed, settle } = world();
  const env = { OTEL_DENO: "true", OTEL_SERVICE_NAME: "a b" };
  hosts[0]!.say(`${telemetryLine(env)}\n`);
  hosts[0]!.end(75);
  await settle();
  hosts[1]!.say(READY);
  await end(75);
  assertEquals(hosts.map(({ env }) => env), [{}, env, env]);
  const flags = hosts.map(({ args }) => args.slice(1, -2));
  assertEquals(flags.slice(0, 2), [[LIFE_LINE_FLAG], [LIFE_LINE_FLAG, TELEMETRY_FLAG]]);
  // The change of environment is no restart to tell of.
  assertEquals([lines.length, printed()], [1, READY]);
  await end(0);
  assertEquals(await code, 0);
});
