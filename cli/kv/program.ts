/** Declares `aetherflow kv …`. Each command's code is loaded only when it is used. */
import { type Command, Option } from "commander";
import type { KvOptions } from "./client.ts";

/** What every one of these commands is told about its server. */
const SERVER_HELP = `
The server is taken from --endpoint, or else from AETHERFLOW_ENDPOINT, or else is http://127.0.0.1:8080.
An access token or API key may be in AETHERFLOW_TOKEN.

Exit codes: 0 done · 1 error · 2 wrong usage · 3 no such key`;

const entries = () => import("./entries.ts");
const leases = () => import("./leases.ts");
const locks = () => import("./locks.ts");
const users = () => import("./users.ts");
const maintenance = () => import("./maintenance.ts");

/** Adds the commands; `done` takes the exit code of the one that ran. */
export function addKv(program: Command, done: (exitCode: number) => void): void {
  const kv = program.command("kv").description("Read, write and look after the keys of a running server.");
  addEntries(kv, done);
  addLeases(kv, done);
  addLocks(kv, done);
  addMaintenance(kv, done);
  addUsers(kv, done);
}

function addEntries(kv: Command, done: (exitCode: number) => void): void {
  online(kv, "get", "aetherflow kv get greeting").argument("<key>")
    .description("Print a key's value as it is.")
    .option("--revision <n>", "as it was at this revision")
    .option("--json", "print key, value and revision as JSON")
    .action(async (key, options) => done(await (await entries()).get(key, options)));

  online(kv, "put", "aetherflow kv put greeting hello", "aetherflow kv put picture - < picture.png")
    .argument("<key>").argument("<value>", "the value, or - to read it from standard input")
    .description("Write a key; the answer comes when it is as durable as the server promises.")
    .option("--ttl <seconds>", "let the key run out after so many seconds")
    .option("--json", "print key and revision as JSON")
    .action(async (key, value, options) => done(await (await entries()).put(key, value, options)));

  online(kv, "del", "aetherflow kv del greeting").argument("<key>")
    .description("Delete a key.")
    .option("--json", "print key and revision as JSON")
    .action(async (key, options) => done(await (await entries()).del(key, options)));

  online(kv, "list", "aetherflow kv list users/").argument("[prefix]", "what the keys start with", "")
    .description("Print the keys under a prefix, in key order, one a line.")
    .option("--values", "print each key's value after it, with a tab between")
    .option("--json", "print one JSON object a line, with value and revisions")
    .action(async (prefix, options) => done(await (await entries()).list(prefix, options)));

  online(kv, "watch", "aetherflow kv watch users/ --prefix").argument("<key>")
    .description(
      "Print changes as they happen, until interrupted. A lost connection is taken up where it ended.",
    )
    .option("--prefix", "watch every key that starts with <key>")
    .option("--from <revision>", "begin at this revision instead of now")
    .option("--json", "print one JSON object a line, one for each revision")
    .action(async (key, options) => done(await (await entries()).watch(key, options)));

  online(kv, "history", "aetherflow kv history greeting").argument("<key>")
    .description("Print the changes of a key, newest first, as far back as history is kept.")
    .option("--json", "print one JSON object a line")
    .action(async (key, options) => done(await (await entries()).history(key, options)));

  online(
    kv,
    "txn",
    `aetherflow kv txn '{"conditions":[{"keyText":"lock","exists":false}],` +
      `"then":[{"put":{"keyText":"lock","valueText":"me"}}],"otherwise":[{"get":{"keyText":"lock"}}]}'`,
  ).argument("<json>", "the transaction, or - to read it from standard input")
    .description(
      "Run `then` if all conditions hold, else `otherwise`, atomically. Exits with 1 when they did not hold.",
    )
    .option("--json", "print the answer on one line")
    .action(async (json, options) => done(await (await entries()).txn(json, options)));
}

function addLeases(kv: Command, done: (exitCode: number) => void): void {
  const lease = kv.command("lease").description("Leases: keys attached to one go when it runs out.");
  online(lease, "grant", "aetherflow kv lease grant 60").argument("<seconds>")
    .description("Grant a lease and print its id.")
    .option("--id <hex>", "choose the id")
    .option("--json", "print id and time as JSON")
    .action(async (ttl, options) => done(await (await leases()).grant(ttl, options)));
  online(lease, "revoke", "aetherflow kv lease revoke 32695410dcc0ca06").argument("<id>")
    .description("End a lease; its keys are deleted.")
    .option("--json", "print JSON")
    .action(async (id, options) => done(await (await leases()).revoke(id, options)));
  online(lease, "keep-alive", "aetherflow kv lease keep-alive 32695410dcc0ca06").argument("<id>")
    .description("Renew a lease until interrupted.")
    .option("--once", "renew it once")
    .option("--json", "print one JSON object a line")
    .action(async (id, options) => done(await (await leases()).keepAlive(id, options)));
  online(lease, "ttl", "aetherflow kv lease ttl 32695410dcc0ca06 --keys").argument("<id>")
    .description("Print how long a lease has left.")
    .option("--keys", "print its keys too")
    .option("--json", "print JSON")
    .action(async (id, options) => done(await (await leases()).timeToLive(id, options)));
  online(lease, "list", "aetherflow kv lease list")
    .description("Print the ids of all leases.")
    .option("--json", "print one JSON object a line")
    .action(async (options) => done(await (await leases()).list(options)));
}

function addLocks(kv: Command, done: (exitCode: number) => void): void {
  online(kv, "lock", "aetherflow kv lock backups").argument("<name>")
    .description(
      "Wait for a lock, print its key and fencing token, and hold it until interrupted. Works with etcdctl lock.",
    )
    .option("--ttl <seconds>", "forget a holder that died after so many seconds", "10")
    .option("--json", "print JSON")
    .action(async (name, options) => done(await (await locks()).lock(name, options)));
  online(kv, "elect", "aetherflow kv elect primary node-1", "aetherflow kv elect primary --listen")
    .argument("<name>").argument("[proposal]", "what to announce", "")
    .description("Campaign, print when elected, and lead until interrupted. Works with etcdctl elect.")
    .option("--listen", "print who leads instead, and each change of it")
    .option("--ttl <seconds>", "forget a leader that died after so many seconds", "10")
    .option("--json", "print JSON")
    .action(async (name, proposal, options: KvOptions & { listen?: boolean }) =>
      done(
        options.listen
          ? await (await locks()).observe(name, options)
          : await (await locks()).elect(name, proposal, options),
      )
    );
}

function addMaintenance(kv: Command, done: (exitCode: number) => void): void {
  online(kv, "status", "aetherflow kv status")
    .description("Print revision, size and alarms.")
    .option("--json", "print JSON")
    .action(async (options) => done(await (await maintenance()).status(options)));
  online(kv, "member", "aetherflow kv member")
    .description("Print the members of the cluster.")
    .option("--json", "print one JSON object a line")
    .action(async (options) => done(await (await maintenance()).members(options)));
  online(kv, "compact", "aetherflow kv compact 1000").argument("<revision>")
    .description("Give up history before a revision.")
    .option("--physical", "answer only when the space has been given back")
    .option("--json", "print JSON")
    .action(async (revision, options) => done(await (await maintenance()).compact(revision, options)));
  online(kv, "defrag", "aetherflow kv defrag")
    .description("Give unused memory and disk back.")
    .option("--json", "print JSON")
    .action(async (options) => done(await (await maintenance()).defragment(options)));
  const alarm = kv.command("alarm").description("Alarms: NOSPACE stops writes until it is disarmed.");
  online(alarm, "list", "aetherflow kv alarm list")
    .description("Print the alarms that are raised.")
    .option("--json", "print one JSON object a line")
    .action(async (options) => done(await (await maintenance()).alarms("list", options)));
  online(alarm, "disarm", "aetherflow kv alarm disarm")
    .description("Clear all alarms.")
    .option("--json", "print one JSON object a line")
    .action(async (options) => done(await (await maintenance()).alarms("disarm", options)));
  online(kv, "snapshot", "aetherflow kv snapshot backup.db").argument("<file>")
    .description("Save the store, as of now, to a file that `restore` and etcd's own tools can read.")
    .option("--json", "print JSON")
    .action(async (file, options) => done(await (await maintenance()).snapshot(file, options)));
  kv.command("restore").argument("<file>")
    .description(
      "Make a data folder from a snapshot, of this store or of an etcd. No server may use the folder.",
    )
    .option("--config <file>", "configuration file (default: aetherflow.yaml, if there is one)")
    .option("--data <folder>", "the data folder; its store must be empty; short for --set data=<folder>")
    .option(
      "--set <key=value>",
      "set one key; may be repeated",
      (value, before: string[]) => [...before, value],
      [],
    )
    .option("--skip-hash-check", "take a file that was copied from an etcd's data folder, which has no hash")
    .option("--json", "print JSON")
    .addHelpText("after", "\nExample:\n  aetherflow kv restore backup.db --data restored")
    .action(async (file, options) => done(await (await import("./restore.ts")).restore(file, options)));
}

function addUsers(kv: Command, done: (exitCode: number) => void): void {
  const auth = kv.command("auth").description("Whether users are checked.");
  online(auth, "enable", "aetherflow kv auth enable")
    .description("Check users from now on; there must be a user root with the role root.")
    .option("--json", "print JSON")
    .action(async (options) => done(await (await users()).setEnabled(true, options)));
  online(auth, "disable", "aetherflow kv auth disable --user root:secret")
    .description("Check users no more.")
    .option("--json", "print JSON")
    .action(async (options) => done(await (await users()).setEnabled(false, options)));
  online(auth, "status", "aetherflow kv auth status")
    .description("Print whether users are checked.")
    .option("--json", "print JSON")
    .action(async (options) => done(await (await users()).authStatus(options)));

  const user = kv.command("user").description("Users of the store.");
  online(user, "add", "aetherflow kv user add alice - < password.txt").argument("<name>")
    .argument("<password>", "the password, or - to read it from standard input")
    .description("Add a user.").option("--json", "print JSON")
    .action(async (name, password, options) => done(await (await users()).addUser(name, password, options)));
  online(user, "passwd", "aetherflow kv user passwd alice - < password.txt").argument("<name>")
    .argument("<password>", "the password, or - to read it from standard input")
    .description("Change a user's password.").option("--json", "print JSON")
    .action(async (name, password, options) =>
      done(await (await users()).setPassword(name, password, options))
    );
  online(user, "del", "aetherflow kv user del alice").argument("<name>")
    .description("Remove a user.").option("--json", "print JSON")
    .action(async (name, options) => done(await (await users()).removeUser(name, options)));
  online(user, "list", "aetherflow kv user list")
    .description("Print all users.").option("--json", "print one JSON object a line")
    .action(async (options) => done(await (await users()).listNames("user", options)));
  online(user, "get", "aetherflow kv user get alice").argument("<name>")
    .description("Print a user's roles.").option("--json", "print JSON")
    .action(async (name, options) => done(await (await users()).showUser(name, options)));
  online(user, "grant", "aetherflow kv user grant alice reader").argument("<name>").argument("<role>")
    .description("Give a user a role.").option("--json", "print JSON")
    .action(async (name, role, options) => done(await (await users()).setRole(name, role, true, options)));
  online(user, "revoke", "aetherflow kv user revoke alice reader").argument("<name>").argument("<role>")
    .description("Take a role from a user.").option("--json", "print JSON")
    .action(async (name, role, options) => done(await (await users()).setRole(name, role, false, options)));

  const role = kv.command("role").description("Roles: what their users may do.");
  online(role, "add", "aetherflow kv role add reader").argument("<name>")
    .description("Add a role.").option("--json", "print JSON")
    .action(async (name, options) => done(await (await users()).setRoleExists(name, true, options)));
  online(role, "del", "aetherflow kv role del reader").argument("<name>")
    .description("Remove a role.").option("--json", "print JSON")
    .action(async (name, options) => done(await (await users()).setRoleExists(name, false, options)));
  online(role, "list", "aetherflow kv role list")
    .description("Print all roles.").option("--json", "print one JSON object a line")
    .action(async (options) => done(await (await users()).listNames("role", options)));
  online(role, "get", "aetherflow kv role get reader").argument("<name>")
    .description("Print what a role may do.").option("--json", "print one JSON object a line")
    .action(async (name, options) => done(await (await users()).showRole(name, options)));
  online(role, "grant", "aetherflow kv role grant reader read users/ --prefix")
    .argument("<name>").argument("<type>", "read, write or readwrite").argument("<key>")
    .description("Let a role read or write a key.")
    .option("--prefix", "every key that starts with <key>").option("--json", "print JSON")
    .action(async (name, type, key, options) =>
      done(await (await users()).grantPermission(name, type, key, options))
    );
  online(role, "revoke", "aetherflow kv role revoke reader users/ --prefix").argument("<name>").argument(
    "<key>",
  )
    .description("Take a role's permission on exactly this key or prefix.")
    .option("--prefix", "every key that starts with <key>").option("--json", "print JSON")
    .action(async (name, key, options) => done(await (await users()).revokePermission(name, key, options)));
}

/** A command that asks a running server. */
function online(parent: Command, name: string, ...examples: string[]): Command {
  return parent.command(name)
    .addOption(new Option("--endpoint <url>", "server to ask").env("AETHERFLOW_ENDPOINT"))
    .addOption(
      new Option("--user <name[:password]>", "user of the store; the password may be in AETHERFLOW_PASSWORD")
        .env("AETHERFLOW_USER"),
    )
    .addHelpText(
      "after",
      `${SERVER_HELP}\n\n${examples.length === 1 ? "Example" : "Examples"}:\n  ${examples.join("\n  ")}`,
    );
}
