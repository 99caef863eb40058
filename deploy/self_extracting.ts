/** The executable that works where deno compile's base runtime cannot be had: a shell script with the running Deno and the
 *  bundled program behind it. launcher.sh says what a start does. */
import { createHash } from "node:crypto";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import { MAIN, type Stage } from "./stage.ts";

const compress = promisify(gzip);

/** One file behind the script. */
interface Packed {
  readonly path: string;
  readonly mode: "0400" | "0500";
  readonly size: number;
  readonly bytes: Uint8Array;
}

/** Writes the executable to `output`; `runtime` is the Deno it carries.
 *  @throws {Deno.errors} if a file cannot be read or written. */
export async function writeSelfExtracting(stage: Stage, runtime: string, output: string): Promise<void> {
  const packed = await Promise.all([
    pack("deno", runtime, "0500"),
    ...stage.files.map((path) => pack(path, `${stage.directory}/${path}`, "0400")),
  ]);
  const payload = concatenate(packed.map((file) => file.bytes));
  const template = await Deno.readTextFile(new URL("launcher.sh", import.meta.url));
  const script = new TextEncoder().encode(
    header(template, packed, createHash("sha256").update(payload).digest("hex")),
  );

  const temporary = `${output}.tmp`;
  await Deno.writeFile(temporary, concatenate([script, payload]), { mode: 0o755 });
  await Deno.chmod(temporary, 0o755);
  await Deno.rename(temporary, output);
}

async function pack(path: string, from: string, mode: Packed["mode"]): Promise<Packed> {
  const content = await Deno.readFile(from);
  // Level 6 is 10 MB smaller than level 1 for one more second, paid once per build.
  return { path, mode, size: content.length, bytes: await compress(content, { level: 6 }) };
}

/** The script with its figures filled in. Its own length is one of them, so that field is padded to a fixed width. */
function header(template: string, packed: readonly Packed[], hash: string): string {
  let offset = 0;
  const lines = packed.map((file) => {
    const line = `${offset} ${file.bytes.length} ${file.size} ${file.mode} ${file.path}`;
    offset += file.bytes.length;
    return line;
  });
  const filled = fill(template, {
    HASH: hash,
    FILES: lines.join("\n"),
    COUNT: String(packed.length),
    MAIN,
    OFFSET: "@OFFSET@".padEnd(OFFSET_WIDTH),
  });
  return filled.replace(
    "@OFFSET@".padEnd(OFFSET_WIDTH),
    String(new TextEncoder().encode(filled).length).padEnd(OFFSET_WIDTH),
  );
}

/** Digits of a script of up to 1 GB, in characters. */
const OFFSET_WIDTH = 10;

function fill(template: string, values: Readonly<Record<string, string>>): string {
  return template.replace(/@([A-Z]+)@/g, (_, name: string) => {
    const value = values[name];
    if (value === undefined) throw new Error(`launcher.sh names @${name}@, which nothing fills`);
    return value;
  });
}

function concatenate(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
