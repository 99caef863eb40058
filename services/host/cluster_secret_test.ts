import { assertEquals, assertThrows } from "@std/assert";
import { createSeededRandom } from "../runtime/random.ts";
import { newClusterSecret, readClusterSecret } from "./cluster_secret.ts";
import { HostError } from "./exit_code.ts";

Deno.test("readClusterSecret() takes a secret as base64 and hex, and derives the same from both", async () => {
  const path = await Deno.makeTempFile();
  const secret = newClusterSecret(createSeededRandom(1));
  await Deno.writeTextFile(path, `${secret}\n`);
  const derived = readClusterSecret(path);
  await Deno.writeTextFile(path, Uint8Array.fromBase64(secret).toHex());
  assertEquals(readClusterSecret(path), derived);
  assertEquals([derived.length, derived.toBase64() === secret], [32, false]);
  await Deno.writeTextFile(path, newClusterSecret(createSeededRandom(2)));
  assertEquals(readClusterSecret(path).toHex() === derived.toHex(), false);
  await Deno.remove(path);
});

Deno.test("readClusterSecret() refuses what is missing, short or no secret at all, and does not repeat it", async () => {
  const path = await Deno.makeTempFile();
  for (const text of ["", "hunter2hunter2hunter2", "-----BEGIN KEY-----", "00".repeat(31)]) {
    await Deno.writeTextFile(path, text);
    const error = assertThrows(
      () => readClusterSecret(path),
      HostError,
      "holds no secret: expected at least 32",
    );
    assertEquals(error.exitCode, 2);
    assertEquals(text !== "" && error.message.includes(text), false);
  }
  await Deno.remove(path);
  assertThrows(() => readClusterSecret(path), HostError, "(cluster.secretFile)");
});
