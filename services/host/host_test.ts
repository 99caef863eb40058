/** The supervisor with real threads and real Quantum, on free ports; the workers are testing/worker.ts. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import type { WorkerPlan } from "./plan.ts";
import { loadConfig } from "./config.ts";
import { EXIT, HostError } from "./exit_code.ts";
import { type Host, openHost } from "./host.ts";
import { optionsOf, superviseWorker } from "./spawn.ts";
import type { Misdeed } from "./testing/worker.ts";

/** Where the test's workers come from. */
const ENTRY = new URL("./testing/worker.ts", import.meta.url);

interface World extends AsyncDisposable {
  readonly host: Host;
  readonly data: string;
  /** Tells the worker that runs under this name now. */
  tell(name: string, misdeed: Misdeed): void;
  /** Settles with the first log line of this message and worker that comes after all lines seen so far. */
  logged(message: string, worker: string): Promise<Record<string, unknown>>;
  /** Messages of the host's log, with their worker. */
  readonly story: string[];
}

/** `change` may alter a worker's plan before it is spawned; `settings` are `--set`s. */
function open(
  settings: Record<string, string> = {},
  change: (plan: WorkerPlan) => WorkerPlan = (plan) => plan,
): World {
  const data = Deno.makeTempDirSync({ prefix: "aetherflow-host-" });
  const workers = new Map<string, Worker>();
  const story: string[] = [];
  const waiting: { message: string; worker: string; resolve: (line: Record<string, unknown>) => void }[] = [];
  const all = {
    data,
    services: "[kv, gateway]",
    "quantum.basePort": "0",
    "gateway.http.port": "0",
    "gateway.grpc.port": "0",
    "gateway.resp.port": "0",
    "host.heartbeat.intervalMs": "50",
    "host.heartbeat.timeoutMs": "700",
    "log.format": "json",
    ...settings,
  };
  const flags = Object.entries(all).map(([path, value]) => ({ path, value, flag: `--set ${path}` }));
  const host = openHost(loadConfig({ flags }), {
    spawn(plan, events) {
      const worker = new Worker(ENTRY, optionsOf(plan));
      workers.set(plan.name, worker);
      const handle = superviseWorker(worker, events);
      return {
        ...handle,
        post: (message) =>
          handle.post(message.type === "boot" ? { ...message, config: change(plan).config } : message),
      };
    },
    writeLog(text) {
      const line = JSON.parse(text) as Record<string, unknown>;
      story.push(`${line.message}: ${line.worker}`);
      const found = waiting.findIndex(({ message, worker }) =>
        line.message === message && line.worker === worker
      );
      if (found >= 0) waiting.splice(found, 1)[0]!.resolve(line);
    },
  });
  return {
    host,
    data,
    story,
    tell: (name, misdeed) => workers.get(name)!.postMessage({ type: "test", do: misdeed }),
    logged: (message, worker) => new Promise((resolve) => waiting.push({ message, worker, resolve })),
    async [Symbol.asyncDispose]() {
      host.cutShort();
      await host.stop();
      await Deno.remove(data, { recursive: true });
    },
  };
}

const states = (host: Host) =>
  host.report().map(({ name, state, restarts }) => `${name} ${state} ${restarts}`);

Deno.test("openHost() starts every worker, names their addresses and drains the gateway before kv", async () => {
  await using world = open();
  const { host } = world;
  assertEquals(await host.started, "ready");
  assertEquals(states(host), ["kv ready 0", "gateway ready 0"]);
  const { quantum, ...others } = host.addresses();
  assertEquals(others, { kv: "test://kv", gateway: "test://gateway" });
  assert(/^127\.0\.0\.1:\d+$/.test(quantum!));
  assert((await Deno.stat(`${world.data}/kv`)).isDirectory);
  assertEquals(await host.stop(), true);
  assertEquals(world.story, [
    "worker ready: kv",
    "worker ready: gateway",
    "worker draining: gateway",
    "worker draining: kv",
  ]);
});

for (
  const [misdeed, reason] of [
    ["crash", /crashed on command/],
    ["stall", /no sign of life for 700 ms/],
    ["fail", /failed on command/],
  ] as const
) {
  Deno.test(`openHost() replaces a worker that does "${misdeed}", on the same ports, within 2 s`, async () => {
    await using world = open();
    const { host } = world;
    await host.started;
    const lost = world.logged("worker lost", "kv");
    const ready = world.logged("worker ready", "kv");
    const began = performance.now();
    world.tell("kv", misdeed);
    assert(reason.test(String((await lost).reason)));
    const failed = host.failed.then((error) => Promise.reject(error));
    assertEquals((await Promise.race([ready, failed])).incarnation, 2);
    const tookMs = performance.now() - began;
    assert(tookMs < 2_000, `recovery took ${tookMs} ms`);
    assertEquals(states(host), ["kv ready 1", "gateway ready 0"]);
    assertEquals(await host.stop(), true);
  });
}

Deno.test("openHost() reports a worker that says it does not serve, and does not replace it", async () => {
  await using world = open();
  await world.host.started;
  const changed = world.logged("worker health changed", "gateway");
  world.tell("gateway", "sicken");
  assertEquals((await changed).detail, "sick on command");
  const gateway = world.host.report()[1]!;
  assertEquals([gateway.state, gateway.reason, gateway.restarts], ["unhealthy", "sick on command", 0]);
});

Deno.test("openHost() gives up after the configured restarts and says why", async () => {
  await using world = open({ "host.restart.maxInWindow": "1", "host.restart.backoffMinMs": "1" });
  await world.host.started;
  const ready = world.logged("worker ready", "kv");
  world.tell("kv", "crash");
  await ready;
  world.tell("kv", "crash");
  const failure = await world.host.failed;
  assertEquals(failure.exitCode, EXIT.gaveUp);
  assert(
    /^worker kv is given up: .*crashed on command.*given up after 1 restarts within/.test(failure.message),
  );
});

Deno.test("openHost() fails with the worker's words when it cannot start, and leaves nothing behind", async () => {
  const refuse = (plan: WorkerPlan) =>
    plan.service === "kv" ? { ...plan, config: { refuse: "not today" } } : plan;
  await using world = open({}, refuse);
  const error = await assertRejects(() => world.host.started, HostError, "worker kv: not today");
  assertEquals(error.exitCode, EXIT.error);
});

Deno.test("openHost() refuses a data folder that another host uses, and one that cannot be made", async () => {
  await using world = open();
  await world.host.started;
  const flags = (data: string) => [
    { path: "data", value: data, flag: "--data" },
    { path: "quantum.basePort", value: "0", flag: "" },
    { path: "gateway.http.port", value: "0", flag: "" },
    { path: "gateway.grpc.port", value: "0", flag: "" },
    { path: "gateway.resp.port", value: "0", flag: "" },
  ];
  const inUse = assertThrows(
    () => openHost(loadConfig({ flags: flags(world.data) })),
    HostError,
    `data folder ${world.data} is in use by another process (${Deno.pid})`,
  );
  assertEquals(inUse.exitCode, EXIT.dataInUse);
  const file = `${world.data}/host.lock/data`;
  const unusable = assertThrows(
    () => openHost(loadConfig({ flags: flags(file) })),
    HostError,
    "cannot make data folder",
  );
  assertEquals(unusable.exitCode, EXIT.storage);
});

Deno.test("openHost() names the port and the key when a port is taken, and frees the data folder", async () => {
  const data = await Deno.makeTempDir({ prefix: "aetherflow-host-" });
  using tcp = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const udp = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  const cases = [
    ["gateway.http.port", (tcp.addr as Deno.NetAddr).port],
    ["gateway.grpc.port", (tcp.addr as Deno.NetAddr).port],
    ["gateway.resp.port", (tcp.addr as Deno.NetAddr).port],
    ["quantum.basePort", (udp.addr as Deno.NetAddr).port],
  ] as const;
  for (const [key, port] of cases) {
    const free = cases.filter(([other]) => other !== key).map(([other]) => [other, "0"]);
    const flags = [["data", data], [key, String(port)], ...free]
      .map(([path, value]) => ({ path: path!, value: value!, flag: "" }));
    const error = assertThrows(
      () => openHost(loadConfig({ flags })),
      HostError,
      `port 127.0.0.1:${port} is taken by another process; end it, or choose another with --set ${key}=PORT`,
    );
    assertEquals(error.exitCode, EXIT.addressInUse);
  }
  udp.close();
  await Deno.remove(data, { recursive: true });
});
