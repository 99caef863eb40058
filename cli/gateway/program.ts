/** Declares `aetherflow gateway …`. Each command's code is loaded when it is used. */
import type { Command } from "commander";
import { online } from "../auth/program.ts";

const commands = () => import("./commands.ts");

/** Adds the commands; `done` takes the exit code of the one that ran. */
export function addGateway(program: Command, done: (exitCode: number) => void): void {
  const gateway = program.command("gateway").description("What the gateway does, for administrators.");
  online(gateway, "stats", "aetherflow gateway stats --json").description(
    "Print connections, requests, sessions, and each instance of a service with its round-trip time and losses.",
  )
    .action(async (options) => done(await (await commands()).stats(options)));
  online(gateway, "breakers", "aetherflow gateway breakers").description(
    "Print the circuit breakers towards services.",
  )
    .action(async (options) => done(await (await commands()).breakers(options)));
  online(gateway, "reset", "aetherflow gateway reset kv").argument("[breaker]", "its name; all when left out")
    .description("Close a circuit breaker, so that calls pass at once.")
    .action(async (name, options) => done(await (await commands()).reset(name, options)));
}
