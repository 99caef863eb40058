/** Commands on the server. */
import { copyBytes, latin1, Refusal, SYNTAX_ERROR } from "../args.ts";
import { type AnyCommand, arityText, type CommandInfo, fitsArity, keysOf } from "../command.ts";
import { matchesGlob } from "../glob.ts";
import { infoSections } from "../info.ts";
import type { Command } from "../parser.ts";
import { bulk, MapReply, type Reply, SetReply, Simple, textBytes, Verbatim } from "../reply.ts";
import type { Session } from "../session.ts";
import { command, family } from "./_define.ts";
import { countKeys } from "./keyspace.ts";

/** The commands. */
export const SERVER_COMMANDS: readonly AnyCommand[] = [
  command("server", "time", 1, "fast", "2.6.0", "Tells the time.", time),
  command("server", "info", -1, "", "1.0.0", "Tells how the server is.", info),
  family("server", "config", "2.0.0", "About settings.", [
    command("server", "config|get", -3, "admin", "2.0.0", "Tells settings.", configGet),
    command("server", "config|set", -4, "admin", "2.0.0", "Is refused: settings are in the file.", configSet),
    command("server", "config|resetstat", 2, "admin", "2.0.0", "Starts counting anew.", resetStat),
  ]),
  {
    ...family("server", "command", "2.8.13", "About commands.", [
      command(
        "server",
        "command|count",
        2,
        "",
        "2.8.13",
        "Counts them.",
        (session) => session.server.commands.all.length,
      ),
      command("server", "command|list", -2, "", "7.0.0", "Names them.", commandList),
      command("server", "command|info", -2, "", "2.8.13", "Describes them.", commandInfo),
      command("server", "command|docs", -2, "", "7.0.0", "Documents them.", commandDocs),
      command("server", "command|getkeys", -3, "", "2.8.13", "Finds the keys of a call.", getKeys),
    ]),
    arity: -1,
  },
];

function time(session: Session): Reply {
  const nowMs = session.server.clock.nowMs();
  const second = Math.floor(nowMs / 1_000);
  return [textBytes(String(second)), textBytes(String(Math.round((nowMs - second * 1_000) * 1_000)))];
}

function info(session: Session, parts: Command): Reply | Promise<Reply> {
  const wanted = parts.slice(1).map((part) => latin1(part).toLowerCase());
  const answer = (keys: number): Reply => {
    const sections = infoSections(session.server, keys);
    const isAll = wanted.length === 0 || wanted.some((name) => ALL_SECTIONS.has(name));
    const chosen = [...sections].filter(([name]) => isAll || wanted.includes(name));
    return new Verbatim(chosen.map(([, text]) => text).join("\r\n"));
  };
  const keys = countKeys(session);
  return keys instanceof Promise ? keys.then(answer) : answer(keys);
}

const ALL_SECTIONS: ReadonlySet<string> = new Set(["all", "everything", "default"]);

function configGet(session: Session, parts: Command): Reply {
  const { server } = session;
  const figures = server.figures();
  const isSynced = figures.durability === "always";
  const settings: Record<string, string | number> = {
    "appendonly": "yes",
    "appendfsync": isSynced ? "always" : "everysec",
    "save": "",
    "databases": 1,
    "maxmemory": figures.quotaBytes,
    "maxmemory-policy": "noeviction",
    "notify-keyspace-events": "AKE",
    "proto-max-bulk-len": server.limits.valueBytesMax,
    "client-output-buffer-limit": ["normal", "slave", "pubsub"]
      .map((kind) => `${kind} ${server.limits.outputBytesMax} 0 0`).join(" "),
    "timeout": 0,
  };
  const patterns = parts.slice(2).map((part) => textBytes(latin1(part).toLowerCase()));
  const pairs = Object.entries(settings)
    .filter(([name]) => patterns.some((pattern) => matchesGlob(pattern, textBytes(name))))
    .map(([name, value]) => [bulk(name), bulk(String(value))] as const);
  return new MapReply(pairs);
}

function configSet(_: Session, parts: Command, name: string): Reply {
  if (parts.length % 2 !== 0) throw new Refusal(arityText(name));
  const setting = latin1(parts[2]!).replace(/[^\x20-\x7e]/g, "?").slice(0, 128);
  throw new Refusal(
    `ERR CONFIG SET failed (possibly related to argument '${setting}') - can't set immutable config: ` +
      "settings are in AetherFlow's configuration file",
  );
}

function resetStat(session: Session): Reply {
  const { server } = session;
  server.connectionsReceived = server.commandsProcessed = server.connectionsAborted = 0;
  return new Simple("OK");
}

// ---- COMMAND ----

function commandList(session: Session, parts: Command): Reply {
  const names = session.server.commands.all.map(({ name }) => name);
  if (parts.length === 2) return names.map(bulk);
  const by = latin1(parts[3] ?? new Uint8Array(0)).toLowerCase();
  const isPattern = parts.length === 5 && latin1(parts[2]!).toLowerCase() === "filterby" && by === "pattern";
  if (!isPattern) throw new Refusal(SYNTAX_ERROR);
  return names.filter((name) => matchesGlob(parts[4]!, textBytes(name))).map(bulk);
}

function commandInfo(session: Session, parts: Command): Reply {
  const { commands } = session.server;
  if (parts.length === 2) return describeAll(session);
  return parts.slice(2).map((name) => {
    const found = commands.namedBy(name);
    return found === undefined ? null : describe(found);
  });
}

/** Answer of COMMAND without more. */
export function describeAll(session: Session): Reply {
  return session.server.commands.all.map(describe);
}

/** Flags of our own, which are no flags of Redis's. */
const OWN_FLAGS: ReadonlySet<string> = new Set(["in_multi", "pubsub_context"]);

function describe(each: AnyCommand): Reply {
  const flags = each.flags.filter((flag) => !OWN_FLAGS.has(flag)).map((flag) => new Simple(flag));
  const [first, last, step] = each.keys;
  const categories = [`@${each.group}`, ...each.flags.includes("fast") ? ["@fast"] : ["@slow"]];
  const subcommands = each.kind === "family" ? [...each.subcommands.values()].map(describe) : [];
  return [
    bulk(each.name),
    each.arity,
    new SetReply(flags),
    first,
    last,
    step,
    new SetReply(categories.map((category) => new Simple(category))),
    [],
    [],
    subcommands,
  ];
}

function commandDocs(session: Session, parts: Command): Reply {
  const { commands } = session.server;
  const chosen = parts.length === 2
    ? commands.all
    : parts.slice(2).flatMap((name) => commands.namedBy(name) ?? []);
  return new MapReply(chosen.map((each) => [bulk(each.name), documentation(each)]));
}

function documentation(each: AnyCommand): Reply {
  const pairs: (readonly [Reply, Reply])[] = [
    [bulk("summary"), bulk(each.summary)],
    [bulk("since"), bulk(each.since)],
    [bulk("group"), bulk(each.group)],
  ];
  if (each.kind === "family") {
    const subcommands = [...each.subcommands.values()];
    pairs.push([
      bulk("subcommands"),
      new MapReply(subcommands.map((sub) => [bulk(sub.name), documentation(sub)])),
    ]);
  }
  return new MapReply(pairs);
}

function getKeys(session: Session, parts: Command): Reply {
  const call = parts.slice(2);
  const found: CommandInfo | undefined = session.server.commands.find(call);
  if (found === undefined) throw new Refusal("ERR Invalid command specified");
  if (found.keys[0] === 0) throw new Refusal("ERR The command has no key arguments");
  if (!fitsArity(found, call)) throw new Refusal("ERR Invalid number of arguments specified for command");
  return keysOf(found, call).map(copyBytes);
}
