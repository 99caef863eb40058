import { assertEquals, assertThrows } from "@std/assert";
import { type Bcrypt, bcrypt, bcryptLike, isBcrypt } from "./bcrypt.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

function result(work: Bcrypt): string {
  for (;;) {
    const step = work.next();
    if (step.done === true) return step.value;
  }
}

Deno.test("bcryptLike() remakes hashes that others made", () => {
  // The vectors of crypt_blowfish.
  const cases: [string, string][] = [
    ["U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"],
    ["U*U*", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK"],
    ["U*U*U", "$2a$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a"],
    ["", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.7uG0VCzI2bS7j6ymqJi9CdcdxiRTWNy"],
  ];
  for (const [password, hash] of cases) {
    assertEquals(result(bcryptLike(bytes(password), hash)), hash, password);
    assertEquals(result(bcryptLike(bytes(password + "x"), hash)) === hash, false, password);
  }
});

Deno.test("bcrypt() makes hashes that bcryptLike() finds right, and yields on the way", () => {
  const password = bytes("päss😀");
  const hash = result(bcrypt(password, new Uint8Array(16).fill(9), 4));
  assertEquals(hash.slice(0, 7), "$2a$04$");
  assertEquals(result(bcryptLike(password, hash)), hash);
  let yields = 0;
  const work = bcrypt(password, new Uint8Array(16), 6);
  while (work.next().done !== true) yields++;
  assertEquals(yields, 8);
});

Deno.test("bcrypt() takes the first 72 bytes of a password", () => {
  const salt = new Uint8Array(16);
  const hash = (text: string) => result(bcrypt(bytes(text), salt, 4));
  assertEquals(hash("x".repeat(72)), hash("x".repeat(80)));
  assertEquals(hash("x".repeat(71)) === hash("x".repeat(72)), false);
});

Deno.test("isBcrypt() refuses other forms, and costs that would hold up the store", () => {
  const tail = "CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
  assertEquals(["04", "10", "14"].map((cost) => isBcrypt(`$2b$${cost}$${tail}`)), [true, true, true]);
  const refused = [
    `$2a$15$${tail}`,
    `$2a$31$${tail}`,
    `$2a$03$${tail}`,
    `$2x$10$${tail}`,
    `$2a$10$${tail}x`,
    "",
    "x",
  ];
  for (const hash of refused) {
    assertEquals(isBcrypt(hash), false, hash);
    assertThrows(() => result(bcryptLike(bytes(""), hash)), RangeError);
  }
});
