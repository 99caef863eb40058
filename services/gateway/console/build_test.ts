import { assertEquals } from "@std/assert";
import { projectFile } from "../../../tests/support/paths.ts";
import { buildConsole } from "./build.ts";

Deno.test("the console that the gateway serves is the one of the sources: deno task console makes it", async () => {
  const committed = await Deno.readTextFile(projectFile("services/gateway/console/gen/assets.ts"));
  // Not assertEquals of the texts: nobody can read their difference.
  assertEquals(await buildConsole() === committed, true, "run `deno task console` and commit what it makes");
});
