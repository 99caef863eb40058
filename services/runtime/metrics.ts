import { Counter, Gauge, Histogram, Registry } from "prom-client";

export { Counter, Gauge, Histogram, Registry };

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
