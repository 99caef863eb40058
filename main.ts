/** The command line of AetherFlow. */
import { isKeeper, keep } from "./cli/keeper.ts";

if (import.meta.main) {
  // The keeper stays small: what the commands need is loaded only where they run.
  const run = isKeeper(Deno.args) ? keep : (await import("./cli/program.ts")).run;
  Deno.exit(await run(Deno.args));
}
