/** What commands write: data to stdout, words for people to stderr. */

/** Exit code of a command line or configuration that is wrong. */
export const USAGE_EXIT_CODE = 2;

const encoder = new TextEncoder();

/** Writes one line to stdout. */
export function printLine(text: string): void {
  writeAll(Deno.stdout, encoder.encode(`${text}\n`));
}

/** Writes bytes to stdout as they are. */
export function printBytes(bytes: Uint8Array): void {
  writeAll(Deno.stdout, bytes);
}

/** Writes `aetherflow: …` lines to stderr, one for each line of `message`. */
export function complain(message: string): void {
  for (const line of message.split("\n")) writeAll(Deno.stderr, encoder.encode(`aetherflow: ${line}\n`));
}

function writeAll(to: { writeSync(bytes: Uint8Array): number }, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length;) at += to.writeSync(bytes.subarray(at));
}
