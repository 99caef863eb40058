/** What tests of the console do again and again: documents by the API, their views in windows, what those show. */
import { assertEquals } from "@std/assert";
import type { BrowserContext, Page } from "./browser.ts";

/** Password of everybody in these tests. */
export const PASSWORD = "correct horse battery staple";

/** How long pages may differ, in ms: far above what a busy machine needs. */
const AGREE_DEADLINE_MS = 30_000;

/** Calls the API and returns the answer's body. @throws {AssertionError} if it is not a good one. */
export async function api<Answer>(
  url: string,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const response = await fetch(url + path, {
    method,
    headers: { "content-type": "application/json", ...headers },
    ...body === undefined ? {} : { body: JSON.stringify(body) },
  });
  const text = await response.text();
  assertEquals(response.ok, true, `${method} ${path}: ${response.status} ${text}`);
  return JSON.parse(text);
}

/** Makes a document and returns its id. */
export async function createDocument(
  url: string,
  document: Readonly<Record<string, unknown>>,
  headers?: Record<string, string>,
): Promise<string> {
  const made = await api<{ document: { id: string } }>(url, "POST", "/api/v1/documents", document, headers);
  return made.document.id;
}

/** A document's content, as the API has it: what is on disk. */
export async function contentOf(url: string, id: string, headers?: Record<string, string>): Promise<string> {
  const path = `/api/v1/documents/${encodeURIComponent(id)}`;
  const { document } = await api<{ document: { content?: string } }>(url, "GET", path, undefined, headers);
  return new TextDecoder().decode(Uint8Array.fromBase64(document.content ?? ""));
}

/** Adds the users, the first of whom administers, and returns the headers of the first. */
export async function createUsers(url: string, first: string, ...others: string[]) {
  await api(url, "POST", "/api/v1/users", { username: first, password: PASSWORD });
  const { accessToken } = await api<{ accessToken: string }>(url, "POST", "/api/v1/auth/login", {
    username: first,
    password: PASSWORD,
  });
  const headers = { authorization: `Bearer ${accessToken}` };
  for (const username of others) {
    await api(url, "POST", "/api/v1/users", { username, password: PASSWORD }, headers);
  }
  return headers;
}

/** Signs in by the form. */
export async function signIn(page: Page, url: string, username: string): Promise<void> {
  await page.goto(url);
  await page.getByLabel("Name").fill(username);
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "Documents" }).waitFor();
}

/** Opens a document's view in a new tab of a window, and waits until the server has told its state. */
export async function openDocument(window: BrowserContext, url: string, id: string): Promise<Page> {
  const page = await window.newPage();
  await page.goto(`${url}/#/document/${encodeURIComponent(id)}`);
  await page.locator(".editor").waitFor();
  await shows(page, "saved");
  return page;
}

/** Waits until the line beside the name says so: `saved`, `saving`, `kept`, `offline`, `refused`. */
export async function shows(page: Page, state: string): Promise<void> {
  await page.locator(`.save-line[data-state="${state}"]`).waitFor();
}

/** The text that a page's editor shows, without the names at the cursors of others. */
export async function shownText(page: Page): Promise<string> {
  const lines: string[] = await page.evaluate(
    `[...document.querySelectorAll(".cm-content .cm-line")].map((line) => {
    const copy = line.cloneNode(true);
    copy.querySelectorAll(".remote-caret, .cm-placeholder").forEach((part) => part.remove());
    return copy.textContent;
  })`,
  );
  return lines.join("\n");
}

/** Types at the end of the text. */
export async function typeAtEnd(page: Page, text: string): Promise<void> {
  await page.locator(".cm-content").click();
  await page.keyboard.press("Control+End");
  await page.keyboard.type(text);
}

/** Waits until `read` gives the same for all pages, and returns it. `wanted`: and what it gives is that. */
export async function agree<Value>(
  pages: readonly Page[],
  read: (page: Page) => Promise<Value>,
  wanted: (value: Value) => boolean,
): Promise<Value> {
  const deadline = performance.now() + AGREE_DEADLINE_MS;
  for (;;) {
    const values = await Promise.all(pages.map(read));
    const [first, ...others] = values as [Value, ...Value[]];
    const isSame = others.every((other) => JSON.stringify(other) === JSON.stringify(first));
    if (isSame && wanted(first)) return first;
    if (performance.now() > deadline) throw new Error(`the pages show ${JSON.stringify(values)}`);
    // What the pages show changes with their next frame.
    await pages[0]!.evaluate("new Promise((resolve) => requestAnimationFrame(resolve))");
  }
}
