import { assertEquals, assertRejects } from "@std/assert";
import { openTemporaryFiles } from "./mod.ts";

Deno.test("openTemporaryFiles() gives files of their own and leaves nothing behind, not even of a process that died", async () => {
  const root = await Deno.makeTempDir({ prefix: "aetherflow-temporary-" });
  try {
    const directory = `${root}/spool`;
    const before = await openTemporaryFiles(directory);
    const [a, b] = [await before.create(), await before.create()];
    await a.write(4_096, Uint8Array.of(5, 6));
    await a.write(0, Uint8Array.of(1, 2, 3));
    await b.write(0, Uint8Array.of(9));
    const found = new Uint8Array(3);
    await a.read(0, found);
    assertEquals([...found], [1, 2, 3]);
    await a.read(4_095, found);
    assertEquals([...found], [0, 5, 6]);
    await assertRejects(() => b.read(0, found), RangeError, "fewer than 3 bytes");
    await a.remove();
    await a.remove();
    assertEquals(await namesIn(directory), ["2"]);
    const after = await openTemporaryFiles(directory);
    await assertRejects(() => Deno.stat(directory), Deno.errors.NotFound);
    await (await after.create()).remove();
    assertEquals(await namesIn(directory), []);
    await assertRejects(() => b.remove(), Deno.errors.NotFound);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});

async function namesIn(directory: string): Promise<string[]> {
  const names: string[] = [];
  for await (const { name } of Deno.readDir(directory)) names.push(name);
  return names.sort();
}
