import { assertEquals, assertRejects } from "@std/assert";
import { LogError, openLog } from "./mod.ts";

const MODULE = new URL("./mod.ts", import.meta.url).href;
const ascii = (text: string) => new TextEncoder().encode(text);

/** Runs `use` with a directory that is not there yet, in one that is removed afterwards. */
async function withDirectory(use: (directory: string) => Promise<void>): Promise<void> {
  const parent = await Deno.makeTempDir({ prefix: "aetherflow-log-" });
  try {
    await use(`${parent}/data`);
  } finally {
    await Deno.remove(parent, { recursive: true });
  }
}

Deno.test("openLog() keeps records and snapshots in real files", async () => {
  await withDirectory(async (directory) => {
    const log = await openLog({ directory, durability: "always", segmentBytes: 4096 });
    const large = new Uint8Array(600_000).fill(7); // more than is written on the caller's thread
    for (let i = 1; i <= 100; i++) log.append(ascii(`record ${i}`.padEnd(100)));
    await log.durable(log.append(large));
    await log.snapshot([ascii("state")], 60);
    await log.durable(log.append(ascii("last")));
    await log.close();

    const found: Uint8Array[] = [];
    const again = await openLog({
      directory,
      durability: "always",
      onSnapshot: (record) => void found.push(record),
      onRecord: (payload) => void found.push(payload),
    });
    assertEquals([again.lastSeq, found.length, found[0], found[41]], [102, 43, ascii("state"), large]);
    assertEquals(again.stats().segments, 2);
    await again.close();
  });
});

Deno.test("openLog() refuses while another process has the directory, and not after its SIGKILL", async () => {
  await withDirectory(async (directory) => {
    const source = `
      const { openLog } = await import(${JSON.stringify(MODULE)});
      const log = await openLog({ directory: ${JSON.stringify(directory)}, durability: "always" });
      await log.durable(log.append(new Uint8Array([1, 2, 3])));
      console.log("ready");
      setInterval(() => {}, 1000);`;
    const holder = new Deno.Command(Deno.execPath(), {
      args: ["eval", "--no-lock", source],
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    const reader = holder.stdout.getReader();
    try {
      await reader.read();
      const error = await assertRejects(
        () => openLog({ directory, durability: "always" }),
        LogError,
        `the data directory ${directory} is in use by another process`,
      );
      assertEquals(error.code, "in_use");
    } finally {
      holder.kill("SIGKILL");
      await holder.status;
      await reader.cancel();
    }
    const log = await openLog({ directory, durability: "always" });
    assertEquals(log.lastSeq, 1);
    await log.close();
  });
});

Deno.test("openLog() works in a worker that may read and write its directory and nothing else", async () => {
  await withDirectory(async (directory) => {
    await Deno.mkdir(directory);
    const source = `
      import { openLog } from ${JSON.stringify(MODULE)};
      const log = await openLog({ directory: ${JSON.stringify(directory)}, durability: "always" });
      await log.durable(log.append(new Uint8Array(10)));
      await log.snapshot([new Uint8Array(5)], 1);
      await log.close();
      postMessage(log.stats().snapshotSeq);`;
    const worker = new Worker(`data:application/typescript,${encodeURIComponent(source)}`, {
      type: "module",
      deno: {
        permissions: {
          read: [directory],
          write: [directory],
          net: false,
          env: false,
          run: false,
          ffi: false,
          sys: false,
          import: false,
        },
      },
    });
    const answer = await new Promise((resolve, reject) => {
      worker.onmessage = (event) => resolve(event.data);
      worker.onerror = (event) => {
        event.preventDefault();
        reject(new Error(event.message));
      };
    });
    worker.terminate();
    assertEquals(answer, 1);
  });
});

Deno.test("openLog() says which directory it cannot make", async () => {
  await withDirectory(async (directory) => {
    await Deno.writeTextFile(directory, "a file");
    const error = await assertRejects(() => openLog({ directory, durability: "always" }), LogError);
    assertEquals([error.code, error.message.includes(`cannot make the directory ${directory}: `)], [
      "io",
      true,
    ]);
  });
});
