/** The command line as its users run it: a process of its own against a server that the test plays. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { runProduct } from "../tests/support/product.ts";

interface Seen {
  readonly method: string;
  readonly path: string;
  readonly body: string;
  readonly lastEventId: string | null;
}

/** Answers every request with the next of `answers`; keeps what it saw. */
function serve(...answers: (() => Response)[]) {
  const seen: Seen[] = [];
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    const url = new URL(request.url);
    seen.push({
      method: request.method,
      path: url.pathname + url.search,
      body: await request.text(),
      lastEventId: request.headers.get("last-event-id"),
    });
    return answers[seen.length - 1]?.() ?? new Response(null, { status: 400 });
  });
  const env = { AETHERFLOW_ENDPOINT: `http://127.0.0.1:${server.addr.port}` };
  return {
    seen,
    run: (...args: string[]) => runProduct(["kv", ...args], { env }),
    [Symbol.asyncDispose]: () => server.shutdown(),
  };
}

const problem = (status: number, detail: string) => () =>
  Response.json({ detail, requestId: "01R" }, {
    status,
    headers: { "content-type": "application/problem+json" },
  });

Deno.test("kv get prints the value as it is, or as JSON, and exits with 3 when there is no such key", async () => {
  const value = () => new Response("héllo", { headers: { etag: '"7"' } });
  await using server = serve(value, value, problem(404, "no key a/b"));
  assertEquals(await server.run("get", "a/b"), { code: 0, stdout: "héllo", stderr: "" });
  assertEquals(JSON.parse((await server.run("get", "a/b", "--json")).stdout), {
    key: "a/b",
    valueText: "héllo",
    modRevision: "7",
  });
  assertEquals(await server.run("get", "a/b"), { code: 3, stdout: "", stderr: "aetherflow: no key a/b\n" });
  assertEquals(
    server.seen.map(({ method, path }) => `${method} ${path}`),
    Array(3).fill("GET /api/v1/kv/a%2Fb"),
  );
});

Deno.test("kv put sends the value and names the request when the server refuses", async () => {
  await using server = serve(
    () => new Response("{}", { headers: { etag: '"8"' } }),
    problem(413, "too large"),
  );
  assertEquals(await server.run("put", "k", "v", "--json"), {
    code: 0,
    stdout: '{"key":"k","modRevision":"8"}\n',
    stderr: "",
  });
  assertEquals(await server.run("put", "k", "-"), {
    code: 1,
    stdout: "",
    stderr: "aetherflow: too large (request 01R)\n",
  });
  assertEquals(server.seen.map(({ method, body }) => `${method} ${body}`), ["PUT v", "PUT "]);
});

Deno.test("kv list asks page after page", async () => {
  const page = (keys: string[], nextPageToken: string) => () =>
    Response.json({ entries: keys.map((keyText) => ({ keyText, valueText: "v" })), nextPageToken });
  await using server = serve(page(["a", "b"], "t1"), page(["c"], ""));
  assertEquals((await server.run("list", "p/", "--values")).stdout, "a\tv\nb\tv\nc\tv\n");
  assertEquals(server.seen.map(({ path }) => path), [
    "/api/v1/kv?prefix=p%2F&pageSize=1000",
    "/api/v1/kv?prefix=p%2F&pageSize=1000&pageToken=t1",
  ]);
});

Deno.test("kv watch takes a lost connection up after the last event it saw, and ends with the server's last word", async () => {
  const change = (revision: number) =>
    `id: ${revision}\nevent: change\ndata: ${
      JSON.stringify({ changes: [{ kind: "KIND_PUT", entry: { keyText: "k", valueText: `v${revision}` } }] })
    }\n\n`;
  const stream = (text: string) => () =>
    new Response(text, { headers: { "content-type": "text/event-stream" } });
  await using server = serve(
    stream(`id: 4\n: open\n\n${change(5)}`),
    stream(`: open\n\n${change(6)}id: 7\nevent: change\ndata: {`),
    problem(503, "draining"),
    stream('event: error\ndata: {"detail":"revision 6 has been compacted"}\n\n'),
  );
  const { code, stdout, stderr } = await server.run("watch", "k", "--prefix");
  assertEquals([code, stdout], [1, "PUT\tk\tv5\nPUT\tk\tv6\n"]);
  assertStringIncludes(stderr, "connection lost, trying again");
  assertStringIncludes(stderr, "aetherflow: revision 6 has been compacted\n");
  assertEquals(server.seen.map(({ lastEventId }) => lastEventId), [null, "5", "6", "6"]);
  assertEquals(server.seen[0]!.path, "/api/v1/kv?watch=true&prefix=k");
});

Deno.test("wrong usage exits with 2, says what is wrong and suggests what was meant", async () => {
  const cases: [string[], RegExp][] = [
    [["strat"], /^aetherflow: unknown command 'strat'\n\(Did you mean start\?\)\n$/],
    [["kv", "get"], /^aetherflow: missing required argument 'key'\n$/],
    [["kv", "get", ".."], /^aetherflow: a key cannot be "\.\." in a URL\n$/],
    [["kv", "get", "k", "--endpoint", "nowhere"], /^aetherflow: --endpoint is nowhere, expected a URL/],
    [
      ["start", "--set", "kv"],
      /^aetherflow: config: --set kv is no setting, expected --set key\.path=value\n$/,
    ],
    [
      ["start", "--config", "none.yaml"],
      /^aetherflow: config: cannot read none\.yaml: there is no such file\n$/,
    ],
    [
      ["start", "--set", "gateway.http.host=0.0.0.0"],
      /^aetherflow: config: gateway\.http\.host is 0\.0\.0\.0, expected a loopback/,
    ],
  ];
  for (const [args, stderr] of cases) {
    const outcome = await runProduct(args);
    assertMatch(outcome.stderr, stderr);
    assertEquals([outcome.code, outcome.stdout], [2, ""]);
  }
});

Deno.test("a server that cannot be reached exits with 1 and says so in one line", async () => {
  const { code, stderr } = await runProduct(["kv", "get", "k", "--endpoint", "http://127.0.0.1:1"]);
  assertEquals(code, 1);
  assertMatch(stderr, /^aetherflow: cannot reach http:\/\/127\.0\.0\.1:1: .*; is the server running\?\n$/);
});

Deno.test("version, start --print-config and --help print to stdout and exit with 0", async () => {
  const version = await runProduct(["version", "--json"]);
  assertEquals(Object.keys(JSON.parse(version.stdout)), ["version", "commit", "runtime"]);
  const config = await runProduct(["start", "--print-config", "--json", "--set", "gateway.http.port=1"]);
  assertEquals(JSON.parse(config.stdout).gateway.http.port, 1);
  const help = await runProduct(["start", "--help"]);
  assertStringIncludes(help.stdout, "AETHERFLOW_GATEWAY__HTTP__PORT=8081");
  assertStringIncludes(help.stdout, "  kv.durability\n");
  assertEquals([version.code, config.code, help.code], [0, 0, 0]);
});

Deno.test("version is deno.json's", async () => {
  const { version } = JSON.parse(await Deno.readTextFile(new URL("../deno.json", import.meta.url)));
  assertEquals(JSON.parse((await runProduct(["version", "--json"])).stdout).version, version);
});
