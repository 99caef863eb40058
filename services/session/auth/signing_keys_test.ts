import { assert, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { ConnectError } from "@connectrpc/connect";
import { createLocalJWKSet, decodeProtectedHeader, jwtVerify } from "jose";
import type { WatchPolicyResponse } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { DEVELOPER } from "../../runtime/principal.ts";
import { MemoryRecords } from "../stores/records_memory.ts";
import { createManualClock } from "../../runtime/clock.ts";
import { createSeededRandom } from "../../runtime/random.ts";
import { authConfigSchema } from "./config.ts";
import { AuthError } from "./errors.ts";
import { Policy, POLICY_WATCHERS_MAX } from "./policy.ts";
import { ACTIVATION_MS, SigningKeys, SKEW_MS } from "./signing_keys.ts";
import {
  as,
  createWorld,
  login,
  PASSWORD,
  signedIn,
  type World,
  type WorldOptions,
} from "./testing/world.ts";

async function createRoot(options: WorldOptions = {}) {
  const world = await createWorld(options);
  if ((await policyOf(world)).isRequired) return { world, root: await signedIn(world, "root") };
  await world.users.createUser({ username: "root", password: PASSWORD }, as(DEVELOPER));
  return { world, root: await signedIn(world, "root") };
}

async function policyOf(world: World): Promise<WatchPolicyResponse> {
  for await (const policy of world.credentials.watchPolicy({})) return policy;
  throw new Error("the policy never came");
}

async function kidsOf(world: World): Promise<string[]> {
  return JSON.parse((await policyOf(world)).jwks).keys.map(({ kid }: { kid: string }) => kid);
}

const kidOf = (token: string) => decodeProtectedHeader(token).kid!;

async function verify(world: World, token: string): Promise<void> {
  const { jwks } = await policyOf(world);
  await jwtVerify(token, createLocalJWKSet(JSON.parse(jwks)), {
    currentDate: new Date(world.clock.wallMs()),
  });
}

Deno.test("a new signing key is published before it signs, and the old one until its last token has run out", async () => {
  const { world, root } = await createRoot();
  const [first] = await kidsOf(world);
  const { keyId } = await world.users.rotateSigningKey({}, root.options);
  assertEquals(await kidsOf(world), [first!, keyId]);
  world.clock.advance(ACTIVATION_MS - 1);
  const last = (await login(world, "root")).accessToken;
  assertEquals(kidOf(last), first);
  world.clock.advance(1);
  assertEquals(kidOf((await login(world, "root")).accessToken), keyId);
  world.clock.advance(world.config.accessTokenMs - 2_000);
  await world.tick();
  await verify(world, last);
  world.clock.advance(SKEW_MS + 2_000);
  await world.tick();
  assertEquals(await kidsOf(world), [keyId]);
  await world.close();
});

Deno.test("signing keys rotate by age, and watchers of the policy are told", async () => {
  const { world } = await createRoot({ auth: { keyRotationMs: 86_400_000 } });
  const seen: number[] = [];
  const told = Promise.withResolvers<void>();
  const end = new AbortController();
  const watching = (async () => {
    for await (const { jwks } of world.credentials.watchPolicy({}, { signal: end.signal })) {
      seen.push(JSON.parse(jwks).keys.length);
      told.resolve();
      if (seen.length === 2) break;
    }
  })();
  await told.promise;
  world.clock.advance(86_400_000);
  await world.tick();
  await watching;
  assertEquals(seen, [1, 2]);
  await world.tick();
  assertEquals((await kidsOf(world)).length, 2);
  await world.close();
});

Deno.test("signing keys are there after a restart, and longer tokens keep old ones longer", async () => {
  const records = new MemoryRecords();
  const { world } = await createRoot({ records });
  const kids = await kidsOf(world);
  const { clock } = world;
  const next = await createRoot({
    records,
    clock,
    auth: { accessTokenMs: 86_400_000, keyRotationMs: 3_600_000 },
  });
  assertEquals(await kidsOf(next.world), kids);
  const token = (await login(next.world, "root")).accessToken;
  clock.advance(3_600_000);
  await next.world.tick();
  // Back to short ones: what was signed for a day is good for a day.
  const third = await createRoot({ records, clock });
  clock.advance(86_400_000 - 3_600_000 - 10_000);
  await third.world.tick();
  assert((await kidsOf(third.world)).includes(kids[0]!));
  await verify(third.world, token);
});

Deno.test("two machines that start at once make one key", async () => {
  const records = new MemoryRecords();
  const worlds = await Promise.all([createWorld({ records }), createWorld({ records })]);
  const [one, other] = await Promise.all(worlds.map(kidsOf));
  assertEquals(one!.length, 1);
  assertEquals(one, other);
});

Deno.test("HS256: the secret is told to gateways only, made and kept when none is configured", async () => {
  const hs256Secret = "0123456789abcdef0123456789abcdef";
  const { world, root } = await createRoot({ auth: { algorithm: "HS256", hs256Secret } });
  const { accessToken } = await login(world, "root");
  const policy = await policyOf(world);
  assertEquals(JSON.parse(policy.jwks), { keys: [] });
  assertEquals(new TextDecoder().decode(policy.secretKeys[kidOf(accessToken)]), hs256Secret);
  const options = { currentDate: new Date(world.clock.wallMs()), algorithms: ["HS256"] };
  await jwtVerify(accessToken, policy.secretKeys[kidOf(accessToken)]!, options);
  await assertRejects(
    () => world.users.rotateSigningKey({}, root.options),
    ConnectError,
    "session.auth.hs256Secret",
  );
  await world.close();

  const made = await createRoot({ auth: { algorithm: "HS256" } });
  const token = (await login(made.world, "root")).accessToken;
  const secret = (await policyOf(made.world)).secretKeys[kidOf(token)]!;
  assertEquals(secret.length, 32);
  await jwtVerify(token, secret, options);
  await made.world.users.rotateSigningKey({}, made.root.options);
  made.world.clock.advance(ACTIVATION_MS);
  assertNotEquals(kidOf((await login(made.world, "root")).accessToken), kidOf(token));
  await made.world.close();
});

Deno.test("a change of the algorithm signs with a new key at once, and the old tokens stay good", async () => {
  const records = new MemoryRecords();
  const { world } = await createRoot({ records });
  const old = (await login(world, "root")).accessToken;
  world.clock.advance(1_000);
  const next = await createRoot({ records, clock: world.clock, auth: { algorithm: "HS256" } });
  const { accessToken } = await login(next.world, "root");
  assertEquals(decodeProtectedHeader(accessToken).alg, "HS256");
  await verify(next.world, old);
});

Deno.test("watchers of the policy are bounded, make room when they go, and all end with the worker", async () => {
  const guuids = { next: () => new Uint8Array(16) };
  const random = createSeededRandom(1);
  const clock = createManualClock();
  const config = authConfigSchema.parse({});
  const keys = new SigningKeys({ records: new MemoryRecords(), config, guuids, random, clock });
  const policy = new Policy(config, keys);
  const ends = Array.from({ length: POLICY_WATCHERS_MAX }, () => new AbortController());
  const watches = ends.map(({ signal }) => policy.watch(signal));
  for (const watch of watches) assertEquals((await watch.next()).value!.isRequired, false);
  await assertRejects(() => policy.watch(new AbortController().signal).next(), AuthError, "too many watch");
  // One that waits and one that does not.
  const waiting = watches[0]!.next();
  ends[0]!.abort();
  assertEquals((await waiting).done, true);
  await watches[1]!.return();
  for (let i = 0; i < 2; i++) await policy.watch(new AbortController().signal).next();
  policy.setHasUsers(true);
  assertEquals((await watches[2]!.next()).value!.isRequired, true);
  policy.close();
  for (const watch of watches.slice(2)) assertEquals((await watch.next()).done, true);
});
