import { assert, assertEquals, assertMatch, assertNotEquals, assertRejects } from "@std/assert";
import { Code, ConnectError } from "@connectrpc/connect";
import { createLocalJWKSet, decodeJwt, decodeProtectedHeader, jwtVerify } from "jose";
import { DEVELOPER } from "../../runtime/principal.ts";
import {
  as,
  createWorld,
  login,
  PASSWORD,
  plainPasswords,
  principalOfSession,
  signedIn,
  type World,
} from "./testing/world.ts";

async function codeOf(promise: Promise<unknown>): Promise<string> {
  const error = await assertRejects(() => promise, ConnectError);
  return Code[error.code];
}

/** A world with the administrator root and the member alice. */
async function createPeople(options: Parameters<typeof createWorld>[0] = {}): Promise<World> {
  const world = await createWorld(options);
  await world.users.createUser({ username: "root", password: PASSWORD }, as(DEVELOPER));
  const root = await signedIn(world, "root");
  await world.users.createUser({
    username: "alice",
    password: PASSWORD,
    grants: [{ service: "kv", prefix: "alice/", write: true }],
  }, root.options);
  return world;
}

Deno.test("the first user is made by anybody on this machine and becomes an administrator; the next is not", async () => {
  const world = await createWorld();
  const { user } = await world.users.createUser({ username: "root", password: PASSWORD }, as(DEVELOPER));
  assertEquals(user!.roles, ["admin", "member"]);
  assertEquals(
    await codeOf(world.users.createUser({ username: "eve", password: PASSWORD }, as(DEVELOPER))),
    "Unauthenticated",
  );
  await world.close();
});

Deno.test("AuthService.login() gives an access token of RFC 9068 that the published keys verify", async () => {
  const world = await createPeople();
  const { accessToken, tokenType, expiresIn, sessionId, user } = await login(world, "alice");
  const policy = world.credentials.watchPolicy({});
  for await (const { jwks, issuer, audience, isRequired } of policy) {
    assert(isRequired);
    const keys = createLocalJWKSet(JSON.parse(jwks));
    const { payload } = await jwtVerify(accessToken, keys, {
      issuer,
      audience,
      typ: "at+jwt",
      algorithms: ["EdDSA"],
      currentDate: new Date(world.clock.wallMs()),
    });
    assertEquals([payload.sub, payload.sid, payload.username], [user!.userId, sessionId, "alice"]);
    assertEquals(payload.exp! - payload.iat!, expiresIn);
    assertMatch(jwks, /"crv":"Ed25519"/);
    assertEquals(jwks.includes('"d"'), false);
    break;
  }
  assertEquals(tokenType, "Bearer");
  assertEquals(decodeProtectedHeader(accessToken).typ, "at+jwt");
  const principal = await principalOfSession(world, sessionId);
  assertEquals([principal.username, principal.grants[0]!.prefix], ["alice", "alice/"]);
  await world.close();
});

Deno.test("AuthService.login() says the same, after the same work, whatever was wrong", async () => {
  const passwords = plainPasswords();
  const world = await createPeople({ passwords });
  passwords.verified.length = 0;
  const messages: string[] = [];
  for (
    const [name, password] of [["alice", "wrong password"], ["nobody", PASSWORD], [
      "No Name!",
      PASSWORD,
    ]] as const
  ) {
    const error = await assertRejects(() => login(world, name, password), ConnectError);
    messages.push(`${Code[error.code]} ${error.rawMessage}`);
  }
  assertEquals(new Set(messages).size, 1);
  assertEquals(passwords.verified.length, 3);
  await world.close();
});

Deno.test("AuthService.refresh() gives two tabs the same successor, and ends the session on reuse later", async () => {
  const world = await createPeople();
  const first = await login(world, "alice");
  const [one, other] = await Promise.all([
    world.auth.refresh({ refreshToken: first.refreshToken }),
    world.auth.refresh({ refreshToken: first.refreshToken }),
  ]);
  assertEquals(one.refreshToken, other.refreshToken);
  assertNotEquals(one.refreshToken, first.refreshToken);
  // The slower tab comes when the successor was used already.
  const second = await world.auth.refresh({ refreshToken: one.refreshToken });
  assertEquals(
    (await world.auth.refresh({ refreshToken: first.refreshToken })).refreshToken,
    one.refreshToken,
  );
  assertEquals(
    (await world.auth.refresh({ refreshToken: one.refreshToken })).refreshToken,
    second.refreshToken,
  );

  world.clock.advance(world.config.refreshGraceMs + 1);
  assertEquals(await codeOf(world.auth.refresh({ refreshToken: first.refreshToken })), "Unauthenticated");
  assertEquals(await codeOf(world.auth.refresh({ refreshToken: second.refreshToken })), "Unauthenticated");
  assertEquals(await codeOf(principalOfSession(world, first.sessionId)), "Unauthenticated");
  assertEquals(world.log.at(-1)![1]!.sessionId, first.sessionId);
  assertEquals(JSON.stringify(world.log).includes("afr_"), false);
  await world.close();
});

Deno.test("AuthService.refresh() gives an access token that says as much as the first", async () => {
  const world = await createPeople();
  const first = await login(world, "alice");
  world.clock.advance(60_000);
  const second = await world.auth.refresh({ refreshToken: first.refreshToken });
  const claims = (token: string) => {
    const { iat, nbf: _, exp, jti, ...rest } = decodeJwt(token);
    assert(iat !== undefined && exp !== undefined && jti !== undefined);
    return rest;
  };
  assertNotEquals(second.accessToken, first.accessToken);
  assertEquals(claims(second.accessToken), claims(first.accessToken));
  assertEquals(claims(second.accessToken).username, "alice");
  await world.close();
});

Deno.test("AuthService.refresh() ends nobody's session for a token that somebody made up", async () => {
  const world = await createPeople();
  const { sessionId, refreshToken } = await login(world, "alice");
  for (
    const forged of [
      `afr_${sessionId}_${"A".repeat(64)}`,
      refreshToken.slice(0, -1) + (refreshToken.endsWith("A") ? "B" : "A"),
      refreshToken.slice(4),
      "",
    ]
  ) {
    assertEquals(await codeOf(world.auth.refresh({ refreshToken: forged })), "Unauthenticated", forged);
  }
  await world.auth.refresh({ refreshToken });
  await world.close();
});
