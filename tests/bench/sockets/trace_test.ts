import { assert, assertEquals, assertThrows } from "@std/assert";
import { applyEdits, makeTrace, parseTrace, updatesOf } from "./trace.ts";

Deno.test("parseTrace() reads the form of automerge-perf: position, deletes, inserted characters", () => {
  assertEquals(parseTrace([[0, 0, "a", "b"], [1, 1], [1, 0, "c"]]), {
    edits: [[0, 0, "ab"], [1, 1, ""], [1, 0, "c"]],
    endText: undefined,
  });
});

Deno.test("parseTrace() reads the form of editing-traces, its first content as an edit", () => {
  const file = {
    startContent: "x",
    endContent: "yx",
    txns: [{ time: "", patches: [[0, 0, "y"]] }, { patches: [] }],
  };
  const { edits, endText } = parseTrace(file);
  assertEquals(edits, [[0, 0, "x"], [0, 0, "y"]]);
  assertEquals(applyEdits(edits), endText);
});

Deno.test("parseTrace() refuses a file of another form", () => {
  assertThrows(() => parseTrace({ kind: "concurrent" }), Error, "neither");
});

Deno.test("makeTrace() is the same for the same seed, and Yjs makes the same text of it", () => {
  const trace = makeTrace(7, 3_000);
  assertEquals(trace, makeTrace(7, 3_000));
  assertEquals(trace.edits.length, 3_000);
  const { updates, text } = updatesOf(trace.edits);
  assertEquals([updates.length, text], [3_000, trace.endText]);
  const inserts = trace.edits.filter(([, deletes]) => deletes === 0).length;
  assert(inserts > 1_800 && inserts < 2_800, `${inserts} inserts`);
});
