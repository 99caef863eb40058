import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { ASSETS } from "../console/gen/assets.ts";
import { readExchange } from "../exchange.ts";
import { GatewayError } from "../problem.ts";
import { createConsoleEdge } from "./console.ts";

function exchangeOf(path: string, headers: Record<string, string> = {}, method = "GET") {
  return readExchange(new Request(`http://localhost${path}`, { method, headers }), 0, 1_000, () => "r-1");
}

Deno.test("the console is for clients that take a page, and for what the page loads", () => {
  const edge = createConsoleEdge();
  const cases: [path: string, accept: string, takes: boolean][] = [
    ["/", "text/html,application/xhtml+xml,*/*;q=0.8", true],
    ["/", "application/json", false],
    ["/", "*/*", false],
    ["/", "", false],
    ["/console/main.js", "*/*", true],
    ["/console/nothing", "", true],
    ["/consoles", "text/html", false],
    ["/metrics", "text/html", false],
  ];
  for (const [path, accept, takes] of cases) {
    const headers: Record<string, string> = accept === "" ? {} : { accept };
    assertEquals(edge.takes(exchangeOf(path, headers)), takes, `${path} ${accept}`);
  }
});

Deno.test("each answer with the page has a nonce of its own, and names parts that exist", async () => {
  const edge = createConsoleEdge();
  const page = exchangeOf("/", { accept: "text/html" });
  const first = await edge.answer(page);
  const policy = first.headers.get("content-security-policy")!;
  const html = await first.text();
  const nonce = /'nonce-([^']+)'/.exec(policy)![1]!;
  assertStringIncludes(html, `content="${nonce}"`);
  assert(!html.includes("@"), html);
  assertMatch(policy, /^default-src 'none'; script-src 'self'; /);
  assertEquals(first.headers.get("cache-control"), "no-store");
  const second = await edge.answer(page);
  await second.body?.cancel();
  assert(second.headers.get("content-security-policy") !== policy);

  const names = [...html.matchAll(/\/console\/([\w.-]+)"/g)].map(([, name]) => name!);
  assertEquals(names.length, 3);
  assertEquals(names.filter((name) => !ASSETS.some((asset) => asset.name === name)), []);
});

Deno.test("parts are gzip for who takes it, plain for others, and not sent again to who has them", async () => {
  const edge = createConsoleEdge();
  const { name } = ASSETS.find(({ name }) => name.endsWith(".css"))!;
  const path = `/console/${name}`;
  const ask = (headers: Record<string, string>, method?: string) =>
    edge.answer(exchangeOf(path, headers, method));

  const gzip = await ask({ "accept-encoding": "br, gzip;q=0.5" });
  assertEquals([gzip.headers.get("content-encoding"), gzip.headers.get("content-type")], [
    "gzip",
    "text/css; charset=utf-8",
  ]);
  assertStringIncludes(gzip.headers.get("cache-control")!, "immutable");
  const unpacked = gzip.body!.pipeThrough(new DecompressionStream("gzip"));
  const text = await new Response(unpacked).text();
  for (const encoding of ["identity", "gzip;q=0", "br"]) {
    const plain = await ask({ "accept-encoding": encoding });
    assertEquals([plain.headers.get("content-encoding"), await plain.text()], [null, text], encoding);
  }
  const etag = gzip.headers.get("etag")!;
  for (const known of [etag, `W/${etag}`, `"x", ${etag}`, "*"]) {
    assertEquals((await ask({ "if-none-match": known })).status, 304, known);
  }
  const head = await ask({ "accept-encoding": "gzip" }, "HEAD");
  assertEquals([head.body, head.headers.get("content-length")], [null, gzip.headers.get("content-length")]);
});

Deno.test("what is no part of the console is not found, and nothing takes a POST", async () => {
  const edge = createConsoleEdge();
  const refusals: [path: string, method: string, code: string][] = [
    ["/console/", "GET", "route_not_found"],
    ["/console/../main.js", "GET", "route_not_found"],
    ["/console/__proto__", "GET", "route_not_found"],
    ["/", "POST", "method_not_allowed"],
  ];
  for (const [path, method, code] of refusals) {
    const refused = await assertRejects(() => edge.answer(exchangeOf(path, {}, method)), GatewayError);
    assertEquals(refused.code, code, `${method} ${path}`);
  }
});
