/** Declares `aetherflow user|key|session …`, `login`, `logout` and `whoami`. Each command's code is loaded when it is used. */
import { type Command, Option } from "commander";

/** What every one of these commands is told. */
const HELP = `
The server is taken from --endpoint, or else from AETHERFLOW_ENDPOINT, or else is http://127.0.0.1:8080.
Who asks is said by --token or AETHERFLOW_TOKEN (an access token or an API key), or by --user: then its password is taken
from AETHERFLOW_PASSWORD, or asked for on a terminal, or read from standard input. Passwords are never arguments: other
users of the machine can read those. Passwords on standard input come one a line, in the order they would be asked for.

Exit codes: 0 done · 1 error · 2 wrong usage · 3 no such thing`;

const users = () => import("./users.ts");
const keys = () => import("./keys.ts");
const sessions = () => import("./sessions.ts");
const logins = () => import("./login.ts");

/** Adds the commands; `done` takes the exit code of the one that ran. */
export function addAuth(program: Command, done: (exitCode: number) => void): void {
  addUsers(program, done);
  addKeys(program, done);
  addSessions(program, done);
  addLogins(program, done);
}

function addUsers(program: Command, done: (exitCode: number) => void): void {
  const user = program.command("user").description("People who may sign in, and what they may do.");
  online(
    user,
    "add",
    "aetherflow user add alice --grant kv:orders/:w",
    "aetherflow user add bob < password.txt",
  )
    .argument("<name>", "1 to 64 of a-z, 0-9, '.', '_', '-', '@'")
    .description("Add a user; the password is asked for. The first user becomes an administrator.")
    .option("--admin", "make an administrator, who may do everything")
    .option("--grant <right>", "service:prefix, with :w to write too; may be repeated", collect, [])
    .action(async (name, options) => done(await (await users()).add(name, options)));
  online(user, "passwd", "aetherflow user passwd alice").argument(
    "[name]",
    "whose; the caller's own when left out",
  )
    .description(
      "Set a password and end the user's sessions; one's own takes the present one, and the session stays.",
    )
    .action(async (name, options) => done(await (await users()).passwd(name, options)));
  online(user, "list", "aetherflow user list").description("Print all users, by name.")
    .action(async (options) => done(await (await users()).list(options)));
  online(user, "show", "aetherflow user show alice").argument("<name>").description("Print a user.")
    .action(async (name, options) => done(await (await users()).get(name, options)));
  online(user, "disable", "aetherflow user disable alice").argument("<name>")
    .description("Let a user in no more; sessions end at once, and keys stand for nobody meanwhile.")
    .action(async (name, options) => done(await (await users()).setDisabled(name, true, options)));
  online(user, "enable", "aetherflow user enable alice").argument("<name>")
    .description("Let a user in again.")
    .action(async (name, options) => done(await (await users()).setDisabled(name, false, options)));
  online(user, "delete", "aetherflow user delete alice").argument("<name>")
    .description("Remove a user with all sessions and keys.")
    .action(async (name, options) => done(await (await users()).remove(name, options)));
  online(user, "sign-out", "aetherflow user sign-out alice").argument("<name>")
    .description("End all sessions and keys of a user.")
    .action(async (name, options) => done(await (await users()).signOut(name, options)));
  online(
    user,
    "grant",
    "aetherflow user grant alice kv:orders/ --write",
    "aetherflow user grant alice --admin",
  )
    .argument("<name>").argument("[right]", "service:prefix; services are kv, documents, queue, sessions, *")
    .description("Give a user a right, or make an administrator.")
    .option("--write", "allow writing too")
    .option("--admin", "the role of an administrator")
    .action(async (name, right, options) => done(await (await users()).grant(name, right, options)));
  online(user, "revoke", "aetherflow user revoke alice kv:orders/").argument("<name>")
    .argument("[right]", "service:prefix, as it was given")
    .description("Take a user's right, or the role of an administrator, at once.")
    .option("--admin", "the role of an administrator")
    .action(async (name, right, options) => done(await (await users()).revoke(name, right, options)));
}

function addKeys(program: Command, done: (exitCode: number) => void): void {
  const key = program.command("key").description("API keys of programs. A key can do no more than its user.");
  online(key, "create", "aetherflow key create backups --scope kv: --expires 90d --user alice")
    .argument("<name>", "what it is for")
    .description("Make a key of the caller's and print it, this once.")
    .option("--scope <right>", "service:prefix, with :w to write too; may be repeated", collect, [])
    .option("--expires <time>", "90d, 12h, 30m or seconds; never, when left out")
    .action(async (name, options) => done(await (await keys()).create(name, options)));
  online(key, "list", "aetherflow key list").description("Print the caller's keys.")
    .option("--of <name>", "another user's, for administrators")
    .action(async (options) => done(await (await keys()).list(options)));
  online(key, "delete", "aetherflow key delete 01ARZ3NDEKTSV4RRFFQ69G5FAV").argument("<id>")
    .description("End a key at once.")
    .action(async (id, options) => done(await (await keys()).remove(id, options)));
}

function addSessions(program: Command, done: (exitCode: number) => void): void {
  const session = program.command("session").description("Sessions: who is connected.");
  online(session, "list", "aetherflow session list --mine").description("Print sessions, oldest first.")
    .option("--of <user id>", "only this user's")
    .option("--mine", "only the caller's")
    .action(async (options) => done(await (await sessions()).list(options)));
  online(session, "show", "aetherflow session show 01ARZ3NDEKTSV4RRFFQ69G5FAV").argument("<id>")
    .description("Print a session.")
    .action(async (id, options) => done(await (await sessions()).show(id, options)));
  online(session, "end", "aetherflow session end 01ARZ3NDEKTSV4RRFFQ69G5FAV").argument("<id>")
    .description("End a session; nothing is authenticated by it from then on.")
    .option("--reason <text>", "told to those who watch")
    .action(async (id, options) => done(await (await sessions()).end(id, options)));
  online(session, "count", "aetherflow session count").description(
    "Print how many sessions there are, by state.",
  )
    .action(async (options) => done(await (await sessions()).count(options)));
}

function addLogins(program: Command, done: (exitCode: number) => void): void {
  command(program, "login", "export AETHERFLOW_TOKEN=$(aetherflow login alice)")
    .argument("<name>")
    .description("Sign in and print the access token; with --json the refresh token too.")
    .action(async (name, options) => done(await (await logins()).login(name, options)));
  token(command(program, "logout", "aetherflow logout"))
    .description("End the session of the token, which may be a refresh token.")
    .action(async (options) => done(await (await logins()).logout(options)));
  online(program, "whoami", "aetherflow whoami").description("Print who the caller is, and what it may do.")
    .action(async (options) => done(await (await logins()).whoami(options)));
}

/** A command that asks a server in somebody's name. */
export function online(parent: Command, name: string, ...examples: string[]): Command {
  return token(command(parent, name, ...examples))
    .addOption(
      new Option("--user <name>", "sign in for this command; goes before --token").env("AETHERFLOW_USER")
        .conflicts("token"),
    );
}

function token(command: Command): Command {
  return command.addOption(
    new Option(
      "--token <token>",
      "access token or API key; better in AETHERFLOW_TOKEN, which others cannot read",
    )
      .env("AETHERFLOW_TOKEN"),
  );
}

function command(parent: Command, name: string, ...examples: string[]): Command {
  return parent.command(name)
    .addOption(new Option("--endpoint <url>", "server to ask").env("AETHERFLOW_ENDPOINT"))
    .option("--json", "print JSON, one object a line")
    .addHelpText(
      "after",
      `${HELP}\n\n${examples.length === 1 ? "Example" : "Examples"}:\n  ${examples.join("\n  ")}`,
    );
}

function collect(value: string, before: string[]): string[] {
  return [...before, value];
}
