/** The product as its first user meets it: one process, HTTP from outside, a signal at the end. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { openEvents } from "../support/events.ts";
import { FREE_PORTS, runProduct, startProduct } from "../support/product.ts";

Deno.test("a key is written, read, compared, listed and deleted over HTTP", async () => {
  await using product = await startProduct();
  const key = `${product.url}/api/v1/kv/greeting`;

  const created = await request(key, { method: "PUT", body: "hello", headers: { "if-none-match": "*" } });
  assertEquals(created.status, 200, created.text);
  const again = await request(key, { method: "PUT", body: "hi", headers: { "if-none-match": "*" } });
  assertEquals([again.status, JSON.parse(again.text).code], [412, "precondition_failed"]);

  const read = await request(key);
  assertEquals([read.status, read.text], [200, "hello"]);
  const etag = read.headers.get("etag")!;
  assertMatch(etag, /^"\d+"$/);
  assertEquals((await request(key, { headers: { "if-none-match": etag } })).status, 304);

  const swapped = await request(key, { method: "PUT", body: "hi", headers: { "if-match": etag } });
  assertEquals(swapped.status, 200, swapped.text);
  assertEquals((await request(key, { method: "DELETE", headers: { "if-match": etag } })).status, 412);

  const listed = await request(`${product.url}/api/v1/kv?prefix=gree`);
  const { entries, count } = JSON.parse(listed.text);
  assertEquals([String(count), entries[0].keyText, entries[0].valueText], ["1", "greeting", "hi"]);

  assertEquals((await request(key, { method: "DELETE" })).status, 200);
  const gone = await request(key, { headers: { "x-request-id": "integration-1" } });
  assertEquals(gone.status, 404);
  assertEquals(gone.headers.get("content-type"), "application/problem+json");
  const { code, requestId } = JSON.parse(gone.text);
  assertEquals([code, requestId], ["not_found", "integration-1"]);
});

Deno.test("any bytes are a value and any octets a key", async () => {
  await using product = await startProduct();
  const key = `${product.url}/api/v1/kv/a%2Fb/..%00%FF/%20c`;
  const value = Uint8Array.from({ length: 256 }, (_, byte) => byte);
  assertEquals((await request(key, { method: "PUT", body: value })).status, 200);
  const answer = await fetch(key);
  assertEquals(new Uint8Array(await answer.arrayBuffer()), value);
});

Deno.test("a watcher sees changes as they happen and misses none when it comes back", async () => {
  await using product = await startProduct();
  const put = (key: string, body: string) =>
    request(`${product.url}/api/v1/kv/${key}`, { method: "PUT", body });
  const watch = `${product.url}/api/v1/kv?prefix=color/&watch=true`;
  const texts = (data: string): string[] =>
    JSON.parse(data).changes.map((change: { entry: { keyText: string; valueText?: string } }) =>
      `${change.entry.keyText}=${change.entry.valueText ?? ""}`
    );

  let last: string | undefined;
  {
    await using events = await openEvents(watch);
    await put("other", "unseen");
    await Promise.all([put("color/a", "red"), put("color/b", "green")]);
    const seen = [await events.next(), await events.next()];
    assertEquals(seen.flatMap((event) => texts(event.data)).sort(), ["color/a=red", "color/b=green"]);
    last = seen[1]!.id;
  }
  await put("color/a", "blue");
  await put("color/c", "gray");
  await using events = await openEvents(watch, last);
  assertEquals(texts((await events.next()).data), ["color/a=blue"]);
  assertEquals(texts((await events.next()).data), ["color/c=gray"]);
  await put("color/d", "pink");
  assertEquals(texts((await events.next()).data), ["color/d=pink"]);
});

Deno.test("etcd's JSON paths put and range the same keys", async () => {
  await using product = await startProduct();
  const call = async (path: string, body: unknown) =>
    JSON.parse(
      (await request(`${product.url}/v3/${path}`, { method: "POST", body: JSON.stringify(body) })).text,
    );

  const put = await call("kv/put", { key: btoa("greeting"), value: btoa("hello") });
  assertMatch(put.header.revision, /^\d+$/);
  const range = await call("kv/range", { key: btoa("greeting") });
  assertEquals(range.count, "1");
  assertEquals([atob(range.kvs[0].key), atob(range.kvs[0].value)], ["greeting", "hello"]);
  assertEquals(range.kvs[0].mod_revision, put.header.revision);
  assertEquals((await request(`${product.url}/api/v1/kv/greeting`)).text, "hello");
});

Deno.test("several gateway workers serve one port, each with its own figures", {
  ignore: Deno.build.os !== "linux",
}, async () => {
  await using product = await startProduct({ args: ["--set", "gateway.workers=2"] });
  // Each request takes a connection of its own, which the kernel gives to either worker.
  const answers = await Promise.all(
    Array.from({ length: 32 }, (_, i) =>
      request(`${product.url}/api/v1/kv/shared/${i}`, {
        method: "PUT",
        body: String(i),
        headers: { connection: "close" },
      })),
  );
  assertEquals(answers.map(({ status }) => status), answers.map(() => 200));
  const readiness = JSON.parse((await request(`${product.url}/readyz?verbose`)).text);
  const names = readiness.workers.map(({ name }: { name: string }) => name);
  assertEquals(names.sort(), ["gateway-1", "gateway-2", "kv", "password", "session", "statesync"]);
  const metrics = (await request(`${product.url}/metrics`)).text;
  for (const name of names) assertMatch(metrics, new RegExp(`\\{[^}]*worker="${name}"`));
  assertEquals(await product.stop(), 0);
});

Deno.test("health, readiness, figures and the API's description speak of every worker", async () => {
  await using product = await startProduct();
  assertEquals((await request(`${product.url}/livez`)).status, 200);
  for (const path of ["/readyz", "/healthz", "/health"]) {
    assertEquals((await request(product.url + path)).status, 200, path);
  }
  const readiness = JSON.parse((await request(`${product.url}/readyz?verbose`)).text);
  assertEquals(readiness.ready, true);
  const workers = readiness.workers.map(({ name, state }: { name: string; state: string }) =>
    `${name} ${state}`
  );
  assertEquals(workers.sort(), [
    "gateway ready",
    "kv ready",
    "password ready",
    "session ready",
    "statesync ready",
  ]);
  assertEquals(readiness.addresses.http, product.url);

  const metrics = (await request(`${product.url}/metrics`)).text;
  for (const worker of ["host", "gateway", "kv", "session", "password", "statesync"]) {
    assertMatch(metrics, new RegExp(`\\{[^}]*worker="${worker}"`));
  }

  const { openapi, paths } = JSON.parse((await request(`${product.url}/openapi.json`)).text);
  assertMatch(openapi, /^3\./);
  assert(Object.keys(paths).some((path) => path.startsWith("/api/v1/kv/")));
});

Deno.test("requests for a foreign host are refused while no users are configured", async () => {
  await using product = await startProduct();
  const refused = await request(`${product.url}/api/v1/kv/greeting`, {
    headers: { origin: "https://example.org" },
  });
  assertEquals([refused.status, JSON.parse(refused.text).code], [403, "foreign_origin"]);
});

Deno.test("SIGTERM ends open watches, exits with 0, and the next start has the keys", async () => {
  const data = await Deno.makeTempDir({ prefix: "aetherflow-test-" });
  try {
    {
      await using product = await startProduct({ data });
      await using events = await openEvents(`${product.url}/api/v1/kv/greeting?watch=true`);
      assertEquals(
        (await request(`${product.url}/api/v1/kv/greeting`, { method: "PUT", body: "hello" })).status,
        200,
      );
      await events.next();
      const end = events.ended();
      assertEquals(await product.stop(), 0, product.stderr());
      await end;
    }
    await using product = await startProduct({ data });
    assertEquals((await request(`${product.url}/api/v1/kv/greeting`)).text, "hello");
  } finally {
    await Deno.remove(data, { recursive: true });
  }
});

Deno.test("a second process on the same data folder says whose it is and ends", async () => {
  await using product = await startProduct();
  const refused = await refusal({ data: product.data });
  assertEquals(refused.code, 11);
  assertStringIncludes(refused.line, `is in use by another process (${product.pid})`);
});

Deno.test("a taken port is named, with the key that chooses another", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { code, line } = await refusal({ args: ["--set", `gateway.http.port=${listener.addr.port}`] });
  assertEquals(code, 10);
  assertStringIncludes(line, `port 127.0.0.1:${listener.addr.port} is taken by another process`);
  assertStringIncludes(line, "gateway.http.port");
});

Deno.test("a configuration that cannot be read or is wrong names file, key and value", async () => {
  const folder = await Deno.makeTempDir({ prefix: "aetherflow-test-" });
  try {
    const missing = await refusal({ args: ["--config", `${folder}/none.yaml`] });
    assertEquals(missing.code, 2);
    assertStringIncludes(missing.line, `${folder}/none.yaml`);

    await Deno.writeTextFile(`${folder}/bad.yaml`, "kv:\n  maxKeyBytes: -1\n");
    const wrong = await refusal({ args: ["--config", `${folder}/bad.yaml`] });
    assertEquals(wrong.code, 2);
    for (const part of ["kv.maxKeyBytes", "-1", "bad.yaml", "line 2"]) assertStringIncludes(wrong.line, part);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a damaged log refuses to start and names file and offset", async () => {
  const data = await Deno.makeTempDir({ prefix: "aetherflow-test-" });
  try {
    {
      await using product = await startProduct({ data });
      for (let i = 0; i < 20; i++) {
        await request(`${product.url}/api/v1/kv/key-${i}`, { method: "PUT", body: `value ${i}` });
      }
      assertEquals(await product.stop(), 0);
    }
    const segment = await onlySegment(`${data}/kv`);
    const bytes = await Deno.readFile(segment);
    const at = new TextDecoder("latin1").decode(bytes).indexOf("value 3");
    assert(at > 0, "the log holds the fourth value");
    bytes[at]! ^= 1;
    await Deno.writeFile(segment, bytes);

    const { code, line } = await refusal({ data });
    assertEquals(code, 12, line);
    assertStringIncludes(line, segment.split("/").at(-1)!);
    assertMatch(line, /at byte \d+/);
  } finally {
    await Deno.remove(data, { recursive: true });
  }
});

/** Starts what must refuse to start, and returns its exit code and the one line it says. */
async function refusal(
  options: { data?: string; args?: readonly string[] },
): Promise<{ code: number; line: string }> {
  const data = options.data ?? await Deno.makeTempDir({ prefix: "aetherflow-test-" });
  try {
    const free = [...FREE_PORTS, "--set", "log.level=off"];
    const outcome = await runProduct(["start", "--data", data, ...free, ...(options.args ?? [])]);
    assertEquals(outcome.stdout, "");
    const lines = outcome.stderr.trimEnd().split("\n");
    assertEquals(lines.length, 1, outcome.stderr);
    assertMatch(lines[0]!, /^aetherflow: /);
    return { code: outcome.code, line: lines[0]! };
  } finally {
    if (options.data === undefined) await Deno.remove(data, { recursive: true });
  }
}

async function onlySegment(directory: string): Promise<string> {
  const segments = (await Array.fromAsync(Deno.readDir(directory))).filter(({ name }) =>
    name.startsWith("segment-")
  );
  assertEquals(segments.length, 1);
  return `${directory}/${segments[0]!.name}`;
}

interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
}

async function request(url: string, init?: RequestInit): Promise<Answer> {
  const response = await fetch(url, init);
  return { status: response.status, headers: response.headers, text: await response.text() };
}
