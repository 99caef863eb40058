import { assert, assertEquals, assertMatch } from "@std/assert";
import { Code, ConnectError } from "@connectrpc/connect";
import { createHmac } from "node:crypto";
import { principalOf } from "../../runtime/principal.ts";
import { createFakeCredentials, type FakeCredentials, principal } from "../testing/fake_credentials.ts";
import { startTestGateway, type TestGateway } from "../testing/harness.ts";

const ALICE = principal({ username: "alice", roles: ["admin"] });
const BOB = principal({
  username: "bob",
  roles: ["member"],
  grants: [{ service: "kv", prefix: "b/", write: true }],
});
const EVE = principal({ username: "eve", roles: ["member"] });

function required(): FakeCredentials {
  const credentials = createFakeCredentials();
  credentials.require();
  credentials.sessions.set("s-alice", ALICE);
  credentials.sessions.set("s-bob", BOB);
  credentials.sessions.set("s-eve", EVE);
  credentials.keys.set("afk_bob", BOB);
  credentials.passwords.set("alice secret", ALICE);
  return credentials;
}

const bearer = (token: string) => ({ headers: { authorization: `Bearer ${token}` } });

async function answer(response: Promise<Response>): Promise<[status: number, code: string]> {
  const { status, code } = await whole(response);
  return [status, code];
}

async function whole(response: Promise<Response>) {
  const { status, headers, ...rest } = await response;
  void rest;
  const body = await (await response).text();
  let code = "";
  try {
    code = JSON.parse(body).code ?? "";
  } catch {
    // no JSON
  }
  return { status, headers, body, code };
}

const get = (gateway: TestGateway, path: string, init?: RequestInit) => fetch(gateway.url + path, init);

Deno.test("without users, whoever is on this machine is the developer", async () => {
  await using gateway = startTestGateway();
  assertEquals((await answer(get(gateway, "/api/v1/kv")))[0], 200);
  const seen = principalOf(gateway.kv.seen.get("List")!)!;
  assertEquals([seen.username, seen.roles], ["dev", ["admin"]]);
  assertEquals(gateway.credentials.calls.authenticate, 0);
});

Deno.test("a client's own principal is not passed on", async () => {
  const forged = { headers: { "x-aetherflow-principal": "forged" } };
  await using open = startTestGateway();
  assertEquals((await answer(get(open, "/api/v1/kv", forged)))[0], 200);
  assertEquals(principalOf(open.kv.seen.get("List")!)!.username, "dev");
  await using closed = startTestGateway({ credentials: required() });
  assertEquals(await answer(get(closed, "/api/v1/kv", forged)), [401, "unauthenticated"]);
});

Deno.test("nothing is let through before the first policy, but health", async () => {
  const credentials = createFakeCredentials();
  credentials.failure = new ConnectError("starting", Code.Unavailable);
  await using gateway = startTestGateway({ credentials, config: { readRetryMs: 0 } });
  const waiting = answer(get(gateway, "/api/v1/kv"));
  assertEquals((await answer(get(gateway, "/livez")))[0], 200);
  assertEquals((await answer(get(gateway, "/.well-known/jwks.json")))[0], 503);
  while (!gateway.timer.waiting.includes(1_000)) await new Promise((resolve) => setTimeout(resolve, 1));
  gateway.timer.fire(1_000);
  assertEquals(await waiting, [503, "unavailable"]);
  assertEquals(gateway.kv.seen.size, 0);
  // The worker comes; it is asked again.
  credentials.failure = undefined;
  credentials.require();
  const later = answer(get(gateway, "/api/v1/kv"));
  while (gateway.timer.fire(50) + gateway.timer.fire(100) === 0) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  assertEquals(await later, [401, "unauthenticated"]);
});

Deno.test("the last policy stays in force while the session worker is away", async () => {
  const credentials = required();
  await using gateway = startTestGateway({ credentials, config: { readRetryMs: 0 } });
  assertEquals(await answer(get(gateway, "/api/v1/kv")), [401, "unauthenticated"]);
  credentials.failure = new ConnectError("gone", Code.Unavailable);
  credentials.breakStreams();
  assertEquals(await answer(get(gateway, "/api/v1/kv")), [401, "unauthenticated"]);
  const token = await credentials.token("s-alice", ALICE.userId);
  const refused = await get(gateway, "/api/v1/kv", bearer(token));
  assertEquals([refused.status, refused.headers.get("retry-after")], [503, "1"]);
  await refused.body?.cancel();
});

Deno.test("after a user was added the next request without a credential is refused", async () => {
  const credentials = createFakeCredentials();
  credentials.tellsChanges = false;
  await using gateway = startTestGateway({ credentials });
  assertEquals((await answer(get(gateway, "/api/v1/kv")))[0], 200);
  const added = await get(gateway, "/api/v1/users", {
    method: "POST",
    body: JSON.stringify({ username: "alice", password: "correct horse" }),
  });
  assertEquals((await answer(Promise.resolve(added)))[0], 200);
  assertEquals(await answer(get(gateway, "/api/v1/kv")), [401, "unauthenticated"]);
});

Deno.test("every kind of credential shows who calls, and the service is told who, not how", async () => {
  const credentials = required();
  await using gateway = startTestGateway({ credentials });
  const token = await credentials.token("s-alice", ALICE.userId);
  const cases: [name: string, headers: HeadersInit, username: string][] = [
    ["access token", { authorization: `Bearer ${token}` }, "alice"],
    ["another case of the scheme", { authorization: `bEARER ${token}` }, "alice"],
    ["session token", { authorization: "Bearer s-alice" }, "alice"],
    ["API key", { authorization: "Bearer afk_bob" }, "bob"],
    ["API key by its own name", { "x-api-key": "afk_bob" }, "bob"],
    ["cookie", { cookie: `a=b; aetherflow-access=${token}; c=d` }, "alice"],
  ];
  for (const [name, headers, username] of cases) {
    assertEquals((await answer(get(gateway, "/api/v1/kv", { headers })))[0], 200, name);
    const seen = gateway.kv.seen.get("List")!;
    assertEquals(principalOf(seen)!.username, username, name);
    assertEquals(
      [seen.get("authorization"), seen.get("cookie"), seen.get("x-api-key")],
      [null, null, null],
      name,
    );
  }
});

Deno.test("nothing is authenticated after its session has ended, though its token was checked before", async () => {
  const credentials = required();
  await using gateway = startTestGateway({ credentials });
  const token = await credentials.token("s-alice", ALICE.userId);
  for (let i = 0; i < 3; i++) assertEquals((await answer(get(gateway, "/api/v1/kv", bearer(token))))[0], 200);
  assertEquals(credentials.calls.authenticate, 3);
  credentials.sessions.delete("s-alice");
  credentials.keys.delete("afk_bob");
  for (const shown of [token, "s-alice", "afk_bob"]) {
    const refused = await whole(get(gateway, "/api/v1/kv", bearer(shown)));
    assertEquals([refused.status, refused.code], [401, "unauthenticated"]);
    assertMatch(
      refused.headers.get("www-authenticate")!,
      /^Bearer realm="aetherflow", error="invalid_token", /,
    );
  }
});

Deno.test("requests of one credential share a question that is asked after they came, never an older one", async () => {
  const credentials = required();
  await using gateway = startTestGateway({ credentials, realTimers: true });
  const { promise, resolve } = Promise.withResolvers<void>();
  credentials.gate = promise;
  const before = Array.from({ length: 40 }, () => answer(get(gateway, "/api/v1/kv", bearer("s-alice"))));
  while (credentials.calls.authenticate < 5) await new Promise((resolve) => setTimeout(resolve, 1));
  // The answers of those are on their way when the session ends.
  credentials.sessions.delete("s-alice");
  const after = Array.from({ length: 40 }, () => answer(get(gateway, "/api/v1/kv", bearer("s-alice"))));
  await new Promise((resolve) => setTimeout(resolve, 20));
  resolve();
  for (const each of await Promise.all(after)) assertEquals(each, [401, "unauthenticated"]);
  await Promise.all(before);
  assert(credentials.calls.authenticate < 60, `${credentials.calls.authenticate} questions for 80 requests`);
});

Deno.test("a token that is none is refused, whatever is wrong with it", async (t) => {
  const credentials = required();
  credentials.secrets["hmac-1"] = new TextEncoder().encode("0123456789abcdef0123456789abcdef");
  await using gateway = startTestGateway({ credentials });
  const stranger = createFakeCredentials();
  const token = await credentials.token("s-alice", ALICE.userId);
  const [head, body, signature] = token.split(".") as [string, string, string];
  const encode = (value: unknown) =>
    btoa(JSON.stringify(value)).replaceAll("+", "-").replaceAll("/", "_")
      .replaceAll("=", "");
  const claims = JSON.parse(atob(body.replaceAll("-", "+").replaceAll("_", "/")));
  const hmac = (header: unknown, secret: string | Uint8Array) => {
    const signed = `${encode(header)}.${body}`;
    return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
  };
  const make = (parts: Parameters<FakeCredentials["token"]>[2]) =>
    credentials.token("s-alice", ALICE.userId, parts);
  const now = Math.floor(Date.now() / 1_000);
  const publicKey = credentials.publicJwk();
  const cases: Record<string, string> = {
    "alg none": `${encode({ alg: "none", typ: "at+jwt", kid: "key-1" })}.${body}.`,
    "alg none with a signature": `${
      encode({ alg: "none", typ: "at+jwt", kid: "key-1" })
    }.${body}.${signature}`,
    "alg NONE": `${encode({ alg: "NONE", typ: "at+jwt", kid: "key-1" })}.${body}.${signature}`,
    "HS256 with the public key as the secret": hmac(
      { alg: "HS256", typ: "at+jwt", kid: "key-1" },
      publicKey.x!,
    ),
    "HS256 with the public key's octets": hmac(
      { alg: "HS256", typ: "at+jwt", kid: "key-1" },
      Uint8Array.from(atob(publicKey.x!.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0)),
    ),
    "HS256 with another secret": hmac({ alg: "HS256", typ: "at+jwt", kid: "hmac-1" }, "guess"),
    "HS256 named __proto__": hmac({ alg: "HS256", typ: "at+jwt", kid: "__proto__" }, ""),
    "EdDSA with the id of a secret": await make({ header: { kid: "hmac-1" } }),
    "RS256": `${encode({ alg: "RS256", typ: "at+jwt", kid: "key-1" })}.${body}.${signature}`,
    "a refresh token's type": await make({ header: { typ: "rt+jwt" } }),
    "type JWT": await make({ header: { typ: "JWT" } }),
    "no type": await make({ header: { typ: undefined } }),
    "no key id": await make({ header: { kid: undefined } }),
    "an unknown key id": await make({ header: { kid: "key-99" } }),
    "a key id that is no text": `${
      encode({ alg: "EdDSA", typ: "at+jwt", kid: { a: 1 } })
    }.${body}.${signature}`,
    "a stranger's key": await stranger.token("s-alice", ALICE.userId),
    "a stranger's key brought along": await stranger.token("s-alice", ALICE.userId, {
      header: { jwk: stranger.publicJwk() },
    }),
    "its own key set's address": await make({ header: { jku: "https://evil.example/jwks" } }),
    "its own certificate's address": await make({ header: { x5u: "https://evil.example/c" } }),
    "a critical extension": `${
      encode({ alg: "EdDSA", typ: "at+jwt", kid: "key-1", crit: ["exp"], exp: 1 })
    }.${body}.${signature}`,
    "another audience": await make({ claims: { aud: "others" } }),
    "another issuer": await make({ claims: { iss: "https://evil.example" } }),
    "no audience": await make({ claims: { aud: undefined } }),
    "expired": await make({ claims: { exp: now - 60 } }),
    "never expires": await make({ claims: { exp: undefined } }),
    "an end that is no number": await make({ claims: { exp: "never" } }),
    "not yet": await make({ claims: { nbf: now + 60 } }),
    "no session": await make({ claims: { sid: undefined } }),
    "an empty session": await make({ claims: { sid: "" } }),
    "a session of another": await credentials.token("s-bob", ALICE.userId),
    "no subject": await make({ claims: { sub: undefined } }),
    "changed claims": `${head}.${encode({ ...claims, sub: "root" })}.${signature}`,
    "changed signature": `${head}.${body}.${signature.slice(0, -4)}AAAA`,
    "no signature": `${head}.${body}.`,
    "two parts": `${head}.${body}`,
    "four parts": `${token}.${signature}`,
    "five parts": `${token}.${token}`,
    "twice": `${token}${token}`,
    "only dots": "..",
    "no JSON": `${btoa("nope")}.${body}.${signature}`,
    "a head that is a list": `${encode([])}.${body}.${signature}`,
    "octets that are no base64url": `${head}.${body}.%%%%`,
    "12 kB": `${head}.${"A".repeat(12_000)}.${signature}`,
  };
  for (const [name, bad] of Object.entries(cases)) {
    await t.step(name, async () => {
      const refused = await whole(get(gateway, "/api/v1/kv", bearer(bad)));
      assertEquals([refused.status, refused.code], [401, "unauthenticated"]);
      assertMatch(refused.headers.get("www-authenticate")!, /error="invalid_token"/);
      assert(!refused.body.includes(bad.slice(0, 20)), "the answer repeats the token");
    });
  }
  await t.step("100 kB", async () => {
    // The server itself stops reading such headers.
    const [status] = await answer(get(gateway, "/api/v1/kv", bearer("A".repeat(100_000))));
    assert(status === 400 || status === 431, `${status}`);
    const [below] = await answer(get(gateway, "/api/v1/kv", bearer("A".repeat(30_000))));
    assertEquals(below, 401);
  });
  await t.step("the good one, and one by a secret", async () => {
    assertEquals((await answer(get(gateway, "/api/v1/kv", bearer(token))))[0], 200);
    credentials.require(); // tells of the secret
    const good = hmac({ alg: "HS256", typ: "at+jwt", kid: "hmac-1" }, credentials.secrets["hmac-1"]!);
    assertEquals((await answer(get(gateway, "/api/v1/kv", bearer(good))))[0], 200);
  });
  assertEquals(gateway.logged.filter(({ level }) => level === "error"), []);
});

Deno.test("a refresh token cannot stand in for an access token, nor an access token for a session's", async () => {
  const credentials = required();
  await using gateway = startTestGateway({ credentials });
  assertEquals(await answer(get(gateway, "/api/v1/kv", bearer("refresh-of-s-alice"))), [
    401,
    "unauthenticated",
  ]);
  assertEquals(await answer(get(gateway, "/api/v1/kv", { headers: { authorization: "Basic YTpi" } })), [
    401,
    "unauthenticated",
  ]);
});

Deno.test("a key that is not known yet is asked for once, however many tokens name unknown ones", async () => {
  const credentials = required();
  await using gateway = startTestGateway({ credentials });
  await answer(get(gateway, "/api/v1/kv"));
  credentials.tellsChanges = false;
  credentials.rotate();
  const asked = credentials.calls.watchPolicy;
  const token = await credentials.token("s-alice", ALICE.userId);
  const others = Array.from({ length: 20 }, async (_, i) => {
    const bad = await credentials.token("s-alice", ALICE.userId, { header: { kid: `no-${i}` } });
    return await answer(get(gateway, "/api/v1/kv", bearer(bad)));
  });
  const good = Array.from({ length: 5 }, () => answer(get(gateway, "/api/v1/kv", bearer(token))));
  for (const each of await Promise.all(good)) assertEquals(each[0], 200);
  for (const each of await Promise.all(others)) assertEquals(each[0], 401);
  assertEquals(credentials.calls.watchPolicy, asked + 1);
});

Deno.test("a key that was taken back verifies nothing more, though a token of it was checked before", async () => {
  const credentials = required();
  await using gateway = startTestGateway({ credentials });
  const token = await credentials.token("s-alice", ALICE.userId);
  assertEquals((await answer(get(gateway, "/api/v1/kv", bearer(token))))[0], 200);
  credentials.rotate();
  assertEquals((await answer(get(gateway, "/api/v1/kv", bearer(token))))[0], 200);
  credentials.rotate(true);
  const fresh = await credentials.token("s-alice", ALICE.userId, { header: { kid: "key-3" } });
  assertEquals((await answer(get(gateway, "/api/v1/kv", bearer(fresh))))[0], 200);
  assertEquals((await answer(get(gateway, "/api/v1/kv", bearer(token))))[0], 401);
});

Deno.test("/.well-known/jwks.json has the public keys alone, for everybody", async () => {
  const credentials = required();
  credentials.secrets["hmac-1"] = new Uint8Array(32);
  await using gateway = startTestGateway({ credentials });
  await answer(get(gateway, "/api/v1/kv"));
  const { status, headers, body } = await whole(get(gateway, "/.well-known/jwks.json"));
  assertEquals([status, headers.get("cache-control")], [200, "public, max-age=300"]);
  const { keys } = JSON.parse(body);
  assertEquals(keys.map((key: { kid: string; kty: string; d?: string }) => [key.kid, key.kty, key.d]), [
    ["key-1", "OKP", undefined],
  ]);
});

Deno.test("what an RPC takes is asked of everybody", async () => {
  const credentials = required();
  await using gateway = startTestGateway({ credentials });
  const cases: [method: string, path: string, as: string, status: number][] = [
    ["GET", "/api/v1/auth/me", "", 401],
    ["GET", "/api/v1/auth/me", "s-eve", 200],
    ["GET", "/api/v1/users", "s-bob", 403],
    ["GET", "/api/v1/users", "s-alice", 200],
    ["GET", "/api/v1/kv", "s-eve", 403],
    ["GET", "/api/v1/kv", "s-bob", 200],
    ["PUT", "/api/v1/kv/b/x", "s-bob", 200],
    ["GET", "/api/v1/sessions/x", "s-bob", 403],
    ["GET", "/api/v1/sessions/x", "s-alice", 200],
    ["GET", "/nowhere", "", 404],
    ["GET", "/metrics", "", 401],
    ["GET", "/metrics", "s-eve", 200],
    ["GET", "/version", "", 401],
    ["GET", "/openapi.json", "", 200],
    ["GET", "/", "", 200],
    ["GET", "/livez", "", 200],
    ["GET", "/health", "", 200],
    ["POST", "/v3/kv/range", "", 401],
    ["POST", "/v3/kv/range", "s-eve", 403],
    ["POST", "/v3/kv/range", "s-bob", 200],
  ];
  for (const [method, path, as, status] of cases) {
    const init = {
      method,
      ...as === "" ? {} : bearer(as),
      ...method === "GET" ? {} : { body: '{"key":"YQ=="}' },
    };
    const found = await whole(get(gateway, path, init));
    assertEquals([method, path, as, found.status], [method, path, as, status]);
    if (status === 403) assertMatch(found.headers.get("www-authenticate")!, /insufficient_scope/);
  }
  const { body } = await whole(get(gateway, "/api/v1/users", bearer("s-bob")));
  assertMatch(body, /this takes the role admin/);
});

Deno.test("a member who may only read cannot write", async () => {
  const credentials = required();
  credentials.sessions.set(
    "s-reader",
    principal({
      username: "reader",
      roles: ["member"],
      grants: [{ service: "kv", prefix: "", write: false }],
    }),
  );
  await using gateway = startTestGateway({ credentials });
  assertEquals((await answer(get(gateway, "/api/v1/kv", bearer("s-reader"))))[0], 200);
  const { status, body } = await whole(
    get(gateway, "/api/v1/kv/x", { method: "PUT", body: "1", ...bearer("s-reader") }),
  );
  assertEquals(status, 403);
  assertMatch(body, /a grant to write for kv/);
});

Deno.test("an etcd token is passed on to the store, with nobody as its caller", async () => {
  await using gateway = startTestGateway({ credentials: required() });
  const cases: HeadersInit[] = [
    { token: "abc.1" },
    { authorization: "abcdefghijklmnop.17" },
    { authorization: "Bearer abcdefghijklmnop.17" },
  ];
  for (const headers of cases) {
    const found = await answer(
      get(gateway, "/v3/kv/range", { method: "POST", body: '{"key":"YQ=="}', headers }),
    );
    assertEquals(found[0], 200);
    const seen = gateway.kv.seen.get("Range")!;
    assertEquals(principalOf(seen)!.kind, 1);
    assert(seen.get("token") !== null || seen.get("authorization") !== null);
  }
  assertEquals(await answer(get(gateway, "/api/v1/auth/me", { headers: { token: "abc.1" } })), [
    401,
    "unauthenticated",
  ]);
});

Deno.test("a read that runs ahead of the answer who calls is told to nobody but its caller", async () => {
  const credentials = required();
  await using gateway = startTestGateway({ credentials });
  gateway.kv.put("b/1", "secret");
  const read = () => whole(get(gateway, "/api/v1/kv/b/1", bearer("afk_bob")));
  assertEquals((await read()).status, 200);

  const after = async (change: () => void) => {
    change();
    gateway.kv.seen.clear();
    const gate = Promise.withResolvers<void>();
    credentials.gate = gate.promise;
    const answered = read();
    while (!gateway.kv.seen.has("Get")) await new Promise((resolve) => setTimeout(resolve, 1));
    const guessed = principalOf(gateway.kv.seen.get("Get")!)!.username;
    gate.resolve();
    const { status, body } = await answered;
    return {
      guessed,
      status,
      leaks: body.includes("secret"),
      last: principalOf(gateway.kv.seen.get("Get")!)!.username,
    };
  };
  assertEquals(await after(() => {}), { guessed: "bob", status: 200, leaks: true, last: "bob" });
  assertEquals(await after(() => credentials.keys.set("afk_bob", ALICE)), {
    guessed: "bob",
    status: 200,
    leaks: true,
    last: "alice", // who it is now asked anew
  });
  assertEquals(await after(() => credentials.keys.delete("afk_bob")), {
    guessed: "alice",
    status: 401,
    leaks: false,
    last: "alice",
  });
  // Nobody is expected behind what was refused.
  credentials.gate = undefined;
  gateway.kv.seen.clear();
  assertEquals((await read()).status, 401);
  assertEquals(gateway.kv.seen.size, 0);
});

Deno.test("a write never runs ahead", async () => {
  const credentials = required();
  await using gateway = startTestGateway({ credentials });
  const write = () =>
    answer(get(gateway, "/api/v1/kv/b/1", { method: "PUT", body: "1", ...bearer("afk_bob") }));
  assertEquals((await write())[0], 200);
  gateway.kv.seen.clear();
  credentials.keys.delete("afk_bob");
  assertEquals((await write())[0], 401);
  assertEquals(gateway.kv.seen.size, 0);
});
