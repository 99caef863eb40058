/** Reads the command line and calls the command. Each command's code is loaded only when it is used. */
import { Command, CommanderError, Option } from "commander";
import { VERSION } from "./build_info.ts";
import { LIFE_LINE_FLAG } from "./keeper.ts";
import { USAGE_EXIT_CODE } from "./output.ts";

const ENDPOINT_HELP = `
The server is taken from --endpoint, or else from AETHERFLOW_ENDPOINT, or else is http://127.0.0.1:8080.

Exit codes: 0 done · 1 error · 2 wrong usage · 3 no such key`;

/** Runs the command that `args` name. Resolves to the exit code. */
export async function run(args: readonly string[]): Promise<number> {
  let exitCode = 0;
  const program = createProgram((code) => exitCode = code);
  try {
    if (args[0] === "start" && args.some((arg) => arg === "--help" || arg === "-h")) {
      const { startHelp } = await import("./start.ts");
      program.commands.find((command) => command.name() === "start")!.addHelpText("after", startHelp());
    }
    await program.parseAsync([...args], { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    return error.exitCode === 0 ? 0 : USAGE_EXIT_CODE;
  }
  return exitCode;
}

/** Declares the commands; `done` takes the exit code of the one that ran. */
function createProgram(done: (exitCode: number) => void): Command {
  const program = new Command("aetherflow")
    .description("Sessions, documents, key-value store, jobs and gateway in one process.")
    .version(VERSION, "-V, --version", "Print the version")
    .helpOption("-h, --help", "Print this help")
    .helpCommand("help [command]", "Print the help of a command")
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, "aetherflow: ")) })
    .addHelpText(
      "after",
      `
Examples:
  aetherflow start
  aetherflow kv put greeting hello
  aetherflow kv get greeting
  aetherflow doctor`,
    );

  program.command("start")
    .description("Run the product until SIGTERM or SIGINT.")
    .option("--config <file>", "configuration file (default: aetherflow.yaml, if there is one)")
    .option("--data <folder>", "folder of everything that is stored; short for --set data=<folder>")
    .option("--set <key=value>", "set one key; may be repeated", collect, [])
    .option("--print-config", "print the configuration that would be used, without secrets, and end")
    .option("--json", "print the ready line (or the configuration) as JSON")
    .addOption(new Option(LIFE_LINE_FLAG).hideHelp())
    .action(async (options) => done(await (await import("./start.ts")).start(options)));

  addKv(program, done);

  program.command("doctor")
    .description("Check that this machine can run the product; each failure comes with a hint.")
    .option("--config <file>", "configuration file (default: aetherflow.yaml, if there is one)")
    .option("--data <folder>", "folder to check; short for --set data=<folder>")
    .option("--set <key=value>", "set one key; may be repeated", collect, [])
    .option("--json", "print the findings as JSON")
    .addHelpText("after", "\nExit codes: 0 all checks passed · 1 one failed · 2 wrong usage")
    .action(async (options) => done(await (await import("./doctor.ts")).doctor(options)));

  program.command("version")
    .description("Print version, commit and runtime.")
    .option("--json", "print it as JSON")
    .action(async (options) => done(await (await import("./version.ts")).version(options)));

  return program;
}

function addKv(program: Command, done: (exitCode: number) => void): void {
  const commands = () => import("./kv.ts");
  const kv = program.command("kv").description("Read and write keys of a running server.");
  const endpoint = () => new Option("--endpoint <url>", "server to ask").env("AETHERFLOW_ENDPOINT");

  kv.command("get").argument("<key>")
    .description("Print a key's value as it is.")
    .addOption(endpoint())
    .option("--json", "print key, value and revision as JSON")
    .addHelpText("after", `${ENDPOINT_HELP}\n\nExample:\n  aetherflow kv get greeting`)
    .action(async (key, options) => done(await (await commands()).get(key, options)));

  kv.command("put").argument("<key>").argument("<value>", "the value, or - to read it from standard input")
    .description("Write a key; the answer comes when it is as durable as the server promises.")
    .addOption(endpoint())
    .option("--json", "print key and revision as JSON")
    .addHelpText(
      "after",
      `${ENDPOINT_HELP}\n\nExamples:\n  aetherflow kv put greeting hello\n  aetherflow kv put picture - < picture.png`,
    )
    .action(async (key, value, options) => done(await (await commands()).put(key, value, options)));

  kv.command("del").argument("<key>")
    .description("Delete a key.")
    .addOption(endpoint())
    .option("--json", "print key and revision as JSON")
    .addHelpText("after", `${ENDPOINT_HELP}\n\nExample:\n  aetherflow kv del greeting`)
    .action(async (key, options) => done(await (await commands()).del(key, options)));

  kv.command("list").argument("[prefix]", "what the keys start with", "")
    .description("Print the keys under a prefix, in key order, one a line.")
    .addOption(endpoint())
    .option("--values", "print each key's value after it, with a tab between")
    .option("--json", "print one JSON object a line, with value and revisions")
    .addHelpText("after", `${ENDPOINT_HELP}\n\nExample:\n  aetherflow kv list users/`)
    .action(async (prefix, options) => done(await (await commands()).list(prefix, options)));

  kv.command("watch").argument("<key>")
    .description(
      "Print changes as they happen, until interrupted. A lost connection is taken up where it ended.",
    )
    .addOption(endpoint())
    .option("--prefix", "watch every key that starts with <key>")
    .option("--from <revision>", "begin at this revision instead of now")
    .option("--json", "print one JSON object a line, one for each revision")
    .addHelpText("after", `${ENDPOINT_HELP}\n\nExample:\n  aetherflow kv watch users/ --prefix`)
    .action(async (key, options) => done(await (await commands()).watch(key, options)));
}

function collect(value: string, before: string[]): string[] {
  return [...before, value];
}
