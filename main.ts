/** The command line of AetherFlow. */
import { run } from "./cli/program.ts";

if (import.meta.main) Deno.exit(await run(Deno.args));
