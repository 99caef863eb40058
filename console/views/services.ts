/** Whether the product serves: its workers, and where it listens. */
import { call } from "../api.ts";
import { el, say, set, table } from "../dom.ts";
import { duration } from "../format.ts";
import { every, type Scope } from "../view.ts";

/** How often the state is asked for, in ms. */
const POLL_MS = 2_000;

interface Worker {
  readonly name: string;
  readonly state: string;
  readonly reason: string;
  readonly restarts: number;
  readonly sinceMs: number;
}

interface Readiness {
  readonly ready: boolean;
  readonly workers: readonly Worker[];
  readonly addresses: Readonly<Record<string, string>>;
}

/** Makes the view. */
export function servicesView({ setTitle, signal }: Scope): HTMLElement {
  setTitle("Services");
  const state = el("p", { class: "chip", role: "status" }, "Asking…");
  const workers = el("div");
  const addresses = el("div");
  const version = el("p", { class: "muted" });

  every(POLL_MS, signal, async () => {
    const { ready, workers: lines, addresses: where } = await readiness(signal);
    say(state, ready ? "Everything serves" : "Not everything serves");
    set(state, { class: `chip ${ready ? "ok" : "bad"}` });
    workers.replaceChildren(
      table("Workers", ["Worker", "State", "For", "Restarts", "Why"], lines.map(workerRow)),
    );
    addresses.replaceChildren(table("Addresses", ["Edge", "Address"], Object.entries(where).map(addressRow)));
  });
  call<Record<string, string>>("GET", "/version", { signal }).then((facts) => {
    say(version, Object.entries(facts).map(([name, value]) => `${name} ${value}`).join(" · "));
  }, () => say(version, ""));

  return el(
    "div",
    { class: "page" },
    el("div", { class: "row between" }, el("h1", {}, "Services"), state),
    workers,
    el("h2", {}, "Addresses"),
    addresses,
    version,
  );
}

/** A product that is not ready answers 503, with the same body. */
async function readiness(signal: AbortSignal): Promise<Readiness> {
  const response = await fetch("/readyz?verbose", { signal });
  return await response.json();
}

function workerRow({ name, state, reason, restarts, sinceMs }: Worker): HTMLTableRowElement {
  const kind = state === "ready" ? "ok" : state === "failed" ? "bad" : "warn";
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, name),
    el("td", {}, el("span", { class: `chip ${kind}` }, state)),
    el("td", {}, duration(sinceMs / 1000)),
    el("td", {}, String(restarts)),
    el("td", {}, reason),
  );
}

function addressRow([edge, address]: [string, string]): HTMLTableRowElement {
  return el("tr", {}, el("th", { scope: "row" }, edge), el("td", {}, el("code", {}, address)));
}
