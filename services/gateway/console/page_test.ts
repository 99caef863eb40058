/** The parts of the page that need no browser. All else is tried in Chromium, by tests/integration/console_*_test.ts. */
import { assert, assertEquals } from "@std/assert";
import { strokeOf } from "../../../console/document/board_stroke.ts";
import { wordsOfOperation } from "../../../console/document/operations.ts";
import { cellName, cellsOfContent, placeOfCell, valueOfText } from "../../../console/document/sheet_model.ts";
import { bucketsOf, quantileOf, samplesOf, sumOf } from "../../../console/metrics.ts";

Deno.test("cells have names from A1 on, and names have places", () => {
  const cases: [column: number, row: number, name: string][] = [
    [0, 0, "A1"],
    [25, 9, "Z10"],
    [26, 0, "AA1"],
    [701, 1, "ZZ2"],
    [702, 1_048_575, "AAA1048576"],
  ];
  for (const [column, row, name] of cases) {
    assertEquals(cellName({ column, row }), name);
    assertEquals(placeOfCell(name), { column, row });
  }
  for (const name of ["", "A0", "a1", "A", "1", "AAAA1", "A1/value"]) {
    assertEquals(placeOfCell(name), undefined, name);
  }
});

Deno.test("what looks like a number in a cell is one, and nothing else is", () => {
  const cases: [text: string, value: unknown][] = [
    ["", undefined],
    ["12", 12],
    [" -0.5 ", -0.5],
    ["1e3", 1000],
    ["1e999", "1e999"],
    ["1,5", "1,5"],
    ["0x10", "0x10"],
    ["Infinity", "Infinity"],
    ["=A1", "=A1"],
  ];
  for (const [text, value] of cases) assertEquals(valueOfText(text), value, text);
  assertEquals([...cellsOfContent('{"cells":{"A1":{"value":1},"B2":{"style.bold":true}}}')], [
    ["A1", 1],
    ["B2", undefined],
  ]);
  assertEquals([...cellsOfContent("")], []);
});

Deno.test("a stroke keeps its corners and leaves out what lies between", () => {
  const places = [
    ...Array.from({ length: 50 }, (_, i) => ({ x: 100 + i, y: 200 })),
    ...Array.from({ length: 51 }, (_, i) => ({ x: 150, y: 200 + i })),
  ];
  assertEquals(strokeOf(places), {
    x: 100,
    y: 200,
    width: 50,
    height: 50,
    points: [0, 0, 1000, 0, 1000, 1000],
  });
  // A straight line still has a box that can be stretched.
  assertEquals(strokeOf([{ x: 5, y: 5 }, { x: 5, y: 25 }]), {
    x: 5,
    y: 5,
    width: 1,
    height: 20,
    points: [0, 0, 0, 1000],
  });
});

Deno.test("figures are read of a page of metrics, with rates and quantiles between two of them", () => {
  const page = (count: number) =>
    `# HELP requests_total x
requests_total{route="/a{b}",method="GET",note="say \\"hi\\""} ${count}
requests_total{route="/c",method="PUT"} 3
requests_seconds_bucket{le="0.1"} ${count}
requests_seconds_bucket{le="0.2"} ${count * 2}
requests_seconds_bucket{le="+Inf"} ${count * 2}
other 1
`;
  const before = samplesOf(page(0), "requests_");
  const now = samplesOf(page(10), "requests_");
  assertEquals(now.length, 5);
  assertEquals(now[0]!.labels, { route: "/a{b}", method: "GET", note: 'say \\"hi\\"' });
  assertEquals([
    sumOf(now, "requests_total"),
    sumOf(now, "requests_total", ({ labels }) => labels.method === "GET"),
  ], [
    13,
    10,
  ]);
  const [from, to] = [bucketsOf(before, "requests_seconds"), bucketsOf(now, "requests_seconds")];
  assertEquals(quantileOf(from, to, 0.5), 0.1);
  assert(Math.abs(quantileOf(from, to, 0.75) - 0.15) < 1e-9);
  assertEquals(quantileOf(to, to, 0.5), NaN);
});

Deno.test("edits are told in words, of answers that have every field", () => {
  const edit = { index: 4, delete: 0, insert: "", attributes: {}, length: 0, to: 0, replaceAll: false };
  const words = (operation: Parameters<typeof wordsOfOperation>[0]) => wordsOfOperation(operation);
  assertEquals(
    words({ type: "text", text: { edits: [{ ...edit, delete: 2, insert: "x" }] } }),
    "removes 2 characters and writes “x” at 4",
  );
  assertEquals(
    words({ type: "move", text: { edits: [{ ...edit, length: 3, to: 9 }] } }),
    "moves 3 characters from 4 to 9",
  );
  assertEquals(
    words({ type: "style", object: { objectId: "r", kind: "", properties: { "style.fill": "none" } } }),
    'style r; style.fill = "none"',
  );
  assertEquals(
    words({ type: "update", cells: { edits: [{ cell: "A1", value: 5, to: "", style: {} }] } }),
    "A1 = 5",
  );
  assertEquals(words({ type: "delete", text: undefined }), "delete");
  assertEquals(words({ type: "text", text: "nonsense" }), "");
  assert(words({ comment: { body: "x".repeat(10_000) } }).length < 1_000);
});
