/** What this build is. */
export { VERSION } from "../services/runtime/version.ts";

/** The commit that an executable was built from; a tool that bundles the program puts it in place of the mark. */
const BUILT_FROM = "@commit@";

/** Longest chain of references that is followed in a git folder. */
const MAX_REFERENCES = 5;

/** The commit of this program, 40 hexadecimal digits for a checkout, undefined where nothing tells. */
export async function readCommit(): Promise<string | undefined> {
  if (!BUILT_FROM.startsWith("@")) return BUILT_FROM;
  const git = new URL("../.git/", import.meta.url);
  let reference = "HEAD";
  for (let i = 0; i < MAX_REFERENCES; i++) {
    const text = await readText(new URL(reference, git)) ?? await readPacked(git, reference);
    if (text === undefined) return undefined;
    if (!text.startsWith("ref: ")) return /^[0-9a-f]{40,64}$/.test(text) ? text : undefined;
    reference = text.slice("ref: ".length);
  }
  return undefined;
}

async function readPacked(git: URL, reference: string): Promise<string | undefined> {
  const packed = await readText(new URL("packed-refs", git));
  const line = packed?.split("\n").find((line) => line.endsWith(` ${reference}`));
  return line?.split(" ")[0];
}

async function readText(url: URL): Promise<string | undefined> {
  try {
    return (await Deno.readTextFile(url)).trim();
  } catch {
    // No checkout, or one we may not read: then nothing tells.
    return undefined;
  }
}
