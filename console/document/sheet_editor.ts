/** The sheet: a grid with one cell in the order of focus, which the keyboard moves. */
import { button, el, set } from "../dom.ts";
import { throttled } from "../view.ts";
import type { Editor, EditorContext } from "./editor.ts";
import { peopleOf } from "./people.ts";
import {
  cellName,
  type CellPlace,
  cellsOfContent,
  columnName,
  COLUMNS,
  placeOfCell,
  ROWS,
  SheetModel,
  valueOfText,
} from "./sheet_model.ts";

/** Rows that Page Up and Page Down move by. */
const PAGE_ROWS = 20;
/** Longest text of a cell, in characters. */
const CELL_CHARS_MAX = 10_000;
/** How much a press of a button widens a column, in pixels. */
const WIDTH_STEP = 24;
const USUAL_WIDTH = 96;
/** How often the cells of others are drawn, in ms. */
const PEOPLE_MS = 100;

/** Makes the editor. */
export function sheetEditor({ client, signal }: EditorContext): Editor {
  const model = new SheetModel(client.doc);
  const size = { columns: 0, rows: 0 };
  const cells = new Map<string, HTMLTableCellElement>();
  let at: CellPlace = { column: 0, row: 0 };
  let isReadOnly = false;
  let locked: ReadonlyMap<string, string> = new Map();
  let typing: HTMLInputElement | undefined;

  const columns: HTMLTableColElement[] = [];
  const columnGroup = el("colgroup", {}, el("col", { class: "row-head" }));
  const heads = el("tr", {}, el("td"));
  const body = el("tbody");
  const grid = el(
    "table",
    { class: "grid", role: "grid", "aria-label": "Sheet" },
    columnGroup,
    el("thead", {}, heads),
    body,
  );
  const place = el("span", { class: "cell-name", "aria-hidden": "true" }, "A1");
  const line = el("input", {
    class: "grow",
    "aria-label": "Content of the cell",
    maxlength: CELL_CHARS_MAX,
    onkeydown: (event: KeyboardEvent) => {
      if (event.key === "Enter") {
        commit(line.value);
        focusCell();
      } else if (event.key === "Escape") {
        line.value = shownText(model.get(cellName(at)).value);
        focusCell();
      }
    },
    onchange: () => commit(line.value),
  });
  const bold = button("Bold", () => model.setBold(cellName(at), !model.get(cellName(at)).isBold));
  const narrower = button("Narrower", () => widen(-WIDTH_STEP));
  const wider = button("Wider", () => widen(WIDTH_STEP));
  const undo = button("Undo", () => model.undoManager.undo());
  const redo = button("Redo", () => model.undoManager.redo());
  const toolbar = el(
    "div",
    { class: "toolbar", role: "toolbar", "aria-label": "Sheet" },
    place,
    line,
    bold,
    narrower,
    wider,
    undo,
    redo,
  );

  grid.addEventListener("keydown", onKey);
  grid.addEventListener("focusin", ({ target }) => {
    const name = (target as HTMLElement).dataset?.cell;
    if (name !== undefined) moveTo(placeOfCell(name)!);
  });
  grid.addEventListener("dblclick", () => type(undefined));
  const stopObserving = model.observe((names) => {
    grow();
    names.forEach(show);
  });
  const onAwareness = throttled(PEOPLE_MS, showPeople);
  client.awareness.on("change", onAwareness);
  signal.addEventListener("abort", () => {
    stopObserving();
    client.awareness.off("change", onAwareness);
    model.undoManager.destroy();
  });
  grow();
  set(cells.get(cellName(at))!, { tabindex: 0 });
  for (const name of new Set(model.names())) show(name);
  show(cellName(at));

  /** Adds columns and rows until what is used has room. */
  function grow(): void {
    const wanted = sizeOf(model.names());
    while (size.columns < wanted.columns) {
      const column = size.columns++;
      const width = el("col");
      columns.push(width);
      columnGroup.append(width);
      heads.append(el("th", { scope: "col" }, columnName(column)));
      for (let row = 0; row < size.rows; row++) body.rows[row]!.append(fieldOf({ column, row }));
      showWidth(columnName(column));
    }
    while (size.rows < wanted.rows) {
      const row = size.rows++;
      const fields = columns.map((_, column) => fieldOf({ column, row }));
      body.append(el("tr", {}, el("th", { scope: "row" }, String(row + 1)), ...fields));
    }
    set(grid, { "aria-rowcount": size.rows + 1, "aria-colcount": size.columns + 1 });
  }

  function fieldOf(place: CellPlace): HTMLTableCellElement {
    const name = cellName(place);
    const field = el("td", { role: "gridcell", tabindex: -1, "data-cell": name });
    cells.set(name, field);
    return field;
  }

  /** Shows what a cell or a column is now; others are not on this page. */
  function show(name: string): void {
    const field = cells.get(name);
    if (field === undefined) return showWidth(name);
    const { value, isBold } = model.get(name);
    const text = shownText(value);
    if (typing?.parentElement !== field && field.textContent !== text) field.textContent = text;
    field.classList.toggle("bold", isBold);
    field.classList.toggle("number", typeof value === "number");
    if (name !== cellName(at)) return;
    if (document.activeElement !== line) line.value = text;
    set(bold, { "aria-pressed": String(isBold) });
  }

  function showWidth(name: string): void {
    const column = columns.findIndex((_, index) => columnName(index) === name);
    if (column >= 0) columns[column]!.style.width = `${model.width(name) ?? USUAL_WIDTH}px`;
  }

  function showPeople(): void {
    for (const field of grid.querySelectorAll<HTMLElement>("td.others")) {
      field.classList.remove("others");
      field.removeAttribute("title");
    }
    for (const { isMe, name, color, state } of peopleOf(client.awareness)) {
      const field = isMe || typeof state.cell !== "string" ? undefined : cells.get(state.cell);
      if (field === undefined) continue;
      field.classList.add("others");
      field.style.setProperty("--user", color);
      field.title = name;
    }
  }

  function mayChange(name: string): boolean {
    return !isReadOnly && !locked.has(name);
  }

  function moveTo(next: CellPlace): void {
    const name = cellName(next);
    if (name !== cellName(at)) set(cells.get(cellName(at))!, { tabindex: -1 });
    at = next;
    set(cells.get(name)!, { tabindex: 0 });
    place.textContent = name;
    show(name);
    line.readOnly = !mayChange(name);
    for (const control of [bold, narrower, wider]) control.disabled = !mayChange(name);
    client.awareness.setLocalStateField("cell", name);
  }

  function focusCell(): void {
    cells.get(cellName(at))!.focus();
  }

  function go(columns: number, rows: number): void {
    moveTo({
      column: Math.min(Math.max(at.column + columns, 0), size.columns - 1),
      row: Math.min(Math.max(at.row + rows, 0), size.rows - 1),
    });
    focusCell();
  }

  function commit(text: string): void {
    const name = cellName(at);
    const value = valueOfText(text);
    if (mayChange(name) && value !== model.get(name).value) model.setValue(name, value);
    show(name);
  }

  /** Opens the cell for typing; `first` is the character that did it, in place of what was there. */
  function type(first: string | undefined): void {
    const name = cellName(at);
    const field = cells.get(name)!;
    if (!mayChange(name) || typing !== undefined) return;
    const input = el("input", { "aria-label": `Cell ${name}`, maxlength: CELL_CHARS_MAX });
    input.value = first ?? shownText(model.get(name).value);
    typing = input;
    field.replaceChildren(input);
    input.focus();
    input.addEventListener("blur", () => done(true));
    input.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Escape") finish(false, 0, 0);
      else if (event.key === "Enter") finish(true, 0, event.shiftKey ? -1 : 1);
      else if (event.key === "Tab") {
        event.preventDefault();
        finish(true, event.shiftKey ? -1 : 1, 0);
      }
    });

    function finish(isTaken: boolean, columns: number, rows: number): void {
      done(isTaken);
      go(columns, rows);
    }

    function done(isTaken: boolean): void {
      if (typing !== input) return;
      typing = undefined;
      const next = valueOfText(input.value);
      field.replaceChildren();
      if (isTaken && next !== model.get(name).value) model.setValue(name, next);
      show(name);
    }
  }

  function widen(by: number): void {
    const column = columnName(at.column);
    model.setWidth(column, Math.min(600, Math.max(48, (model.width(column) ?? USUAL_WIDTH) + by)));
  }

  function onKey(event: KeyboardEvent): void {
    const isCommand = event.ctrlKey || event.metaKey;
    if (isCommand && event.key.toLowerCase() === "z") {
      event.preventDefault();
      if (event.shiftKey) model.undoManager.redo();
      else model.undoManager.undo();
      return;
    }
    const step = STEPS[event.key];
    if (step !== undefined) {
      event.preventDefault();
      go(...step);
    } else if (event.key === "Home") {
      event.preventDefault();
      go(-size.columns, isCommand ? -size.rows : 0);
    } else if (event.key === "Enter" || event.key === "F2") {
      event.preventDefault();
      type(undefined);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      event.preventDefault();
      commit("");
    } else if (event.key.length === 1 && !isCommand && !event.altKey) {
      event.preventDefault();
      type(event.key);
    }
  }

  return {
    element: el(
      "div",
      { class: "editor sheet-editor" },
      toolbar,
      el("div", { class: "grid-scroller" }, grid),
    ),
    setReadOnly(value) {
      isReadOnly = value;
      set(grid, { "aria-readonly": String(value) });
      undo.disabled = redo.disabled = value;
      for (const control of [bold, narrower, wider]) control.disabled = value;
      line.readOnly = value;
    },
    setLocked(holders) {
      for (const name of locked.keys()) cells.get(name)?.classList.remove("locked");
      locked = holders;
      for (const name of locked.keys()) cells.get(name)?.classList.add("locked");
    },
    selected: () => cellName(at),
    focus: focusCell,
  };
}

/** A still picture of a sheet's content, for versions that are looked at. */
export function sheetPicture(content: string): HTMLElement {
  const values = cellsOfContent(content);
  const { columns, rows } = usedOf(values.keys());
  return el(
    "div",
    { class: "grid-scroller" },
    el(
      "table",
      { class: "grid" },
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          el("td"),
          ...Array.from({ length: columns }, (_, column) => el("th", {}, columnName(column))),
        ),
      ),
      el(
        "tbody",
        {},
        ...Array.from({ length: rows }, (_, row) =>
          el(
            "tr",
            {},
            el("th", {}, String(row + 1)),
            ...Array.from(
              { length: columns },
              (_, column) => el("td", {}, shownText(values.get(cellName({ column, row })))),
            ),
          )),
      ),
    ),
  );
}

const STEPS: Readonly<Record<string, [columns: number, rows: number]>> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
  PageUp: [0, -PAGE_ROWS],
  PageDown: [0, PAGE_ROWS],
};

function shownText(value: string | number | boolean | undefined): string {
  return value === undefined ? "" : String(value);
}

/** Columns and rows that hold something. */
function usedOf(names: Iterable<string>) {
  let columns = 1;
  let rows = 1;
  for (const name of names) {
    const place = placeOfCell(name);
    if (place === undefined || place.column >= COLUMNS.most || place.row >= ROWS.most) continue;
    columns = Math.max(columns, place.column + 1);
    rows = Math.max(rows, place.row + 1);
  }
  return { columns, rows };
}

function sizeOf(names: Iterable<string>) {
  const used = usedOf(names);
  return {
    columns: Math.min(COLUMNS.most, Math.max(COLUMNS.least, used.columns + 2)),
    rows: Math.min(ROWS.most, Math.max(ROWS.least, used.rows + 10)),
  };
}
