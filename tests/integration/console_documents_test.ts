/** Documents in the console, in real Chromium: edited together, offline, and through the death of the server. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { isOfNetwork, type Page, startBrowser } from "../support/browser.ts";
import {
  agree,
  contentOf,
  createDocument,
  openDocument,
  shownText,
  shows,
  typeAtEnd,
} from "../support/console.ts";
import { startProduct } from "../support/product.ts";

Deno.test("two browsers edit one text, see each other's cursors, and end with the same", async (t) => {
  await using browser = await startBrowser(t);
  if (browser === undefined) return;
  await using product = await startProduct();
  const id = await createDocument(product.url, { docId: "odd: a/b %2F*..", name: "Notes", type: "text" });
  const ann = await openDocument(await browser.newWindow(), product.url, id);
  const ben = await openDocument(await browser.newWindow(), product.url, id);

  await typeAtEnd(ann, "From Ann.\n");
  await agree([ann, ben], shownText, (text) => text.startsWith("From Ann."));
  await typeAtEnd(ben, "From Ben.");
  await ann.locator(".remote-name").waitFor({ state: "attached" });
  assertEquals(await ann.getByRole("list", { name: "Who is here" }).first().getByRole("listitem").count(), 2);

  // Both at once, at both ends.
  await ann.locator(".cm-content").click();
  await ann.keyboard.press("Control+Home");
  await Promise.all([ann.keyboard.type("Top. "), ben.keyboard.type(" Bottom.")]);
  const text = await agree(
    [ann, ben],
    shownText,
    (text) => /^Top\. From Ann\.\nFrom Ben\. Bottom\.$/.test(text),
  );
  await Promise.all([shows(ann, "saved"), shows(ben, "saved")]);
  assertEquals(await contentOf(product.url, id), text);

  // One's own undo leaves the other's alone.
  await ben.keyboard.press("Control+z");
  const undone = await agree([ann, ben], shownText, (text) => !text.includes("Bottom"));
  assertStringIncludes(undone, "Top. From Ann.");
  assertEquals(browser.problems, []);
});

Deno.test("what is written offline is kept, merged on return, and survives a closed tab", async (t) => {
  await using browser = await startBrowser(t);
  if (browser === undefined) return;
  await using product = await startProduct();
  const id = await createDocument(product.url, { name: "Notes", type: "text" });
  const annsWindow = await browser.newWindow();
  const ann = await openDocument(annsWindow, product.url, id);
  const ben = await openDocument(await browser.newWindow(), product.url, id);
  await typeAtEnd(ann, "One.");
  await agree([ann, ben], shownText, (text) => text === "One.");
  await shows(ann, "saved");

  await annsWindow.setOffline(true);
  await shows(ann, "offline");
  await ann.getByText("Offline. What you write is kept").waitFor();
  await typeAtEnd(ann, " Two, offline.");
  await shows(ann, "kept");
  await ben.locator(".cm-content").click();
  await ben.keyboard.press("Control+Home");
  await ben.keyboard.type("Zero. ");
  await shows(ben, "saved");
  assertEquals(await shownText(ben), "Zero. One.");

  await annsWindow.setOffline(false);
  await agree([ann, ben], shownText, (text) => text === "Zero. One. Two, offline.");
  await shows(ann, "saved");
  assertEquals(await contentOf(product.url, id), "Zero. One. Two, offline.");

  // A tab that is closed while offline leaves its edits in the browser.
  await annsWindow.setOffline(true);
  await typeAtEnd(ann, " Three, in a closed tab.");
  await shows(ann, "kept");
  await agree([ann], (page) => page.evaluate<boolean>(draftHas(" Three, in a closed tab.")), (has) => has);
  await ann.close();
  await annsWindow.setOffline(false);
  const again = await openDocument(annsWindow, product.url, id);
  await agree([again, ben], shownText, (text) => text.endsWith(" Three, in a closed tab."));
  await shows(again, "saved");
  assertEquals(browser.problems.filter((problem) => !isOfNetwork(problem)), []);
});

Deno.test("two browsers draw on one whiteboard, by pointer and by keyboard", async (t) => {
  await using browser = await startBrowser(t);
  if (browser === undefined) return;
  await using product = await startProduct();
  const id = await createDocument(product.url, { name: "Board", type: "whiteboard" });
  const ann = await openDocument(await browser.newWindow(), product.url, id);
  const ben = await openDocument(await browser.newWindow(), product.url, id);

  await ann.getByRole("button", { name: "Rectangle", exact: true }).click();
  await drag(ann, [60, 60], [220, 160]);
  await agree([ann, ben], objects, (found) => found.length === 1);
  await ann.getByRole("button", { name: "Pen", exact: true }).click();
  await drag(ann, [60, 220], [260, 260]);
  await agree([ann, ben], objects, (found) => found.length === 2);

  // Ben, by keyboard alone: a note in the middle, with words, moved and made larger.
  await ben.getByRole("button", { name: "Note", exact: true }).focus();
  await ben.keyboard.press("Enter");
  await ben.getByLabel("Text of the note").waitFor();
  await ben.keyboard.type("ship it");
  await ben.keyboard.press("Escape");
  await ben.keyboard.press("Shift+ArrowRight");
  await ben.keyboard.press("Alt+Shift+ArrowDown");
  const [note] = (await agree([ann, ben], objects, (found) => found.some((each) => each.includes("ship it"))))
    .filter((each) => each.includes("ship it"));
  assert(note?.includes("160 by 110"), note);

  await ann.getByRole("button", { name: "Select" }).click();
  // Ann moves the rectangle while Ben colours it: both stay.
  await Promise.all([
    drag(ann, [80, 80], [180, 100]),
    (async () => {
      await ben.locator("[data-id]").first().focus();
      await ben.getByLabel("Fill").selectOption("#bbf7d0");
    })(),
  ]);
  await agree(
    [ann, ben],
    objects,
    (found) => found.some((each) => /^rectangle.* at 160, 80 #bbf7d0$/.test(each)),
  );
  await ann.locator(".pointers").locator("*").first().waitFor({ state: "attached" });

  await ben.locator("[data-id]").first().focus();
  await ben.keyboard.press("Delete");
  await agree([ann, ben], objects, (found) => found.length === 2);
  await ben.keyboard.press("Control+z");
  await agree([ann, ben], objects, (found) => found.length === 3);
  await Promise.all([shows(ann, "saved"), shows(ben, "saved")]);
  const kinds = Object.values(
    JSON.parse(await contentOf(product.url, id)).objects as Record<string, { kind: string }>,
  )
    .map(({ kind }) => kind).sort();
  assertEquals(kinds, ["note", "path", "rectangle"]);
  assertEquals(browser.problems, []);
});

Deno.test("a sheet is filled by keyboard, and both browsers show the same cells", async (t) => {
  await using browser = await startBrowser(t);
  if (browser === undefined) return;
  await using product = await startProduct();
  const id = await createDocument(product.url, { name: "Budget", type: "sheet" });
  const ann = await openDocument(await browser.newWindow(), product.url, id);
  const ben = await openDocument(await browser.newWindow(), product.url, id);
  await ann.locator('[data-cell="A1"]').focus();
  for (const keys of ["Rent", "Enter", "Food", "Tab", "340", "Enter"]) {
    if (keys === "Enter" || keys === "Tab") await ann.keyboard.press(keys);
    else await ann.keyboard.type(keys);
  }
  await ben.locator('[data-cell="B1"]').focus();
  await ben.keyboard.type("1200");
  await ben.keyboard.press("Enter");
  await ben.keyboard.press("ArrowUp");
  await ben.getByRole("button", { name: "Bold" }).click();
  const cells = (page: Page) => page.locator("td[data-cell]:not(:empty)").allInnerTexts();
  await agree([ann, ben], cells, (texts) => texts.join() === "Rent,1200,Food,340");
  await Promise.all([shows(ann, "saved"), shows(ben, "saved")]);
  assertEquals(JSON.parse(await contentOf(product.url, id)).cells, {
    A1: { value: "Rent" },
    A2: { value: "Food" },
    B1: { value: 1200, "style.bold": true },
    B2: { value: 340 },
  });
  assertEquals(browser.problems, []);
});

Deno.test("nothing that was shown as saved is lost when the server is killed, again and again", async (t) => {
  await using browser = await startBrowser(t);
  if (browser === undefined) return;
  const port = freePort();
  const data = await Deno.makeTempDir({ prefix: "aetherflow-console-" });
  const args = ["--set", `gateway.http.port=${port}`];
  let product = await startProduct({ data, args });
  try {
    const text = await createDocument(product.url, { name: "Notes", type: "text" });
    const board = await createDocument(product.url, { name: "Board", type: "whiteboard" });
    const stays = await openDocument(await browser.newWindow(), product.url, text);
    const saved: string[] = [];
    for (let round = 1; round <= 2; round++) {
      const window = await browser.newWindow();
      const writer = await openDocument(window, product.url, text);
      const painter = await openDocument(window, product.url, board);
      for (let line = 1; line <= 3; line++) {
        await typeAtEnd(writer, `round ${round} line ${line};`);
        await shows(writer, "saved");
        saved.push(`round ${round} line ${line};`);
      }
      await painter.getByRole("button", { name: "Ellipse", exact: true }).focus();
      await painter.keyboard.press("Enter");
      await shows(painter, "saved");
      // The kill comes while more is written, by those who leave for good and by one who stays.
      await typeAtEnd(writer, "x");
      await typeAtEnd(stays, `kept ${round};`);
      product.kill("SIGKILL");
      await product.exited;
      // Whoever showed it as saved is gone: nobody can send it again.
      await window.close();
      product = await startProduct({ data, args });
      const onDisk = await contentOf(product.url, text);
      assertEquals(saved.filter((line) => !onDisk.includes(line)), [], onDisk);
      const ellipses = Object.keys(JSON.parse(await contentOf(product.url, board)).objects).length;
      assertEquals(ellipses, round);
      await shows(stays, "saved");
      assertStringIncludes(await contentOf(product.url, text), `kept ${round};`);
    }
  } finally {
    await product[Symbol.asyncDispose]();
    await Deno.remove(data, { recursive: true });
  }
  assertEquals(browser.problems.filter((problem) => !isOfNetwork(problem)), []);
});

/** Whether the page's browser keeps a draft with this text; to be run in the page. */
function draftHas(text: string): string {
  return `new Promise((resolve) => {
    const request = indexedDB.open("aetherflow-console");
    request.onsuccess = () => {
      const all = request.result.transaction("drafts").objectStore("drafts").getAll();
      all.onsuccess = () => {
        request.result.close();
        resolve(all.result.some((bytes) => new TextDecoder().decode(bytes).includes(${
    JSON.stringify(text)
  })));
      };
    };
  })`;
}

/** What each object looks like, in words, in the order of focus. */
async function objects(page: Page): Promise<string[]> {
  const found = await page.locator("[data-id]").evaluateAll((groups) =>
    groups.map((group) => [group.getAttribute("aria-label"), group.children[1]?.getAttribute("fill")])
  );
  return found.map(([label, fill]) => `${label}${fill?.startsWith("#") ? ` ${fill}` : ""}`);
}

async function drag(
  page: Page,
  [fromX, fromY]: [number, number],
  [toX, toY]: [number, number],
): Promise<void> {
  const { x, y } = (await page.locator(".board-scroller").boundingBox())!;
  await page.mouse.move(x + fromX, y + fromY);
  await page.mouse.down();
  await page.mouse.move(x + toX, y + toY, { steps: 8 });
  await page.mouse.up();
}

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}
