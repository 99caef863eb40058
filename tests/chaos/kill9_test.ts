/** The promise "what was acknowledged is on disk", against the real product and SIGKILL. */
import { assert, assertEquals } from "@std/assert";
import { createSeededRandom } from "../../services/runtime/random.ts";
import { type Product, startProduct } from "../support/product.ts";

/** Rounds of write, kill, restart, check; 200 in a normal run. */
const ROUNDS = Deno.env.get("AETHERFLOW_SOAK") === "1" ? 2_000 : 200;
const CLIENTS = 16;

/** One client's key: it writes 1, 2, 3, … and waits for each answer. */
interface Writer {
  readonly key: string;
  acknowledged: number;
  attempted: number;
}

/** Those that keys need: two hundred starts wait for nothing else. */
const SERVICES = ["--set", 'services=["kv","session","password","gateway"]'];

Deno.test(`SIGKILL at a random moment loses no acknowledged write, ${ROUNDS} rounds`, async () => {
  const seed = Number(Deno.env.get("AETHERFLOW_SIM_SEED") ?? crypto.getRandomValues(new Uint32Array(1))[0]);
  const random = createSeededRandom(seed);
  const data = await Deno.makeTempDir({ prefix: "aetherflow-kill9-" });
  const writers: Writer[] = Array.from(
    { length: CLIENTS },
    (_, client) => ({ key: `kill9/${client}`, acknowledged: 0, attempted: 0 }),
  );
  try {
    for (let round = 0; round < ROUNDS; round++) {
      const product = await startProduct({ data, args: SERVICES });
      try {
        await check(product, writers, `seed ${seed} round ${round}`);
        const writing = writers.map((writer) => write(product, writer));
        await acknowledgements(writers, 1 + pick(random, 400));
        product.kill("SIGKILL");
        await Promise.all(writing);
      } finally {
        product.kill("SIGKILL");
        await product.exited;
      }
    }
    const product = await startProduct({ data, args: SERVICES });
    try {
      await check(product, writers, `seed ${seed}, the end`);
    } finally {
      assertEquals(await product.stop(), 0);
    }
  } finally {
    await Deno.remove(data, { recursive: true });
  }
});

/** Every key holds the last acknowledged number, or a later one whose answer the kill cut off. */
async function check(product: Product, writers: readonly Writer[], where: string): Promise<void> {
  for (const writer of writers) {
    const answer = await fetch(`${product.url}/api/v1/kv/${writer.key}`);
    const text = await answer.text();
    const held = answer.status === 404 ? 0 : Number(text);
    assert(
      held >= writer.acknowledged && held <= writer.attempted,
      `${where}: ${writer.key} holds ${text}, acknowledged ${writer.acknowledged}, attempted ${writer.attempted}`,
    );
    writer.acknowledged = held;
    writer.attempted = held;
  }
}

/** Writes until the product is gone. */
async function write(product: Product, writer: Writer): Promise<void> {
  while (true) {
    writer.attempted++;
    try {
      const answer = await fetch(`${product.url}/api/v1/kv/${writer.key}`, {
        method: "PUT",
        body: String(writer.attempted),
      });
      await answer.body?.cancel();
      if (answer.status !== 200) return;
    } catch (error) {
      if (error instanceof TypeError) return; // the connection is gone
      throw error;
    }
    writer.acknowledged = writer.attempted;
  }
}

/** Resolves when the writers together have `count` more answers. */
async function acknowledgements(writers: readonly Writer[], count: number): Promise<void> {
  const total = () => writers.reduce((sum, writer) => sum + writer.acknowledged, 0);
  const target = total() + count;
  while (total() < target) await new Promise((resolve) => setTimeout(resolve, 1));
}

function pick(random: { fill(target: Uint8Array): Uint8Array }, below: number): number {
  return new DataView(random.fill(new Uint8Array(4)).buffer).getUint32(0) % below;
}
