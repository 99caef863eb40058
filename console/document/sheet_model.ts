/** A sheet's cells in the shared document: one flat map of `<cell>/value` and `<cell>/style.<name>`. */
import * as Y from "yjs";
import { asRecord } from "../unknown_value.ts";

/** What a cell holds. */
export type CellValue = string | number | boolean | undefined;

/** A cell as it is shown. */
export interface Cell {
  readonly value: CellValue;
  readonly isBold: boolean;
}

/** Columns and rows that are shown, at least and at most: each is an element of the page. */
export const COLUMNS = { least: 12, most: 52 } as const;
export const ROWS = { least: 50, most: 500 } as const;

/** Origin of what this page changes, for undoing. */
const ORIGIN = "sheet";

const CELL = /^([A-Z]{1,3})([1-9]\d{0,6})$/;

/** A cell's place; both count from 0. */
export interface CellPlace {
  readonly column: number;
  readonly row: number;
}

/** `{column: 27, row: 2}` → `AB3` */
export function cellName({ column, row }: CellPlace): string {
  return `${columnName(column)}${row + 1}`;
}

/** 27 → `AB` */
export function columnName(column: number): string {
  let name = "";
  for (let rest = column + 1; rest > 0; rest = Math.floor((rest - 1) / 26)) {
    name = String.fromCharCode(65 + (rest - 1) % 26) + name;
  }
  return name;
}

/** The place of a cell's name; undefined for what is none. */
export function placeOfCell(name: string): CellPlace | undefined {
  const match = CELL.exec(name);
  if (match === null) return undefined;
  let column = 0;
  for (const letter of match[1]!) column = column * 26 + letter.charCodeAt(0) - 64;
  return { column: column - 1, row: Number(match[2]) - 1 };
}

/** What somebody typed as a value: a number where it is one. */
export function valueOfText(text: string): CellValue {
  if (text === "") return undefined;
  const trimmed = text.trim();
  return /^-?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(trimmed) && Number.isFinite(Number(trimmed))
    ? Number(trimmed)
    : text;
}

/** Reads and changes the cells of a document. */
export class SheetModel {
  readonly undoManager: Y.UndoManager;
  readonly #doc: Y.Doc;
  readonly #cells: Y.Map<unknown>;

  constructor(doc: Y.Doc) {
    this.#doc = doc;
    this.#cells = doc.getMap("cells");
    this.undoManager = new Y.UndoManager(this.#cells, {
      trackedOrigins: new Set([ORIGIN]),
      captureTimeout: 0,
    });
  }

  get(name: string): Cell {
    return {
      value: cellValue(this.#cells.get(`${name}/value`)),
      isBold: this.#cells.get(`${name}/style.bold`) === true,
    };
  }

  /** Names of the cells that hold something. */
  *names(): Iterable<string> {
    for (const key of this.#cells.keys()) {
      const slash = key.indexOf("/");
      if (CELL.test(key.slice(0, slash))) yield key.slice(0, slash);
    }
  }

  /** Width of a column in pixels, if one was set. */
  width(column: string): number | undefined {
    const width = this.#cells.get(`${column}/width`);
    return typeof width === "number" && Number.isFinite(width)
      ? Math.min(Math.max(width, 30), 600)
      : undefined;
  }

  setValue(name: string, value: CellValue): void {
    this.#set(`${name}/value`, value);
  }

  setBold(name: string, isBold: boolean): void {
    this.#set(`${name}/style.bold`, isBold ? true : undefined);
  }

  setWidth(column: string, width: number): void {
    this.#set(`${column}/width`, width);
  }

  /** Calls with the cells, columns and rows that each change touched; returns what ends that. */
  observe(onChange: (names: ReadonlySet<string>) => void): () => void {
    const observer = ({ keysChanged }: Y.YMapEvent<unknown>) => {
      onChange(new Set([...keysChanged].map((key) => key.slice(0, key.indexOf("/")))));
    };
    this.#cells.observe(observer);
    return () => this.#cells.unobserve(observer);
  }

  #set(key: string, value: unknown): void {
    this.#doc.transact(() => {
      if (value === undefined) this.#cells.delete(key);
      else if (this.#cells.get(key) !== value) this.#cells.set(key, value);
    }, ORIGIN);
  }
}

/** The cells of a content in the canonical form: `{"cells":{"A1":{"value":…}}}`. */
export function cellsOfContent(content: string): Map<string, CellValue> {
  const cells = asRecord(asRecord(JSON.parse(content || "{}")).cells);
  return new Map(Object.entries(cells).map(([name, cell]) => [name, cellValue(asRecord(cell).value)]));
}

function cellValue(value: unknown): CellValue {
  switch (typeof value) {
    case "string":
    case "number":
    case "boolean":
      return value;
    default:
      return value === undefined || value === null ? undefined : JSON.stringify(value);
  }
}
