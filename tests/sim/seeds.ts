/** How a simulation test meets its seeds: a short list by default, many in a soak, one in a replay. */
export interface SimTestOptions {
  /** Seeds tried when the environment asks for nothing else; kept small, the whole folder runs in CI. */
  readonly seeds?: number;
  /** Seeds tried in a soak; SOAK_SEEDS, or `seeds` if that is more, when left out. */
  readonly soakSeeds?: number;
}

/** Seeds of each test in a soak: ten thousand runs in all, some twenty minutes of one core. */
const SOAK_SEEDS = 300;

/** Registers a test that runs `body` once for each seed and, when one fails, says how to replay it.
 *
 *  `AETHERFLOW_SIM_SEEDS=n` runs seeds 1..n; `AETHERFLOW_SIM_SEED=s` runs that one; `AETHERFLOW_SOAK=1` runs
 *  SOAK_SEEDS. */
export function simTest(
  name: string,
  options: SimTestOptions,
  body: (seed: number) => void | Promise<void>,
): void {
  Deno.test(name, async () => {
    for (const seed of seedList(options)) {
      try {
        await body(seed);
      } catch (cause) {
        const message = cause instanceof Error ? cause.message : String(cause);
        throw new Error(`seed ${seed}: ${message}\nreplay: ${replayCommand(name, seed)}`, { cause });
      }
    }
  });
}

/** The one line that runs one seed of one test again. */
export function replayCommand(name: string, seed: number): string {
  return `AETHERFLOW_SIM_SEED=${seed} deno task test:sim --filter "${name}"`;
}

function seedList({ seeds = 1, soakSeeds = Math.max(SOAK_SEEDS, seeds) }: SimTestOptions): number[] {
  const one = integerFrom("AETHERFLOW_SIM_SEED");
  if (one !== undefined) return [one];
  const usual = Deno.env.get("AETHERFLOW_SOAK") === "1" ? soakSeeds : seeds;
  const count = integerFrom("AETHERFLOW_SIM_SEEDS") ?? usual;
  return Array.from({ length: count }, (_, index) => index + 1);
}

function integerFrom(variable: string): number | undefined {
  const text = Deno.env.get(variable);
  if (text === undefined || text === "") return undefined;
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new RangeError(`${variable} is "${text}", expected a whole number from 0`);
  }
  return value;
}
