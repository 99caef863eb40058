/** The product with workers that hang on a signal: SIGUSR1 hangs kv, SIGUSR2 the gateway. Like main.ts it is both keeper
 *  and host, of the one command `start`. */
import { parseArgs } from "node:util";
import { isKeeper, keep } from "../../cli/keeper.ts";
import { start } from "../../cli/start.ts";
import { createFaultyWorkers } from "./faulty_host.ts";

if (import.meta.main) Deno.exit(await (isKeeper(Deno.args) ? keep(Deno.args) : run(Deno.args.slice(1))));

function run(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      data: { type: "string" },
      set: { type: "string", multiple: true },
      "life-line": { type: "boolean" },
    },
  });
  const { spawn, order } = createFaultyWorkers();
  Deno.addSignalListener("SIGUSR1", () => order("kv", { type: "fault", do: "hang" }));
  Deno.addSignalListener("SIGUSR2", () => order("gateway", { type: "fault", do: "hang" }));
  const { data = "", set = [], "life-line": lifeLine = false } = values;
  return start({ data, set, lifeLine }, { spawn });
}
