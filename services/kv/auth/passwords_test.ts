import { assertEquals, assertRejects } from "@std/assert";
import { createSeededRandom } from "../../runtime/random.ts";
import { KvError } from "../errors.ts";
import { createPasswordHasher } from "./passwords.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (value: Uint8Array) => new TextDecoder().decode(value);

function open(newHashes: "scrypt" | "bcrypt" = "scrypt") {
  let pauses = 0;
  const hasher = createPasswordHasher({
    random: createSeededRandom(1),
    pause: () => {
      pauses++;
      return Promise.resolve();
    },
    newHashes,
  });
  return { hasher, pauses: () => pauses };
}

/** Cost 4: fast. */
const BCRYPT_OF_SECRET = "$2a$04$CCCCCCCCCCCCCCCCCCCCC.";

Deno.test("scrypt hashes carry their parameters and a salt of their own, and only the password fits", async () => {
  const { hasher } = open();
  const [first, second] = await Promise.all([hasher.hash("secret"), hasher.hash("secret")]);
  assertEquals(text(first).startsWith("$scrypt$ln=14,r=8,p=5$"), true);
  assertEquals(text(first) === text(second), false);
  assertEquals(await hasher.verify("secret", first), true);
  assertEquals(await hasher.verify("Secret", first), false);
  assertEquals(await hasher.verify("", first), false);
});

Deno.test("bcrypt hashes, ours and etcd's, are verified a step at a time", async () => {
  const { hasher, pauses } = open("bcrypt");
  const made = await hasher.hash("secret");
  assertEquals(text(made).slice(0, 7), "$2a$10$");
  assertEquals(pauses() > 100, true);
  assertEquals(await hasher.verify("secret", made), true);
  const etcds = bytes("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW");
  assertEquals(await open().hasher.verify("U*U", etcds), true);
  assertEquals(await open().hasher.verify("U*V", etcds), false);
});

Deno.test("what is no hash fits no password, and takes the time of one that is", async () => {
  const { hasher, pauses } = open("bcrypt");
  const hashes = [
    undefined,
    "",
    "secret",
    BCRYPT_OF_SECRET,
    "$scrypt$ln=30,r=8,p=1$AAAA$AAAA",
    "$scrypt$ln=14,r=99,p=1$AAAA$AAAA",
  ];
  for (const hash of hashes) {
    const before = pauses();
    assertEquals(await hasher.verify("secret", hash === undefined ? undefined : bytes(hash)), false, hash);
    assertEquals(pauses() - before, 128, hash);
  }
});

Deno.test("a password that was found right is known from then on; a wrong one is worked out each time", async () => {
  const { hasher, pauses } = open("bcrypt");
  const hash = await hasher.hash("secret");
  const cost = async (password: string) => {
    const before = pauses();
    await hasher.verify(password, hash);
    return pauses() - before;
  };
  assertEquals([await cost("secret"), await cost("secret")], [128, 0]);
  assertEquals([await cost("wrong"), await cost("wrong")], [128, 128]);
});

Deno.test("connections that come back at once have their password worked out twice at most", async () => {
  const { hasher, pauses } = open("bcrypt");
  const hash = await hasher.hash("secret");
  const before = pauses();
  const all = await Promise.all(Array.from({ length: 500 }, () => hasher.verify("secret", hash)));
  assertEquals(all.every(Boolean), true);
  assertEquals(pauses() - before, 2 * 128);
});

Deno.test("a flood of logins waits in a line that ends somewhere", async () => {
  let release = () => {};
  const gate = new Promise<void>((resolve) => release = resolve);
  const hasher = createPasswordHasher({
    random: createSeededRandom(1),
    pause: () => gate,
    newHashes: "bcrypt",
  });
  const hash = bytes("$2a$04$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW");
  const waiting = Array.from({ length: 1_002 }, () => hasher.verify("wrong", hash));
  const refused = await assertRejects(() => hasher.verify("wrong", hash), KvError);
  assertEquals(refused.kind, "tooManyRequests");
  release();
  assertEquals((await Promise.all(waiting)).some(Boolean), false);
});
