import { assertEquals } from "@std/assert";
import { createCipheriv } from "node:crypto";
import { ChaCha20Poly1305, Poly1305 } from "./chacha20_poly1305.ts";

const bytesOf = (hex: string) =>
  Uint8Array.from(hex.replaceAll(/\s/g, "").match(/../g) ?? [], (pair) => parseInt(pair, 16));
const hexOf = (bytes: Uint8Array) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

function native(key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, plain: Uint8Array): Uint8Array {
  const cipher = createCipheriv("chacha20-poly1305", key, nonce, { authTagLength: 16 });
  cipher.setAAD(aad, { plaintextLength: plain.length });
  return Uint8Array.from([...cipher.update(plain), ...cipher.final(), ...cipher.getAuthTag()]);
}

function seal(key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, plain: Uint8Array): Uint8Array {
  const out = new Uint8Array(plain.length + 16);
  new ChaCha20Poly1305(key).seal(nonce, aad, plain, out, 0);
  return out;
}

function poly1305(key: Uint8Array, message: Uint8Array): string {
  const mac = new Poly1305();
  mac.begin(new Uint32Array(key.slice().buffer));
  mac.update(message, 0, message.length);
  const tag = new Uint8Array(16);
  mac.finish(tag, 0);
  return hexOf(tag);
}

Deno.test("ChaCha20Poly1305.seal() gives RFC 8439 §2.8.2's bytes", () => {
  const plain = new TextEncoder().encode(
    "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.",
  );
  const key = Uint8Array.from({ length: 32 }, (_, i) => 0x80 + i);
  const sealed = seal(key, bytesOf("070000004041424344454647"), bytesOf("50515253c0c1c2c3c4c5c6c7"), plain);
  assertEquals(
    hexOf(sealed),
    "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71de0a9e06" +
      "0b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9de576d265" +
      "86cec64b61161ae10b594f09e26a7e902ecbd0600691",
  );
});

// RFC 8439 appendix A.3, cases 7 to 11: carries and sums at the edge of 2^130 - 5.
const EDGES: readonly [string, string, string, string][] = [
  ["2^130 - 1 after the multiplication", "02" + "00".repeat(31), "ff".repeat(16), "03" + "00".repeat(15)],
  [
    "a carry out of the addition of s",
    "02" + "00".repeat(15) + "ff".repeat(16),
    "02" + "00".repeat(15),
    "03" + "00".repeat(15),
  ],
  [
    "p exactly between blocks",
    "01" + "00".repeat(31),
    "ff".repeat(16) + "f0" + "ff".repeat(15) + "11" + "00".repeat(15),
    "05" + "00".repeat(15),
  ],
  [
    "zero modulo p",
    "01" + "00".repeat(31),
    "ff".repeat(16) + "fb" + "fe".repeat(15) + "01".repeat(16),
    "00".repeat(16),
  ],
  ["p - 1", "02" + "00".repeat(31), "fd" + "ff".repeat(15), "fa" + "ff".repeat(15)],
];
for (const [what, key, message, tag] of EDGES) {
  Deno.test(`Poly1305 is right at ${what}`, () =>
    assertEquals(poly1305(bytesOf(key), bytesOf(message)), tag));
}

Deno.test("ChaCha20Poly1305 agrees with node:crypto for every length, and opens what it sealed", () => {
  const random = lcg(1);
  for (let length = 0; length <= 520; length++) {
    const [key, nonce] = [random(32), random(12)];
    const aad = random(32 + 8 * (length % 9));
    // Every third message is all ones, which makes the longest carries.
    const plain = length % 3 === 0 ? new Uint8Array(length).fill(0xff) : random(length);
    const sealed = seal(key, nonce, aad, plain);
    assertEquals(sealed, native(key, nonce, aad, plain), `length ${length}`);
    const opened = new Uint8Array(length);
    assertEquals(new ChaCha20Poly1305(key).open(nonce, aad, sealed, opened), true);
    assertEquals(opened, plain);
  }
});

Deno.test("ChaCha20Poly1305.open() refuses every flipped bit and writes nothing", () => {
  const random = lcg(2);
  const [key, nonce, aad, plain] = [random(32), random(12), random(32), random(40)];
  const cipher = new ChaCha20Poly1305(key);
  const sealed = seal(key, nonce, aad, plain);
  const out = new Uint8Array(40);
  for (let bit = 0; bit < 8 * (sealed.length + aad.length); bit++) {
    const [badSealed, badAad] = [sealed.slice(), aad.slice()];
    const [target, at] = bit < 8 * sealed.length ? [badSealed, bit] : [badAad, bit - 8 * sealed.length];
    target[at >> 3]! ^= 1 << (at & 7);
    assertEquals(cipher.open(nonce, badAad, badSealed, out), false, `bit ${bit}`);
  }
  assertEquals(out, new Uint8Array(40));
  assertEquals(cipher.open(nonce, aad, sealed, out), true);
});

function lcg(state: number): (count: number) => Uint8Array {
  return (count) =>
    Uint8Array.from({ length: count }, () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) >>> 24);
}
