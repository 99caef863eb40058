import { assertEquals, assertMatch, assertNotEquals, assertRejects } from "@std/assert";
import { createSeededRandom } from "../runtime/random.ts";
import { wasmArgon2id } from "./argon2id.ts";
import { type PasswordConfig, passwordConfigSchema } from "./config.ts";
import { type Argon2id, PASSWORD_BYTES_MAX, PasswordError, PasswordHasher } from "./hasher.ts";

/** Cheap parameters: the smallest that the configuration takes. */
const CONFIG = passwordConfigSchema.parse({ memoryKib: 7 * 1024, passes: 1 });

function createHasher(options: { config?: PasswordConfig; argon2id?: Argon2id } = {}): PasswordHasher {
  let now = 0;
  return new PasswordHasher({
    config: options.config ?? CONFIG,
    argon2id: options.argon2id ?? wasmArgon2id,
    random: createSeededRandom(1),
    clock: { now: () => now += 50 },
    pause: () => Promise.resolve(),
  });
}

Deno.test("PasswordHasher.verify() agrees with a hash that another implementation made", async () => {
  // Argon2's reference command: echo -n password | argon2 somesalt -id -t 2 -k 65536 -p 1 -l 24
  const stored = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
  assertEquals((await createHasher().verify("password", stored)).matches, true);
  assertEquals((await createHasher().verify("Password", stored)).matches, false);
});

Deno.test("PasswordHasher.hash() salts, and verify() takes what it made, any Unicode", async () => {
  const hasher = createHasher();
  for (const password of ["correct horse battery", "пароль ✓ 密码 \u0000", " leading and trailing "]) {
    const hash = await hasher.hash(password);
    assertMatch(hash, /^\$argon2id\$v=19\$m=7168,t=1,p=1\$/);
    assertNotEquals(await hasher.hash(password), hash);
    assertEquals(await hasher.verify(password, hash), { matches: true, isOutdated: false });
    assertEquals((await hasher.verify(`${password} `, hash)).matches, false);
    assertEquals((await hasher.verify(password.trim() + "x", hash)).matches, false);
  }
});

Deno.test("PasswordHasher.verify() says that a hash of other parameters is outdated", async () => {
  const old = await createHasher().hash("hunter2hunter2");
  const config = passwordConfigSchema.parse({ memoryKib: 8 * 1024, passes: 1 });
  assertEquals(await createHasher({ config }).verify("hunter2hunter2", old), {
    matches: true,
    isOutdated: true,
  });
});

Deno.test("PasswordHasher.verify() refuses texts that are no hash within bounds", async () => {
  const hasher = createHasher();
  const tail = "$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
  for (
    const stored of [
      "",
      "plain",
      `$argon2i$v=19$m=65536,t=2,p=1${tail}`,
      `$argon2id$v=16$m=65536,t=2,p=1${tail}`,
      `$argon2id$v=19$m=1048577,t=1,p=1${tail}`,
      `$argon2id$v=19$m=1048576,t=100,p=1${tail}`,
      `$argon2id$v=19$m=9999999,t=2,p=1${tail}`,
      `$argon2id$v=19$m=65536,t=2,p=99${tail}`,
      `$argon2id$v=19$m=8,t=2,p=2${tail}`,
      "$argon2id$v=19$m=65536,t=2,p=1$c29t$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
      "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFh",
    ]
  ) {
    const error = await assertRejects(() => hasher.verify("password", stored), PasswordError);
    assertEquals(error.code, "invalid", stored);
  }
  for (const password of ["", "x".repeat(PASSWORD_BYTES_MAX + 1)]) {
    assertEquals((await assertRejects(() => hasher.hash(password), PasswordError)).code, "invalid");
  }
});

Deno.test("PasswordHasher works on one at a time, bounds who waits, and skips those who have gone", async () => {
  const gates: (() => void)[] = [];
  let running = 0, most = 0;
  const argon2id: Argon2id = async ({ hashBytes }) => {
    most = Math.max(most, ++running);
    await new Promise<void>((resolve) => gates.push(resolve));
    running--;
    return new Uint8Array(hashBytes);
  };
  const hasher = createHasher({
    config: passwordConfigSchema.parse({ waitingMax: 2 }),
    argon2id,
  });
  const gone = new AbortController();
  const first = hasher.hash("a");
  const second = hasher.hash("b", gone.signal);
  const third = hasher.hash("c");
  const refused = await assertRejects(() => hasher.hash("d"), PasswordError);
  assertEquals([refused.code, refused.retryAfterS >= 1], ["too_many", true]);
  assertEquals(hasher.figures().waiting, 2);

  gone.abort();
  gates.shift()!();
  await first;
  assertEquals((await assertRejects(() => second, PasswordError)).code, "canceled");
  while (gates.length === 0) await Promise.resolve();
  gates.shift()!();
  await third;
  assertEquals(most, 1);
  const { hashes, refused: refusals, waiting } = hasher.figures();
  assertEquals({ hashes, refusals, waiting }, { hashes: 2, refusals: 1, waiting: 0 });
  // The turn was handed back.
  const last = hasher.hash("e");
  while (gates.length === 0) await Promise.resolve();
  gates.shift()!();
  await last;
});
