/** What a full disk does to the product. The disk is a small tmpfs, which only root may mount. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { FREE_PORTS, runProduct, startProduct } from "../support/product.ts";

const DISK_BYTES = 8 << 20;
const VALUE_BYTES = 256 << 10;

const ignore = !await canMount();

const ENGINES = {
  "in memory": [],
  "SQLite, index in memory": ["--set", "kv.engine=sqlite"],
  "SQLite, index on disk": ["--set", "kv.engine=sqlite", "--set", "kv.sqlite.index=disk"],
};

for (const [engine, args] of Object.entries(ENGINES)) {
  Deno.test({
    name:
      `a full disk refuses writes, loses none it acknowledged, and serves again when there is room (${engine})`,
    ignore,
    async fn() {
      await using disk = await mount();
      const filler = `${disk.path}/filler`;
      await Deno.writeFile(filler, new Uint8Array(DISK_BYTES / 2));
      const data = `${disk.path}/data`;
      const body = new Uint8Array(VALUE_BYTES).fill(65);
      let acknowledged = 0;
      {
        await using product = await startProduct({ data, args });
        const put = (i: number) => fetch(`${product.url}/api/v1/kv/key-${i}`, { method: "PUT", body });
        let answer = await put(0);
        while (answer.status === 200 && acknowledged < DISK_BYTES / VALUE_BYTES) {
          await answer.body?.cancel();
          answer = await put(++acknowledged);
        }
        assert(acknowledged > 0, "some writes fit");
        assertEquals([answer.status, (await answer.json()).code], [503, "unavailable"]);
        assertEquals((await (await fetch(`${product.url}/api/v1/kv/key-0`)).bytes()).length, VALUE_BYTES);
        assertEquals(await product.stop(), 0);
      }
      await Deno.remove(filler);
      await using product = await startProduct({ data, args });
      for (let i = 0; i < acknowledged; i++) {
        const read = await fetch(`${product.url}/api/v1/kv/key-${i}`);
        assertEquals([read.status, (await read.bytes()).length], [200, VALUE_BYTES], `key-${i}`);
      }
      const answer = await fetch(`${product.url}/api/v1/kv/after`, { method: "PUT", body: "room" });
      assertEquals(answer.status, 200, await answer.text());
    },
  });
}

Deno.test({
  name: "a start on a full disk ends with one line that says so",
  ignore,
  async fn() {
    await using disk = await mount();
    await fill(`${disk.path}/filler`);
    const free = [...FREE_PORTS, "--set", "log.level=off"];
    const { code, stdout, stderr } = await runProduct(["start", "--data", `${disk.path}/data`, ...free]);
    assertEquals([code, stdout, stderr.trimEnd().split("\n").length], [13, "", 1], stderr);
    assertStringIncludes(stderr, "No space left on device");
  },
});

/** A small disk of its own; unmounted at the end of the block. */
async function mount(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await Deno.makeTempDir({ prefix: "aetherflow-disk-" });
  const { success } = await run("mount", ["-t", "tmpfs", "-o", `size=${DISK_BYTES}`, "tmpfs", path]);
  if (!success) {
    await Deno.remove(path);
    throw new Error("cannot mount a tmpfs");
  }
  return {
    path,
    async [Symbol.asyncDispose]() {
      // Lazily, in case the product of a failed test still holds a file.
      await run("umount", ["-l", path]);
      await Deno.remove(path);
    },
  };
}

async function fill(path: string): Promise<void> {
  using file = await Deno.open(path, { create: true, write: true });
  const block = new Uint8Array(4096);
  try {
    while (true) await file.write(block);
  } catch (error) {
    if ((error as { code?: string }).code !== "ENOSPC") throw error;
  }
}

async function canMount(): Promise<boolean> {
  if (Deno.build.os !== "linux" || Deno.uid() !== 0) return false;
  try {
    await using _disk = await mount();
    return true;
  } catch {
    return false; // a container without the capability
  }
}

function run(command: string, args: readonly string[]): Promise<Deno.CommandOutput> {
  return new Deno.Command(command, { args: [...args], stdin: "null" }).output();
}
