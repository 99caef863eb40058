/** `aetherflow demo` against the product, watched by an unmodified client of Yjs. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { WebsocketProvider } from "y-websocket";
import * as Y from "yjs";
import { projectFile, ROOT } from "../support/paths.ts";
import { runProduct, startProduct } from "../support/product.ts";

/** How long anything may take until it counts as hung, in ms. */
const DEADLINE_MS = 30_000;

/** Resolves when `isTrue` holds after one of the events of `on`. */
function seen(on: (look: () => void) => void, isTrue: () => boolean, what: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${what} was not seen`)), DEADLINE_MS);
    const look = () => {
      if (!isTrue()) return;
      clearTimeout(timer);
      resolve();
    };
    on(look);
    look();
  });
}

Deno.test("demo fills a server with documents that people work on, and takes them again the next time", async () => {
  await using product = await startProduct();
  const env = { AETHERFLOW_ENDPOINT: product.url };
  const demo = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-q",
      "--config",
      projectFile("deno.json"),
      "-P=start",
      projectFile("main.ts"),
      "demo",
      "--bots=4",
    ],
    cwd: ROOT,
    env,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const output = demo.output();

  const doc = new Y.Doc();
  const watch = new WebsocketProvider(
    `${product.url.replace("http", "ws")}/api/v1/documents`,
    "demo-festival/sync",
    doc,
    { disableBc: true, shouldReconnect: () => true },
  );
  try {
    const names = () =>
      new Set([...watch.awareness.getStates().values()].map((state) => state.user?.name).filter(Boolean));
    const everybody = seen(
      (look) => watch.awareness.on("change", look),
      () => names().size === 4,
      "everybody",
    );
    const text = doc.getText("content");
    let edits = 0;
    await seen((look) => text.observe(() => (edits++, look())), () => edits >= 20, "twenty edits");
    await everybody;
    assertEquals([...names()].sort(), ["Ada", "Bjarne", "Chiara", "Dimitri"]);
    demo.kill("SIGINT");
    const { code, stdout, stderr } = await output;
    const said = new TextDecoder().decode(stderr);
    assertEquals(code, 0, said);
    assertStringIncludes(new TextDecoder().decode(stdout), `${product.url}/#/document/demo-festival\t`);
    assert(/they did \d+ things/.test(said), said);
    await seen((look) => watch.awareness.on("change", look), () => names().size === 0, "everybody leaving");
  } finally {
    watch.destroy();
    doc.destroy();
  }

  const list = async () => {
    const answer = await fetch(`${product.url}/api/v1/documents?tag=demo`);
    return (await answer.json() as { documents: { id: string; type: string; openConflicts: number }[] })
      .documents;
  };
  const documents = await list();
  assertEquals(
    new Set(documents.map(({ type }) => type)),
    new Set(["text", "whiteboard", "canvas", "sheet"]),
  );
  assertEquals(documents.find(({ id }) => id === "demo-agreement")?.openConflicts, 1);
  const again = await runProduct(["demo", "--for", "1s", "--bots", "1", "--json", "--open"], { env });
  assertEquals(again.code, 0, again.stderr);
  assertStringIncludes(again.stderr, "this command may start no other program");
  assertEquals(JSON.parse(again.stdout).documents.length, documents.length);
  assertEquals((await list()).map(({ id }) => id), documents.map(({ id }) => id));
  assertEquals(await product.stop(), 0);
});

Deno.test("demo says how to start a server when there is none, and what its options take", async () => {
  const env = { AETHERFLOW_ENDPOINT: "http://127.0.0.1:9" };
  const { code, stderr } = await runProduct(["demo"], { env });
  assertEquals(code, 1);
  assertStringIncludes(stderr, "aetherflow start");
  for (const wrong of [["--bots", "0"], ["--bots", "51"], ["--for", "soon"], ["--for", "9999h"]]) {
    assertEquals((await runProduct(["demo", ...wrong], { env })).code, 2, wrong.join(" "));
  }
});
