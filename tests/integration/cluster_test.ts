/** Several hosts as one system: processes on loopback that find one another and share a secret. */
import { assert, assertEquals } from "@std/assert";
import { startProduct } from "../support/product.ts";
import { startEtcd, startRedis } from "../support/server.ts";

/** How long anything may take until it counts as hung, in ms. */
const DEADLINE_MS = 20_000;

/** A file with a secret of its own, removed at the end. */
async function secretFile(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await Deno.makeTempFile({ prefix: "aetherflow-secret-" });
  await Deno.writeTextFile(path, crypto.getRandomValues(new Uint8Array(32)).toHex());
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path) };
}

const set = (settings: Record<string, string>) =>
  Object.entries(settings).flatMap(([key, value]) => ["--set", `${key}=${value}`]);

/** Asks again and again until the answer is right. */
async function until<T>(ask: () => Promise<T>, isRight: (answer: T) => boolean): Promise<T> {
  const deadline = performance.now() + DEADLINE_MS;
  for (;;) {
    const answer = await ask();
    if (isRight(answer)) return answer;
    if (performance.now() > deadline) throw new Error(`still ${JSON.stringify(answer)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

Deno.test("a gateway drives the services of other hosts, through a death and a return", async (t) => {
  await using etcd = await startEtcd(t, { unsafeNoFsync: true });
  if (etcd === undefined) return;
  await using secret = await secretFile();
  const registry = {
    "cluster.secretFile": secret.path,
    "cluster.discovery.kind": "etcd",
    "cluster.discovery.etcd.endpoints": `["${etcd.address}"]`,
    "cluster.discovery.checkIntervalMs": "200",
    "cluster.discovery.checkTimeoutMs": "500",
    "cluster.discovery.etcd.ttlSeconds": "3",
  };
  const services = set({
    ...registry,
    services: "[kv]",
    "kv.engine": "etcd",
    "kv.etcd.endpoints": `["${etcd.address}"]`,
  });
  const gateway = await startProduct({
    args: set({ ...registry, services: "[gateway, session, password, statesync]" }),
  });
  await using _gateway = gateway;
  await using first = await startProduct({ args: services });
  await using second = await startProduct({ args: services });
  assertEquals([first.url, second.url], ["", ""]);

  const read = async () => {
    const response = await fetch(`${gateway.url}/api/v1/kv/greeting`);
    await response.body?.cancel();
    return response.status;
  };
  const put = await until(async () => {
    const response = await fetch(`${gateway.url}/api/v1/kv/greeting`, { method: "PUT", body: "hello" });
    return [response.status, await response.text()];
  }, ([status]) => status === 200);
  assertEquals(put[0], 200);
  assertEquals(await read(), 200);
  const listed = () => registered(etcd.address, "kv");
  assertEquals((await until(listed, (keys) => keys.length === 2)).map((key) => key.split("/")[2]), [
    "kv",
    "kv",
  ]);

  // Reads without a break, while one of the two dies as by a power cut.
  let isOver = false;
  const answers = new Map<number, number>();
  const load = Array.from({ length: 8 }, async () => {
    while (!isOver) {
      const status = await read();
      answers.set(status, (answers.get(status) ?? 0) + 1);
    }
  });
  const count = () => [...answers.values()].reduce((sum, n) => sum + n, 0);
  const after = (more: number) => {
    const from = count();
    return until(() => Promise.resolve(count() - from), (n) => n >= more);
  };
  await after(200);
  first.kill("SIGKILL");
  await first.exited;
  await after(500);
  // The registry forgets it once its lease has run out.
  await until(listed, (keys) => keys.length === 1);
  await using third = await startProduct({ args: services });
  await until(listed, (keys) => keys.length === 2);
  await after(200);
  // The survivor leaves in peace: what is under way ends well, and the newcomer has all the work.
  assertEquals(await second.stop(), 0);
  await until(listed, (keys) => keys.length === 1);
  await after(200);
  isOver = true;
  await Promise.all(load);
  assertEquals([...answers.keys()], [200], JSON.stringify([...answers]) + gateway.stderr());
  assert(third.stderr().includes("worker ready"));
});

Deno.test("sessions of two hosts on one Redis outlive either of them", async (t) => {
  await using etcd = await startEtcd(t, { unsafeNoFsync: true });
  if (etcd === undefined) return;
  await using redis = await startRedis(t);
  if (redis === undefined) return;
  await using secret = await secretFile();
  const registry = {
    "cluster.secretFile": secret.path,
    "cluster.discovery.kind": "etcd",
    "cluster.discovery.etcd.endpoints": `["${etcd.address}"]`,
    "cluster.discovery.etcd.ttlSeconds": "3",
    "cluster.discovery.checkIntervalMs": "200",
    "cluster.discovery.checkTimeoutMs": "500",
  };
  const sessions = set({
    ...registry,
    services: "[session, password]",
    "session.engine": "redis",
    "session.redis.nodes": `["${redis.address}"]`,
  });
  await using first = await startProduct({ args: sessions });
  await using second = await startProduct({ args: sessions });
  const gateway = await startProduct({ args: set({ ...registry, services: "[gateway, statesync]" }) });
  await using _gateway = gateway;
  const listed = () => registered(etcd.address, "session");
  await until(listed, (keys) => keys.length === 2);
  const create = await until(
    async () => {
      const response = await fetch(`${gateway.url}/api/v1/sessions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ userId: "ann" }),
      });
      return { status: response.status, text: await response.text() };
    },
    ({ status }) => status < 300,
  );
  const { session: { sessionId: id } } = JSON.parse(create.text) as { session: { sessionId: string } };

  let isOver = false;
  const answers = new Map<number, number>();
  const load = Array.from({ length: 8 }, async () => {
    while (!isOver) {
      const response = await fetch(`${gateway.url}/api/v1/sessions/${id}`);
      await response.body?.cancel();
      answers.set(response.status, (answers.get(response.status) ?? 0) + 1);
    }
  });
  const after = (more: number) => {
    const count = () => [...answers.values()].reduce((sum, n) => sum + n, 0);
    const from = count();
    return until(() => Promise.resolve(count() - from), (n) => n >= more);
  };
  await after(200);
  first.kill("SIGKILL");
  await first.exited;
  await after(500);
  await using third = await startProduct({ args: sessions });
  await until(listed, (keys) => keys.length === 2);
  second.kill("SIGKILL");
  await second.exited;
  // Only the newcomer is left.
  await after(500);
  isOver = true;
  await Promise.all(load);
  assertEquals([...answers.keys()], [200], JSON.stringify([...answers]) + gateway.stderr());
  assert(third.stderr().includes("worker ready"));
});

Deno.test("a gateway with a list of hosts serves with their secret, and cannot with another", async () => {
  // Our own store is a registry as good as etcd.
  await using registry = await startProduct({ args: set({ "session.engine": "memory" }) });
  await using secret = await secretFile();
  await using otherSecret = await secretFile();
  await using services = await startProduct({
    args: set({
      services: "[kv, session, password, statesync]",
      "session.engine": "memory",
      "cluster.secretFile": secret.path,
      "cluster.discovery.kind": "etcd",
      "cluster.discovery.etcd.endpoints": `["http://${registry.grpc}"]`,
    }),
  });
  const keys = await until(
    async () =>
      (await Promise.all(["kv", "session", "statesync"].map((service) => registered(registry.grpc, service))))
        .flat(),
    (keys) => keys.length === 3,
  );
  const peers = keys.map((key) => key.split("/")).map(([, , service, address]) => ({ service, address }));
  const gateway = (secretFile: string) =>
    startProduct({
      args: set({
        services: "[gateway]",
        "gateway.readRetryMs": "0",
        "cluster.secretFile": secretFile,
        "cluster.discovery.kind": "static",
        "cluster.discovery.peers": JSON.stringify(peers),
        "cluster.discovery.checkIntervalMs": "100",
      }),
    });
  await using friend = await gateway(secret.path);
  await using stranger = await gateway(otherSecret.path);
  const answer = async (url: string, init?: RequestInit) => {
    const response = await fetch(`${url}/api/v1/kv/greeting`, init);
    return [response.status, await response.text()] as const;
  };
  const ready = async ({ url }: { url: string }) => {
    const response = await fetch(`${url}/readyz`);
    await response.body?.cancel();
    return response.status;
  };
  await until(() => ready(friend), (status) => status === 200);
  assertEquals((await answer(friend.url, { method: "PUT", body: "hello" }))[0], 200);
  assertEquals(await answer(friend.url), [200, "hello"]);
  const call = async (method: string, path: string, body?: unknown) => {
    const init = body === undefined ? { method } : { method, body: JSON.stringify(body) };
    const response = await fetch(`${friend.url}/api/v1/${path}`, init);
    return await response.json();
  };
  await call("POST", "documents", { docId: "d", type: "text" });
  const { session: { sessionId } } = await call("POST", "sessions", { userId: "ann" });
  assertEquals((await call("POST", "documents/d/locks", { sessionId })).lock.active, true);
  await call("DELETE", `sessions/${sessionId}`);
  await until(() => call("GET", "documents/d/locks"), ({ locked }) => !locked);
  await until(
    () => Promise.resolve(stranger.stderr().match(/a worker of another host does not answer/g)?.length),
    (times) => times === 3,
  );
  assertEquals([await ready(stranger), (await answer(stranger.url))[0]], [503, 503]);
  assertEquals(services.stderr().includes("worker lost"), false);
});

async function registered(address: string, service: string): Promise<string[]> {
  const response = await fetch(`http://${address}/v3/kv/range`, {
    method: "POST",
    body: JSON.stringify({ key: btoa("/services/"), range_end: btoa("/services0"), keys_only: true }),
  });
  const { kvs = [] } = await response.json() as { kvs?: { key: string }[] };
  return kvs.map(({ key }) => atob(key)).filter((key) => key.startsWith(`/services/${service}/`));
}
