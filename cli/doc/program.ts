/** Declares `aetherflow doc …`. Each command's code is loaded only when it is used. */
import { type Command, Option } from "commander";
import { online } from "../auth/program.ts";

const documents = () => import("./documents.ts");
const operations = () => import("./operations.ts");
const versions = () => import("./versions.ts");
const locks = () => import("./locks.ts");

const TYPES = ["text", "whiteboard", "canvas", "sheet"];
const POLICIES = ["merge", "lww", "manual"];

type Done = (exitCode: number) => void;

/** Adds the commands; `done` takes the exit code of the one that ran. */
export function addDoc(program: Command, done: Done): void {
  const doc = program.command("doc").description("Documents that several people edit at once.")
    .addHelpText(
      "after",
      `
A first document:
  aetherflow doc create --type text --name Minutes --from minutes.txt --id minutes
  aetherflow doc get minutes > minutes.txt
  aetherflow doc edit minutes --from minutes.txt
  aetherflow doc watch minutes
  aetherflow doc share minutes --editor alice --viewer bob
  aetherflow doc versions minutes
  aetherflow doc diff minutes 1`,
    );
  addDocuments(doc, done);
  addSharing(doc, done);
  addOperations(doc, done);
  addVersions(doc, done);
  addLocks(doc, done);
}

function addDocuments(doc: Command, done: Done): void {
  describing(sharing(
    online(
      doc,
      "create",
      "aetherflow doc create --type text --name Minutes --from minutes.txt",
      "aetherflow doc create --type whiteboard --id plans/2026 --editor alice --public",
    ),
  ))
    .description("Make a document and print its id.")
    .addOption(new Option("--type <type>", "what it is").choices(TYPES).default("text"))
    .option("--id <id>", "choose the id; one is made when left out")
    .option(
      "--from <file>",
      "its first content, - for standard input: a text, or JSON as `doc get` prints it",
    )
    .action(async (options) => done(await (await documents()).create(options)));
  online(doc, "list", "aetherflow doc list --type text --tag draft")
    .description("Print the documents that the caller may read, by id: id, type, version, name.")
    .addOption(new Option("--type <type>", "only of this type").choices(TYPES))
    .addOption(
      new Option("--state <state>", "only in this state; all but the deleted when left out")
        .choices(["active", "archived", "deleted"]),
    )
    .option("--by <user>", "only those that this user made")
    .option("--of <user>", "only those that this user owns or is named in")
    .option("--tag <tag>", "only with this tag")
    .option("--name <text>", "only with this in their names")
    .action(async (options) => done(await (await documents()).list(options)));
  online(doc, "get", "aetherflow doc get minutes", "aetherflow doc get minutes --version 3").argument("<id>")
    .description("Print a document's content as it is: the text, or JSON of objects and cells.")
    .option("--version <n>", "as it was at this version")
    .option("--at <time>", "as it was at this time, like 2026-01-31T12:00:00Z")
    .action(async (id, options) => done(await (await documents()).get(id, options)));
  online(doc, "show", "aetherflow doc show minutes").argument("<id>")
    .description("Print everything but the content: name, version, who may do what, who is here.")
    .action(async (id, options) => done(await (await documents()).show(id, options)));
  online(
    doc,
    "edit",
    "aetherflow doc edit minutes --from minutes.txt",
    "aetherflow doc edit minutes --from minutes.txt --if-version 7",
  ).argument("<id>")
    .description(
      "Replace a document's content by that of a file, by the least edit: cursors and words elsewhere stay.",
    )
    .requiredOption("--from <file>", "the new content, - for standard input")
    .option("--if-version <n>", "refuse when another version is the present one")
    .action(async (id, options) => done(await (await documents()).edit(id, options)));
  describing(online(doc, "set", "aetherflow doc set minutes --name 'Minutes of May' --property room=2"))
    .argument("<id>")
    .description("Change what is said of a document. --tag replaces the tags; --tag '' leaves none.")
    .action(async (id, options) => done(await (await documents()).set(id, options)));
  online(doc, "archive", "aetherflow doc archive minutes").argument("<id>")
    .description("Make a document readable only.")
    .action(async (id, options) => done(await (await documents()).setState(id, "archived", options)));
  online(doc, "unarchive", "aetherflow doc unarchive minutes").argument("<id>")
    .description("Make an archived document editable again.")
    .action(async (id, options) => done(await (await documents()).setState(id, "active", options)));
  online(doc, "delete", "aetherflow doc delete minutes").argument("<id>")
    .description("Mark a document as deleted; `doc restore` takes that back.")
    .action(async (id, options) => done(await (await documents()).remove(id, false, options)));
  online(doc, "purge", "aetherflow doc purge minutes").argument("<id>")
    .description("Remove a document for good, with its history.")
    .action(async (id, options) => done(await (await documents()).remove(id, true, options)));
  online(doc, "restore", "aetherflow doc restore minutes", "aetherflow doc restore minutes 3")
    .argument("<id>").argument("[version]", "the version whose content comes back, as a new version")
    .description("Make a deleted document active again or, with a version, go back to it.")
    .action(async (id, version, options) => done(await (await documents()).restore(id, version, options)));
  online(doc, "stats", "aetherflow doc stats").description("Print figures of all documents.")
    .action(async (options) => done(await (await documents()).stats(options)));
}

function addSharing(doc: Command, done: Done): void {
  sharing(online(
    doc,
    "share",
    "aetherflow doc share minutes",
    "aetherflow doc share minutes --editor alice --viewer bob --no-public",
  )).argument("<id>")
    .description("Print who may do what, after the changes that the options name.")
    .option("--no-public", "nobody reads it who is not named")
    .option("--remove <user>", "take what this user was given; may be repeated", collect, [])
    .option("--owner <user>", "give the document away")
    .action(async (id, options) => done(await (await documents()).share(id, options)));
}

function addOperations(doc: Command, done: Done): void {
  online(
    doc,
    "op",
    `aetherflow doc op minutes '{"type":"text","text":{"edits":[{"index":0,"insert":"Hello "}]}}'`,
    `aetherflow doc op plan '{"type":"create","object":{"objectId":"a","kind":"rectangle","x":1,"y":2}}'`,
    `aetherflow doc op sums '{"type":"update","cells":{"edits":[{"cell":"A1","value":42}]}}'`,
  )
    .argument("<id>").argument("<json>", "the operation, or - to read it from standard input")
    .description(
      "Apply one operation: create, update, delete, move, resize, style or text. Exits with 1 when it was not applied.",
    )
    .option("--prev-version <n>", "the version that was seen; a later one is a matter of the conflict policy")
    .action(async (id, json, options) => done(await (await operations()).apply(id, json, options)));
  online(doc, "watch", "aetherflow doc watch minutes", "aetherflow doc watch --json").argument(
    "[id]",
    "one document; all that the caller may read when left out",
  )
    .description(
      "Print what happens, as it happens, until interrupted. A lost connection is taken up where it ended.",
    )
    .option("--from <n>", "begin at this offset of the document (or sequence of all) instead of now")
    .option("--count <n>", "end after so many events")
    .action(async (id, options) => done(await (await import("./watch.ts")).watch(id, options)));
  online(doc, "history", "aetherflow doc history minutes --by alice --limit 10").argument("<id>")
    .description("Print the operations, newest first: version, type, status, who, when, what.")
    .option("--by <user>", "only this user's")
    .option("--type <type>", "only of this type")
    .option("--status <status>", "only those applied, rejected, resolved or in conflict")
    .option("--limit <n>", "so many at most")
    .action(async (id, options) => done(await (await operations()).history(id, options)));
  online(doc, "undo", "aetherflow doc undo minutes --count 2").argument("<id>")
    .description("Take back the last edits of one user, and leave those of others.")
    .option("--of <user>", "whose; the caller's own when left out")
    .option("--count <n>", "how many; 1 when left out")
    .action(async (id, options) => done(await (await operations()).undo(id, options)));
  online(doc, "conflicts", "aetherflow doc conflicts minutes").argument("<id>")
    .description("Print the conflicts that wait, newest first, with both sides.")
    .option("--all", "those that are decided too")
    .action(async (id, options) => done(await (await operations()).conflicts(id, options)));
  online(doc, "resolve", "aetherflow doc resolve minutes 01ARZ3NDEKTSV4RRFFQ69G5FAV mine")
    .argument("<id>").argument("<conflict>", "its id")
    .argument("[choice]", "mine (the late operation), theirs (the document as it is), or merge")
    .description("Decide a conflict that waits.")
    .option("--operation <json>", "apply this operation instead")
    .action(async (id, conflict, choice, options) =>
      done(await (await operations()).resolve(id, conflict, choice, options))
    );
}

function addVersions(doc: Command, done: Done): void {
  online(doc, "versions", "aetherflow doc versions minutes --named").argument("<id>")
    .description("Print the versions, newest first: number, when, what changed, who, name.")
    .option("--named", "only those with a name")
    .option("--limit <n>", "so many at most")
    .action(async (id, options) => done(await (await versions()).list(id, options)));
  online(doc, "diff", "aetherflow doc diff minutes 3", "aetherflow doc diff minutes 3 7")
    .argument("<id>").argument("<from>", "a version").argument(
      "[to]",
      "another one; the present one when left out",
    )
    .description(
      "Print what changed: of a text {+inserted+ by} and {-deleted- by}, of all else each property.",
    )
    .action(async (id, from, to, options) => done(await (await versions()).diff(id, from, to, options)));
  online(doc, "name", "aetherflow doc name minutes 'as agreed'").argument("<id>").argument("<name>")
    .description("Name a version, which is then kept.")
    .option("--version <n>", "the version; the present one when left out")
    .action(async (id, name, options) => done(await (await versions()).name(id, name, options)));
  online(doc, "unname", "aetherflow doc unname minutes 3").argument("<id>").argument("<version>")
    .description("Take a version's name.")
    .action(async (id, version, options) => done(await (await versions()).unname(id, version, options)));
}

function addLocks(doc: Command, done: Done): void {
  const lock = doc.command("lock").description("Locks: while one is held, only its holder edits.");
  online(
    lock,
    "acquire",
    "aetherflow doc lock acquire minutes --hold",
    "aetherflow doc lock acquire plan --object a",
  )
    .argument("<id>")
    .description(
      "Lock a document or an object, and print the lock: id, what, who, until when, fencing token.",
    )
    .option("--object <id>", "lock this object or cell only")
    .option("--ttl <seconds>", "how long it lasts unless it is extended")
    .option("--hold", "extend it until interrupted, then release it")
    .action(async (id, options) => done(await (await locks()).acquire(id, options)));
  online(lock, "extend", "aetherflow doc lock extend minutes 01ARZ3NDEKTSV4RRFFQ69G5FAV --ttl 60")
    .argument("<id>").argument("<lock>", "its id")
    .description("Let a lock last longer.")
    .option("--ttl <seconds>", "how long from now")
    .action(async (id, lockId, options) => done(await (await locks()).extend(id, lockId, options)));
  online(lock, "release", "aetherflow doc lock release minutes").argument("<id>")
    .argument("[lock]", "its id; the caller's own on the document when left out")
    .description("Give a lock back.")
    .option("--object <id>", "the caller's own on this object")
    .action(async (id, lockId, options) => done(await (await locks()).release(id, lockId, options)));
  online(lock, "show", "aetherflow doc lock show minutes").argument("<id>")
    .description("Print the locks of a document and its objects.")
    .option("--object <id>", "only this object's")
    .action(async (id, options) => done(await (await locks()).show(id, options)));
}

function describing(command: Command): Command {
  return command
    .option("--name <name>", "what people call it")
    .option("--description <text>", "what it is about")
    .option("--tag <tag>", "may be repeated", collect, [])
    .option("--property <name=value>", "may be repeated", collect, [])
    .addOption(
      new Option("--policy <policy>", "what happens to late operations that meet others").choices(POLICIES),
    );
}

function sharing(command: Command): Command {
  return command
    .option("--editor <user>", "may edit; may be repeated", collect, [])
    .option("--commenter <user>", "may comment; may be repeated", collect, [])
    .option("--viewer <user>", "may read; may be repeated", collect, [])
    .option("--public", "everybody who is signed in may read");
}

function collect(value: string, before: string[]): string[] {
  return [...before, value];
}
