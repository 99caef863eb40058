/** Who may do what in the console, and what goes on around a document, in real Chromium. */
import { assertEquals, assertMatch } from "@std/assert";
import { isOfNetwork, startBrowser } from "../support/browser.ts";
import {
  agree,
  api,
  contentOf,
  createDocument,
  createUsers,
  openDocument,
  PASSWORD,
  shownText,
  shows,
  signIn,
  typeAtEnd,
} from "../support/console.ts";
import { startProduct } from "../support/product.ts";

Deno.test("one signs in and out by the page, and a wrong password is told", async (t) => {
  await using browser = await startBrowser(t);
  if (browser === undefined) return;
  await using product = await startProduct();
  await createUsers(product.url, "ada");
  const window = await browser.newWindow();
  const page = await window.newPage();
  await page.goto(product.url);
  await page.getByLabel("Name").fill("ada");
  await page.getByLabel("Password").fill("a guess");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByText("The name or the password is wrong.").waitFor();
  await page.getByLabel("Password").fill(PASSWORD);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Documents" }).waitFor();

  // No script of the page can read what shows who we are.
  assertEquals(await page.evaluate("document.cookie"), "");
  const cookies = await window.cookies();
  assertEquals(cookies.map(({ httpOnly, sameSite }) => [httpOnly, sameSite]), [[true, "Strict"], [
    true,
    "Strict",
  ]]);
  // The access token has run out: the refresh token brings the next one, unseen.
  await window.clearCookies({ name: "aetherflow-access" });
  await page.reload();
  await page.getByRole("heading", { name: "Documents" }).waitFor();
  await page.getByRole("link", { name: "Sessions" }).click();
  await page.getByRole("button", { name: /^End the session/ }).first().waitFor();
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("button", { name: "Sign in" }).waitFor();
  await page.reload();
  await page.getByRole("button", { name: "Sign in" }).waitFor();
  // Answers of 401 are all that the browser complains of.
  assertEquals(browser.problems.filter((problem) => !problem.includes("status of 401")), []);
});

Deno.test("a viewer sees edits as they come and cannot edit; a commenter comments", async (t) => {
  await using browser = await startBrowser(t);
  if (browser === undefined) return;
  await using product = await startProduct();
  const headers = await createUsers(product.url, "ada", "vera", "carl");
  const permissions = { viewers: ["vera"], commenters: ["carl"] };
  const id = await createDocument(
    product.url,
    { name: "Plan", type: "text", metadata: { permissions } },
    headers,
  );
  const secret = await createDocument(product.url, { name: "Secret", type: "text" }, headers);
  const windows = {
    ada: await browser.newWindow(),
    vera: await browser.newWindow(),
    carl: await browser.newWindow(),
  };
  for (const [name, window] of Object.entries(windows)) {
    const page = await window.newPage();
    await signIn(page, product.url, name);
    await page.close();
  }
  const ada = await openDocument(windows.ada, product.url, id);
  const vera = await openDocument(windows.vera, product.url, id);
  await typeAtEnd(ada, "Only Ada writes.");
  await agree([ada, vera], shownText, (text) => text === "Only Ada writes.");

  await vera.getByText("You may read this document.").waitFor();
  assertEquals(await vera.locator(".cm-content").getAttribute("aria-readonly"), "true");
  await typeAtEnd(vera, "graffiti");
  await shows(vera, "saved");
  assertEquals(await shownText(vera), "Only Ada writes.");
  assertEquals(await vera.getByRole("button", { name: "Settings" }).count(), 0);
  await shows(ada, "saved");
  assertEquals(await contentOf(product.url, id, headers), "Only Ada writes.");

  const carl = await openDocument(windows.carl, product.url, id);
  await carl.getByRole("button", { name: "Comments" }).click();
  await carl.getByLabel("New comment").fill("<b>Well</b> said");
  await carl.getByRole("button", { name: "Comment", exact: true }).click();
  await ada.getByRole("button", { name: "Comments" }).click();
  await ada.getByText("<b>Well</b> said").waitFor();

  // Rights that are taken away hold at once, and what one may not read does not exist.
  await api(
    product.url,
    "PATCH",
    `/api/v1/documents/${id}`,
    { metadata: { permissions: { owner: "ada", editors: ["vera"] } } },
    headers,
  );
  await vera.locator('.cm-content[aria-readonly="false"]').waitFor();
  await typeAtEnd(vera, " Vera too.");
  await agree([ada, vera], shownText, (text) => text === "Only Ada writes. Vera too.");
  const other = await windows.vera.newPage();
  await other.goto(`${product.url}/#/document/${secret}`);
  await other.getByRole("heading", { name: "This cannot be shown" }).waitFor();
  assertEquals(browser.problems.filter((problem) => !/status of 40[14]/.test(problem)), []);
});

Deno.test("locks, conflicts and versions are shown as they happen, and decided in the page", async (t) => {
  await using browser = await startBrowser(t);
  if (browser === undefined) return;
  await using product = await startProduct();
  const headers = await createUsers(product.url, "ada", "bob");
  const id = await createDocument(product.url, {
    name: "Plan",
    type: "text",
    content: btoa("the first plan"),
    conflictPolicy: "manual",
    metadata: { permissions: { editors: ["bob"] } },
  }, headers);
  const windows = { ada: await browser.newWindow(), bob: await browser.newWindow() };
  for (const [name, window] of Object.entries(windows)) {
    const page = await window.newPage();
    await signIn(page, product.url, name);
    await page.close();
  }
  const ada = await openDocument(windows.ada, product.url, id);
  const bob = await openDocument(windows.bob, product.url, id);

  // Ada locks: Bob reads, until she lets go.
  await ada.getByRole("button", { name: "Locks" }).click();
  await ada.getByRole("button", { name: "Lock the document" }).click();
  await bob.getByText("has locked the document").waitFor();
  await bob.locator('.cm-content[aria-readonly="true"]').waitFor();
  await typeAtEnd(ada, " holds");
  await agree([ada, bob], shownText, (text) => text === "the first plan holds");
  await ada.getByRole("button", { name: "Release" }).click();
  await bob.locator('.cm-content[aria-readonly="false"]').waitFor();

  // An edit that comes late waits for a person.
  const operation = {
    type: "text",
    prevVersion: "1",
    text: { edits: [{ index: 4, delete: 5, insert: "best" }] },
  };
  await typeAtEnd(bob, "!");
  await bob.locator(".cm-content").click();
  await bob.keyboard.press("Control+Home");
  for (let i = 0; i < 9; i++) await bob.keyboard.press("Delete");
  await agree([ada, bob], shownText, (text) => text === " plan holds!");
  await shows(bob, "saved");
  const late = await api<{ operation: { status: string } }>(
    product.url,
    "POST",
    `/api/v1/documents/${id}/operations`,
    operation,
    headers,
  );
  assertEquals(late.operation.status, "conflict");
  await bob.locator(".badge", { hasText: "1" }).waitFor();
  await bob.getByRole("button", { name: /^Conflicts/ }).click();
  await bob.getByText("The late edit").first().waitFor();
  await bob.getByRole("button", { name: "Take the late edit" }).click();
  await bob.getByText("No conflict waits.").waitFor();
  const decided = await agree([ada, bob], shownText, (text) => text.includes("best"));
  assertMatch(decided, /best/);

  // Back to the first version, and undo of that.
  await ada.getByRole("button", { name: "History" }).click();
  await ada.getByLabel("Version", { exact: true }).fill("1");
  await ada.locator(".text-picture", { hasText: "the first plan" }).waitFor();
  await ada.getByLabel("Show what has changed since").check();
  await ada.locator(".text-picture del").first().waitFor();
  await ada.getByLabel("Show what has changed since").uncheck();
  await ada.getByLabel("Name", { exact: true }).last().fill("The beginning");
  await ada.getByRole("button", { name: "Name it" }).click();
  await ada.getByRole("button", { name: /^The beginning/ }).waitFor();
  await ada.getByRole("button", { name: "Restore this version" }).click();
  await ada.getByRole("button", { name: "Restore", exact: true }).click();
  await agree([ada, bob], shownText, (text) => text === "the first plan");
  assertEquals(await contentOf(product.url, id, headers), "the first plan");
  assertEquals(browser.problems.filter((problem) => !problem.includes("status of 401")), []);
});

Deno.test("edits that a lock keeps out are told, kept, and taken when it ends", async (t) => {
  await using browser = await startBrowser(t);
  if (browser === undefined) return;
  await using product = await startProduct();
  const headers = await createUsers(product.url, "ada", "bob");
  const permissions = { editors: ["bob"] };
  const id = await createDocument(
    product.url,
    { name: "Plan", type: "text", metadata: { permissions } },
    headers,
  );
  const window = await browser.newWindow();
  const first = await window.newPage();
  await signIn(first, product.url, "bob");
  await first.close();
  const bob = await openDocument(window, product.url, id);
  await window.setOffline(true);
  await typeAtEnd(bob, "written offline");
  await shows(bob, "kept");
  const path = `/api/v1/documents/${id}/locks`;
  const { lock } = await api<{ lock: { id: string } }>(
    product.url,
    "POST",
    path,
    { ttlMs: 600_000 },
    headers,
  );
  await window.setOffline(false);
  await shows(bob, "refused");
  await bob.getByText("has locked the document").waitFor();
  assertEquals(await shownText(bob), "written offline");
  assertEquals(await contentOf(product.url, id, headers), "");

  await api(product.url, "DELETE", `${path}/${lock.id}`, undefined, headers);
  await shows(bob, "saved");
  assertEquals(await contentOf(product.url, id, headers), "written offline");
  const problems = browser.problems.filter((problem) =>
    !isOfNetwork(problem) && !problem.includes("status of 401")
  );
  assertEquals(problems, []);
});
