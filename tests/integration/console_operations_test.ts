/** The console's pages for operators, and the ways of clients that are not its own, in real Chromium. */
import { assert, assertEquals } from "@std/assert";
import { startBrowser } from "../support/browser.ts";
import { agree, api, createDocument, openDocument, shownText, shows, typeAtEnd } from "../support/console.ts";
import { projectFile } from "../support/paths.ts";
import { startProduct } from "../support/product.ts";

Deno.test("services, sessions, keys, charts and transport show what goes on, in light and dark, on a phone", async (t) => {
  await using browser = await startBrowser(t);
  if (browser === undefined) return;
  await using product = await startProduct();
  await api(product.url, "POST", "/api/v1/sessions", { userId: "somebody" });
  for (const colorScheme of ["light", "dark"] as const) {
    const window = await browser.newWindow({ colorScheme, viewport: { width: 360, height: 740 } });
    const page = await window.newPage();
    await page.goto(product.url);
    const go = (name: string) => page.getByRole("link", { name, exact: true }).click();

    await go("Services");
    await page.getByText("Everything serves").waitFor();
    await page.getByRole("rowheader", { name: "kv", exact: true }).waitFor();
    await go("Sessions");
    await page.getByRole("cell", { name: "somebody" }).waitFor();
    await go("Keys");
    await page.getByText("Live", { exact: true }).waitFor();
    await fetch(`${product.url}/api/v1/kv/console/${colorScheme}`, {
      method: "PUT",
      body: "written meanwhile",
    })
      .then((response) => response.body?.cancel());
    await page.getByRole("button", { name: `console/${colorScheme} written meanwhile` }).waitFor();
    await go("Charts");
    await page.getByRole("cell", { name: "GET /metrics" }).waitFor();
    await page.locator(".line[points]:not([points=''])").first().waitFor({ state: "attached" });
    await go("Transport");
    await page.getByRole("rowheader", { name: "kv", exact: true }).waitFor();

    // Nothing is wider than the phone.
    const overflow = await page.evaluate("document.documentElement.scrollWidth - innerWidth");
    assert(Number(overflow) <= 0, `${overflow} px too wide`);
  }
  assertEquals(browser.problems, []);
});

Deno.test("an unmodified y-websocket client in a browser edits the text that the console shows", async (t) => {
  await using browser = await startBrowser(t);
  if (browser === undefined) return;
  await using product = await startProduct();
  const id = await createDocument(product.url, { name: "Shared", type: "text" });
  const script = await bundleClient();
  await using foreign = servePage(script);
  const console = await openDocument(await browser.newWindow(), product.url, id);
  const page = await (await browser.newWindow()).newPage();
  const query = new URLSearchParams({ server: product.url.replace("http", "ws"), id });
  await page.goto(`${foreign.url}/?${query}`);
  await typeAtEnd(console, "from the console, ");
  await page.waitForFunction('globalThis.shared?.toString() === "from the console, "');
  await page.evaluate('globalThis.shared.insert(globalThis.shared.length, "from y-websocket")');
  await agree([console], shownText, (text) => text === "from the console, from y-websocket");
  await shows(console, "saved");
  assertEquals(browser.problems, []);
});

/** Bundles a page's script with the y-websocket of the registry, as anybody's page has it. */
async function bundleClient(): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["bundle", "-q", "--platform", "browser", projectFile("tests/support/y_websocket_page.ts")],
    cwd: projectFile("."),
    stdin: "null",
  }).output();
  assert(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

/** Serves a page of its own origin that runs the script. */
function servePage(script: string) {
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, ({ url }) => {
    const isScript = new URL(url).pathname === "/page.js";
    const html =
      '<!doctype html><link rel="icon" href="data:,"><script type="module" src="/page.js"></script>';
    return new Response(isScript ? script : html, {
      headers: { "content-type": isScript ? "text/javascript" : "text/html" },
    });
  });
  return { url: `http://127.0.0.1:${server.addr.port}`, [Symbol.asyncDispose]: () => server.shutdown() };
}
