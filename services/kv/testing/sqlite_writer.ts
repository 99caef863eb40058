/** A process that writes to a store on SQLite and says what was acknowledged, one line a put: key, revision, value's length.
 *  It ends when the store fails, with one line `failed <message>`, or when it is killed.
 *
 *      deno run sqlite_writer.ts <file> <memory|disk> <life> */
import { plainPut } from "./acknowledged.ts";
import { openSqliteModule } from "./sqlite_module.ts";

/** The value of a put: it says which one it is. */
export function valueOf(life: number, count: number): string {
  return `${life}.${count}:`.padEnd((count * 7_919) % 3_000, "x");
}

/** Keys that are written, in turn. */
export const WRITER_KEYS = 8;

if (import.meta.main) {
  const [path, index, life] = Deno.args as [string, "memory" | "disk", string];
  const encoder = new TextEncoder();
  // Straight to the pipe: a line that was written is one that the test may hold the store to.
  const say = (line: string) => void Deno.stdout.writeSync(encoder.encode(`${line}\n`));
  try {
    const { service } = await openSqliteModule({ path, index });
    say(`open ${service.revision}`);
    for (let count = 0; service.failure === undefined;) {
      const waiting: Promise<void>[] = [];
      for (let i = 0; i < 6; i++, count++) {
        const key = `k${count % WRITER_KEYS}`;
        const number = count;
        waiting.push(
          service.put(plainPut(key, valueOf(Number(life), number)))
            .then(({ revision }) => say(`${key} ${revision} ${number}`), () => {}),
        );
      }
      await Promise.all(waiting);
    }
    say(`failed ${service.failure?.message}`);
  } catch (error) {
    say(`failed ${(error as Error).message}`);
  }
  // The file as the failure left it: closing would tidy up.
  Deno.exit(3);
}
