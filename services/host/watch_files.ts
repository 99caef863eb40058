/** Tells when files have changed, by looking at them again and again: that sees also what editors and mounted secrets do,
 *  which replace files and links instead of writing to them. */

/** Begins to look at the files that `list` names. Calls `then` once a change has settled: when two looks in a row found the
 *  same. `looked` settles after the first look, from which on changes are seen. */
export function watchFiles(
  list: () => readonly string[],
  intervalMs: number,
  then: () => void,
): { readonly looked: Promise<unknown>; stop(): void } {
  let known: Promise<string> | string = look(list());
  let seen: string | undefined;
  let isOver = false;
  let timer = setTimeout(tick, intervalMs);

  async function tick(): Promise<void> {
    const before = await known;
    const now = await look(list());
    if (isOver) return;
    if (now === seen) {
      known = now;
      seen = undefined;
      then();
    } else seen = now === before ? undefined : now;
    timer = setTimeout(tick, intervalMs);
  }

  return {
    looked: Promise.resolve(known),
    stop() {
      isOver = true;
      clearTimeout(timer);
    },
  };
}

/** What the files look like, as text that is the same as long as they are. */
async function look(paths: readonly string[]): Promise<string> {
  const looks = paths.map(async (path) => {
    try {
      const { ino, mtime, size } = await Deno.stat(path);
      return `${path} ${ino} ${mtime?.getTime()} ${size}`;
    } catch {
      // It is not there, or not now: that is a look as well.
      return `${path} -`;
    }
  });
  return (await Promise.all(looks)).join("\n");
}
