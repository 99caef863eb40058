/** The whiteboard's tools and styles. */
import { button, el, select, set } from "../dom.ts";
import type { BoardObject, Properties } from "./board_model.ts";

/** What the pointer does; those behind `select` are kinds of objects. */
export type Tool = "select" | "path" | "rectangle" | "ellipse" | "note";

const TOOLS: readonly (readonly [Tool, string, string])[] = [
  ["select", "Select", "v"],
  ["path", "Pen", "p"],
  ["rectangle", "Rectangle", "r"],
  ["ellipse", "Ellipse", "o"],
  ["note", "Note", "n"],
];

/** Values of select boxes for the absence of a property. */
const USUAL = "";

const FILLS = [
  ["none", "No fill"],
  ["#fde68a", "Yellow"],
  ["#bfdbfe", "Blue"],
  ["#bbf7d0", "Green"],
  ["#fecaca", "Red"],
  ["#ddd6fe", "Violet"],
] as const;

const STROKES = [
  [USUAL, "Ink"],
  ["none", "No line"],
  ["#2563eb", "Blue"],
  ["#059669", "Green"],
  ["#dc2626", "Red"],
  ["#d97706", "Amber"],
  ["#7c3aed", "Violet"],
] as const;

const WIDTHS = [["1", "Thin"], ["2", "Medium"], ["4", "Thick"], ["8", "Marker"]] as const;

/** What the tools do. */
export interface BoardActions {
  onTool(tool: Tool): void;
  /** Make an object without a pointer. */
  onInsert(kind: string): void;
  onStyle(properties: Properties): void;
  onRemove(): void;
  onUndo(): void;
  onRedo(): void;
  onZoom(factor: number): void;
}

/** The bar above a whiteboard. */
export class BoardToolbar {
  readonly element: HTMLElement;
  tool: Tool = "select";
  readonly #actions: BoardActions;
  readonly #tools: readonly HTMLButtonElement[];
  readonly #fill = select(FILLS, { "aria-label": "Fill", onchange: () => this.#styled() });
  readonly #stroke = select(STROKES, { "aria-label": "Line", onchange: () => this.#styled() });
  readonly #width = select(WIDTHS, { "aria-label": "Line width", onchange: () => this.#styled() });
  readonly #remove: HTMLButtonElement;
  readonly #changing: readonly (HTMLButtonElement | HTMLSelectElement)[];
  #isReadOnly = false;

  constructor(actions: BoardActions) {
    this.#actions = actions;
    this.#tools = TOOLS.map(([tool, name, key]) =>
      button(name, (event) => this.#picked(tool, event), {
        "data-tool": tool,
        "aria-pressed": String(tool === "select"),
        "aria-keyshortcuts": key,
        title: `${name} (${key.toUpperCase()})`,
      })
    );
    this.#remove = button("Delete", () => actions.onRemove());
    const undo = button("Undo", () => actions.onUndo());
    const redo = button("Redo", () => actions.onRedo());
    this.#width.value = "2";
    this.#changing = [...this.#tools, this.#fill, this.#stroke, this.#width, undo, redo];
    this.element = el(
      "div",
      { class: "toolbar", role: "toolbar", "aria-label": "Whiteboard" },
      el("span", { class: "group", role: "group", "aria-label": "Tools" }, ...this.#tools),
      el(
        "span",
        { class: "group", role: "group", "aria-label": "Style" },
        this.#fill,
        this.#stroke,
        this.#width,
      ),
      this.#remove,
      undo,
      redo,
      el(
        "span",
        { class: "group", role: "group", "aria-label": "Zoom" },
        button("−", () => actions.onZoom(0.8), { "aria-label": "Smaller" }),
        button("+", () => actions.onZoom(1.25), { "aria-label": "Larger" }),
      ),
    );
    this.element.addEventListener("keydown", (event) => this.#onKey(event));
  }

  /** Makes a tool the chosen one. */
  choose(tool: Tool): void {
    this.tool = tool;
    for (const each of this.#tools) set(each, { "aria-pressed": String(each.dataset.tool === tool) });
    this.#actions.onTool(tool);
  }

  /** The style for a new object. */
  style(kind: string): Properties {
    const fill = kind === "path" || (kind === "note" && this.#fill.value === "none")
      ? null
      : this.#fill.value;
    return {
      "style.fill": fill,
      "style.stroke": this.#stroke.value === USUAL ? null : this.#stroke.value,
      "style.strokeWidth": Number(this.#width.value),
    };
  }

  /** Shows the style of what is selected. */
  show(object: BoardObject | undefined, isFixed: boolean): void {
    this.#remove.disabled = object === undefined || isFixed;
    if (object === undefined) return;
    const { properties, kind } = object;
    this.#fill.value = valueIn(FILLS, properties["style.fill"], kind === "note" ? "#fde68a" : "none");
    this.#stroke.value = valueIn(STROKES, properties["style.stroke"], USUAL);
    this.#width.value = valueIn(WIDTHS, String(properties["style.strokeWidth"] ?? 2), "2");
  }

  setReadOnly(isReadOnly: boolean): void {
    this.#isReadOnly = isReadOnly;
    for (const control of this.#changing) control.disabled = isReadOnly;
    if (isReadOnly) this.choose("select");
  }

  #picked(tool: Tool, event: MouseEvent): void {
    // A click by keyboard has no count: there is no pointer to draw with, so the object is made at once.
    if (event.detail === 0 && tool !== "select" && tool !== "path") this.#actions.onInsert(tool);
    else this.choose(tool);
  }

  #styled(): void {
    this.#actions.onStyle({
      "style.fill": this.#fill.value,
      "style.stroke": this.#stroke.value === USUAL ? null : this.#stroke.value,
      "style.strokeWidth": Number(this.#width.value),
    });
  }

  #onKey(event: KeyboardEvent): void {
    if (this.#isReadOnly || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target instanceof HTMLSelectElement) return;
    const found = TOOLS.find(([, , key]) => key === event.key.toLowerCase());
    if (found !== undefined) this.choose(found[0]);
  }
}

function valueIn(options: readonly (readonly [string, string])[], value: unknown, otherwise: string): string {
  return options.some(([option]) => option === value) ? value as string : otherwise;
}
