/** A new configuration while the product serves. */
import { assert, assertEquals } from "@std/assert";
import { SECOND_CERTIFICATE, SECOND_KEY } from "../../services/gateway/testing/second_certificate.ts";
import { CERTIFICATE, KEY } from "../bench/transport/localhost_certificate.ts";
import { type Product, startProduct } from "../support/product.ts";

/** How long anything may take until it counts as hung, in ms. */
const DEADLINE_MS = 20_000;

/** Waits until the product's log has `count` lines with all of these, and returns the last one. */
async function logged(product: Product, count: number, ...parts: string[]): Promise<string> {
  const deadline = performance.now() + DEADLINE_MS;
  for (;;) {
    const lines = product.stderr().split("\n").filter((line) => parts.every((part) => line.includes(part)));
    if (lines.length >= count) return lines.at(-1)!;
    if (performance.now() > deadline) throw new Error(`no ${parts.join(", ")} in\n${product.stderr()}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

Deno.test("a reload under load takes effect and drops no request and no socket", async () => {
  const folder = await Deno.makeTempDir({ prefix: "aetherflow-reload-" });
  const file = `${folder}/aetherflow.yaml`;
  const write = (text: string) => Deno.writeTextFile(file, text);
  await write("session: { engine: memory }\n");
  await using product = await startProduct({
    cwd: folder,
    args: ["--config", file, "--set", "host.reload.watch=false"],
  });
  const put = async (body: string) => {
    const response = await fetch(`${product.url}/api/v1/kv/k`, { method: "PUT", body });
    await response.body?.cancel();
    return response.status;
  };
  assertEquals(await put("first"), 200);

  // A stream of events and reads without a break.
  const events = await fetch(`${product.url}/api/v1/kv?watch=true&prefix=k`, {
    headers: { accept: "text/event-stream" },
  });
  const reader = events.body!.pipeThrough(new TextDecoderStream()).getReader();
  let isOver = false;
  const statuses = new Map<number, number>();
  const load = Array.from({ length: 8 }, async () => {
    while (!isOver) {
      const status = await fetch(`${product.url}/api/v1/kv/k`).then(async (response) => {
        await response.body?.cancel();
        return response.status;
      }, () => 0);
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
      if (status === 0) return;
    }
  });
  for (let round = 1; round <= 5; round++) {
    const limits = `{ bodyBytes: ${1_000 + round} }`;
    const cors = `{ origins: ["https://${round}.example"] }`;
    await write(
      `session: { engine: memory }\ngateway: { limits: ${limits}, cors: ${cors}, heartbeatMs: 14000 }\n`,
    );
    product.kill("SIGHUP");
    const reloaded = await logged(product, round, "configuration reloaded");
    assert(
      reloaded.includes("gateway.limits.bodyBytes") && reloaded.includes("gateway.cors.origins"),
      reloaded,
    );
    const waiting = await logged(product, round, "configuration needs a restart");
    assert(waiting.includes("gateway.heartbeatMs"), waiting);
    // The file of this round counts for the next request.
    assertEquals([round, await put("x".repeat(1_002))], [round, round === 1 ? 413 : 200]);
    await put(`round ${round}`);
  }
  isOver = true;
  await Promise.all(load);
  assertEquals([...statuses.keys()], [200]);
  let seen = "";
  while (!seen.includes(btoa("round 5").slice(0, 6)) && !seen.includes("round 5")) {
    const { done, value } = await reader.read();
    assert(!done, `the stream ended: ${seen}`);
    seen += value;
  }
  await reader.cancel();

  // What is wrong changes nothing, and the log says what it is.
  await write("gateway: { limits: { bodyBytes: none } }\n");
  product.kill("SIGHUP");
  const line = await logged(product, 1, "configuration not reloaded; nothing has changed");
  assert(line.includes("gateway.limits.bodyBytes is none"), line);
  assertEquals(await put("x".repeat(1_002)), 200);
  assertEquals(await product.stop(), 0);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("a changed file is read by itself, and the keeper passes SIGHUP on", async () => {
  const folder = await Deno.makeTempDir({ prefix: "aetherflow-reload-" });
  const file = `${folder}/aetherflow.yaml`;
  const text = (level: string, idleTimeoutMs: number) =>
    `log: { level: ${level} }\nsession: { engine: memory, idleTimeoutMs: ${idleTimeoutMs} }\n` +
    `statesync: { engine: memory, conflictPolicy: ${level === "info" ? "merge" : "manual"} }\n`;
  await Deno.writeTextFile(file, text("info", 60_000));
  await using product = await startProduct({
    cwd: folder,
    keeper: true,
    args: ["--config", file, "--set", "host.reload.intervalMs=50"],
  });
  await Deno.writeTextFile(`${file}.new`, text("debug", 120_000));
  await Deno.rename(`${file}.new`, file);
  const line = await logged(product, 1, "configuration reloaded");
  assert(
    line.includes('"applied":["log.level","session.idleTimeoutMs","statesync.conflictPolicy"]'),
    line,
  );
  const response = await fetch(`${product.url}/api/v1/sessions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ userId: "ann" }),
  });
  const { session } = await response.json();
  assertEquals(Date.parse(session.expiresAt) - Date.parse(session.createdAt), 120_000);
  const made = await fetch(`${product.url}/api/v1/documents`, {
    method: "POST",
    body: JSON.stringify({ type: "text" }),
  });
  assertEquals((await made.json()).document.conflictPolicy, "manual");
  product.kill("SIGHUP");
  await logged(product, 2, "configuration reloaded");
  assertEquals(await product.stop(), 0);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("a certificate whose files are replaced is shown to new connections; a broken one changes nothing", async () => {
  const folder = await Deno.makeTempDir({ prefix: "aetherflow-reload-" });
  const [certFile, keyFile] = [`${folder}/cert.pem`, `${folder}/key.pem`];
  const write = async (cert: string, key: string) => {
    await Deno.writeTextFile(certFile, cert);
    await Deno.writeTextFile(keyFile, key);
  };
  await write(CERTIFICATE, KEY);
  await using product = await startProduct({
    args: [
      `gateway.http.tls.certFile=${certFile}`,
      `gateway.http.tls.keyFile=${keyFile}`,
      "session.engine=memory",
      "host.reload.intervalMs=50",
    ].flatMap((setting) => ["--set", setting]),
  });
  /** Whether a new connection is shown this certificate. */
  const shows = async (cert: string) => {
    using client = Deno.createHttpClient({ caCerts: [cert] });
    const response = await fetch(`${product.url.replace("127.0.0.1", "localhost")}/livez`, { client }).catch(
      () => {},
    );
    await response?.body?.cancel();
    return response?.status === 200;
  };
  assertEquals([await shows(CERTIFICATE), await shows(SECOND_CERTIFICATE)], [true, false]);
  await write(SECOND_CERTIFICATE, SECOND_KEY);
  await logged(product, 1, "configuration reloaded", '"certificates":true');
  // For a moment both answer on the port; then the new one alone.
  const deadline = performance.now() + DEADLINE_MS;
  for (let inRow = 0; inRow < 30;) {
    assert(performance.now() < deadline);
    inRow = await shows(SECOND_CERTIFICATE) ? inRow + 1 : 0;
  }
  assertEquals(await shows(CERTIFICATE), false);
  await Deno.writeTextFile(certFile, CERTIFICATE);
  const line = await logged(product, 1, "configuration not reloaded", "gateway: the private key is not");
  assert(line.includes("nothing has changed"));
  assertEquals(await shows(SECOND_CERTIFICATE), true);
  assertEquals(await product.stop(), 0);
  await Deno.remove(folder, { recursive: true });
});
