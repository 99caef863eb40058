/** One Prometheus page out of the pages of many workers (text format 0.0.4). */

/** A worker's page. */
export interface WorkerPage {
  readonly worker: string;
  readonly text: string;
}

interface Family {
  help: string | undefined;
  type: string | undefined;
  readonly samples: string[];
}

// Sample names that belong to the family without the suffix, by the family's type.
const SUFFIXES: Readonly<Record<string, readonly string[]>> = {
  histogram: ["_bucket", "_sum", "_count"],
  summary: ["_sum", "_count"],
};

const SAMPLE =
  /^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{.*\})?(\s+(?:[-+]?(?:\d|\.\d)\S*|[-+]?Inf|NaN)(?:\s+-?\d+)?)\s*$/;

/** Merges pages: each family once, with the first HELP and TYPE that is met, and every sample with a label `worker`.
 *  A sample that has the label keeps its own, so a host may speak of its workers. Lines that are none are left out. */
export function mergeMetricPages(pages: readonly WorkerPage[]): string {
  const families = new Map<string, Family>();
  for (const page of pages) addPage(families, page);
  let text = "";
  for (const [name, { help, type, samples }] of families) {
    if (samples.length === 0) continue;
    if (help !== undefined) text += `# HELP ${name} ${help}\n`;
    if (type !== undefined) text += `# TYPE ${name} ${type}\n`;
    text += `${samples.join("\n")}\n`;
  }
  return text;
}

function addPage(families: Map<string, Family>, { worker, text }: WorkerPage): void {
  const label = `worker="${escapeLabel(worker)}"`;
  for (const line of text.split("\n")) {
    const comment = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line);
    if (comment !== null) {
      const family = familyNamed(families, comment[2]!);
      if (comment[1] === "HELP") family.help ??= comment[3];
      else family.type ??= comment[3];
      continue;
    }
    if (line.startsWith("#")) continue;
    const sample = SAMPLE.exec(line);
    if (sample === null) continue;
    const [, name, labels = "", value] = sample;
    familyOf(families, name!).samples.push(`${name}${withWorker(labels, label)}${value}`);
  }
}

function familyNamed(families: Map<string, Family>, name: string): Family {
  let family = families.get(name);
  if (family === undefined) families.set(name, family = { help: undefined, type: undefined, samples: [] });
  return family;
}

function familyOf(families: Map<string, Family>, sampleName: string): Family {
  const exact = families.get(sampleName);
  if (exact !== undefined) return exact;
  for (const [type, suffixes] of Object.entries(SUFFIXES)) {
    for (const suffix of suffixes) {
      if (!sampleName.endsWith(suffix)) continue;
      const family = families.get(sampleName.slice(0, -suffix.length));
      if (family?.type === type) return family;
    }
  }
  return familyNamed(families, sampleName);
}

function withWorker(labels: string, label: string): string {
  const inner = labels.slice(1, -1).trim();
  if (inner === "") return `{${label}}`;
  return hasWorkerLabel(inner) ? labels : `{${label},${inner}}`;
}

/** True when a label named `worker` is among `labels`; label values, which may hold anything, are stepped over. */
function hasWorkerLabel(labels: string): boolean {
  for (const [, name] of labels.matchAll(/([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"(?:[^"\\]|\\.)*"/g)) {
    if (name === "worker") return true;
  }
  return false;
}

function escapeLabel(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
