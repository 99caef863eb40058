import { assert, assertEquals } from "@std/assert";
import { createFakeCredentials, principal } from "../testing/fake_credentials.ts";
import { startTestGateway, type TestGateway } from "../testing/harness.ts";

const ALICE = principal({ username: "alice", roles: ["admin"] });

function start(config: Record<string, unknown> = {}): TestGateway {
  const credentials = createFakeCredentials();
  credentials.require();
  credentials.passwords.set("alice secret", ALICE);
  return startTestGateway({ credentials, config });
}

interface Answer {
  readonly status: number;
  readonly code: string;
  readonly body: Record<string, unknown>;
  readonly cookies: readonly string[];
  readonly headers: Headers;
}

async function call(
  gateway: TestGateway,
  path: string,
  body: unknown,
  headers: Record<string, string> = {},
  method = "POST",
): Promise<Answer> {
  const response = await fetch(gateway.url + path, {
    method,
    headers,
    ...body === undefined ? {} : { body: JSON.stringify(body) },
  });
  const parsed = JSON.parse(await response.text() || "{}");
  return {
    status: response.status,
    code: parsed.code ?? "",
    body: parsed,
    cookies: response.headers.getSetCookie(),
    headers: response.headers,
  };
}

const LOGIN = { username: "alice", password: "secret", cookies: true };
const cookieOf = (cookies: readonly string[]) => cookies.map((each) => each.split(";")[0]).join("; ");

Deno.test("a login with a body has its tokens there, and tells where it came from", async () => {
  await using gateway = start();
  const answer = await call(gateway, "/api/v1/auth/login", {
    ...LOGIN,
    cookies: false,
    clientIp: "9.9.9.9",
    metadata: { user_agent: "forged", kept: "1" },
  }, { "user-agent": "a browser" });
  assertEquals([answer.status, answer.cookies, answer.headers.get("cache-control")], [200, [], "no-store"]);
  assertEquals([typeof answer.body.accessToken, answer.body.refreshToken], [
    "string",
    "refresh-of-session-1",
  ]);
  const [seen] = gateway.credentials.logins;
  assertEquals([seen!.clientIp, seen!.clientPort > 0], ["127.0.0.1", true]);
  assertEquals(seen!.metadata, { user_agent: "a browser", kept: "1" });
});

Deno.test("a login with cookies has its tokens only there, on this machine without Secure", async () => {
  await using gateway = start();
  const { status, body, cookies } = await call(gateway, "/api/v1/auth/login", LOGIN);
  assertEquals([status, body.accessToken, body.refreshToken], [200, "", ""]);
  assertEquals(cookies.map((cookie) => cookie.replace(/=[^;]*/, "")), [
    "aetherflow-access; Path=/; Max-Age=600; HttpOnly; SameSite=Strict",
    "aetherflow-refresh; Path=/; Max-Age=604800; HttpOnly; SameSite=Strict",
  ]);
  const cookie = cookieOf(cookies);
  assertEquals((await call(gateway, "/api/v1/auth/me", undefined, { cookie }, "GET")).status, 200);
});

Deno.test("behind a proxy that speaks https cookies are __Host- and Secure, and plain ones count for nothing", async () => {
  await using gateway = start({ trustedProxies: ["127.0.0.1"] });
  const https = { "x-forwarded-proto": "https", "x-forwarded-for": "10.1.2.3" };
  const { cookies } = await call(gateway, "/api/v1/auth/login", LOGIN, https);
  assertEquals(cookies.map((cookie) => cookie.replace(/=[^;]*/, "")), [
    "__Host-aetherflow-access; Path=/; Max-Age=600; HttpOnly; Secure; SameSite=Strict",
    "__Host-aetherflow-refresh; Path=/; Max-Age=604800; HttpOnly; Secure; SameSite=Strict",
  ]);
  assertEquals(gateway.credentials.logins[0]!.clientIp, "10.1.2.3");
  const cookie = cookieOf(cookies);
  assertEquals((await call(gateway, "/api/v1/auth/me", undefined, { ...https, cookie }, "GET")).status, 200);
  const plain = cookie.replaceAll("__Host-", "");
  assertEquals(
    (await call(gateway, "/api/v1/auth/me", undefined, { ...https, cookie: plain }, "GET")).status,
    401,
  );
});

Deno.test("cookies are not handed out over plain HTTP beyond this machine", async () => {
  await using gateway = start();
  const body = JSON.stringify(LOGIN);
  const { port } = new URL(gateway.url);
  const connection = await Deno.connect({ hostname: "127.0.0.1", port: Number(port) });
  await connection.write(
    new TextEncoder().encode(
      `POST /api/v1/auth/login HTTP/1.1\r\nhost: edge.example\r\nconnection: close\r\n` +
        `content-length: ${body.length}\r\n\r\n${body}`,
    ),
  );
  const answer = await new Response(connection.readable).text();
  assert(answer.includes("failed_precondition"), answer);
  assertEquals(gateway.credentials.logins.length, 0);
});

Deno.test("what changes something by cookie takes a page of our own; reading does not, and neither does a bearer", async () => {
  await using gateway = start({ cors: { origins: ["https://friend.example"], credentials: true } });
  const { cookies } = await call(gateway, "/api/v1/auth/login", LOGIN);
  const cookie = cookieOf(cookies);
  const own = gateway.url;
  const cases: [headers: Record<string, string>, status: number][] = [
    [{}, 403],
    [{ origin: own }, 200],
    [{ origin: own.replace("http:", "https:") }, 403],
    [{ origin: `${own}0` }, 403],
    [{ origin: "https://evil.example" }, 403],
    [{ origin: "null" }, 403],
    [{ origin: "https://friend.example" }, 200],
    [{ "sec-fetch-site": "same-origin" }, 200],
    [{ "sec-fetch-site": "none" }, 200],
    [{ "sec-fetch-site": "same-site" }, 403],
    [{ "sec-fetch-site": "cross-site" }, 403],
    [{ "sec-fetch-site": "same-origin", origin: "https://evil.example" }, 403],
  ];
  for (const [headers, status] of cases) {
    const answer = await call(gateway, "/api/v1/kv:batchGet", { keys: [] }, { cookie, ...headers });
    assertEquals([headers, answer.status === 403 ? answer.code : "passed"], [
      headers,
      status === 403 ? "csrf_refused" : "passed",
    ]);
  }
  assertEquals((await call(gateway, "/api/v1/kv", undefined, { cookie, origin: own }, "GET")).status, 200);
  const evil = { authorization: "Bearer session-1", origin: "https://evil.example", cookie };
  assertEquals((await call(gateway, "/api/v1/auth/logout", {}, evil)).status, 200);
});

Deno.test("a WebSocket by cookie takes a page of our own", async () => {
  await using gateway = start();
  const { cookies } = await call(gateway, "/api/v1/auth/login", LOGIN);
  const handshake = { upgrade: "websocket", connection: "upgrade", cookie: cookieOf(cookies) };
  const answer = await call(gateway, "/api/v1/kv?watch=true&prefix=", undefined, handshake, "GET");
  assertEquals(answer.code, "csrf_refused");
});

Deno.test("refreshing by cookie gives new ones; a refresh that fails leaves them as they are", async () => {
  await using gateway = start();
  const { cookies } = await call(gateway, "/api/v1/auth/login", LOGIN);
  const cookie = cookieOf(cookies);
  const origin = gateway.url;
  assertEquals((await call(gateway, "/api/v1/auth/refresh", {}, { cookie })).code, "csrf_refused");
  const fresh = await call(gateway, "/api/v1/auth/refresh", {}, { cookie, origin });
  assertEquals([fresh.status, fresh.cookies.length, fresh.body.accessToken], [200, 2, ""]);
  // The loser of two tabs, with an access token that is good no more.
  gateway.credentials.sessions.clear();
  const late = await call(gateway, "/api/v1/auth/refresh", {}, { cookie, origin });
  assertEquals([late.status, late.cookies, late.headers.get("clear-site-data")], [401, [], null]);
  assertEquals(late.headers.get("cache-control"), "no-store");
});

Deno.test("logging out takes the cookies away and ends the session of the refresh token", async () => {
  await using gateway = start();
  const { cookies } = await call(gateway, "/api/v1/auth/login", LOGIN);
  const answer = await call(gateway, "/api/v1/auth/logout", {}, {
    cookie: cookieOf(cookies),
    origin: gateway.url,
  });
  assertEquals(answer.cookies, [
    "aetherflow-access=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict",
    "aetherflow-refresh=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict",
  ]);
  assertEquals(answer.headers.get("clear-site-data"), '"cache", "cookies", "storage"');
  assertEquals(gateway.credentials.logouts[0]!.refreshToken, "refresh-of-session-1");
  assertEquals(gateway.credentials.sessions.size, 0);
});

Deno.test("a page of somebody else cannot sign its visitor in", async () => {
  await using gateway = start();
  const evil = await call(gateway, "/api/v1/auth/login", LOGIN, { origin: "https://evil.example" });
  assertEquals([evil.code, gateway.credentials.logins.length], ["csrf_refused", 0]);
});

Deno.test("a cookie that is good no more does not keep its browser from signing in", async () => {
  await using gateway = start();
  const answer = await call(gateway, "/api/v1/auth/login", LOGIN, {
    cookie: "aetherflow-access=nothing",
    origin: gateway.url,
  });
  assertEquals(answer.status, 200);
});

Deno.test("a session is opened from its caller's address, over REST and Connect, unless it says another", async () => {
  await using gateway = start({ trustedProxies: ["127.0.0.1"] });
  const headers = { authorization: "Bearer afk_bob" };
  gateway.credentials.keys.set("afk_bob", ALICE);
  const connect = { ...headers, "content-type": "application/json", "x-forwarded-for": "10.1.2.3" };
  const cases: [path: string, body: Record<string, unknown>, headers: Record<string, string>, ip: string][] =
    [
      ["/api/v1/sessions", {}, headers, "127.0.0.1"],
      ["/api/v1/session", {}, { ...headers, "x-forwarded-for": "10.1.2.3" }, "10.1.2.3"],
      ["/api/v1/sessions", { clientIp: "9.9.9.9", clientPort: 7 }, headers, "9.9.9.9"],
      ["/aetherflow.session.v1.SessionService/CreateSession", {}, connect, "10.1.2.3"],
    ];
  for (const [path, body, sent, ip] of cases) {
    const answer = await call(gateway, path, body, sent);
    const { clientIp, clientPort = 0 } = answer.body.session as { clientIp: string; clientPort?: number };
    assertEquals([answer.status, path, clientIp], [200, path, ip]);
    if (ip === "127.0.0.1") assert(clientPort > 0);
    if (ip === "9.9.9.9") assertEquals(clientPort, 7);
  }
});

Deno.test("signing in over Connect has cookies, the client's address and no-store too", async () => {
  await using gateway = start();
  const answer = await call(gateway, "/aetherflow.auth.v1.AuthService/Login", LOGIN, {
    "content-type": "application/json",
  });
  assertEquals([answer.status, answer.cookies.length, answer.headers.get("cache-control")], [
    200,
    2,
    "no-store",
  ]);
  assertEquals([answer.body.accessToken ?? "", gateway.credentials.logins[0]!.clientIp], ["", "127.0.0.1"]);
});
