/** Reads the command line and calls the command. Each command's code is loaded only when it is used. */
import { Command, CommanderError, Option } from "commander";
import { addAuth } from "./auth/program.ts";
import { VERSION } from "./build_info.ts";
import { addDemo } from "./demo/program.ts";
import { addDoc } from "./doc/program.ts";
import { addGateway } from "./gateway/program.ts";
import { LIFE_LINE_FLAG, TELEMETRY_FLAG } from "./keeper.ts";
import { addKv } from "./kv/program.ts";
import { USAGE_EXIT_CODE } from "./output.ts";

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
    // Options of commands may have the names of these.
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, "aetherflow: ")) })
    .addHelpText(
      "after",
      `
Examples:
  aetherflow start
  aetherflow kv put greeting hello
  aetherflow kv get greeting
  aetherflow doc create --type text --name Minutes
  aetherflow user add alice
  aetherflow gateway stats
  aetherflow demo
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
    .addOption(new Option(TELEMETRY_FLAG).hideHelp())
    .action(async (options) => done(await (await import("./start.ts")).start(options)));

  addKv(program, done);
  addDoc(program, done);
  addDemo(program, done);
  addAuth(program, done);
  addGateway(program, done);

  const config = program.command("config").description(
    "Look at the configuration without starting anything.",
  );
  const withSources = (command: Command) =>
    command
      .option("--config <file>", "configuration file (default: aetherflow.yaml, if there is one)")
      .option("--data <folder>", "short for --set data=<folder>")
      .option("--set <key=value>", "set one key; may be repeated", collect, []);
  withSources(config.command("check"))
    .description("Say whether start would take the configuration and the files that it names.")
    .addHelpText("after", "\nExit codes: 0 it is good · 2 it is not; each fault is a line")
    .action(async (options) => done((await import("./config.ts")).checkConfig(options)));
  withSources(config.command("show"))
    .description("Print the configuration that start would use, without secrets.")
    .option("--json", "print it as JSON")
    .action(async (options) => done((await import("./config.ts")).showConfig(options)));

  program.command("cluster").description("Several hosts as one system.")
    .command("secret")
    .description("Print a new secret for the file that cluster.secretFile names on every host.")
    .action(async () => done((await import("./cluster.ts")).printClusterSecret()));

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

function collect(value: string, before: string[]): string[] {
  return [...before, value];
}
