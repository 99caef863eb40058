/** The product as one file, away from its source: whichever kind deploy/compile.ts makes on this machine. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { buildExecutable } from "../../deploy/compile.ts";
import config from "../../deno.json" with { type: "json" };
import {
  FREE_PORTS,
  type Outcome,
  type Product,
  type ProductOptions,
  runProduct,
  startProduct,
} from "../support/product.ts";

/** Holds the executable, its cache and the data; nothing of the project. */
let folder = "";
let kind = "";

Deno.test.beforeAll(async () => {
  folder = await Deno.makeTempDir({ prefix: "aetherflow-executable-" });
  ({ kind } = await buildExecutable({ output: `${folder}/aetherflow` }));
});

Deno.test.afterAll(async () => {
  await Deno.remove(folder, { recursive: true });
});

Deno.test("the executable serves, and a key written before SIGKILL is there after the next start", async () => {
  const data = await Deno.makeTempDir({ dir: folder, prefix: "data with spaces " });
  {
    await using product = await start({ data });
    const written = await fetch(`${product.url}/api/v1/kv/greeting`, { method: "PUT", body: "hello" });
    assertEquals(written.status, 200, await written.text());
    product.kill("SIGKILL");
    assertEquals((await product.exited).signal, "SIGKILL", kind);
  }
  await using product = await start({ data });
  const read = await fetch(`${product.url}/api/v1/kv/greeting`);
  assertEquals([read.status, await read.text()], [200, "hello"]);
  assertEquals(await product.stop(), 0, product.stderr());
});

Deno.test("the executable comes back when its host is killed, where it has a keeper", async () => {
  await using product = await start({ args: ["--set", "log.level=off"] });
  const host = await product.hostPid();
  assertEquals(host !== product.pid, kind === "self-extracting", kind);
  if (host === product.pid) return;
  Deno.kill(host, "SIGKILL");
  while ([0, host].includes(await product.hostPid())) {
    assertEquals(await Promise.race([product.exited, pause(5)]), undefined, product.stderr());
  }
  // The new host is still starting: the wish to stop waits for it on the life line.
  assertEquals(await product.stop(), 0, product.stderr());
});

Deno.test("the executable has every page of the gateway", async () => {
  await using product = await start({});
  for (const path of ["/", "/livez", "/readyz", "/health", "/version", "/metrics", "/openapi.json"]) {
    const answer = await fetch(product.url + path);
    assertEquals(answer.status, 200, `${path}: ${await answer.text()}`);
  }
});

Deno.test("the executable has the commands of the command line", async () => {
  const help = await run(["--help"]);
  assertEquals([help.code, help.stderr], [0, ""]);
  for (const command of ["start", "kv", "doctor", "version"]) {
    assertMatch(help.stdout, new RegExp(`^ {2}${command}`, "m"));
  }
  assertStringIncludes((await run(["start", "--help"])).stdout, "gateway.http.port");
  assertEquals((await run(["no-such-command"])).code, 2);
  const doctor = await run(["doctor", "--json", "--data", `${folder}/doctor`, ...FREE_PORTS]);
  assertEquals(
    JSON.parse(doctor.stdout).checks.find(({ check }: { check: string }) => check === "permissions"),
    {
      check: "permissions",
      ok: true,
      detail: "read, write, net",
    },
  );

  await using product = await start({});
  const endpoint = ["--endpoint", product.url];
  assertEquals((await run(["kv", "put", "a key", "a  value", ...endpoint])).code, 0);
  assertEquals((await run(["kv", "get", "a key", ...endpoint])).stdout.trimEnd(), "a  value");
  assertEquals((await run(["kv", "get", "no such key", ...endpoint])).code, 3);
});

Deno.test("the executable names its version, commit and runtime", async () => {
  const { code, stdout } = await run(["version", "--json"]);
  assertEquals(code, 0);
  const { version, commit, runtime } = JSON.parse(stdout);
  assertEquals(version, config.version);
  assertMatch(commit, /^([0-9a-f]{40}(-dirty)?|unknown)$/);
  assertMatch(runtime, /^deno \d+\.\d+\.\d+/);
});

function pause(ms: number): Promise<undefined> {
  return new Promise((resolve) => setTimeout(() => resolve(undefined), ms));
}

function start(options: ProductOptions): Promise<Product> {
  return startProduct({ ...options, ...isolation() });
}

function run(args: readonly string[]): Promise<Outcome> {
  return runProduct(args, isolation());
}

/** No source tree around it, no module cache, no registry. */
function isolation(): Pick<ProductOptions, "executable" | "cwd" | "env"> {
  return {
    executable: `${folder}/aetherflow`,
    cwd: folder,
    env: {
      AETHERFLOW_CACHE: `${folder}/cache`,
      DENO_DIR: `${folder}/no-modules`,
      NPM_CONFIG_REGISTRY: "http://127.0.0.1:1/",
    },
  };
}
