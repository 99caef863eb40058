/** What the server knows of a command: Redis's metadata, and what runs. */
import type { Command } from "./parser.ts";
import type { Reply } from "./reply.ts";
import type { Session } from "./session.ts";
import type { View } from "./view.ts";

/** What commands on keys know besides the keys. */
export interface DataContext {
  /** Name as error texts have it, in lower case. */
  readonly name: string;
  /** Longest value, in bytes. */
  readonly valueBytesMax: number;
}

/** What COMMAND tells of a command. */
export interface CommandInfo {
  /** In lower case; subcommands as `client|id`. */
  readonly name: string;
  /** Parts, the name included; negative: at least so many. */
  readonly arity: number;
  /** Redis's flags: `readonly`, `write`, `fast`, `denyoom`, `noauth`, `no_multi`, … */
  readonly flags: readonly string[];
  /** Index of the first key (0: none), of the last (negative: from the end), and the step between them. */
  readonly keys: readonly [number, number, number];
  readonly group: "string" | "generic" | "transactions" | "connection" | "server" | "pubsub";
  /** Version of Redis that brought it. */
  readonly since: string;
  readonly summary: string;
}

/** A command on the keys it names: a pure function of them. */
export interface DataCommand extends CommandInfo {
  readonly kind: "data";
  /** Answers, and changes the view unless the answer is an error.
   *  @throws {Refusal} before it changed anything. */
  readonly run: (view: View, parts: Command, context: DataContext) => Reply;
}

/** A command on the connection, the server, or the keys as a whole. `undefined` from `run` means that it said all itself. */
export interface SessionCommand extends CommandInfo {
  readonly kind: "session";
  /** `after`: once the connection's own commands before it are done; the next ones wait for it. */
  readonly order: "now" | "after";
  readonly run: (
    session: Session,
    parts: Command,
    name: string,
  ) => Reply | undefined | Promise<Reply | undefined>;
}

/** A command that is a family. */
export interface CommandFamily extends CommandInfo {
  readonly kind: "family";
  readonly subcommands: ReadonlyMap<string, SessionCommand>;
}

/** Any command. */
export type AnyCommand = DataCommand | SessionCommand | CommandFamily;

/** The keys of a command whose arity was checked. */
export function keysOf(command: CommandInfo, parts: Command): readonly Uint8Array[] {
  const [first, last, step] = command.keys;
  if (first === 0) return NO_KEYS;
  if (first === last) return [parts[first]!];
  const end = last < 0 ? parts.length + last : last;
  const keys: Uint8Array[] = [];
  for (let i = first; i <= end; i += step) keys.push(parts[i]!);
  return keys;
}

const NO_KEYS: readonly Uint8Array[] = [];

/** Whether a command has so many parts. */
export function fitsArity(command: CommandInfo, parts: Command): boolean {
  return command.arity < 0 ? parts.length >= -command.arity : parts.length === command.arity;
}

/** What the user gets who gave too few or too many arguments. */
export function arityText(name: string): string {
  return `ERR wrong number of arguments for '${name}' command`;
}
