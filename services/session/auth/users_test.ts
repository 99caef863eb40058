import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { Code, ConnectError } from "@connectrpc/connect";
import { DEVELOPER, isAdmin, mayUse } from "../../runtime/principal.ts";
import { openSqliteRecords } from "../stores/records_sqlite.ts";
import { hiddenOf } from "./vouched.ts";
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
} from "./testing/world.ts";

async function createPeople(options: WorldOptions = {}) {
  const world = await createWorld(options);
  await world.users.createUser({ username: "root", password: PASSWORD }, as(DEVELOPER));
  const root = await signedIn(world, "root");
  const grants = [{ service: "kv", prefix: "a/", write: true }, {
    service: "queue",
    prefix: "",
    write: false,
  }];
  await world.users.createUser({ username: "alice", password: PASSWORD, grants }, root.options);
  const alice = await signedIn(world, "alice");
  return { world, root, alice };
}

async function isRefused(call: Promise<unknown>, code: keyof typeof Code, text = ""): Promise<void> {
  const error = await assertRejects(() => call, ConnectError, text);
  assertEquals(Code[error.code], code);
}

async function byKey(world: World, secret: string) {
  const answer = await world.credentials.authenticate({ credential: { case: "apiKey", value: secret } });
  return { ...answer, principal: answer.principal! };
}

Deno.test("UserService takes an administrator as of now", async () => {
  const { world, root, alice } = await createPeople();
  const calls = (options: typeof root.options) => [
    world.users.getUser({ username: "root" }, options),
    world.users.listUsers({}, options),
    world.users.createUser({ username: "eve", password: PASSWORD }, options),
    world.users.rotateSigningKey({}, options),
  ];
  for (const call of calls(alice.options)) await isRefused(call, "PermissionDenied");
  // What the gateway found out before the role was taken is not believed any more.
  const update = (roles: string[]) =>
    world.users.updateUser(
      { user: { username: "alice", roles }, updateMask: { paths: ["roles"] } },
      root.options,
    );
  await update(["admin"]);
  const promoted = as(await principalOfSession(world, alice.sessionId));
  await world.users.listUsers({}, promoted);
  await update(["member"]);
  for (const call of calls(promoted)) await isRefused(call, "PermissionDenied");
  assertEquals(isAdmin(await principalOfSession(world, alice.sessionId)), false);
  await world.close();
});

Deno.test("the last enabled administrator stays, even when two go at once", async () => {
  const { world, root } = await createPeople();
  const update = (username: string, user: { roles?: string[]; disabled?: boolean }) =>
    world.users.updateUser(
      { user: { username, ...user }, updateMask: { paths: Object.keys(user) } },
      root.options,
    );
  await isRefused(update("root", { roles: ["member"] }), "FailedPrecondition", "last enabled administrator");
  await isRefused(update("root", { disabled: true }), "FailedPrecondition");
  await isRefused(world.users.deleteUser({ username: "root" }, root.options), "FailedPrecondition");

  await update("alice", { roles: ["admin"] });
  const results = await Promise.allSettled([
    update("alice", { disabled: true }),
    world.users.deleteUser({ username: "root" }, root.options),
  ]);
  assertEquals(results.filter(({ status }) => status === "fulfilled").length, 1);
  await world.close();
});

Deno.test("UserService.listUsers() goes through all names in order, a page at a time", async () => {
  const { world, root } = await createPeople();
  for (const username of ["zoe", "bob", "a.b_c-d@e"]) {
    await world.users.createUser({ username, password: PASSWORD }, root.options);
  }
  const names: string[] = [];
  let pages = 0;
  for (let pageToken = "";;) {
    const page = await world.users.listUsers({ pageSize: 2, pageToken }, root.options);
    names.push(...page.users.map(({ username }) => username));
    pages++;
    pageToken = page.nextPageToken;
    if (pageToken === "") break;
  }
  assertEquals([names, pages], [["a.b_c-d@e", "alice", "bob", "root", "zoe"], 3]);
  await isRefused(world.users.listUsers({ pageSize: 1_001 }, root.options), "InvalidArgument");
  await isRefused(world.users.listUsers({ pageToken: "NO" }, root.options), "InvalidArgument");
  await world.close();
});

Deno.test("UserService refuses what is no user, no role, no right or no mask, and says which", async () => {
  const { world, root } = await createPeople({ auth: { usersMax: 2 } });
  const add = (user: object) =>
    world.users.createUser({ username: "bob", password: PASSWORD, ...user }, root.options);
  for (const username of ["", "Bob", "b b", "x".repeat(65), "b/ob", "böb"]) {
    await isRefused(add({ username }), "InvalidArgument", "username");
  }
  await isRefused(add({ roles: ["king"] }), "InvalidArgument", '"king"');
  await isRefused(add({ grants: [{ service: "mail", prefix: "" }] }), "InvalidArgument", '"mail"');
  await isRefused(
    add({ grants: [{ service: "kv", prefix: "ü".repeat(513) }] }),
    "InvalidArgument",
    "1026 bytes",
  );
  await isRefused(
    add({ grants: Array.from({ length: 33 }, (_, i) => ({ service: "kv", prefix: `${i}` })) }),
    "InvalidArgument",
    "33 entries",
  );
  await isRefused(add({ username: "alice" }), "AlreadyExists");
  await isRefused(add({}), "ResourceExhausted", "usersMax");
  const update = (paths: string[], username = "alice") =>
    world.users.updateUser({ user: { username }, updateMask: { paths } }, root.options);
  await isRefused(update([]), "InvalidArgument", "is empty");
  await isRefused(update(["username"]), "InvalidArgument", "has username");
  await isRefused(update(["roles"], "nobody"), "NotFound");
  await isRefused(
    world.users.setPassword({ username: "nobody", password: PASSWORD }, root.options),
    "NotFound",
  );
  assertEquals((await world.users.deleteUser({ username: "nobody" }, root.options)).deleted, false);
  await world.close();
});

Deno.test("an API key does what its scopes and its user's rights have in common, as of now", async () => {
  const { world, root, alice } = await createPeople();
  const scopes = [
    { service: "*", prefix: "a/b/", write: true },
    { service: "queue", prefix: "jobs/", write: true },
    { service: "sessions", prefix: "", write: true },
  ];
  const { secret, key } = await world.auth.createApiKey({ name: "k", scopes }, alice.options);
  assertMatch(secret, /^afk_[0-9A-Z]{26}_[\w-]{43}$/);
  const { principal, expiresAt } = await byKey(world, secret);
  assertEquals(expiresAt, undefined);
  const may = (service: string, name: string, write: boolean) => mayUse(principal, service, name, write);
  assertEquals([may("kv", "a/b/c", true), may("kv", "a/c", false), may("documents", "a/b/c", false)], [
    true,
    false,
    false,
  ]);
  assertEquals([may("queue", "jobs/1", false), may("queue", "jobs/1", true)], [true, false]);
  assertEquals(may("sessions", "x", false), false);

  await world.users.updateUser(
    { user: { username: "alice", grants: [] }, updateMask: { paths: ["grants"] } },
    root.options,
  );
  assertEquals((await byKey(world, secret)).principal.grants, []);

  // An administrator's key with scopes is no administrator.
  const scoped = await world.auth.createApiKey({ name: "k", scopes: [scopes[0]!] }, root.options);
  const ofRoot = (await byKey(world, scoped.secret)).principal;
  assertEquals([isAdmin(ofRoot), mayUse(ofRoot, "kv", "a/b/", true), mayUse(ofRoot, "kv", "x", false)], [
    false,
    true,
    false,
  ]);
  // Services must not look beyond its grants: neither at its roles nor at what its user owns.
  const unscoped = await world.auth.createApiKey({ name: "all" }, root.options);
  const ofAll = (await byKey(world, unscoped.secret)).principal;
  assertEquals([principal.isScoped, ofRoot.isScoped, ofAll.isScoped], [true, true, false]);
  await isRefused(world.users.listUsers({}, as(ofRoot)), "PermissionDenied");
  await isRefused(world.auth.listMySessions({}, as(ofRoot)), "PermissionDenied");

  assertEquals((await world.auth.deleteApiKey({ keyId: key!.keyId }, alice.options)).deleted, true);
  await isRefused(byKey(world, secret), "Unauthenticated");
  assertEquals((await world.auth.deleteApiKey({ keyId: key!.keyId }, alice.options)).deleted, false);
  await world.close();
});

Deno.test("API keys run out, are bounded, listed with their last use, and ended by their owner or an administrator", async () => {
  const { world, root, alice } = await createPeople({ auth: { keysPerUserMax: 2 } });
  const first = await world.auth.createApiKey({ name: "first", expiresInSeconds: 60 }, alice.options);
  const second = await world.auth.createApiKey({ name: "second" }, alice.options);
  await isRefused(world.auth.createApiKey({ name: "third" }, alice.options), "ResourceExhausted");
  await isRefused(world.auth.createApiKey({ name: "" }, alice.options), "InvalidArgument");
  assert((await byKey(world, first.secret)).expiresAt !== undefined);
  world.clock.advance(60_000);
  await isRefused(byKey(world, first.secret), "Unauthenticated");
  await byKey(world, second.secret);
  const { keys } = await world.auth.listApiKeys({ username: "alice" }, root.options);
  assertEquals(keys.map(({ name, username, lastUsedAt }) => [name, username, lastUsedAt !== undefined]), [
    ["first", "alice", true],
    ["second", "alice", true],
  ]);
  await isRefused(world.auth.listApiKeys({ username: "root" }, alice.options), "PermissionDenied");
  const ofRoot = await world.auth.createApiKey({ name: "r" }, root.options);
  assertEquals((await world.auth.deleteApiKey({ keyId: ofRoot.key!.keyId }, alice.options)).deleted, false);
  await byKey(world, ofRoot.secret);
  assertEquals((await world.auth.deleteApiKey({ keyId: first.key!.keyId }, root.options)).deleted, true);
  await world.auth.createApiKey({ name: "third" }, alice.options);
  // All at once; then there is room again.
  assertEquals((await world.users.revokeUser({ username: "alice" }, root.options)).keys, 2n);
  await isRefused(byKey(world, second.secret), "Unauthenticated");
  const again = await signedIn(world, "alice");
  await world.auth.createApiKey({ name: "fourth" }, again.options);
  assertEquals((await world.auth.listApiKeys({}, again.options)).keys.length, 1);
  await world.close();
});

Deno.test("a session's token stands for its user only if the user or an administrator opened it", async () => {
  const { world, root, alice } = await createPeople();
  const { secret } = await world.auth.createApiKey({ name: "k" }, root.options);
  const key = (await byKey(world, secret)).principal;
  const open = async (principal: typeof key | undefined, userId: string) =>
    (await world.service.create({
      userId,
      clientIp: "",
      clientPort: 0,
      serverAddr: "",
      metadata: {},
      hidden: hiddenOf(principal, userId),
    })).token;
  const authenticate = (token: string) =>
    world.credentials.authenticate({ credential: { case: "sessionToken", value: token } });
  const { userId } = alice.principal;
  for (const principal of [alice.principal, root.principal, undefined]) {
    assertEquals((await authenticate(await open(principal, userId))).principal!.username, "alice");
  }
  await isRefused(authenticate(await open(alice.principal, root.principal.userId)), "Unauthenticated");
  await isRefused(authenticate(await open(key, userId)), "Unauthenticated");
  await isRefused(authenticate(await open(root.principal, "somebody else's user")), "Unauthenticated");
  await world.close();
});

Deno.test("a user who is deleted and made again is another one", async () => {
  const { world, root, alice } = await createPeople();
  const { secret } = await world.auth.createApiKey({ name: "k" }, alice.options);
  assertEquals((await world.users.deleteUser({ username: "alice" }, root.options)).deleted, true);
  await world.users.createUser({ username: "alice", password: PASSWORD, roles: ["admin"] }, root.options);
  await isRefused(principalOfSession(world, alice.sessionId), "Unauthenticated");
  await isRefused(byKey(world, secret), "Unauthenticated");
  await isRefused(world.auth.getMe({}, alice.options), "Unauthenticated");
  await world.close();
});

Deno.test("AuthService.getMe() tells who calls, whoever that is", async () => {
  const world = await createWorld();
  assertEquals((await world.auth.getMe({}, as(DEVELOPER))).principal!.username, "dev");
  await isRefused(world.auth.getMe({}), "Unauthenticated");
  await world.users.createUser({ username: "root", password: PASSWORD }, as(DEVELOPER));
  const { options } = await signedIn(world, "root");
  const me = await world.auth.getMe({}, options);
  assertEquals([me.principal!.username, me.user!.username, me.user!.lastLoginAt !== undefined], [
    "root",
    "root",
    true,
  ]);
  // Nobody is the developer any more.
  await isRefused(world.auth.getMe({}, as(DEVELOPER)), "Unauthenticated");
  await world.close();
});

Deno.test("a login makes an outdated hash anew, and stands when that fails", async () => {
  const plain = plainPasswords();
  let isBroken = false;
  const passwords = {
    hash: (password: string) => isBroken ? Promise.reject(new Error("full")) : plain.hash(password),
    verify: async (password: string, hash: string) => ({
      ...await plain.verify(password, hash.replace("old:", "plain:")),
      isOutdated: hash.startsWith("old:"),
    }),
  };
  const { world, root } = await createPeople({ passwords });
  const { userId } = (await world.users.getUser({ username: "alice" }, root.options)).user!;
  const hashOf = async () =>
    JSON.parse((await world.records.get(`user/${userId}`))!.value).passwordHash as string;
  const age = async () => {
    const { key, version, value } = (await world.records.get(`user/${userId}`))!;
    await world.records.commit([{ key, version, value: value.replace("plain:", "old:") }]);
  };
  await age();
  isBroken = true;
  await login(world, "alice");
  assertMatch(await hashOf(), /^old:/);
  assertEquals(world.log.at(-1)![0], "a login could not be noted");
  isBroken = false;
  await login(world, "alice");
  assertMatch(await hashOf(), /^plain:/);
  await world.close();
});

Deno.test("a name and a password are remembered as right, until one changes", async () => {
  const passwords = plainPasswords();
  const { world, root } = await createPeople({ passwords });
  const authenticate = (username: string, password: string) =>
    world.credentials.authenticate({ credential: { case: "password", value: { username, password } } });
  await authenticate("alice", PASSWORD);
  passwords.verified.length = 0;
  for (let i = 0; i < 20; i++) await authenticate("alice", PASSWORD);
  assertEquals(passwords.verified.length, 0);
  await isRefused(authenticate("alice", "another one"), "Unauthenticated");
  await world.users.setPassword({ username: "alice", password: "staple battery" }, root.options);
  await isRefused(authenticate("alice", PASSWORD), "Unauthenticated");
  await authenticate("alice", "staple battery");
  for (let i = 0; i < 10; i++) await isRefused(authenticate("nobody", "x"), "Unauthenticated");
  await isRefused(authenticate("nobody", "x"), "ResourceExhausted");
  await world.close();
});

Deno.test("session.auth.bootstrap makes an administrator once, and users survive a restart", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const path = `${folder}/users.sqlite`;
    const auth = { mode: "required", bootstrap: { username: "boss", password: PASSWORD } };
    const first = await createWorld({ auth, records: openSqliteRecords({ path }) });
    const boss = await signedIn(first, "boss");
    assertEquals(isAdmin(boss.principal), true);
    await first.users.setPassword({ username: "boss", password: "staple battery" }, boss.options);
    await first.close();

    const second = await createWorld({ auth, records: openSqliteRecords({ path }) });
    await isRefused(login(second, "boss", PASSWORD), "Unauthenticated");
    await login(second, "boss", "staple battery");
    await second.close();
    await assertRejects(
      () => createWorld({ auth: { bootstrap: { username: "boss", password: "password" } } }),
      Error,
      "session.auth.bootstrap.password: auth: choose another password",
    );
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
