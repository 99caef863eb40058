/** Draws whiteboard objects as SVG. Values that others wrote are checked: a colour is a colour, a path has numbers. */
import { el, set, svg } from "../dom.ts";
import { BOARD, type BoardObject } from "./board_model.ts";
import { PATH_POINTS_MAX, PATH_SCALE } from "./board_stroke.ts";

/** Characters of a text that are drawn. */
const TEXT_CHARS_MAX = 4_000;

/** Draws an object into its group, in place of what was there. */
export function draw(group: SVGGElement, object: BoardObject): void {
  set(group, {
    transform: `translate(${object.x} ${object.y})`,
    "aria-label": describe(object),
    class: `object kind-${/^[\w-]{1,32}$/.test(object.kind) ? object.kind : "other"}`,
  });
  const { width, height } = object;
  const hit = svg("rect", { class: "hit", width, height });
  group.replaceChildren(hit, ...shapes(object));
}

/** A still picture of objects, for versions that are looked at. */
export function pictureOf(objects: readonly BoardObject[]): SVGSVGElement {
  const right = Math.max(400, ...objects.map(({ x, width }) => x + width + 40));
  const bottom = Math.max(300, ...objects.map(({ y, height }) => y + height + 40));
  const picture = svg("svg", {
    class: "board-picture",
    viewBox: `0 0 ${Math.min(right, BOARD.width)} ${Math.min(bottom, BOARD.height)}`,
    role: "img",
    "aria-label": `Whiteboard with ${objects.length} objects`,
  });
  for (const object of objects) {
    const group = svg("g");
    draw(group, object);
    picture.append(group);
  }
  return picture;
}

/** What a screen reader says of an object. */
export function describe({ kind, x, y, width, height, text }: BoardObject): string {
  const words = text.trim() === "" ? "" : ` “${text.trim().slice(0, 60)}”`;
  const round = Math.round;
  return `${kind || "object"}${words}, ${round(width)} by ${round(height)} at ${round(x)}, ${round(y)}`;
}

/** A colour as somebody wrote it, or `otherwise`. */
export function colorOf(value: unknown, otherwise: string): string {
  if (value === "none") return "none";
  return typeof value === "string" && /^#[0-9a-f]{3,8}$/i.test(value) ? value : otherwise;
}

function shapes(object: BoardObject): (SVGElement | HTMLElement)[] {
  const { kind, width, height, properties } = object;
  const strokeWidth = properties["style.strokeWidth"];
  const isNote = kind === "note";
  const style = {
    fill: colorOf(properties["style.fill"], isNote ? "#fde68a" : "none"),
    stroke: colorOf(properties["style.stroke"], isNote ? "none" : "var(--ink)"),
    "stroke-width": typeof strokeWidth === "number" ? Math.min(Math.max(strokeWidth, 0.5), 40) : 2,
    "stroke-linejoin": "round",
    "stroke-linecap": "round",
  };
  switch (kind) {
    case "path":
      return [
        svg("path", { ...style, d: pathOf(properties.points, width, height), "pointer-events": "stroke" }),
      ];
    case "ellipse":
      return [
        svg("ellipse", { ...style, cx: width / 2, cy: height / 2, rx: width / 2, ry: height / 2 }),
        ...label(object),
      ];
    default:
      return [svg("rect", { ...style, width, height, rx: isNote ? 4 : 2 }), ...label(object)];
  }
}

function label({ width, height, text, kind, properties }: BoardObject): SVGElement[] {
  if (text === "") return [];
  const isDark = kind === "note" || colorOf(properties["style.fill"], "none") !== "none";
  return [
    svg(
      "foreignObject",
      { width, height, class: "label" },
      el("div", { class: isDark ? "on-color" : "" }, text.slice(0, TEXT_CHARS_MAX)),
    ),
  ];
}

function pathOf(points: unknown, width: number, height: number): string {
  if (!Array.isArray(points)) return "";
  const parts: string[] = [];
  for (let i = 0; i + 1 < points.length && i < 2 * PATH_POINTS_MAX; i += 2) {
    const x = Number(points[i]) / PATH_SCALE * width;
    const y = Number(points[i + 1]) / PATH_SCALE * height;
    if (Number.isFinite(x) && Number.isFinite(y)) {
      parts.push(`${parts.length === 0 ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}`);
    }
  }
  return parts.join("");
}
