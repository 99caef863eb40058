/** Declares `aetherflow demo`. */
import type { Command } from "commander";
import { online } from "../auth/program.ts";

/** Adds the command; `done` takes the exit code. */
export function addDemo(program: Command, done: (exitCode: number) => void): void {
  online(program, "demo", "aetherflow demo", "aetherflow demo --for 5m --bots 8")
    .description(
      "Fill a running server with documents and people who work on them, and print where to watch. A second run takes the " +
        "same documents.",
    )
    .option("--for <time>", "end after so long: 60s, 5m, 1h; without it Ctrl-C ends it")
    .option("--bots <n>", "how many people", "3")
    .option("--open", "open the console in a browser, where this command may start one")
    .action(async (options) => done(await (await import("./demo.ts")).demo(options)));
}
