import { assert, assertEquals, assertRejects } from "@std/assert";
import { createPrng } from "../testing/fault_fs.ts";
import { fnv1a64, metaPage, PAGE_BYTES } from "./format.ts";
import { type BoltEntry, BoltError, openBolt, writeBolt } from "./mod.ts";
import { MemoryFile } from "./testing/memory_file.ts";

Deno.test("fnv1a64() is the published function", () => {
  assertEquals(fnv1a64(new Uint8Array(0)), 0xcbf29ce484222325n);
  assertEquals(fnv1a64(new TextEncoder().encode("foobar")), 0x85944171f73967e8n);
});

Deno.test("metaPage() has the bytes of the format", () => {
  const page = metaPage({ pageBytes: 4_096, root: 3, freelist: 2, pages: 4, transaction: 1n });
  assertEquals(page.length, 4_096);
  assertEquals(
    [...page.subarray(0, 80)].map((byte) => byte.toString(16).padStart(2, "0")).join(""),
    // number 1, kind 4 | magic, version, page size, flags | root 3, sequence | freelist 2, pages 4, transaction 1 | checksum
    "01000000000000000400000000000000" + "edda0ced020000000010000000000000" +
      "03000000000000000000000000000000" + "020000000000000004000000000000000100000000000000" +
      "0f4879511a354c26",
  );
});

Deno.test("openBolt() reads what writeBolt() wrote, whatever the sizes", async () => {
  for (let seed = 1; seed <= 60; seed++) {
    const random = createPrng(seed);
    const names = ["a", "key", "zz\u00ff"].slice(0, 1 + Math.floor(random() * 3));
    const content = new Map(names.map((name) => [name, randomEntries(random)]));
    const file = new MemoryFile();
    const bytes = await writeBolt(
      file,
      [...content].map(([name, entries]) => ({ name, entries })),
    );
    assertEquals(bytes, file.size, `seed ${seed}`);
    const found = await openBolt(file);
    assertEquals(found.bytes, bytes);
    assertEquals(found.bucketNames, names, `seed ${seed}`);
    for (const [name, entries] of content) assertEquals(await contentOf(file, name), entries, `seed ${seed}`);
  }
});

Deno.test("writeBolt() writes pages as they fill and holds one path of them", async () => {
  const counts = { writes: 0, bytes: 0 };
  let made = 0;
  const file = {
    write(at: number, bytes: Uint8Array) {
      counts.writes++;
      counts.bytes = Math.max(counts.bytes, at + bytes.length);
      // Everything made so far but the pages being filled is out, or is this write.
      assert(made * 32 - counts.bytes < 524_288, "entries pile up");
      return Promise.resolve();
    },
  };
  function* entries(): Generator<BoltEntry> {
    for (; made < 300_000; made++) {
      const key = new Uint8Array(8);
      new DataView(key.buffer).setUint32(4, made);
      yield { key, value: key };
    }
  }
  const length = await writeBolt(file, [{ name: "key", entries: entries() }]);
  assertEquals(counts.bytes, length);
  assert(length < 300_000 * 36 && length > 300_000 * 32, `${length}`);
});

Deno.test("writeBolt() refuses entries and buckets out of order and empty keys", async () => {
  const entry = (text: string) => ({ key: new TextEncoder().encode(text), value: new Uint8Array(1) });
  const write = (...keys: string[]) =>
    writeBolt(new MemoryFile(), [{ name: "key", entries: keys.map(entry) }]);
  await assertRejects(() => write("b", "a"), RangeError, "in order");
  await assertRejects(() => write("a", "a"), RangeError, "in order");
  await assertRejects(() => write(""), RangeError, "1..32768");
  await assertRejects(
    () => writeBolt(new MemoryFile(), [{ name: "b", entries: [] }, { name: "a", entries: [] }]),
    RangeError,
    "in order",
  );
});

Deno.test("openBolt() uses the older meta page when the newer one is torn, and none when both are", async () => {
  const file = await sample();
  file.bytes[PAGE_BYTES + 70]! ^= 1;
  assertEquals((await openBolt(file)).bucketNames, ["empty", "key"]);
  file.bytes[70]! ^= 1;
  await assertRejects(() => openBolt(file), BoltError, "no whole meta page");
});

Deno.test("openBolt() says what is wrong with a file that was cut or is none", async () => {
  const file = await sample();
  await assertRejects(() => openBolt(new MemoryFile()), BoltError, "no whole meta page");
  await assertRejects(
    () => openBolt(new MemoryFile(file.bytes.slice(0, -1))),
    BoltError,
    "are in use",
  );
});

Deno.test("forEach() refuses a branch that links to itself instead of going round", async () => {
  const file = await sample();
  const view = new DataView(file.bytes.buffer);
  let linked = 0;
  for (let page = 2; page < file.size / PAGE_BYTES; page++) {
    const at = page * PAGE_BYTES;
    if (view.getUint16(at + 8, true) !== 1) continue;
    view.setBigUint64(at + 16 + 8, BigInt(page), true);
    linked++;
  }
  assert(linked > 0);
  const error = await assertRejects(() => contentOf(file, "key"), BoltError);
  assertEquals(error.code, "damaged");
});

Deno.test("a damaged file gives its entries or a BoltError, in bounded time", async () => {
  const whole = await sample();
  const limit = whole.size / PAGE_BYTES * 4;
  let refused = 0;
  for (let seed = 1; seed <= 3_000; seed++) {
    const random = createPrng(seed);
    const file = new MemoryFile(whole.bytes.slice());
    for (let i = 0; i < 1 + random() * 4; i++) damage(file.bytes, random);
    try {
      const found = await openBolt(file);
      for (const name of found.bucketNames) await found.forEach(name, () => {});
    } catch (error) {
      if (!(error instanceof BoltError)) throw new Error(`seed ${seed}`, { cause: error });
      refused++;
    }
    assert(file.reads < limit, `seed ${seed}: ${file.reads} reads`);
  }
  assert(refused > 1_000, `only ${refused} of 3000 damaged files were refused`);
});

/** Changes a byte, favouring the places where pages say what they are. */
function damage(bytes: Uint8Array, random: () => number): void {
  const page = Math.floor(random() * bytes.length / PAGE_BYTES) * PAGE_BYTES;
  const within = random() < 0.7 ? Math.floor(random() * 96) : Math.floor(random() * PAGE_BYTES);
  bytes[page + within] = random() < 0.5
    ? Math.floor(random() * 256)
    : bytes[page + within]! ^ (1 << (random() * 8));
}

/** A file with an empty bucket and one of three levels with an overflow page. */
async function sample(): Promise<MemoryFile> {
  const file = new MemoryFile();
  const entries: BoltEntry[] = [];
  for (let i = 0; i < 3_000; i++) {
    const key = new Uint8Array(120);
    new DataView(key.buffer).setUint32(0, i);
    entries.push({ key, value: new Uint8Array(i === 700 ? 9_000 : 20).fill(i) });
  }
  await writeBolt(file, [{ name: "empty", entries: [] }, { name: "key", entries }]);
  return file;
}

async function contentOf(file: MemoryFile, name: string): Promise<BoltEntry[]> {
  const entries: BoltEntry[] = [];
  const found = await openBolt(file);
  await found.forEach(name, (key, value) => entries.push({ key: key.slice(), value: value.slice() }));
  return entries;
}

function randomEntries(random: () => number): BoltEntry[] {
  const count = Math.floor(random() ** 4 * 6_000);
  const keyBytes = 1 + Math.floor(random() ** 3 * 3_000);
  const valueBytes = Math.floor(random() ** 3 * 20_000);
  const entries: BoltEntry[] = [];
  let total = 0;
  for (let i = 0; i < count && total < 8_000_000; i++) {
    const key = new Uint8Array(3 + Math.floor(random() * keyBytes));
    key[0] = i >> 16;
    key[1] = i >> 8;
    key[2] = i;
    const value = new Uint8Array(Math.floor(random() * valueBytes)).fill(i);
    total += key.length + value.length;
    entries.push({ key, value });
  }
  return entries;
}
