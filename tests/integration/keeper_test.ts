/** The keeper as its users meet it: whatever becomes of the host, the product comes back where it was, or nothing stays. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { FREE_PORTS, type Product, runProduct, startProduct } from "../support/product.ts";

/** Far above what a restart takes: whoever is not back by then never will be. */
const GIVE_UP_MS = 20_000;
const QUIET = ["--set", "log.level=off"];

Deno.test("a host that is killed comes back on the same port with every acknowledged key, and the keeper says why", async () => {
  await using product = await startProduct({ keeper: true, args: QUIET });
  const key = `${product.url}/api/v1/kv/greeting`;
  const ready = product.stdout();
  assertMatch(ready, /^ready http=\S+ .*\n$/);
  for (let i = 1; i <= 2; i++) {
    await text(fetch(key, { method: "PUT", body: `hello ${i}` }));
    await killHost(product);
    assertEquals(await back(key), `hello ${i}`);
  }
  assertEquals(await product.stop(), 0);
  assertEquals(product.stdout(), ready);
  const said = product.stderr().trimEnd().split("\n");
  assertEquals(said.length, 2, product.stderr());
  assertEquals(said[0], "aetherflow: restarting the product: it was ended by SIGKILL");
});

Deno.test("SIGTERM and SIGINT to the keeper drain the host and end both with 0", async () => {
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    const data = await Deno.makeTempDir({ prefix: "aetherflow-keeper-" });
    try {
      await using product = await startProduct({ keeper: true, data });
      product.kill(signal);
      assertEquals((await product.exited).code, 0, product.stderr());
      assertEquals(
        product.stderr().match(/"message":"worker draining"/g)?.length,
        5,
        `every worker drains: ${product.stderr()}`,
      );
      await using next = await startProduct({ data, args: QUIET });
      assertEquals(await next.stop(), 0);
    } finally {
      await Deno.remove(data, { recursive: true });
    }
  }
});

Deno.test("a signal that reaches keeper and host together drains once, a second one ends at once", async () => {
  await using once = await startProduct({ keeper: true, args: QUIET });
  const host = await once.hostPid();
  once.kill("SIGTERM");
  Deno.kill(host, "SIGTERM");
  assertEquals((await once.exited).code, 0, once.stderr());

  // The gateway stays for this long before it drains.
  const args = [...QUIET, "--set", "gateway.drain.readyGraceMs=5000"];
  await using twice = await startProduct({ keeper: true, args });
  const since = performance.now();
  twice.kill("SIGTERM");
  twice.kill("SIGINT");
  assertEquals((await twice.exited).code, 15, twice.stderr());
  assert(performance.now() - since < 4_000, "the second signal did not wait for the drain");
});

Deno.test("a keeper that is killed takes its host along, drained, and frees port and data folder", async () => {
  const data = await Deno.makeTempDir({ prefix: "aetherflow-keeper-" });
  try {
    let url: string;
    {
      await using product = await startProduct({ keeper: true, data });
      url = product.url;
      await text(fetch(`${url}/api/v1/kv/greeting`, { method: "PUT", body: "hello" }));
      product.kill("SIGKILL");
      // Settles when nobody holds stderr any more: when the host has ended, too.
      assertEquals((await product.exited).signal, "SIGKILL");
      assertStringIncludes(product.stderr(), '"message":"worker draining"');
    }
    const port = `gateway.http.port=${new URL(url).port}`;
    await using next = await startProduct({ data, args: [...QUIET, "--set", port] });
    assertEquals(next.url, url);
    assertEquals(await text(fetch(`${url}/api/v1/kv/greeting`)), "hello");
  } finally {
    await Deno.remove(data, { recursive: true });
  }
});

Deno.test("what a start refuses or only prints is the same with a keeper as without", async () => {
  const folder = await Deno.makeTempDir({ prefix: "aetherflow-keeper-" });
  try {
    using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const port = `gateway.http.port=${(taken.addr as Deno.NetAddr).port}`;
    for (
      const [args, code] of [
        [["--config", "none.yaml"], 2],
        [["--set", "kv.maxKeyBytes=-1"], 2],
        [["--no-such-flag"], 2],
        [[...FREE_PORTS, "--set", port], 10],
        [["--print-config"], 0],
        [["--help"], 0],
      ] as const
    ) {
      const all = ["start", "--data", `${folder}/data`, ...args];
      const alone = await runProduct(all, { cwd: folder });
      assertEquals(await runProduct(all, { cwd: folder, keeper: true }), alone);
      assertEquals(alone.code, code, alone.stderr);
      if (code !== 0) assertMatch(alone.stderr, /^aetherflow: .*\n$/);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a host alone does not read stdin", async () => {
  // startProduct gives it an empty one, whose end would drain it if it did.
  await using product = await startProduct({ args: QUIET });
  assertEquals(await text(fetch(`${product.url}/livez`)), "ok\n");
  assertEquals(await product.stop(), 0);
});

/** Kills the host and waits until its keeper has noticed. */
async function killHost(product: Product): Promise<void> {
  const lines = () => product.stderr().split("\n").length;
  const before = lines();
  Deno.kill(await product.hostPid(), "SIGKILL");
  await until(() => lines() > before, product.stderr);
}

/** The answer of a product that is on its way back. */
async function back(url: string): Promise<string> {
  let answer: string | undefined;
  await until(async () => {
    answer = await text(fetch(url)).catch(() => undefined);
    return answer !== undefined;
  }, () => `no answer from ${url}`);
  return answer!;
}

async function text(answer: Promise<Response>): Promise<string> {
  const response = await answer;
  const body = await response.text();
  assertEquals(response.status, 200, body);
  return body;
}

async function until(condition: () => boolean | Promise<boolean>, state: () => string): Promise<void> {
  const deadline = performance.now() + GIVE_UP_MS;
  while (!await condition()) {
    assert(performance.now() < deadline, `not so within ${GIVE_UP_MS} ms: ${state()}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
