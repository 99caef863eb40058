/** Tests that UPSTREAM_BUGS.md names exist: the file, and in it the title. */
import { assert, assertEquals } from "@std/assert";
import { projectFile } from "../support/paths.ts";
import { projectFiles } from "./graph.ts";

/** What a row may say instead of a test. */
const TO_COME = /^to come with (?:documents|the queue|change data capture)$/;

Deno.test("every row of UPSTREAM_BUGS.md names a test that exists, or what it waits for", async () => {
  const rows = rowsOf(await Deno.readTextFile(projectFile("tests/UPSTREAM_BUGS.md")));
  assert(rows.length > 100, `only ${rows.length} rows were read`);
  const all = new Set(await projectFiles(""));
  const wrong: string[] = [];
  for (const [, shown] of rows) {
    const problem = TO_COME.test(shown) ? undefined : await problemOf(shown, all);
    if (problem !== undefined) wrong.push(problem);
  }
  assertEquals(wrong, []);
});

Deno.test("a row whose test is missing is found", async () => {
  const all = new Set(["tests/arch/upstream_bugs_test.ts"]);
  const named = (title: string) => `\`tests/arch/upstream_bugs_test.ts\` · "${title}"`;
  assertEquals(await problemOf(named("a row whose test is missing is found"), all), undefined);
  assertEquals(
    await problemOf(named("no such" + " title"), all),
    "tests/arch/upstream_bugs_test.ts has no test no such title",
  );
  assertEquals(await problemOf('`x_test.ts` · "y"', all), "there is no x_test.ts");
  assertEquals(await problemOf("somewhere", all), "no test: somewhere");
  assertEquals(rowsOf("| what | shown |\n| --- | --- |\n| a \\| b | c |\n"), [["what", "shown"], [
    "a | b",
    "c",
  ]]);
});

/** Rows of tables of two columns, rules left out. */
function rowsOf(markdown: string): [bug: string, shown: string][] {
  return [...markdown.matchAll(/^\| ((?:[^|\\]|\\.)+) \| ((?:[^|\\]|\\.)+) \|$/gm)]
    .map(([, bug, shown]): [string, string] =>
      [bug!, shown!].map((text) => text.replaceAll("\\|", "|").trim()) as [string, string]
    )
    .filter(([bug, shown]) => !/^-+$/.test(bug) && shown !== "shown right here by");
}

async function problemOf(shown: string, all: ReadonlySet<string>): Promise<string | undefined> {
  const match = /^`([^`]+)` · "([^"]+)"$/.exec(shown);
  if (match === null) return `no test: ${shown}`;
  const [, file, title] = match as unknown as [string, string, string];
  if (!all.has(file)) return `there is no ${file}`;
  const text = await Deno.readTextFile(projectFile(file));
  const isThere = ['"', "`"].some((quote) => text.includes(`${quote}${title}${quote}`));
  return isThere ? undefined : `${file} has no test ${title}`;
}
