/** Real Chromium for tests, headless, with a profile of its own. */
import type { Browser, BrowserContext, ConsoleMessage, Page } from "playwright-core";
import { BINARIES, requireBinary } from "./server.ts";

export type { BrowserContext, Page } from "playwright-core";

/** Flags that a headless browser of root without a network of others takes. */
const FLAGS: readonly string[] = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** How long a page may take for anything, in ms: far above what a busy machine needs. */
const PATIENCE_MS = 60_000;

/** A browser, and what its pages complained of. `await using` closes it. */
export interface TestBrowser extends AsyncDisposable {
  /** A window of somebody with cookies and storage of their own. */
  newWindow(options?: Parameters<Browser["newContext"]>[0]): Promise<BrowserContext>;
  /** Errors of scripts, violations of the pages' policy, and answers that failed; in the order they came. */
  readonly problems: readonly string[];
}

/** Starts Chromium; undefined, with an ignored step, if it is not installed. */
export async function startBrowser(t: Deno.TestContext): Promise<TestBrowser | undefined> {
  const { name, debianPackage } = BINARIES.chromium;
  if (!await requireBinary(t, name, debianPackage)) return undefined;
  // At its import it looks for a file of Windows' Linux that a process may only look for that may do everything; with this
  // variable it looks when it opens a desktop program, which nobody here does.
  Deno.env.set("__IS_WSL_TEST__", "1");
  const { chromium } = await import("playwright-core");
  const browser = await chromium.launch({ executablePath: await pathOf(name), args: [...FLAGS] });
  const problems: string[] = [];
  return {
    problems,
    async newWindow(options) {
      const window = await browser.newContext(options);
      window.setDefaultTimeout(PATIENCE_MS);
      window.on("page", (page) => watch(page, problems));
      return window;
    },
    [Symbol.asyncDispose]: () => browser.close(),
  };
}

/** What `problems` has when a server is away, or a window is offline: the browser's own words, and no fault of a page. */
export function isOfNetwork(problem: string): boolean {
  return /net::ERR_|WebSocket connection to|status of 50[234]/.test(problem);
}

function watch(page: Page, problems: string[]): void {
  page.on("console", (message: ConsoleMessage) => {
    if (message.type() === "error") problems.push(`${message.text()} (${message.location().url})`);
  });
  page.on("pageerror", (error: Error) => problems.push(error.stack ?? error.message));
}

async function pathOf(name: string): Promise<string> {
  for (const folder of (Deno.env.get("PATH") ?? "").split(":")) {
    try {
      const path = `${folder || "."}/${name}`;
      if ((await Deno.stat(path)).isFile) return path;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  throw new Error(`there is no ${name}`);
}
