/** Imported first by the entry modules of workers under test: makes the worker do harm to itself when the test says so. */

/** What a test may ask of a worker. */
export type Fault =
  | { readonly type: "fault"; readonly do: "die" }
  | { readonly type: "fault"; readonly do: "hang" }
  | {
    readonly type: "fault";
    readonly do: "probe";
    readonly paths: readonly string[];
    readonly addresses: readonly string[];
  };

/** What came of one attempt: `NotCapable`, the name of another error, or `allowed`. */
export interface ProbeReport {
  readonly type: "probe";
  readonly attempts: Readonly<Record<string, string>>;
}

const scope = globalThis as unknown as {
  addEventListener(type: "message", listener: (event: MessageEvent<Fault>) => void): void;
  postMessage(message: ProbeReport): void;
};

scope.addEventListener("message", ({ data }) => {
  if (data.type !== "fault") return;
  if (data.do === "die") throw new Error("told to die");
  if (data.do === "hang") { while (true); }
  probe(data.paths, data.addresses).then((attempts) => scope.postMessage({ type: "probe", attempts }));
});

async function probe(
  paths: readonly string[],
  addresses: readonly string[],
): Promise<Record<string, string>> {
  const attempts: Record<string, () => unknown> = {
    "env HOME": () => Deno.env.get("HOME"),
    "env all": () => Deno.env.toObject(),
    "run": () => new Deno.Command("true").output(),
    "ffi": () => Deno.dlopen("libc.so.6", {}),
    "sys hostname": () => Deno.hostname(),
    "import": () =>
      import("data:text/javascript,".concat("export default 1").replace("data:", "https://example.invalid/")),
    "net listen any": () => Deno.listen({ hostname: "127.0.0.1", port: 0 }).close(),
    "net listen all interfaces": () => Deno.listen({ hostname: "0.0.0.0", port: 0 }).close(),
    "net resolve": () => Deno.resolveDns("example.invalid", "A"),
  };
  for (const path of paths) {
    attempts[`read ${path}`] = () => Deno.readDir(path)[Symbol.asyncIterator]().next();
    attempts[`write ${path}`] = () => Deno.writeTextFile(`${path}/probe`, "");
  }
  for (const address of addresses) {
    const [hostname = "", port = ""] = address.split(":");
    attempts[`net connect ${address}`] = async () =>
      (await Deno.connect({ hostname, port: Number(port) })).close();
  }
  const outcomes: Record<string, string> = {};
  for (const [name, attempt] of Object.entries(attempts)) outcomes[name] = await outcomeOf(attempt);
  return outcomes;
}

async function outcomeOf(attempt: () => unknown): Promise<string> {
  try {
    await attempt();
    return "allowed";
  } catch (error) {
    if (!(error instanceof Error)) return String(error);
    // A refused import arrives as a TypeError that carries the refusal in its message.
    const refused = error.name === "NotCapable" || /^Requires \w+ access/.test(error.message);
    return refused ? "NotCapable" : `${error.name}: ${error.message}`;
  }
}
