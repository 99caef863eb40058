import { assert, assertEquals } from "@std/assert";
import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { type JWK, SignJWT } from "jose";
import { principalOf } from "../../runtime/principal.ts";
import { createFakeCredentials } from "../testing/fake_credentials.ts";
import { startTestGateway, type TestGateway } from "../testing/harness.ts";
import { gatewayAuthConfigSchema, issuerAddresses } from "./config.ts";

const NAME = "https://issuer.example";
const JWKS_URL = "https://issuer.example/keys";

/** An issuer with one key at a time, and what is fetched from it. */
function createIssuer() {
  let pair = makeKey(1);
  let number = 1;
  const issuer = {
    fetched: 0,
    /** What is answered in place of the keys. */
    answer: undefined as (() => Promise<Response>) | undefined,
    fetch: ((url: string) => {
      assertEquals(url, JWKS_URL);
      issuer.fetched++;
      return issuer.answer?.() ?? Promise.resolve(Response.json({ keys: [pair.jwk] }));
    }) as typeof fetch,
    rotate() {
      pair = makeKey(++number);
    },
    token(
      claims: Record<string, unknown> = {},
      header: Record<string, unknown> = {},
      key: KeyObject = pair.privateKey,
    ) {
      const now = Math.floor(Date.now() / 1_000);
      const all = {
        iss: NAME,
        aud: "edge",
        sub: "42",
        exp: now + 60,
        realm: { roles: ["editor"] },
        ...claims,
      };
      return new SignJWT(all).setProtectedHeader({
        alg: "ES256",
        typ: "at+jwt",
        kid: pair.jwk.kid!,
        ...header,
      })
        .sign(key);
    },
  };
  return issuer;
}

function makeKey(number: number) {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const jwk: JWK = { ...publicKey.export({ format: "jwk" }) as JWK, kid: `k${number}`, alg: "ES256" };
  return { privateKey, jwk };
}

function start(issuer: ReturnType<typeof createIssuer>): TestGateway {
  const credentials = createFakeCredentials();
  credentials.require();
  return startTestGateway({
    credentials,
    fetch: issuer.fetch,
    config: {
      auth: {
        issuers: [{
          issuer: NAME,
          jwksUrl: JWKS_URL,
          audience: "edge",
          algorithms: ["ES256"],
          rolesClaim: "realm.roles",
          mapping: [
            { role: "editor", grants: [{ service: "kv", prefix: "e/", write: true }] },
            { role: "boss", admin: true },
          ],
        }],
      },
    },
  });
}

async function status(gateway: TestGateway, token: string): Promise<number> {
  const response = await fetch(`${gateway.url}/api/v1/kv`, { headers: { authorization: `Bearer ${token}` } });
  await response.body?.cancel();
  return response.status;
}

Deno.test("an issuer's tokens stand for whom they name, with what the roles are mapped to", async () => {
  const issuer = createIssuer();
  await using gateway = start(issuer);
  assertEquals(await status(gateway, await issuer.token()), 200);
  const editor = principalOf(gateway.kv.seen.get("List")!)!;
  assertEquals([editor.userId, editor.roles, editor.grants.map(({ prefix }) => prefix)], [
    `${NAME}|42`,
    ["member"],
    ["e/"],
  ]);
  assertEquals(await status(gateway, await issuer.token({ realm: { roles: "boss other" } })), 200);
  assertEquals(principalOf(gateway.kv.seen.get("List")!)!.roles, ["admin"]);
  assertEquals(await status(gateway, await issuer.token({ realm: {} })), 403);
  assertEquals([issuer.fetched, gateway.credentials.calls.authenticate], [1, 0]);
});

Deno.test("an issuer's tokens are refused for what is wrong with them, and never bring their own key", async () => {
  const issuer = createIssuer();
  await using gateway = start(issuer);
  const stranger = makeKey(9);
  const now = Math.floor(Date.now() / 1_000);
  const cases: Record<string, Promise<string>> = {
    audience: issuer.token({ aud: "another" }),
    expired: issuer.token({ exp: now - 60 }),
    "not yet": issuer.token({ nbf: now + 60 }),
    "no subject": issuer.token({ sub: undefined }),
    "an identity token's type": issuer.token({}, { typ: "JWT" }),
    "another key": issuer.token({}, {}, stranger.privateKey),
    "another key, brought along": issuer.token({}, { jwk: stranger.jwk }, stranger.privateKey),
    "another key, elsewhere": issuer.token({}, { jku: "https://evil.example/" }, stranger.privateKey),
    "an unknown issuer": issuer.token({ iss: "https://evil.example" }),
    "our own name": issuer.token({ iss: "aetherflow", sid: "s" }),
  };
  for (const [name, token] of Object.entries(cases)) {
    assertEquals([name, await status(gateway, await token)], [name, 401]);
  }
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  assertEquals(await status(gateway, await issuer.token({}, { alg: "RS256" }, privateKey)), 401);
});

Deno.test("a new key is fetched once for all who name it, and not again soon for keys that nobody has", async () => {
  const issuer = createIssuer();
  await using gateway = start(issuer);
  const tokens = await Promise.all(
    Array.from({ length: 20 }, (_, i) => issuer.token({}, { kid: `no-${i}` })),
  );
  const good = await issuer.token();
  assertEquals(await status(gateway, good), 200);
  for (const each of await Promise.all(tokens.map((token) => status(gateway, token)))) {
    assertEquals(each, 401);
  }
  assertEquals(issuer.fetched, 1);
});

Deno.test("keys that are known do while their issuer is away; without any it is 503", async () => {
  const issuer = createIssuer();
  issuer.answer = () => Promise.resolve(new Response("sorry", { status: 500 }));
  await using away = start(issuer);
  assertEquals(await status(away, await issuer.token()), 503);
  issuer.answer = () => Promise.resolve(new Response(`{"keys":[${" ".repeat(300_000)}]}`));
  await using huge = start(issuer);
  assertEquals(await status(huge, await issuer.token()), 503);
  issuer.answer = undefined;
  await using gateway = start(issuer);
  assertEquals(await status(gateway, await issuer.token()), 200);
  issuer.answer = () => Promise.reject(new TypeError("no route"));
  assertEquals(await status(gateway, await issuer.token({ jti: "2" })), 200);
});

Deno.test("an issuer that takes secrets, or plain HTTP, is refused in the configuration", () => {
  const refused = (issuer: Record<string, unknown>) =>
    !gatewayAuthConfigSchema.safeParse({
      issuers: [{ issuer: NAME, jwksUrl: JWKS_URL, audience: "edge", ...issuer }],
    }).success;
  assert(refused({ algorithms: ["HS256"] }));
  assert(refused({ algorithms: ["none"] }));
  assert(refused({ algorithms: [] }));
  assert(refused({ jwksUrl: "http://issuer.example/keys" }));
  assert(refused({ jwksUrl: "https://user:secret@issuer.example/keys" }));
  assert(refused({ jwksUrl: "file:///etc/passwd" }));
  assert(refused({ audience: "" }));
  assert(!refused({ jwksUrl: "http://127.0.0.1:8000/keys" }));
});

Deno.test("issuerAddresses() names each host once, with its port", () => {
  const urls = [
    "https://a.example/k",
    "https://a.example/l",
    "https://b.example:8443/k",
    "http://[::1]:81/k",
  ];
  const config = gatewayAuthConfigSchema.parse({
    issuers: urls.map((jwksUrl, i) => ({ issuer: `i${i}`, jwksUrl, audience: "edge" })),
  });
  assertEquals(issuerAddresses(config), [
    { hostname: "a.example", port: 443 },
    { hostname: "b.example", port: 8443 },
    { hostname: "[::1]", port: 81 },
  ]);
});
