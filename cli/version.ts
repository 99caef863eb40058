import { readCommit, VERSION } from "./build_info.ts";
import { printLine } from "./output.ts";

/** `aetherflow version`. */
export async function version(options: { json?: boolean }): Promise<number> {
  const info = {
    version: VERSION,
    commit: await readCommit() ?? "unknown",
    runtime: `deno ${Deno.version.deno} (v8 ${Deno.version.v8}, ${Deno.build.target})`,
  };
  if (options.json) printLine(JSON.stringify(info));
  else printLine(`aetherflow ${info.version}\ncommit  ${info.commit}\nruntime ${info.runtime}`);
  return 0;
}
