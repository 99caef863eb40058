/** Random commands to a real Redis and to ours: the same bytes come back, in RESP2 and in RESP3. */
import { assertEquals } from "@std/assert";
import { encodeCommand } from "../../services/kv/resp/testing/gateway.ts";
import { ReplySplitter } from "../../services/kv/resp/testing/replies.ts";
import { latin1 } from "../../services/kv/resp/args.ts";
import { startProduct } from "../support/product.ts";
import { startRedis } from "../support/server.ts";
import { CommandSource, randomOf, TIMES, UNORDERED } from "./redis_commands.ts";

const COMMANDS = Number(Deno.env.get("AETHERFLOW_REDIS_COMMANDS") ?? 10_000);
/** Commands that travel together. */
const BATCH = 50;
/** What times may differ by, since a busy machine lies between the two answers: seconds, and milliseconds. */
const SLACK_S = 3;
const SLACK_MS = 3_000;

/** The same commands every time, so that a change is what makes them fail; others in a soak. */
const SEEDS: readonly (readonly [protocol: number, seed: number])[] = [[2, 108_661_446], [3, 1_111_191_340]];
const isSoak = Deno.env.get("AETHERFLOW_SOAK") === "1";
const replay = Deno.env.get("AETHERFLOW_SIM_SEED");

for (const [protocol, fixed] of SEEDS) {
  Deno.test(`commands are answered as Redis answers them, RESP${protocol}`, async (t) => {
    await using redis = await startRedis(t);
    if (redis === undefined) return;
    const seed = Number(replay ?? (isSoak ? crypto.getRandomValues(new Uint32Array(1))[0] : fixed));
    const source = new CommandSource(randomOf(seed));
    await using product = await startProduct();
    const ours = await connect(Number(product.addresses.resp!.split(":").at(-1)));
    const theirs = await connect(redis.port);
    try {
      await ours.call([["HELLO", String(protocol)]]);
      await theirs.call([["HELLO", String(protocol)]]);
      for (let done = 0; done < COMMANDS; done += BATCH) {
        const commands = Array.from({ length: BATCH }, () => source.next());
        const [mine, real] = await Promise.all([ours.call(commands), theirs.call(commands)]);
        for (const [i, words] of commands.entries()) {
          const name = words[0]!.toUpperCase();
          const what = `seed ${seed}, command ${done + i}: ${JSON.stringify(words)}`;
          if (!isTimeAlike(name, mine[i]!, real[i]!)) {
            assertEquals(canonicalOf(name, mine[i]!), canonicalOf(name, real[i]!), what);
          }
        }
      }
    } finally {
      theirs.close();
      ours.close();
    }
  });
}

function canonicalOf(name: string, reply: string): string {
  if (!UNORDERED.has(name)) return reply;
  return reply.split("\r\n").sort().join("\r\n");
}

/** Whether two replies differ in nothing but times. */
function isTimeAlike(name: string, mine: string, real: string): boolean {
  if (!TIMES.has(name) && name !== "EXEC") return false;
  const slack = name === "TTL" || name === "EXPIRETIME" ? SLACK_S : SLACK_MS;
  const a = mine.split("\r\n");
  const b = real.split("\r\n");
  if (a.length !== b.length) return false;
  return a.every((line, i) => {
    if (line === b[i]) return true;
    const [x, y] = [/^:(\d{2,})$/.exec(line), /^:(\d{2,})$/.exec(b[i]!)];
    return x !== null && y !== null && Math.abs(Number(x[1]) - Number(y[1])) <= slack;
  });
}

async function connect(port: number) {
  const socket = await Deno.connect({ hostname: "127.0.0.1", port });
  const splitter = new ReplySplitter();
  const buffer = new Uint8Array(65_536);
  return {
    async call(commands: readonly string[][]): Promise<string[]> {
      const bytes = Uint8Array.from(commands.flatMap((words) => [...encodeCommand(words)]));
      for (let at = 0; at < bytes.length;) at += await socket.write(bytes.subarray(at));
      while (splitter.ready.length < commands.length) {
        const count = await socket.read(buffer);
        if (count === null) throw new Error("Redis closed the connection");
        splitter.push(buffer.subarray(0, count));
      }
      return splitter.ready.splice(0, commands.length).map(latin1);
    },
    close: () => socket.close(),
  };
}
