import type * as prom from "prom-client";
// Not the package's own entry: it loads collectors, gateways and a cluster that nobody here uses, 30 ms in each thread.
import counter from "prom-client/lib/counter.js";
import gauge from "prom-client/lib/gauge.js";
import histogram from "prom-client/lib/histogram.js";
import registry from "prom-client/lib/registry.js";

/** Totals that only grow. */
export const Counter = counter as unknown as typeof prom.Counter;
export type Counter<Label extends string = string> = prom.Counter<Label>;
/** Figures that go up and down. */
export const Gauge = gauge as unknown as typeof prom.Gauge;
export type Gauge<Label extends string = string> = prom.Gauge<Label>;
/** Figures by how large they are. */
export const Histogram = histogram as unknown as typeof prom.Histogram;
export type Histogram<Label extends string = string> = prom.Histogram<Label>;
/** What figures are registered with, and read from. */
export const Registry = registry as unknown as typeof prom.Registry;
export type Registry = prom.Registry;

/** Creates the one registry of a worker. Every figure carries the label `worker`, so that the figures of all workers
 *  can stand on one page. Pass it as `registers: [metrics]` to each Counter, Gauge or Histogram. */
export function createMetrics(worker: string): Registry {
  const registry = new Registry();
  registry.setDefaultLabels({ worker });
  return registry;
}

/** Name and help text of figures, by their field. */
export type FigureNames<F> = { readonly [Field in keyof F]?: readonly [name: string, help: string] };

/** Registers figures that something else keeps; `read` gives them when the registry is read. Counters are totals that
 *  only grow. */
export function registerFigures<F extends { readonly [Field in keyof F]: number }>(
  registry: Registry,
  figures: { readonly counters: FigureNames<F>; readonly gauges: FigureNames<F> },
  read: () => F,
): void {
  for (const [field, name, help] of entriesOf(figures.gauges)) {
    new Gauge({
      name,
      help,
      registers: [registry],
      collect() {
        this.set(read()[field]);
      },
    });
  }
  for (const [field, name, help] of entriesOf(figures.counters)) {
    let last = 0;
    new Counter({
      name,
      help,
      registers: [registry],
      collect() {
        const total = read()[field];
        this.inc(total - last);
        last = total;
      },
    });
  }
}

function entriesOf<F>(names: FigureNames<F>): [field: keyof F, name: string, help: string][] {
  return Object.entries(names as Record<string, readonly [string, string]>).map(([field, [name, help]]) => [
    field as keyof F,
    name,
    help,
  ]);
}
