/** Lines over time, drawn as SVG. */
import { el, say, svg } from "./dom.ts";
import { figure } from "./format.ts";

/** Points that a chart keeps: at one every two seconds, five minutes. */
const POINTS_MAX = 150;

/** Points across the chart while there are fewer. */
const POINTS_ACROSS = 30;

const WIDTH = 600;
const HEIGHT = 160;
/** Share of the height above the highest point. */
const HEADROOM = 1.15;

/** One line of a chart. */
export interface Series {
  readonly name: string;
  /** Class of its colour. */
  readonly color: "accent" | "ok" | "warn" | "bad";
}

/** A chart that takes one point of each series at a time. */
export class Chart {
  readonly element: HTMLElement;
  readonly #series: readonly Series[];
  readonly #points: number[][];
  readonly #lines: SVGPolylineElement[];
  readonly #figures: HTMLElement[];
  readonly #top = el("small", { class: "muted" });
  readonly #format: (value: number) => string;

  constructor(title: string, series: readonly Series[], format: (value: number) => string = figure) {
    this.#series = series;
    this.#format = format;
    this.#points = series.map(() => []);
    this.#lines = series.map(({ color }) => svg("polyline", { class: `line ${color}` }));
    this.#figures = series.map(() => el("strong"));
    this.element = el(
      "figure",
      { class: "card chart" },
      el(
        "figcaption",
        {},
        el("h2", {}, title),
        el(
          "div",
          { class: "row wrap" },
          ...series.map(({ name, color }, i) =>
            el(
              "span",
              { class: "legend" },
              el("span", { class: `dot ${color}` }),
              `${name} `,
              this.#figures[i]!,
            )
          ),
        ),
      ),
      svg(
        "svg",
        { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
        svg("line", { x1: 0, x2: WIDTH, y1: HEIGHT - 1, y2: HEIGHT - 1, class: "axis" }),
        ...this.#lines,
      ),
      this.#top,
    );
  }

  /** Adds a point of each series; NaN leaves a gap. */
  add(values: readonly number[]): void {
    values.forEach((value, i) => {
      const points = this.#points[i]!;
      points.push(value);
      if (points.length > POINTS_MAX) points.shift();
      say(this.#figures[i]!, this.#format(value));
    });
    this.#draw();
  }

  #draw(): void {
    const highest = Math.max(0, ...this.#points.flat().filter(Number.isFinite));
    const top = highest === 0 ? 1 : highest * HEADROOM;
    say(this.#top, `highest ${this.#format(highest)}`);
    this.#series.forEach((_, i) => {
      const points = this.#points[i]!;
      const across = Math.max(POINTS_ACROSS, points.length);
      const offset = across - points.length;
      const places = points.flatMap((value, at) =>
        Number.isFinite(value)
          ? [
            `${((at + offset) / (across - 1) * WIDTH).toFixed(1)},${
              (HEIGHT - value / top * HEIGHT).toFixed(1)
            }`,
          ]
          : []
      );
      this.#lines[i]!.setAttribute("points", places.join(" "));
    });
  }
}
