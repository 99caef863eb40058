/** The Quantum connections between this gateway and the services: round trips, loss, window. */
import { call } from "../api.ts";
import { Chart } from "../chart.ts";
import { el, say, table } from "../dom.ts";
import { bytes, duration, figure } from "../format.ts";
import { every, type Scope } from "../view.ts";

/** How often the figures are asked for, in ms. */
const POLL_MS = 2_000;

interface Target {
  readonly service: string;
  readonly name: string;
  readonly address?: string;
  readonly state?: string;
  readonly breaker?: string;
  readonly outstanding?: number;
  readonly transport?: {
    readonly smoothedRttMs?: number;
    readonly minRttMs?: number;
    readonly congestionWindowBytes?: string;
    readonly inFlightBytes?: string;
    readonly packetsSent?: string;
    readonly packetsReceived?: string;
    readonly packetsLost?: string;
    readonly loss?: number;
  };
}

interface Stats {
  readonly worker?: string;
  readonly uptimeSeconds?: number;
  readonly requestsTotal?: string;
  readonly targets?: readonly Target[];
}

/** Makes the view. */
export function transportView({ setTitle, signal }: Scope): HTMLElement {
  setTitle("Transport");
  const about = el("p", { class: "muted" });
  const peers = el("div");
  const rtt = new Chart("Round trip", [{ name: "slowest peer", color: "warn" }, {
    name: "fastest peer",
    color: "ok",
  }], (ms) => duration(ms / 1000));
  const loss = new Chart("Loss", [{ name: "packets per second", color: "bad" }]);
  let before: { atMs: number; lost: number } | undefined;

  every(POLL_MS, signal, async () => {
    const { worker = "", uptimeSeconds = 0, requestsTotal = "0", targets = [] } = await call<Stats>(
      "GET",
      "/api/v1/admin/stats",
      { signal },
    );
    say(about, `${worker}, up for ${duration(uptimeSeconds)}, ${requestsTotal} requests`);
    peers.replaceChildren(
      table(
        "Quantum peers",
        ["Peer", "State", "RTT", "Least", "Window", "In flight", "Sent", "Lost", "Loss", "Waiting calls"],
        targets.map(row),
      ),
    );
    const transports = targets.flatMap(({ transport }) => transport === undefined ? [] : [transport]);
    const times = transports.map(({ smoothedRttMs = 0 }) => smoothedRttMs);
    rtt.add(times.length === 0 ? [NaN, NaN] : [Math.max(...times), Math.min(...times)]);
    const now = {
      atMs: performance.now(),
      lost: transports.reduce((sum, { packetsLost = "0" }) => sum + Number(packetsLost), 0),
    };
    if (before !== undefined) {
      loss.add([Math.max(0, now.lost - before.lost) / ((now.atMs - before.atMs) / 1000)]);
    }
    before = now;
  });

  return el(
    "div",
    { class: "page" },
    el("h1", {}, "Transport"),
    about,
    el("div", { class: "charts" }, rtt.element, loss.element),
    el("h2", {}, "Quantum peers"),
    peers,
  );
}

function row({ service, name, address = "", state = "", breaker, outstanding = 0, transport }: Target) {
  const kind = state === "up" && breaker !== "open" ? "ok" : "bad";
  const ms = (value: number | undefined) => value === undefined ? "–" : duration(value / 1000);
  return el(
    "tr",
    {},
    el("th", { scope: "row", title: address }, name === "self" ? `${service} (here)` : name),
    el("td", {}, el("span", { class: `chip ${kind}` }, state), breaker === "open" && " breaker open"),
    el("td", {}, ms(transport?.smoothedRttMs)),
    el("td", {}, ms(transport?.minRttMs)),
    el("td", {}, transport ? bytes(Number(transport.congestionWindowBytes ?? 0)) : "–"),
    el("td", {}, transport ? bytes(Number(transport.inFlightBytes ?? 0)) : "–"),
    el("td", {}, transport?.packetsSent ?? "–"),
    el("td", {}, transport ? transport.packetsLost ?? "0" : "–"),
    el("td", {}, transport ? `${figure((transport.loss ?? 0) * 100)} %` : "–"),
    el("td", {}, String(outstanding)),
  );
}
