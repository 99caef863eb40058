/** Short forms for tables of commands. */
import type { CommandFamily, SessionCommand } from "../command.ts";

/** A command on the connection or the server. */
export function command(
  group: SessionCommand["group"],
  name: string,
  arity: number,
  flags: string,
  since: string,
  summary: string,
  run: SessionCommand["run"],
  order: SessionCommand["order"] = "now",
  keys: readonly [number, number, number] = [0, 0, 0],
): SessionCommand {
  const list = flags === "" ? [] : flags.split(" ");
  return { kind: "session", order, name, arity, flags: list, keys, group, since, summary, run };
}

/** A family of commands; `subcommands` are named `family|name`. */
export function family(
  group: CommandFamily["group"],
  name: string,
  since: string,
  summary: string,
  subcommands: readonly SessionCommand[],
): CommandFamily {
  return {
    kind: "family",
    name,
    arity: -2,
    flags: [],
    keys: [0, 0, 0],
    group,
    since,
    summary,
    subcommands: new Map(subcommands.map((sub) => [sub.name.slice(name.length + 1), sub])),
  };
}
