/** All commands, found by name. */
import { latin1 } from "../args.ts";
import type { AnyCommand } from "../command.ts";
import type { Command } from "../parser.ts";
import { CONNECTION_COMMANDS } from "./connection.ts";
import { KEY_COMMANDS } from "./keys.ts";
import { KEYSPACE_COMMANDS } from "./keyspace.ts";
import { PUBSUB_COMMANDS } from "./pubsub.ts";
import { SERVER_COMMANDS } from "./server.ts";
import { STRING_COMMANDS } from "./strings.ts";
import { TRANSACTION_COMMANDS } from "./transactions.ts";

/** Every command there is. */
export const COMMANDS: readonly AnyCommand[] = [
  ...STRING_COMMANDS,
  ...KEY_COMMANDS,
  ...KEYSPACE_COMMANDS,
  ...TRANSACTION_COMMANDS,
  ...CONNECTION_COMMANDS,
  ...SERVER_COMMANDS,
  ...PUBSUB_COMMANDS,
];

const LONGEST_NAME = Math.max(...COMMANDS.map(({ name }) => name.length));

/** Finds commands by what clients sent, in any case. */
export class CommandTable {
  /** By a hash of the name; names that share one are in one list. */
  readonly #byHash = new Map<number, AnyCommand[]>();
  readonly #byName = new Map<string, AnyCommand>();

  constructor() {
    for (const command of COMMANDS) {
      const hash = hashOf(new TextEncoder().encode(command.name));
      this.#byHash.set(hash, [...this.#byHash.get(hash) ?? [], command]);
      this.#byName.set(command.name, command);
    }
  }

  /** All, in the order of the table. */
  get all(): readonly AnyCommand[] {
    return COMMANDS;
  }

  /** The command that the first part names. */
  find(parts: Command): AnyCommand | undefined {
    const name = parts[0]!;
    if (name.length > LONGEST_NAME) return undefined;
    const found = this.#byHash.get(hashOf(name));
    return found?.find((command) => isName(name, command.name));
  }

  /** By its name in lower case, `client|id` for a subcommand. */
  named(name: string): AnyCommand | undefined {
    const [family, sub] = name.split("|");
    const command = this.#byName.get(family!);
    if (sub === undefined) return command;
    return command?.kind === "family" ? command.subcommands.get(sub) : undefined;
  }

  /** By a name as clients write it. */
  namedBy(bytes: Uint8Array): AnyCommand | undefined {
    return this.named(latin1(bytes).toLowerCase());
  }
}

function hashOf(name: Uint8Array): number {
  let hash = 0;
  for (let i = 0; i < name.length; i++) hash = (hash * 31 + (name[i]! | 0x20)) | 0;
  return hash;
}

function isName(bytes: Uint8Array, name: string): boolean {
  if (bytes.length !== name.length) return false;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i]!;
    const lower = byte >= 65 && byte <= 90 ? byte | 0x20 : byte;
    if (lower !== name.charCodeAt(i)) return false;
  }
  return true;
}
