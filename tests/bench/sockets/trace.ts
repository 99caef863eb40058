/** Editing traces: what somebody did to a text, edit by edit. Public ones are read in the forms of automerge-perf
 *  (`[[position, deletes, inserts…], …]`) and of editing-traces (`{startContent, endContent, txns: [{patches: [[position,
 *  deletes, insert], …]}]}`); without one, a made trace of the same shape takes its place. */
import * as Y from "yjs";
import { SimRandom } from "../../sim/random.ts";

/** One edit: at a position so many characters go and these come. Positions count UTF-16 units. */
export type Edit = readonly [position: number, deletes: number, insert: string];

/** A trace and what the text is in the end, where that is known. */
export interface Trace {
  readonly name: string;
  readonly edits: readonly Edit[];
  readonly endText: string | undefined;
}

/** Edits taken of a public trace: those of automerge-perf are 259,778. */
const EDITS_MAX = 20_000;

/** Reads a trace. @throws {Error} when the file has none of the forms. */
export async function readTrace(path: string): Promise<Trace> {
  const name = path.slice(path.lastIndexOf("/") + 1);
  return { name, ...parseTrace(JSON.parse(await Deno.readTextFile(path))) };
}

/** The trace of a parsed file, in either form. @throws {Error} for anything else. */
export function parseTrace(file: unknown): Omit<Trace, "name"> {
  if (Array.isArray(file)) {
    return {
      edits: file.map(([position, deletes, ...inserts]) => [position, deletes, inserts.join("")]),
      endText: undefined,
    };
  }
  const { startContent = "", endContent, txns } = file as {
    startContent?: string;
    endContent?: string;
    txns?: readonly { readonly patches: readonly Edit[] }[];
  };
  if (!Array.isArray(txns)) throw new Error("neither a list of edits nor one of transactions");
  const start: Edit[] = startContent === "" ? [] : [[0, 0, startContent]];
  return { edits: [...start, ...txns.flatMap(({ patches }) => patches)], endText: endContent };
}

/** A made trace: somebody writes words, goes back to mend the last ones, and now and then works elsewhere. Two of three
 *  edits insert, as in the paper whose trace is the usual one. */
export function makeTrace(seed: number, count: number): Trace {
  const random = new SimRandom(seed, "trace");
  const edits: Edit[] = [];
  let length = 0, cursor = 0;
  while (edits.length < count) {
    if (random.chance(0.02)) cursor = random.below(length + 1);
    if (cursor > 0 && random.chance(0.3)) {
      for (let run = 1 + random.below(Math.min(cursor, 6)); run > 0 && edits.length < count; run--) {
        edits.push([--cursor, 1, ""]);
        length--;
      }
    }
    for (let run = 2 + random.below(12); run > 0 && edits.length < count; run--) {
      edits.push([cursor++, 0, run === 1 ? " " : random.pick([..."etaoinshrdlu"])]);
      length++;
    }
  }
  return { name: `made (seed ${seed})`, edits, endText: applyEdits(edits) };
}

/** The trace that the benches use: the file named by AETHERFLOW_TRACE or `--trace=FILE`, the first edits of it; or a made one. */
export async function chosenTrace(): Promise<Trace> {
  const path = Deno.args.find((arg) => arg.startsWith("--trace="))?.slice("--trace=".length) ??
    Deno.env.get("AETHERFLOW_TRACE");
  if (path === undefined) return makeTrace(1, EDITS_MAX);
  const trace = await readTrace(path);
  if (trace.edits.length <= EDITS_MAX) return trace;
  return { ...trace, edits: trace.edits.slice(0, EDITS_MAX), endText: undefined };
}

/** The text that edits make of nothing. */
export function applyEdits(edits: readonly Edit[]): string {
  let text = "";
  for (const [position, deletes, insert] of edits) {
    text = text.slice(0, position) + insert + text.slice(position + deletes);
  }
  return text;
}

/** One Yjs update for each edit, as one client makes them, and the text they make. */
export function updatesOf(edits: readonly Edit[]): { readonly updates: Uint8Array[]; readonly text: string } {
  const doc = new Y.Doc();
  const text = doc.getText("content");
  const updates: Uint8Array[] = [];
  doc.on("update", (update: Uint8Array) => updates.push(update));
  for (const [position, deletes, insert] of edits) {
    doc.transact(() => {
      if (deletes > 0) text.delete(position, deletes);
      if (insert !== "") text.insert(position, insert);
    });
  }
  return { updates, text: text.toString() };
}
