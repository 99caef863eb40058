/** Least privilege, asked of the running workers: what is not granted is refused, what is granted is needed. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import type { WorkerPermissions, WorkerPlan } from "../../services/host/plan.ts";
import { startFaultyHost } from "../support/faulty_host.ts";

Deno.test("every worker is refused everything outside its grant", async () => {
  const data = await Deno.makeTempDir({ prefix: "aetherflow-permissions-" });
  const product = await startFaultyHost({ data });
  const stranger = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  try {
    for (const [name, plan] of product.plans) {
      const attempts = await product.probe(name, ["/", "/etc", data], [
        `127.0.0.1:${stranger.addr.port}`,
        "192.0.2.1:80",
      ]);
      const allowed = Object.entries(attempts).filter(([, outcome]) => outcome !== "NotCapable");
      assertEquals(allowed, [], `${name} with ${JSON.stringify(plan.permissions)}`);
      assert(Object.keys(attempts).length >= 15, "the probe tried everything");
    }
  } finally {
    stranger.close();
    await product.host.stop();
    await Deno.remove(data, { recursive: true });
  }
});

Deno.test("the probe can tell: a worker that may read a folder is seen reading it", async () => {
  const data = await Deno.makeTempDir({ prefix: "aetherflow-permissions-" });
  const permissions = ({ service, permissions }: WorkerPlan): WorkerPermissions =>
    service === "gateway" ? { ...permissions, read: ["/etc"] } : permissions;
  const product = await startFaultyHost({ data, permissions });
  try {
    assertEquals((await product.probe("gateway", ["/etc"], []))["read /etc"], "allowed");
  } finally {
    await product.host.stop();
    await Deno.remove(data, { recursive: true });
  }
});

Deno.test("with all of its grants the product works", async () => {
  const data = await Deno.makeTempDir({ prefix: "aetherflow-permissions-" });
  try {
    await workThrough(data, ({ permissions }) => permissions, { "host.heartbeat.timeoutMs": "20000" });
  } finally {
    await Deno.remove(data, { recursive: true });
  }
});

Deno.test("no grant is idle: without any one of them the product does not work", async (t) => {
  for (const { worker, without, permissions } of await everyGrantLeftOut()) {
    await t.step(`${worker} without ${without}`, async () => {
      const data = await Deno.makeTempDir({ prefix: "aetherflow-permissions-" });
      try {
        const changed = (plan: WorkerPlan) => plan.name === worker ? permissions(plan) : plan.permissions;
        await assertRejects(() => workThrough(data, changed, IMPATIENCE));
      } finally {
        await Deno.remove(data, { recursive: true });
      }
    });
  }
});

interface LeftOut {
  readonly worker: string;
  readonly without: string;
  readonly permissions: (plan: WorkerPlan) => WorkerPermissions;
}

/** What does not work takes no longer than this to say so. */
const IMPATIENCE = { "host.startTimeoutMs": "3000", "host.drain.stageDeadlineMs": "1000" };

/** One case for each entry of each list in the default plan. Entries are known by their place: ports differ by run. */
async function everyGrantLeftOut(): Promise<LeftOut[]> {
  const data = await Deno.makeTempDir({ prefix: "aetherflow-permissions-" });
  const product = await startFaultyHost({ data });
  await product.host.stop();
  await Deno.remove(data, { recursive: true });
  return [...product.plans.values()].flatMap(({ name, permissions }) =>
    (["net", "read", "write"] as const).flatMap((kind) => {
      const granted = permissions[kind];
      if (granted === false) return [];
      return granted.map((_, place): LeftOut => ({
        worker: name,
        without: `${kind}[${place}]`,
        permissions: (plan) => ({
          ...plan.permissions,
          [kind]: (plan.permissions[kind] || []).filter((_, i) => i !== place),
        }),
      }));
    })
  );
}

/** Starts, writes, locks a document in a session that ends, asks for readiness and metrics of all workers, adds a user, signs
 *  in over HTTP and RESP, drains. Rejects if anything does not work. */
async function workThrough(
  data: string,
  permissions: (plan: WorkerPlan) => WorkerPermissions,
  set: Readonly<Record<string, string>>,
): Promise<void> {
  const product = await startFaultyHost({
    data,
    permissions,
    set: { "host.restart.maxInWindow": "0", ...set },
  });
  let clean = false;
  try {
    const put = await fetch(`${product.url}/api/v1/kv/a`, { method: "PUT", body: "1" });
    await put.body?.cancel();
    assertEquals(put.status, 200);
    await lockUntilItsSessionEnds(product.url);
    const ready = await fetch(`${product.url}/readyz?verbose`);
    await ready.body?.cancel();
    assertEquals(ready.status, 200);
    const metrics = await (await fetch(`${product.url}/metrics`)).text();
    for (const name of ["host", ...product.plans.keys()]) {
      assert(metrics.includes(`aetherflow_worker_up{worker="${name}"} 1`), `no figures of ${name}`);
    }
    const who = { username: "ann", password: "a long enough one" };
    for (const path of ["users", "auth/login"]) {
      const body = JSON.stringify(who);
      const answer = await fetch(`${product.url}/api/v1/${path}`, { method: "POST", body });
      await answer.body?.cancel();
      assertEquals(answer.status, 200);
    }
    assertEquals(await signInOverResp(product.host.addresses().resp!, who), "+OK\r\n");
  } finally {
    clean = await product.host.stop();
  }
  assert(clean, "a worker could not drain");
}

/** How long a lock may outlive its session, in ms: far above what it takes. */
const RELEASE_DEADLINE_MS = 5_000;

/** Makes a document, locks it in a session, ends the session, and waits until the lock is gone. */
async function lockUntilItsSessionEnds(url: string): Promise<void> {
  const call = async (method: string, path: string, body?: unknown) => {
    const init = body === undefined ? { method } : { method, body: JSON.stringify(body) };
    const answer = await fetch(`${url}/api/v1/${path}`, init);
    const text = await answer.text();
    assertEquals(answer.status, 200, text);
    return JSON.parse(text);
  };
  await call("POST", "documents", { docId: "a", type: "text" });
  const { session: { sessionId } } = await call("POST", "sessions", { userId: "ann" });
  const { lock } = await call("POST", "documents/a/locks", { sessionId });
  assertEquals(lock.sessionId, sessionId);
  await call("DELETE", `sessions/${sessionId}`);
  const deadline = performance.now() + RELEASE_DEADLINE_MS;
  while ((await call("GET", "documents/a/locks")).locked) {
    assert(performance.now() < deadline, "the lock outlived its session");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** What the Redis protocol answers to AUTH. */
async function signInOverResp(
  address: string,
  { username, password }: { username: string; password: string },
): Promise<string> {
  const at = address.lastIndexOf(":");
  using connection = await Deno.connect({
    hostname: address.slice(0, at),
    port: Number(address.slice(at + 1)),
  });
  const words = ["AUTH", username, password].map((word) => `$${word.length}\r\n${word}\r\n`);
  await connection.write(new TextEncoder().encode(`*3\r\n${words.join("")}`));
  const answer = new Uint8Array(1_024);
  return new TextDecoder().decode(answer.subarray(0, await connection.read(answer) ?? 0));
}
