/** RESULTS.md: a section for each benchmark module, replaced as a whole when the module runs again. */
import type { BenchRow } from "./row.ts";

/** The rows of one module's last run. */
export interface Section {
  readonly path: string;
  readonly machine: string;
  /** Day of the run, `YYYY-MM-DD`. */
  readonly date: string;
  readonly rows: readonly BenchRow[];
  /** What the figures do not say by themselves, such as what limits them: paragraphs under the table. */
  readonly notes: readonly string[];
}

/** The sections of a RESULTS.md by module path, each as its Markdown text. */
export function readResults(markdown: string): Map<string, string> {
  const sections = new Map<string, string>();
  for (const part of markdown.split(/^(?=## )/m)) {
    const path = part.match(/^## `(.+)`/)?.[1];
    if (path !== undefined) sections.set(path, part.trimEnd());
  }
  return sections;
}

/** RESULTS.md with `measured` in place of their older sections, in the order of `paths`. */
export function renderResults(
  paths: readonly string[],
  before: Map<string, string>,
  measured: readonly Section[],
): string {
  const sections = new Map(before);
  for (const section of measured) sections.set(section.path, renderSection(section));
  const known = paths.map((path) => sections.get(path)).filter((text) => text !== undefined);
  return [HEADER, ...known].join("\n\n") + "\n";
}

const HEADER = `# Results

Written by \`deno task bench\`. Each figure is the median of its runs with the smallest and the largest beside it; rivals
and floors ran in the same minutes on the same machine, so the ratio says more than the figure. A bar that is not met
stays in the table.`;

function renderSection(section: Section): string {
  const name = section.path.split("/")[0] ?? section.path;
  return [
    `## \`${section.path}\``,
    "",
    `${section.date} · ${section.machine} · \`deno task bench ${name}\``,
    "",
    "| what | median | spread | rival or floor | ratio | bar | met |",
    "| --- | ---: | --- | --- | ---: | --- | --- |",
    ...section.rows.map(renderRow),
    ...section.notes.flatMap((note) => ["", note]),
  ].join("\n");
}

function renderRow(row: BenchRow): string {
  const against = row.against === undefined
    ? ""
    : `${row.against.name}: ${figure(row.against.value)} ${row.unit}`;
  const cells = [
    row.name,
    `${figure(row.value)} ${row.unit}`,
    `${figure(row.spread[0])} … ${figure(row.spread[1])}`,
    against,
    row.ratio === undefined ? "" : row.ratio.toFixed(2),
    row.bar ?? "",
    row.pass === undefined ? "" : row.pass ? "yes" : "**no**",
  ];
  return `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
}

function figure(value: number): string {
  return Math.abs(value) >= 100
    ? Math.round(value).toLocaleString("en")
    : String(Number(value.toPrecision(3)));
}
