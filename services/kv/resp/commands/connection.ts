/** Commands on the connection itself. */
import { copyBytes, integerOf, latin1, needInteger, Refusal, SYNTAX_ERROR, upper } from "../args.ts";
import { type AnyCommand, arityText } from "../command.ts";
import { clientLine, REDIS_VERSION } from "../info.ts";
import type { Command } from "../parser.ts";
import { bulk, MapReply, OK, type Reply, Simple, textBytes, Verbatim } from "../reply.ts";
import { NOBODY } from "../../auth/guard.ts";
import type { Session } from "../session.ts";
import { command, family } from "./_define.ts";

const PONG = new Simple("PONG");
const RESET = new Simple("RESET");
const NO_BYTES = new Uint8Array(0);
const NAME_TEXT = "ERR Client names cannot contain spaces, newlines or special characters.";

function client(
  name: string,
  arity: number,
  since: string,
  summary: string,
  run: (session: Session, parts: Command, name: string) => Reply | undefined,
) {
  return command("connection", `client|${name}`, arity, "noscript", since, summary, run);
}

/** The commands. */
export const CONNECTION_COMMANDS: readonly AnyCommand[] = [
  command("connection", "ping", -1, "fast pubsub_context", "1.0.0", "Answers PONG.", ping),
  command(
    "connection",
    "echo",
    2,
    "fast",
    "1.0.0",
    "Answers its argument.",
    (_, [, text]) => copyBytes(text!),
  ),
  command(
    "connection",
    "hello",
    -1,
    "noscript fast no_auth",
    "6.0.0",
    "Greets and chooses the protocol.",
    hello,
  ),
  command("connection", "auth", -2, "noscript fast no_auth", "1.0.0", "Authenticates.", auth),
  command("connection", "select", 2, "fast", "1.0.0", "Chooses database 0.", select),
  command("connection", "quit", -1, "fast no_auth pubsub_context in_multi", "1.0.0", "Closes.", quit),
  command(
    "connection",
    "reset",
    1,
    "fast no_auth pubsub_context in_multi",
    "6.2.0",
    "Starts anew.",
    reset,
    "after",
  ),
  family("connection", "client", "2.4.0", "About connections.", [
    client("id", 2, "5.0.0", "Number of this connection.", (session) => session.id),
    client(
      "getname",
      2,
      "2.6.9",
      "Name of this connection.",
      (session) => session.name === "" ? null : textBytes(session.name),
    ),
    client("setname", 3, "2.6.9", "Names this connection.", (session, [, , name]) => {
      session.name = clientName(name!);
      return OK;
    }),
    client("setinfo", 4, "7.2.0", "Names the client's library.", setInfo),
    client(
      "info",
      2,
      "6.2.0",
      "Tells of this connection.",
      (session) => new Verbatim(`${clientLine(session)}\n`),
    ),
    client("list", -2, "2.4.0", "Tells of connections.", list),
    client("kill", -3, "2.4.0", "Closes connections.", kill),
    client("reply", 3, "3.2.0", "Whether replies are sent.", reply),
    client("no-evict", 3, "7.0.0", "Has no effect: no connection is evicted.", (session, [, , mode]) => {
      session.isNoEvict = onOff(mode!);
      return OK;
    }),
    client("no-touch", 3, "7.2.0", "Has no effect: keys have no access time.", (_, [, , mode]) => {
      onOff(mode!);
      return OK;
    }),
  ]),
];

function ping(session: Session, parts: Command, name: string): Reply {
  if (parts.length > 2) throw new Refusal(arityText(name));
  const text = parts[1] && copyBytes(parts[1]);
  if (session.isSubscribed && !session.isResp3) return [bulk("pong"), text ?? NO_BYTES];
  return text ?? PONG;
}

function select(_: Session, [, index]: Command): Reply {
  const value = needInteger(index!);
  if (value > 0x7fff_ffffn || value < -0x8000_0000n) {
    throw new Refusal("ERR value is out of range, value must between -2147483648 and 2147483647");
  }
  if (value !== 0n) throw new Refusal("ERR DB index is out of range");
  return OK;
}

function quit(session: Session): undefined {
  session.respond(OK);
  session.end();
}

function reset(session: Session): Reply {
  session.reset();
  return RESET;
}

function hello(session: Session, parts: Command): Reply | Promise<Reply> {
  let isResp3 = session.isResp3;
  if (parts.length > 1) {
    const version = integerOf(parts[1]!);
    if (version === undefined) throw new Refusal("ERR Protocol version is not an integer or out of range");
    if (version !== 2n && version !== 3n) throw new Refusal("NOPROTO unsupported protocol version");
    isResp3 = version === 3n;
  }
  let name: string | undefined;
  let credentials: readonly [string, string] | undefined;
  for (let i = 2; i < parts.length; i++) {
    const left = parts.length - 1 - i;
    const word = upper(parts[i]!);
    if (word === "AUTH" && left >= 2) {
      credentials = [utf8(parts[i + 1]!), utf8(parts[i + 2]!)];
      i += 2;
    } else if (word === "SETNAME" && left >= 1) {
      name = clientName(parts[++i]!);
    } else throw new Refusal(`ERR Syntax error in HELLO option '${latin1(parts[i]!)}'`);
  }
  const greet = (): Reply => {
    if (!session.isAuthenticated) {
      throw new Refusal(
        "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> " +
          "<pass> option can be used to authenticate the client and select the RESP protocol version at the same time",
      );
    }
    if (name !== undefined) session.name = name;
    session.isResp3 = isResp3;
    return greeting(session);
  };
  return credentials === undefined ? greet() : logIn(session, ...credentials).then(greet);
}

function greeting(session: Session): Reply {
  return new MapReply([
    [bulk("server"), bulk("redis")],
    [bulk("version"), bulk(REDIS_VERSION)],
    [bulk("proto"), session.isResp3 ? 3 : 2],
    [bulk("id"), session.id],
    [bulk("mode"), bulk("standalone")],
    [bulk("role"), bulk("master")],
    [bulk("modules"), []],
  ]);
}

function auth(session: Session, parts: Command): Reply | Promise<Reply> {
  if (parts.length > 3) throw new Refusal(SYNTAX_ERROR);
  if (parts.length === 2 && !session.takesLogin) {
    throw new Refusal(
      "ERR AUTH <password> called without any password configured for the default user. " +
        "Are you sure your configuration is correct?",
    );
  }
  const user = parts.length === 2 ? "default" : utf8(parts[1]!);
  return logIn(session, user, utf8(parts.at(-1)!)).then(() => OK);
}

/** Without authentication, `default` is whoever comes, as in Redis. */
async function logIn(session: Session, user: string, password: string): Promise<void> {
  if (!session.takesLogin && user === "default") session.become(NOBODY, user);
  else await session.logIn(user, password);
}

function clientName(bytes: Uint8Array): string {
  if (bytes.some((byte) => byte < 33 || byte > 126)) throw new Refusal(NAME_TEXT);
  return latin1(bytes);
}

function setInfo(session: Session, [, , option, value]: Command): Reply {
  const word = upper(option!);
  if (word !== "LIB-NAME" && word !== "LIB-VER") {
    throw new Refusal(`ERR Unrecognized option '${latin1(option!)}'`);
  }
  if (value!.some((byte) => byte < 33 || byte > 126)) {
    throw new Refusal(`ERR ${word.toLowerCase()} cannot contain spaces, newlines or special characters.`);
  }
  if (word === "LIB-NAME") session.libraryName = latin1(value!);
  else session.libraryVersion = latin1(value!);
  return OK;
}

function list(session: Session, parts: Command): Reply {
  let chosen = [...session.server.sessions.values()];
  if (parts.length > 2) {
    const word = upper(parts[2]!);
    if (word === "TYPE" && parts.length === 4) {
      const type = upper(parts[3]!);
      if (!TYPES.has(type)) throw new Refusal(`ERR Unknown client type '${latin1(parts[3]!)}'`);
      chosen = chosen.filter((each) => typeOf(each) === type);
    } else if (word === "ID" && parts.length > 3) {
      const ids = new Set(parts.slice(3).map((id) => needInteger(id, "ERR Invalid client ID")));
      chosen = chosen.filter(({ id }) => ids.has(BigInt(id)));
    } else throw new Refusal(SYNTAX_ERROR);
  }
  return new Verbatim(chosen.map((each) => `${clientLine(each)}\n`).join(""));
}

const TYPES: ReadonlySet<string> = new Set(["NORMAL", "MASTER", "REPLICA", "SLAVE", "PUBSUB"]);

function typeOf(session: Session): string {
  return session.isSubscribed ? "PUBSUB" : "NORMAL";
}

function kill(session: Session, parts: Command): Reply | undefined {
  const isOld = parts.length === 3;
  let chosen = [...session.server.sessions.values()];
  let skipsMe = !isOld;
  if (isOld) {
    chosen = chosen.filter(({ peer }) => peer.remoteAddress === latin1(parts[2]!));
    if (chosen.length === 0) throw new Refusal("ERR No such client");
  } else {
    for (let i = 2; i < parts.length; i += 2) {
      const value = parts[i + 1];
      if (value === undefined) throw new Refusal(SYNTAX_ERROR);
      const text = latin1(value);
      const word = upper(parts[i]!);
      if (word === "ID") {
        const id = needInteger(value, "ERR client-id should be greater than 0");
        if (id < 1n) throw new Refusal("ERR client-id should be greater than 0");
        chosen = chosen.filter((each) => BigInt(each.id) === id);
      } else if (word === "ADDR") chosen = chosen.filter(({ peer }) => peer.remoteAddress === text);
      else if (word === "LADDR") chosen = chosen.filter(({ peer }) => peer.localAddress === text);
      else if (word === "USER") chosen = chosen.filter(({ user }) => user === text);
      else if (word === "TYPE") {
        if (!TYPES.has(text.toUpperCase())) throw new Refusal(`ERR Unknown client type '${text}'`);
        chosen = chosen.filter((each) => typeOf(each) === text.toUpperCase());
      } else if (word === "SKIPME" && /^(?:yes|no)$/i.test(text)) skipsMe = text.toLowerCase() === "yes";
      else throw new Refusal(SYNTAX_ERROR);
    }
  }
  let killed = 0;
  let isOwn = false;
  for (const each of chosen) {
    if (each === session) {
      if (skipsMe) continue;
      isOwn = true;
    } else each.abort();
    killed++;
  }
  session.respond(isOld ? OK : killed);
  if (isOwn) session.end();
  return undefined;
}

function reply(session: Session, [, , mode]: Command): Reply | undefined {
  const word = upper(mode!);
  if (word === "ON") {
    session.replies = "on";
    return OK;
  }
  if (word === "OFF") session.replies = "off";
  else if (word === "SKIP") {
    if (session.replies === "on") session.replies = "skip";
  } else throw new Refusal(SYNTAX_ERROR);
  return undefined;
}

function onOff(mode: Uint8Array): boolean {
  const word = upper(mode);
  if (word !== "ON" && word !== "OFF") throw new Refusal(SYNTAX_ERROR);
  return word === "ON";
}

function utf8(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}
