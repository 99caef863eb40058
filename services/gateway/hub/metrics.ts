/** Figures of the hub. Counted in plain numbers and told when they are asked for: a message for 1,500 subscribers is counted
 *  1,500 times. */
import { Counter, Gauge, type Registry } from "../../runtime/metrics.ts";
import { CLOSE } from "../sockets/close_codes.ts";
import type { LossReason } from "./channel.ts";
import { CLIENT_TYPES, type ClientType, SERVER_TYPES, type ServerType } from "./envelope.ts";

/** Present figures of a hub. */
export interface HubFigures {
  readonly connections: number;
  readonly users: number;
  readonly channels: number;
  readonly historyBytes: number;
}

/** What a hub counts. */
export interface HubMetrics {
  /** The hub that tells the present figures. */
  watch(figures: () => HubFigures): void;
  received(type: ClientType | "invalid", chars: number): void;
  sent(type: ServerType, chars: number): void;
  /** A channel's message was encoded, once for everybody. */
  encoded(chars: number): void;
  /** It was sent to one of them. */
  delivered(): void;
  /** Subscriptions that began (1) or ended (-1). */
  subscribed(change: 1 | -1): void;
  recovered(result: "recovered" | LossReason): void;
  closed(code: number): void;
}

/** Results of subscribing behind a position. */
const RESULTS = ["recovered", "new_epoch", "too_old", "unknown_offset"] as const;

/** Registers the hub's figures. `frame`: sizes of messages, a channel's once for all who get it. */
export function createHubMetrics(
  registry: Registry,
  frame: (direction: "in" | "out", chars: number) => void,
): HubMetrics {
  const registers = [registry];
  const received = zeros(["invalid", ...CLIENT_TYPES]);
  const sent = zeros(SERVER_TYPES);
  const results = zeros(RESULTS);
  const codes = zeros(Object.values(CLOSE).map(({ code }) => String(code)));
  let subscriptions = 0;
  let figures: () => HubFigures = () => ({ connections: 0, users: 0, channels: 0, historyBytes: 0 });

  counter("aetherflow_gateway_websocket_messages_total", "Messages of the hub, in (from clients) and out.", [
    "type",
    "direction",
  ], (add) => {
    for (const [type, count] of Object.entries(received)) add({ type, direction: "in" }, count);
    for (const [type, count] of Object.entries(sent)) add({ type, direction: "out" }, count);
  });
  counter(
    "aetherflow_gateway_websocket_closed_total",
    "Sockets that the hub closed, by close code.",
    ["code"],
    (add) => {
      for (const [code, count] of Object.entries(codes)) add({ code }, count);
    },
  );
  counter(
    "aetherflow_gateway_hub_recoveries_total",
    "Subscriptions that came back with a position, by whether they got what they missed.",
    ["result"],
    (add) => {
      for (const [result, count] of Object.entries(results)) add({ result }, count);
    },
  );
  gauge(
    "aetherflow_gateway_hub_connections",
    "Sockets and event streams of the hub that are open.",
    () => figures().connections,
  );
  gauge("aetherflow_gateway_hub_users", "Users that have one open.", () => figures().users);
  gauge(
    "aetherflow_gateway_hub_channels",
    "Channels, those that keep a history for nobody included.",
    () => figures().channels,
  );
  gauge(
    "aetherflow_gateway_hub_subscriptions",
    "Subscriptions of all sockets and event streams.",
    () => subscriptions,
  );
  gauge(
    "aetherflow_gateway_hub_history_bytes",
    "Messages kept for those who come back.",
    () => figures().historyBytes,
  );

  function counter(
    name: string,
    help: string,
    labelNames: string[],
    collect: (add: (labels: Record<string, string>, count: number) => void) => void,
  ): void {
    new Counter({
      name,
      help,
      labelNames,
      registers,
      collect() {
        this.reset();
        collect((labels, count) => this.inc(labels, count));
      },
    });
  }

  function gauge(name: string, help: string, read: () => number): void {
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  }

  return {
    watch: (read) => void (figures = read),
    received(type, chars) {
      received[type]++;
      frame("in", chars);
    },
    sent(type, chars) {
      sent[type]++;
      frame("out", chars);
    },
    encoded: (chars) => frame("out", chars),
    delivered: () => void sent.notify++,
    subscribed: (change) => void (subscriptions += change),
    recovered: (result) => void results[result]++,
    closed: (code) => void (codes[String(code)] = (codes[String(code)] ?? 0) + 1),
  };
}

function zeros<K extends string>(names: readonly K[]): Record<K, number> {
  return Object.fromEntries(names.map((name) => [name, 0])) as Record<K, number>;
}
