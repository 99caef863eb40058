import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { buildExecutable } from "./compile.ts";
import { writeSelfExtracting } from "./self_extracting.ts";
import { stage } from "./stage.ts";

/** A program of the product's shape: a command line, a supervisor that starts a worker by URL, a permission set. */
const PROGRAM: Readonly<Record<string, string>> = {
  "deno.json": JSON.stringify({
    unstable: ["worker-options"],
    permissions: {
      start: {
        read: true,
        env: { allow: ["AETHERFLOW_*"], ignore: true },
        write: false,
        net: false,
        run: false,
      },
    },
  }),
  "main.ts": `
    import { askWorker } from "./services/host/supervisor.ts";
    if (Deno.args[0] === "serve") {
      Deno.addSignalListener("SIGTERM", () => { console.log("drained"); Deno.exit(7); });
      setInterval(() => {}, 1000);
      console.log("ready", Deno.pid);
    } else {
      const write = await Deno.writeTextFile("x", "").catch((error) => error.name);
      console.log(JSON.stringify({
        args: Deno.args, worker: await askWorker(), write, home: Deno.env.get("HOME") ?? null,
        commit: "@commit@",
      }));
    }`,
  "services/host/supervisor.ts": `
    export function askWorker(): Promise<string> {
      const worker = new Worker(new URL("../echo/worker.ts", import.meta.url), {
        type: "module", deno: { permissions: { read: false, env: false } },
      } as WorkerOptions);
      return new Promise((resolve) => worker.onmessage = ({ data }) => { worker.terminate(); resolve(data); });
    }`,
  "services/echo/worker.ts": `postMessage("from a worker");`,
};

/** Stands for Deno where only the launcher matters, which is then a hundred times smaller: prints the file it would run. */
const SMALL_RUNTIME = `#!/bin/sh\nwhile [ $# -gt 1 ]; do shift; done\ncat -- "$1"\n`;

/** The folder with the program, the executables made of it, and caches; removed when the tests of the file are over. */
let folder: string | undefined;
/** Carries the real Deno. */
let executable = "";
/** Carries the small runtime. */
let small = "";

Deno.test.beforeAll(async () => {
  folder = await Deno.makeTempDir({ prefix: "aetherflow-executable-" });
  for (const [path, text] of Object.entries(PROGRAM)) {
    await Deno.mkdir(`${folder}/program/${path}`.replace(/\/[^/]*$/, ""), { recursive: true });
    await Deno.writeTextFile(`${folder}/program/${path}`, text);
  }
  executable = `${folder}/echo`;
  small = `${folder}/small`;
  await Deno.writeTextFile(`${folder}/runtime`, SMALL_RUNTIME);
  const staged = await stage(`${folder}/program`, `${folder}/stage`, "c0ffee");
  await writeSelfExtracting(staged, Deno.execPath(), executable);
  await writeSelfExtracting(staged, `${folder}/runtime`, small);
});

Deno.test.afterAll(async () => {
  if (folder !== undefined) await Deno.remove(folder, { recursive: true });
});

Deno.test("the executable passes its arguments on, starts its workers and keeps the start permissions", async () => {
  const { code, stdout, stderr } = await run(await newCache(), executable, [
    "a b",
    "",
    `"$HOME"`,
    "--help",
    "*",
  ]);
  assertEquals(stderr, "");
  assertEquals(JSON.parse(stdout), {
    args: ["a b", "", `"$HOME"`, "--help", "*"],
    worker: "from a worker",
    write: "NotCapable",
    home: null,
    commit: "c0ffee",
  });
  assertEquals(code, 0);
});

Deno.test("the executable unpacks once, into a private folder", async () => {
  const cache = await newCache();
  await run(cache);
  const [name] = await names(cache);
  assertMatch(String(name), /^[0-9a-f]{64}$/);
  const first = await Deno.stat(`${cache}/${name}/deno`);
  assertEquals((await Deno.stat(`${cache}/${name}`)).mode! & 0o777, 0o700);
  await run(cache);
  assertEquals(await names(cache), [name]);
  assertEquals((await Deno.stat(`${cache}/${name}/deno`)).ino, first.ino);
});

Deno.test("the executable unpacks into XDG_CACHE_HOME, or else below HOME", async () => {
  const home = await newCache();
  assertEquals((await run({ HOME: home })).code, 0);
  assertEquals((await names(`${home}/.cache/aetherflow`)).length, 1);
  assertEquals((await run({ HOME: home, XDG_CACHE_HOME: `${home}/xdg` })).code, 0);
  assertEquals((await names(`${home}/xdg/aetherflow`)).length, 1);
  const { code, stderr } = await run({});
  assertEquals([code, stderr], [
    1,
    "small: no folder to unpack into: set HOME, XDG_CACHE_HOME or AETHERFLOW_CACHE\n",
  ]);
});

Deno.test("first starts at the same time all run and leave one folder", async () => {
  const cache = await newCache();
  const outcomes = await Promise.all(Array.from({ length: 8 }, () => run(cache)));
  assertEquals(
    outcomes.map(({ code, stderr }) => ({ code, stderr })),
    Array(8).fill({ code: 0, stderr: "" }),
  );
  const [name, ...others] = await names(cache);
  assertEquals(others, []);
  assertEquals(await names(`${cache}/${name}`), ["deno", "deno.json", "services"]);
});

Deno.test("a start replaces an unpacked folder that lost a file or holds another one", async () => {
  const cache = await newCache();
  await run(cache);
  const [name] = await names(cache);
  const main = `${cache}/${name}/services/host/main.js`;

  await Deno.remove(main);
  assertEquals((await run(cache)).code, 0);
  await Deno.remove(main);
  await Deno.writeTextFile(main, `console.log("not ours")`);
  assertStringIncludes((await run(cache)).stdout, "askWorker");
  await Deno.remove(main);
  await Deno.symlink(`${cache}/${name}/deno.json`, main);
  assertStringIncludes((await run(cache)).stdout, "askWorker");
  assertEquals(await names(cache), [name]);
});

Deno.test("a start refuses a cache folder that others may write to, and a link in its place", async () => {
  const cache = await newCache();
  await Deno.chmod(cache, 0o777);
  const open = await run(cache);
  assertEquals(open.code, 1);
  assertStringIncludes(open.stderr, `${cache} is not this user's own folder`);

  await Deno.chmod(cache, 0o700);
  const link = `${cache}-link`;
  await Deno.symlink(cache, link);
  assertStringIncludes((await run(link)).stderr, `${link} is not this user's own folder`);
  assertEquals(await names(cache), []);
});

Deno.test("a start refuses an unpacked folder that is open to others, or a link", async () => {
  const cache = await newCache();
  await run(cache);
  const [name] = await names(cache);
  await Deno.chmod(`${cache}/${name}`, 0o755);
  assertStringIncludes((await run(cache)).stderr, "is not this user's own private folder");

  await Deno.chmod(`${cache}/${name}`, 0o700);
  await Deno.rename(`${cache}/${name}`, `${cache}/moved`);
  await Deno.symlink(`${cache}/moved`, `${cache}/${name}`);
  const { code, stderr } = await run(cache);
  assertEquals(code, 1);
  assertStringIncludes(stderr, "is not this user's own private folder");
});

Deno.test({
  name: "a start refuses folders of another user",
  ignore: Deno.uid() !== 0, // only root can give a folder away
  async fn() {
    const cache = await newCache();
    await run(cache);
    const [name] = await names(cache);
    await Deno.chown(`${cache}/${name}`, 12345, 12345);
    assertStringIncludes((await run(cache)).stderr, "is not this user's own private folder");
    await Deno.chown(cache, 12345, 12345);
    assertStringIncludes((await run(cache)).stderr, "is not this user's own folder");
  },
});

Deno.test("a damaged executable says so and unpacks nothing", async () => {
  const bytes = await Deno.readFile(small);
  for (
    const [what, damaged] of [
      ["cut", bytes.subarray(0, bytes.length - 10)],
      ["flipped", bytes.map((byte, at) => at === bytes.length - 10 ? byte ^ 1 : byte)],
    ] as const
  ) {
    const cache = await newCache();
    const path = `${folder}/${what}`;
    await Deno.writeFile(path, damaged, { mode: 0o755 });
    const { code, stderr } = await run(cache, path);
    assertEquals([code, stderr], [1, `${what}: is damaged: download or compile it again\n`]);
    assertEquals(await names(cache), []);
  }
});

Deno.test("signals reach the program, which keeps the process of the start", async () => {
  const child = new Deno.Command(executable, {
    args: ["serve"],
    clearEnv: true,
    env: environment(await newCache()),
    stdin: "null",
    stdout: "piped",
  }).spawn();
  const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  assertEquals((await lines.read()).value, `ready ${child.pid}\n`);
  child.kill("SIGTERM");
  assertEquals((await lines.read()).value, "drained\n");
  assertEquals((await child.status).code, 7);
  await lines.cancel();
});

Deno.test("buildExecutable() makes a file that runs and says which kind it is and why", async () => {
  const made = await buildExecutable({ output: `${folder}/made/echo`, source: `${folder}/program` });
  assert(["deno compile", "self-extracting"].includes(made.kind), made.kind);
  assert(made.reason !== "");
  assertEquals(made.bytes, (await Deno.stat(made.path)).size);
  assertStringIncludes((await run(await newCache(), made.path)).stdout, "from a worker");
});

Deno.test("buildExecutable() refuses a program whose supervisor does not start each worker", async () => {
  const source = `${folder}/unwired`;
  for (const [path, text] of Object.entries(PROGRAM)) {
    const target = `${source}/${path}`.replace("services/echo", "services/other");
    await Deno.mkdir(target.replace(/\/[^/]*$/, ""), { recursive: true });
    await Deno.writeTextFile(target, text);
  }
  await assertRejects(
    () => buildExecutable({ output: `${folder}/unwired.out`, source }),
    Error,
    "main.ts starts no worker at ../other/worker.ts",
  );
});

interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs an executable to its end with nothing but PATH and the cache folder (or other variables) in its environment. */
async function run(
  cache: string | Readonly<Record<string, string>>,
  path = small,
  args: readonly string[] = [],
): Promise<Outcome> {
  const { code, stdout, stderr } = await new Deno.Command(path, {
    args: [...args],
    clearEnv: true,
    env: environment(cache),
    stdin: "null",
  }).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

function environment(cache: string | Readonly<Record<string, string>>): Record<string, string> {
  const path = { PATH: Deno.env.get("PATH") ?? "/usr/bin:/bin" };
  return typeof cache === "string" ? { ...path, AETHERFLOW_CACHE: cache } : { ...path, ...cache };
}

function newCache(): Promise<string> {
  return Deno.makeTempDir({ dir: folder!, prefix: "cache-" });
}

async function names(directory: string): Promise<string[]> {
  return (await Array.fromAsync(Deno.readDir(directory))).map((entry) => entry.name).sort();
}
