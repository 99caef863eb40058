/** OWASP ASVS 5.0, chapters V6, V7 and V9: a test for each clause that applies, named by it. The domain, the password service
 *  and the gateway's check of tokens run as they are, wired in memory; asvs_clauses.ts has the other clauses. */
import {
  assert,
  assertEquals,
  assertMatch,
  assertNotEquals,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { decodeJwt, generateKeyPair, SignJWT } from "jose";
import { Buffer } from "node:buffer";
import {
  AuthService,
  CredentialService,
  PrincipalSchema,
  UserService,
  type WatchPolicyResponse,
} from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { AccessTokens } from "../../services/gateway/auth/access_tokens.ts";
import { Issuers } from "../../services/gateway/auth/issuers.ts";
import { createPasswordModule } from "../../services/password/mod.ts";
import { passwordConfigSchema } from "../../services/password/config.ts";
import { createSeededRandom } from "../../services/runtime/random.ts";
import { DEVELOPER } from "../../services/runtime/principal.ts";
import { sessionConfigSchema } from "../../services/session/config.ts";
import {
  as,
  createWorld,
  login,
  PASSWORD,
  plainPasswords,
  principalOfSession,
  signedIn,
  type World,
  type WorldOptions,
} from "../../services/session/auth/testing/world.ts";
import { MemoryRecords } from "../../services/session/stores/records_memory.ts";
import { projectFile } from "../support/paths.ts";
import { NOT_APPLICABLE, NOT_MET, TESTED_ELSEWHERE } from "./asvs_clauses.ts";

const OTHER_PASSWORD = "staple battery horse";

/** A world with root, who is its administrator, and alice; both signed in. */
async function createPeople(options: WorldOptions = {}) {
  const world = await createWorld(options);
  await world.users.createUser({ username: "root", password: PASSWORD }, as(DEVELOPER));
  const root = await signedIn(world, "root");
  await world.users.createUser({ username: "alice", password: PASSWORD }, root.options);
  const alice = await signedIn(world, "alice");
  return { world, root, alice };
}

async function refusal(
  call: Promise<unknown>,
): Promise<{ code: string; text: string; retryAfter: string | null }> {
  const error = await assertRejects(() => call, ConnectError);
  return { code: Code[error.code], text: error.rawMessage, retryAfter: error.metadata.get("retry-after") };
}

async function isRefused(call: Promise<unknown>, code = "Unauthenticated"): Promise<void> {
  assertEquals((await refusal(call)).code, code);
}

const isGone = (world: World, sessionId: string) => isRefused(principalOfSession(world, sessionId));

async function policyOf(world: World): Promise<WatchPolicyResponse> {
  for await (const policy of world.credentials.watchPolicy({})) return policy;
  throw new Error("the policy never came");
}

/** The gateway's check of tokens. */
async function gatewayOf(world: World): Promise<AccessTokens> {
  const issuers = new Issuers([], undefined as never);
  const tokens = new AccessTokens({ issuers, clock: world.clock, refreshPolicy: () => Promise.resolve() });
  tokens.use(await policyOf(world));
  return tokens;
}

const readme = await Deno.readTextFile(projectFile("services/session/auth/README.md"));

/** A documented decision. */
function documents(...texts: string[]): void {
  for (const text of texts) assertStringIncludes(readme, text);
}

const CLAUSES: Record<string, (t: Deno.TestContext) => void | Promise<void>> = {
  "6.1.1 how guessing is bounded is documented": () =>
    documents("loginFailuresMax", "loginWindowMs", "password.waitingMax", "lock somebody out"),
  "6.1.2 words of the product are documented as refused": () => documents("`aetherflow`"),
  "6.1.3 the ways to sign in are documented": () =>
    documents("| access token", "| session token", "| API key", "| name and password", "| refresh token"),

  "6.2.1 passwords have at least 8 characters": async () => {
    const { world, root } = await createPeople();
    for (const password of ["", "a", "zq8!kfw", "ü✓😀ẞñç✗"]) {
      await isRefused(world.users.createUser({ username: "bob", password }, root.options), "InvalidArgument");
    }
    await world.users.createUser({ username: "bob", password: "zq8!kfwy" }, root.options);
    await world.close();
  },
  "6.2.2 users can change their password": async () => {
    const { world, alice } = await createPeople();
    await world.auth.changePassword(
      { currentPassword: PASSWORD, newPassword: OTHER_PASSWORD },
      alice.options,
    );
    await isRefused(login(world, "alice", PASSWORD));
    await login(world, "alice", OTHER_PASSWORD);
    await world.close();
  },
  "6.2.3 changing it takes the present one": async () => {
    const { world, alice } = await createPeople();
    const change = (currentPassword: string) =>
      world.auth.changePassword({ currentPassword, newPassword: OTHER_PASSWORD }, alice.options);
    await isRefused(change("not the one"), "PermissionDenied");
    await isRefused(change(""), "InvalidArgument");
    await login(world, "alice", PASSWORD);
    await world.close();
  },
  "6.2.4 passwords that are tried first are refused, when set and when changed": async () => {
    const { world, root, alice } = await createPeople();
    for (
      const password of [
        "password",
        "Password1",
        "P@ssw0rd",
        "passw0rd123",
        "12345678",
        "87654321",
        "qwertyuiop",
        "1q2w3e4r",
        "iloveyou",
        "letmein1",
        "football1!",
        "11111111",
        "abcabcabc",
        "19871203",
        "sunshine2024",
        "monkeydragon",
        "Welcome123",
        "trustno1",
        "zaq12wsx",
        "administrator",
      ]
    ) {
      await isRefused(world.users.createUser({ username: "bob", password }, root.options), "InvalidArgument");
    }
    const weak = { currentPassword: PASSWORD, newPassword: "Password1" };
    await isRefused(world.auth.changePassword(weak, alice.options), "InvalidArgument");
    await isRefused(
      world.users.setPassword({ username: "alice", password: "Password1" }, root.options),
      "InvalidArgument",
    );
    await world.close();
  },
  "6.2.5 no kinds of characters are asked for or forbidden": async () => {
    const { world, root } = await createPeople();
    const passwords = [
      "onlysmalletters",
      "ONLYCAPITALSHERE",
      "7301946582",
      "пароль для меня",
      "✓✗😀😎🎉🐎🔋📎",
      "  spaces  ",
      "tab\tand\0nul",
    ];
    for (const [i, password] of passwords.entries()) {
      await world.users.createUser({ username: `u${i}`, password }, root.options);
      await login(world, `u${i}`, password);
    }
    await world.close();
  },
  "6.2.8 a password is taken exactly as it came": async () => {
    const { world, root } = await createPeople({ passwords: argon2() });
    const password = " Café au lait ";
    await world.users.createUser({ username: "bob", password }, root.options);
    await login(world, "bob", password);
    for (
      const other of [password.trim(), password.toLowerCase(), password.normalize("NFD"), `${password} `]
    ) {
      await isRefused(login(world, "bob", other, `198.51.100.${other.length}`));
    }
    await world.close();
  },
  "6.2.9 long passwords are allowed, and nothing of them is cut off": async () => {
    const { world, root } = await createPeople({ passwords: argon2() });
    const password = `${"long ".repeat(51)}x`;
    assertEquals(password.length, 256);
    await world.users.createUser({ username: "bob", password }, root.options);
    await login(world, "bob", password);
    await isRefused(login(world, "bob", `${password.slice(0, -1)}y`));
    await isRefused(
      world.users.createUser({ username: "eve", password: `${password}x` }, root.options),
      "InvalidArgument",
    );
    await world.close();
  },
  "6.2.10 a password does not expire": async () => {
    const { world } = await createPeople();
    world.clock.advance(10 * 365 * 86_400_000);
    await login(world, "alice");
    await world.close();
  },
  "6.2.11 words of the product and of the user are refused": async () => {
    const { world, root } = await createPeople();
    for (const password of ["aetherflow", "AetherFlow1", "marianne", "Marianne12", "ennairam!"]) {
      await isRefused(
        world.users.createUser({ username: "marianne", password }, root.options),
        "InvalidArgument",
      );
    }
    await world.close();
  },

  "6.3.1 guessing is bounded by name and by address, also many at once": async () => {
    const { world } = await createPeople({ auth: { loginFailuresMax: 5, loginWindowMs: 60_000 } });
    const guesses = Array.from(
      { length: 20 },
      (_, i) => refusal(login(world, "alice", `guess ${i}`, `192.0.2.${i + 10}`)),
    );
    const codes = (await Promise.all(guesses)).map(({ code }) => code);
    assertEquals(codes.filter((code) => code === "Unauthenticated").length, 5);
    const right = await refusal(login(world, "alice", PASSWORD, "192.0.2.99"));
    assertEquals([right.code, Number(right.retryAfter) > 0], ["ResourceExhausted", true]);
    // Others are let in, and so is she after the window.
    await login(world, "root", PASSWORD, "192.0.2.99");
    world.clock.advance(60_000);
    await login(world, "alice");
    for (let i = 0; i < 5; i++) await isRefused(login(world, `user${i}`, "guess of many", "203.0.113.5"));
    await isRefused(login(world, "alice", PASSWORD, "203.0.113.5"), "ResourceExhausted");
    await world.close();
  },
  "6.3.1 a flood of logins waits in a bounded queue": async () => {
    const config = passwordConfigSchema.parse({ waitingMax: 3 });
    const gate = Promise.withResolvers<void>();
    const { hasher } = createPasswordModule({
      config,
      random: createSeededRandom(1),
      clock: { now: () => 0 },
      pause: () => Promise.resolve(),
      argon2id: async () => (await gate.promise, new Uint8Array(32)),
    });
    const flood = Array.from({ length: 50 }, () => hasher.hash("x").then(() => "hashed", () => "refused"));
    assertEquals(hasher.figures().refused, 46);
    gate.resolve();
    assertEquals((await Promise.all(flood)).filter((result) => result === "hashed").length, 4);
  },
  "6.3.2 there are no default accounts": async () => {
    const world = await createWorld();
    for (const name of ["root", "admin", "sa", "dev", "aetherflow"]) {
      await isRefused(login(world, name, "password", `192.0.2.${name.length}`));
    }
    assertEquals((await policyOf(world)).isRequired, false);
    await world.close();
    await assertRejects(
      () => createWorld({ auth: { mode: "required" } }),
      Error,
      "set session.auth.bootstrap.username and session.auth.bootstrap.password",
    );
  },
  "6.3.4 every way to sign in is judged alike: a disabled user has none": async () => {
    const { world, root, alice } = await createPeople();
    const { secret } = await world.auth.createApiKey({ name: "k" }, alice.options);
    const ways = () => [
      login(world, "alice"),
      world.auth.refresh({ refreshToken: alice.refreshToken }),
      principalOfSession(world, alice.sessionId),
      world.credentials.authenticate({ credential: { case: "apiKey", value: secret } }),
      world.credentials.authenticate({
        credential: { case: "password", value: { username: "alice", password: PASSWORD } },
      }),
    ];
    await Promise.all(ways());
    await world.users.updateUser(
      { user: { username: "alice", disabled: true }, updateMask: { paths: ["disabled"] } },
      root.options,
    );
    for (const way of ways()) await isRefused(way);
    await world.close();
  },
  "6.3.8 whether there is a user cannot be told from a refusal": async () => {
    const passwords = plainPasswords();
    const { world, root } = await createPeople({ passwords });
    await world.users.createUser({ username: "gone", password: PASSWORD }, root.options);
    await world.users.updateUser(
      { user: { username: "gone", disabled: true }, updateMask: { paths: ["disabled"] } },
      root.options,
    );
    const seen = new Set<string>();
    for (const [i, name] of ["alice", "nobody", "gone", "NOT A NAME", ""].entries()) {
      passwords.verified.length = 0;
      for (const password of ["wrong password", name === "alice" ? "another wrong" : PASSWORD]) {
        seen.add(JSON.stringify(await refusal(login(world, name, password, `192.0.2.${i}`))));
      }
      assertEquals(passwords.verified.length, 2, `${name} costs as much as any other`);
    }
    assertEquals(seen.size, 1);
    await world.close();
  },
  "6.4.2 there are no hints and no secret questions": () => {
    const fields = [AuthService, UserService].flatMap(({ methods }) =>
      methods.flatMap(({ input }) => input.fields)
    );
    assertEquals(fields.filter(({ name }) => /hint|question|answer/.test(name)), []);
  },

  "7.1.1 how long sessions live is documented": () =>
    documents("session.absoluteTimeoutMs", "refreshTokenMs", "accessTokenMs"),
  "7.1.2 how many sessions a user may have is documented, and what happens then": async () => {
    documents("session.perUserMax");
    const { world, alice } = await createPeople({ session: { perUserMax: 3 } });
    const ids = [alice.sessionId];
    for (let i = 0; i < 3; i++) {
      world.clock.advance(1_000);
      ids.push((await login(world, "alice")).sessionId);
    }
    await isGone(world, ids[0]!);
    for (const id of ids.slice(1)) await principalOfSession(world, id);
    await world.close();
  },
  "7.2.1 a token is judged by the session worker, each time": async () => {
    const { world, alice } = await createPeople();
    await principalOfSession(world, alice.sessionId);
    await world.service.end(alice.sessionId, "test");
    await isGone(world, alice.sessionId);
    await world.close();
  },
  "7.2.2 tokens of sessions are made anew for each": async () => {
    const { world } = await createPeople();
    const answers = await Promise.all([login(world, "alice"), login(world, "alice"), login(world, "alice")]);
    assertEquals(new Set(answers.flatMap((a) => [a.accessToken, a.refreshToken, a.sessionId])).size, 9);
    await world.close();
  },
  "7.2.3 secrets have at least 128 random bits, and only their hashes are kept": async () => {
    const records = new MemoryRecords();
    const { world, alice } = await createPeople({ records });
    const { secret } = await world.auth.createApiKey({ name: "k" }, alice.options);
    const { token } = await world.service.create({
      userId: "x",
      clientIp: "",
      clientPort: 0,
      serverAddr: "",
      metadata: {},
    });
    const random = [
      alice.refreshToken.split("_").slice(2).join("_"),
      secret.split("_").slice(2).join("_"),
      token,
    ];
    for (const text of random) assert(Buffer.from(text, "base64url").length >= 32);
    const hidden = (await world.service.readHidden(alice.sessionId))!.bytes;
    const kept = JSON.stringify(records.list("", "", 1_000)) + new TextDecoder().decode(hidden);
    for (const text of [alice.refreshToken, secret, token, alice.accessToken]) {
      assertEquals(kept.includes(text.slice(-40)), false);
    }
    // A refresh token's secret is the first 32 bytes of its text.
    assertEquals(kept.includes(random[0]!.slice(0, 42)), false);
    await world.close();
  },
  "7.2.4 signing in makes a new session and ends the one that came along": async () => {
    const { world, alice } = await createPeople();
    const again = await world.auth.login({ username: "alice", password: PASSWORD }, alice.options);
    assertNotEquals(again.sessionId, alice.sessionId);
    await isGone(world, alice.sessionId);
    await principalOfSession(world, again.sessionId);
    await world.close();
  },
  "7.3.1 a session that is not used ends": async () => {
    const { world, alice } = await createPeople({ auth: { refreshTokenMs: 3_600_000 } });
    world.clock.advance(3_599_000);
    await principalOfSession(world, alice.sessionId);
    world.clock.advance(3_600_000);
    await isGone(world, alice.sessionId);
    await isRefused(world.auth.refresh({ refreshToken: alice.refreshToken }));
    await world.close();
  },
  "7.3.2 a session ends however much it is used": async () => {
    const { absoluteTimeoutMs } = sessionConfigSchema.parse({});
    const { world, alice } = await createPeople();
    const endsAtMs = (await world.service.get(alice.sessionId))!.endsAtMs;
    let { refreshToken } = alice;
    while (world.clock.wallMs() + 43_200_000 < endsAtMs) {
      world.clock.advance(43_200_000);
      ({ refreshToken } = await world.auth.refresh({ refreshToken }));
    }
    world.clock.advance(endsAtMs - world.clock.wallMs());
    assert(endsAtMs - world.clock.wallMs() <= absoluteTimeoutMs);
    await isGone(world, alice.sessionId);
    await isRefused(world.auth.refresh({ refreshToken }));
    await world.close();
  },
  "7.4.1 signing out ends the session for every token of it": async () => {
    for (const way of ["session", "refresh token"]) {
      const { world, alice } = await createPeople();
      if (way === "session") await world.auth.logout({}, alice.options);
      else await world.auth.logout({ refreshToken: alice.refreshToken });
      await isGone(world, alice.sessionId);
      await isRefused(world.auth.refresh({ refreshToken: alice.refreshToken }));
      // Once more is no error.
      await world.auth.logout({ refreshToken: alice.refreshToken });
      await world.close();
    }
  },
  "7.4.2 disabling or deleting a user ends the user's sessions": async () => {
    for (const way of ["disabled", "deleted"]) {
      const { world, root, alice } = await createPeople();
      if (way === "deleted") await world.users.deleteUser({ username: "alice" }, root.options);
      else {
        const set = (disabled: boolean) =>
          world.users.updateUser(
            { user: { username: "alice", disabled }, updateMask: { paths: ["disabled"] } },
            root.options,
          );
        await set(true);
        // A user who is let in again has to sign in again.
        await set(false);
      }
      await isGone(world, alice.sessionId);
      await isRefused(world.auth.refresh({ refreshToken: alice.refreshToken }));
      await world.close();
    }
  },
  "7.4.3 changing the password ends the other sessions": async () => {
    const { world, alice } = await createPeople();
    const other = await login(world, "alice");
    await world.auth.changePassword(
      { currentPassword: PASSWORD, newPassword: OTHER_PASSWORD },
      alice.options,
    );
    await isGone(world, other.sessionId);
    await principalOfSession(world, alice.sessionId);
    await world.close();
  },
  "7.4.5 administrators can end all sessions of a user; others cannot": async () => {
    const { world, root, alice } = await createPeople();
    await isRefused(world.users.revokeUser({ username: "root" }, alice.options), "PermissionDenied");
    const { sessions } = await world.users.revokeUser({ username: "alice" }, root.options);
    assertEquals(sessions, 1n);
    await isGone(world, alice.sessionId);
    await world.close();
  },
  "7.5.1 what signing in depends on changes with the password alone": async () => {
    const { world, alice } = await createPeople();
    const { secret } = await world.auth.createApiKey({ name: "k" }, alice.options);
    const { principal } = await world.credentials.authenticate({
      credential: { case: "apiKey", value: secret },
    });
    const byKey = as(principal!);
    await isRefused(
      world.auth.changePassword({ currentPassword: PASSWORD, newPassword: OTHER_PASSWORD }, byKey),
      "PermissionDenied",
    );
    await isRefused(world.auth.createApiKey({ name: "k2" }, byKey), "PermissionDenied");
    await world.close();
  },
  "7.5.2 users see and end their own sessions, and nobody else's": async () => {
    const { world, root, alice } = await createPeople();
    const other = await login(world, "alice");
    const { sessions, currentSessionId } = await world.auth.listMySessions({}, alice.options);
    assertEquals(
      sessions.map(({ sessionId }) => sessionId).sort(),
      [alice.sessionId, other.sessionId].sort(),
    );
    assertEquals(currentSessionId, alice.sessionId);
    await isRefused(world.auth.endMySession({ sessionId: root.sessionId }, alice.options), "NotFound");
    await principalOfSession(world, root.sessionId);
    await world.auth.endMySession({ sessionId: other.sessionId }, alice.options);
    await isGone(world, other.sessionId);
    const third = await login(world, "alice");
    assertEquals((await world.auth.endMySessions({}, alice.options)).ended, 1n);
    await isGone(world, third.sessionId);
    await principalOfSession(world, alice.sessionId);
    await world.close();
  },

  "9.1.1 a token that was changed is refused": async () => {
    const { world, alice } = await createPeople();
    const gateway = await gatewayOf(world);
    await gateway.verify(alice.accessToken);
    const [header, payload, signature] = alice.accessToken.split(".") as [string, string, string];
    const claims = { ...decodeJwt(alice.accessToken), roles: ["admin"] };
    const forged = Buffer.from(JSON.stringify(claims)).toString("base64url");
    for (
      const token of [
        `${header}.${forged}.${signature}`,
        `${header}.${payload}.${signature.slice(0, -4)}AAAA`,
        `${header}.${payload}.`,
        `${header}.${payload}`,
        payload,
        "",
      ]
    ) await assertRejects(() => gateway.verify(token));
    await world.close();
  },
  "9.1.2 algorithms: the one that is configured, never none, and keys are not confused": async () => {
    const { world, alice } = await createPeople();
    const gateway = await gatewayOf(world);
    const { keys: [jwk] } = JSON.parse((await policyOf(world)).jwks);
    const claims = decodeJwt(alice.accessToken);
    const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const none = `${part({ alg: "none", typ: "at+jwt", kid: jwk.kid })}.${part(claims)}.`;
    await assertRejects(() => gateway.verify(none));
    await assertRejects(() => gateway.verify(`${none}AAAA`));
    // The public key as a secret of HMAC.
    for (
      const secret of [Buffer.from(jwk.x, "base64url"), Buffer.from(jwk.x), Buffer.from(JSON.stringify(jwk))]
    ) {
      const token = await new SignJWT(claims).setProtectedHeader({
        alg: "HS256",
        typ: "at+jwt",
        kid: jwk.kid,
      }).sign(secret);
      await assertRejects(() => gateway.verify(token));
    }
    await world.close();
  },
  "9.1.3 a token does not bring its own key": async () => {
    const { world, alice } = await createPeople();
    const gateway = await gatewayOf(world);
    const { keys: [known] } = JSON.parse((await policyOf(world)).jwks);
    const { privateKey, publicKey } = await generateKeyPair("EdDSA", { crv: "Ed25519", extractable: true });
    const jwk = await crypto.subtle.exportKey("jwk", publicKey as never);
    const claims = decodeJwt(alice.accessToken);
    const base = { alg: "EdDSA", typ: "at+jwt" };
    const headers = [
      { ...base, kid: known.kid },
      { ...base, kid: "mine" },
      base,
      { ...base, kid: known.kid, jwk },
      { ...base, kid: known.kid, jku: "https://evil.example/jwks" },
      { ...base, kid: known.kid, x5u: "https://evil.example/cert" },
    ];
    for (const header of headers) {
      const token = await new SignJWT(claims).setProtectedHeader(header as typeof base).sign(privateKey);
      await assertRejects(() => gateway.verify(token));
    }
    await world.close();
  },
  "9.2.1 a token is good from nbf to exp, and no longer than its session": async () => {
    const { world, alice } = await createPeople();
    const gateway = await gatewayOf(world);
    const { exp, nbf } = decodeJwt(alice.accessToken) as { exp: number; nbf: number };
    assertEquals(exp - nbf, world.config.accessTokenMs / 1_000);
    world.clock.advance(world.config.accessTokenMs + 10_000);
    await assertRejects(() => gateway.verify(alice.accessToken));
    assertEquals(gateway.known(alice.accessToken), undefined);
    // Its session is still there, and refreshes.
    const { accessToken } = await world.auth.refresh({ refreshToken: alice.refreshToken });
    await gateway.verify(accessToken);
    world.clock.setWall(nbf * 1_000 - 60_000);
    await assertRejects(async () => await (await gatewayOf(world)).verify(accessToken));
    await world.close();
  },
  "9.2.2 kinds of tokens cannot stand in for one another": async () => {
    const { world, alice } = await createPeople();
    const gateway = await gatewayOf(world);
    const { secret } = await world.auth.createApiKey({ name: "k" }, alice.options);
    for (const refreshToken of [alice.accessToken, secret, alice.sessionId]) {
      await isRefused(world.auth.refresh({ refreshToken }));
    }
    for (const token of [alice.refreshToken, secret]) await assertRejects(() => gateway.verify(token));
    const kinds = ["sessionId", "sessionToken", "apiKey"] as const;
    const texts = {
      sessionId: alice.sessionId,
      refresh: alice.refreshToken,
      access: alice.accessToken,
      apiKey: secret,
    };
    for (const kind of kinds) {
      for (const [what, value] of Object.entries(texts)) {
        if (what === kind) continue;
        await isRefused(world.credentials.authenticate({ credential: { case: kind, value } }));
      }
    }
    // `typ` tells an access token from any other that the same key might sign.
    assertMatch(Buffer.from(alice.accessToken.split(".")[0]!, "base64url").toString(), /"typ":"at\+jwt"/);
    await world.close();
  },
  "9.2.3 a token of another audience or issuer is refused": async () => {
    const { world, alice } = await createPeople({ auth: { audience: "here", issuer: "us" } });
    const { aud, iss } = decodeJwt(alice.accessToken);
    assertEquals([aud, iss], ["here", "us"]);
    const policy = await policyOf(world);
    for (const change of [{ audience: "elsewhere" }, { issuer: "them" }]) {
      const gateway = await gatewayOf(world);
      gateway.use({ ...policy, ...change });
      await assertRejects(() => gateway.verify(alice.accessToken));
    }
    await world.close();
  },
  "9.2.4 every token names its audience": async () => {
    const { world, alice } = await createPeople();
    const refreshed = await world.auth.refresh({ refreshToken: alice.refreshToken });
    for (const token of [alice.accessToken, refreshed.accessToken]) {
      assertEquals(decodeJwt(token).aud, world.config.audience);
    }
    await world.close();
  },
};

/** The password service with its smallest parameters. */
function argon2(): NonNullable<WorldOptions["passwords"]> {
  const { hasher } = createPasswordModule({
    config: passwordConfigSchema.parse({ memoryKib: 7 * 1_024, passes: 1 }),
    random: createSeededRandom(3),
    clock: { now: () => 0 },
    pause: () => Promise.resolve(),
  });
  return hasher;
}

for (const [clause, run] of Object.entries(CLAUSES)) Deno.test(`ASVS ${clause}`, run);

Deno.test("ASVS: every clause of V6, V7 and V9 is tested, or listed with a reason in the README", () => {
  const notes = [...TESTED_ELSEWHERE, ...NOT_APPLICABLE, ...NOT_MET];
  for (const [clauses, note] of notes) {
    assertStringIncludes(readme.replace(/\s+/g, " "), `| ${clauses} | ${note} |`);
  }
  const known = new Set(Object.keys(CLAUSES).map((clause) => clause.split(" ")[0]!));
  for (const [clauses] of notes) for (const clause of expand(clauses)) known.add(clause);
  assertEquals(ALL.filter((clause) => !known.has(clause)), []);
});

Deno.test("CredentialService tells nothing to callers that a gateway passes on", async () => {
  const world = await createWorld();
  const caller = as(create(PrincipalSchema, { kind: 2, roles: ["admin"] }));
  await isRefused(
    world.credentials.authenticate({ credential: { case: "sessionId", value: "x" } }, caller),
    "PermissionDenied",
  );
  const watch = (async () => {
    for await (const _policy of world.credentials.watchPolicy({}, caller)) break;
  })();
  await isRefused(watch, "PermissionDenied");
  assertEquals(CredentialService.methods.length, 2);
  await world.close();
});

/** `6.5.1-6.5.8` as eight clauses. */
function expand(clauses: string): string[] {
  const [first, last = first] = clauses.split("-") as [string, string?];
  const section = first.slice(0, first.lastIndexOf(".") + 1);
  const from = Number(first.slice(section.length)), to = Number(last.slice(section.length));
  return Array.from({ length: to - from + 1 }, (_, i) => `${section}${from + i}`);
}

/** All clauses of the three chapters: how many each section has. */
const ALL = Object.entries({
  "6.1": 3,
  "6.2": 12,
  "6.3": 8,
  "6.4": 6,
  "6.5": 8,
  "6.6": 4,
  "6.7": 2,
  "6.8": 4,
  "7.1": 3,
  "7.2": 4,
  "7.3": 2,
  "7.4": 5,
  "7.5": 3,
  "7.6": 2,
  "9.1": 3,
  "9.2": 4,
}).flatMap(([section, count]) => expand(`${section}.1-${section}.${count}`));
