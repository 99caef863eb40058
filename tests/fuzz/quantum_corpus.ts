/** Reads the kept inputs of the Quantum fuzzers. */

/** Payloads of corpus/quantum_frames.hex. */
export function frameCorpus(): Uint8Array[] {
  const text = Deno.readTextFileSync(new URL("./corpus/quantum_frames.hex", import.meta.url));
  return text.split("\n")
    .map((line) => line.replaceAll(" ", ""))
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => Uint8Array.fromHex(line));
}
