import { assertEquals } from "@std/assert";
import { watchFiles } from "./watch_files.ts";

Deno.test("watchFiles() tells once of a file that was written, replaced, removed and made again", async () => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/a`;
  let told = Promise.withResolvers<void>();
  const watch = watchFiles(() => [path], 5, () => told.resolve());
  const changes: (() => Promise<void>)[] = [
    () => Deno.writeTextFile(path, "1"),
    () => Deno.writeTextFile(path, "22"),
    async () => {
      await Deno.writeTextFile(`${folder}/b`, "33");
      await Deno.rename(`${folder}/b`, path);
    },
    () => Deno.remove(path),
  ];
  let count = 0;
  await watch.looked;
  for (const change of changes) {
    told = Promise.withResolvers();
    await change();
    await told.promise;
    count++;
  }
  watch.stop();
  assertEquals(count, changes.length);
  await Deno.remove(folder, { recursive: true });
});
