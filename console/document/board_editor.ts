/** The whiteboard: drawing, moving, resizing, styling and writing, with pointer or keyboard.
 *
 *      tool ─ pointer down ─┬ select: on an object ─► move it, on its handle ─► resize it, elsewhere ─► nothing selected
 *                           ├ pen ─► a stroke grows ─► pointer up: an object
 *                           └ shape ─► it spans from here ─► pointer up: an object
 */
import { el, set, svg } from "../dom.ts";
import { throttled } from "../view.ts";
import { BOARD, BoardModel, type BoardObject, inOrder, type Properties } from "./board_model.ts";
import { draw } from "./board_picture.ts";
import { type Point, strokeOf } from "./board_stroke.ts";
import { BoardToolbar } from "./board_toolbar.ts";
import type { Editor, EditorContext } from "./editor.ts";
import { asRecord } from "../unknown_value.ts";
import { peopleOf } from "./people.ts";

/** Smallest width and height of an object, in units of the paper. */
const SIZE_MIN = 8;
/** How far the arrow keys move, alone and with Shift. */
const STEP = 1;
const LONG_STEP = 10;
/** How often a drag is written to the document, in ms: each write travels to everybody and to disk. */
const DRAG_MS = 60;
/** How often the pointer is told, in ms. */
const POINTER_MS = 80;
/** Places of one stroke; the pen writes no further then. */
const STROKE_PLACES_MAX = 20_000;
/** Size of shapes made by keyboard or by a click without a drag. */
const NEW_SIZE = { width: 160, height: 100 } as const;

/** What the pointer is doing. */
type Drag =
  | {
    readonly kind: "move" | "resize";
    readonly id: string;
    readonly from: Point;
    readonly before: BoardObject;
  }
  | { readonly kind: "pen"; readonly places: Point[]; readonly line: SVGPolylineElement }
  | { readonly kind: "span"; readonly shape: string; readonly from: Point; readonly frame: SVGRectElement };

/** An object on its way to another place or size. */
interface Pull {
  readonly kind: "move" | "resize";
  readonly id: string;
  readonly from: Point;
  readonly before: BoardObject;
}

/** Makes the editor. */
export function boardEditor({ client, signal }: EditorContext): Editor {
  const model = new BoardModel(client.doc);
  const groups = new Map<string, SVGGElement>();
  let objects = new Map<string, BoardObject>();
  let locked: ReadonlyMap<string, string> = new Map();
  let selection: string | undefined;
  let drag: Drag | undefined;
  let isReadOnly = false;
  let zoom = 1;
  /** Where the dragged object is to go. */
  let pending: { readonly id: string; readonly properties: Properties } | undefined;

  const objectLayer = svg("g");
  const frame = svg("rect", { class: "selection", hidden: true });
  const handle = svg("rect", { class: "handle", width: 14, height: 14, hidden: true });
  const draftLayer = svg("g");
  const pointerLayer = svg("g", { class: "pointers", "aria-hidden": "true" });
  const board = svg(
    "svg",
    {
      class: "board",
      viewBox: `0 0 ${BOARD.width} ${BOARD.height}`,
      role: "group",
      "aria-label":
        "Whiteboard. Tab goes from object to object, arrow keys move one, with Alt they resize it, " +
        "Enter writes in it, Delete removes it.",
    },
    objectLayer,
    frame,
    handle,
    draftLayer,
    pointerLayer,
  );
  const scroller = el("div", { class: "board-scroller" }, board);
  const bar = new BoardToolbar({
    onTool(tool) {
      set(board, { "data-tool": tool });
      // What is styled now is what is drawn next.
      if (tool !== "select") select(undefined);
    },
    onInsert: (kind) => insert(kind, centre()),
    onStyle: (properties) => {
      if (selection === undefined || !mayChange(selection)) return;
      model.step();
      model.set(selection, properties);
    },
    onRemove: () => selection !== undefined && remove(selection),
    onUndo: () => model.undoManager.undo(),
    onRedo: () => model.undoManager.redo(),
    onZoom: (factor) => setZoom(zoom * factor),
  });

  board.addEventListener("pointerdown", onDown);
  board.addEventListener("pointermove", onMove);
  board.addEventListener("pointerup", onUp);
  board.addEventListener("pointercancel", onUp);
  board.addEventListener("pointerleave", () => tellPointer(undefined));
  board.addEventListener("dblclick", () => selection !== undefined && write(selection));
  const stopObserving = model.observe(redraw);
  const onAwareness = throttled(POINTER_MS, drawPointers);
  client.awareness.on("change", onAwareness);
  signal.addEventListener("abort", () => {
    stopObserving();
    client.awareness.off("change", onAwareness);
    model.undoManager.destroy();
  });
  setZoom(1);
  redraw(new Set(model.ids()));

  // ---- drawing

  function redraw(ids: ReadonlySet<string>): void {
    const changed = model.read(ids);
    for (const id of ids) {
      const object = changed.get(id);
      if (object !== undefined) {
        objects.set(id, object);
        const group = groups.get(id) ?? made(id);
        draw(group, object);
        markLocked(id, group);
      } else if (objects.delete(id)) {
        groups.get(id)?.remove();
        groups.delete(id);
        if (selection === id) select(undefined);
      }
    }
    arrange();
    drawSelection();
  }

  function made(id: string): SVGGElement {
    const group = svg("g", {
      tabindex: 0,
      role: "button",
      "data-id": id,
      onfocus: () => select(id),
      onkeydown: (event: KeyboardEvent) => onKey(event, id),
    });
    groups.set(id, group);
    objectLayer.append(group);
    return group;
  }

  /** Puts the groups in their order, and moves only those that are not: moving one takes its focus away. */
  function arrange(): void {
    objects = new Map(inOrder(objects.values()).map((object) => [object.id, object]));
    let at = objectLayer.firstElementChild;
    for (const id of objects.keys()) {
      const group = groups.get(id)!;
      if (group === at) at = at.nextElementSibling;
      else objectLayer.insertBefore(group, at);
    }
  }

  function drawSelection(): void {
    const object = selection === undefined ? undefined : objects.get(selection);
    const place = object && {
      x: object.x - 4,
      y: object.y - 4,
      width: object.width + 8,
      height: object.height + 8,
    };
    set(frame, { ...place, hidden: object === undefined });
    const isMine = object !== undefined && mayChange(object.id);
    set(handle, {
      hidden: !isMine,
      x: object && object.x + object.width - 3,
      y: object && object.y + object.height - 3,
    });
    bar.show(object, isReadOnly || !isMine);
  }

  function drawPointers(): void {
    const elements: SVGElement[] = [];
    for (const { isMe, name, color, state } of peopleOf(client.awareness)) {
      if (isMe) continue;
      const { x, y } = asRecord(state.pointer);
      if (typeof x === "number" && typeof y === "number" && Number.isFinite(x + y)) {
        elements.push(svg(
          "g",
          { transform: `translate(${x} ${y}) scale(${1 / zoom})` },
          svg("path", { d: "M0 0 5 15 8 9 15 8Z", fill: color, stroke: "#fff" }),
          svg("text", { x: 14, y: 24, fill: color, class: "pointer-name" }, name),
        ));
      }
      const held = typeof state.selected === "string" ? objects.get(state.selected) : undefined;
      if (held !== undefined) elements.push(heldFrame(held, color));
    }
    pointerLayer.replaceChildren(...elements);
  }

  function markLocked(id: string, group: SVGGElement): void {
    const holder = locked.get(id);
    group.classList.toggle("locked", holder !== undefined);
    set(group, { "aria-description": holder && `locked by ${holder}` });
  }

  function setZoom(next: number): void {
    zoom = Math.min(4, Math.max(0.25, next));
    set(board, { width: BOARD.width * zoom, height: BOARD.height * zoom });
  }

  // ---- changing

  function mayChange(id: string): boolean {
    return !isReadOnly && !locked.has(id);
  }

  function select(id: string | undefined): void {
    if (selection === id) return;
    selection = id;
    client.awareness.setLocalStateField("selected", id ?? null);
    for (const [each, group] of groups) set(group, { "aria-pressed": String(each === id) });
    drawSelection();
  }

  function insert(kind: string, at: Point, size: { width: number; height: number } = NEW_SIZE): void {
    if (isReadOnly) return;
    const id = model.create(kind, {
      x: clamp(at.x, 0, BOARD.width - size.width),
      y: clamp(at.y, 0, BOARD.height - size.height),
      width: Math.round(size.width),
      height: Math.round(size.height),
      ...topLevel(),
      ...bar.style(kind),
    });
    bar.choose("select");
    groups.get(id)?.focus();
    if (kind === "note") write(id);
  }

  function topLevel(): Properties {
    const levels = [...objects.values()].map(({ properties: { z } }) => typeof z === "number" ? z : 0);
    return { z: Math.min(Number.MAX_SAFE_INTEGER, Math.max(0, ...levels) + 1) };
  }

  function remove(id: string): void {
    if (!mayChange(id)) return;
    const order = [...objects.keys()];
    const next = order[order.indexOf(id) + 1] ?? order[order.indexOf(id) - 1];
    model.remove(id);
    if (next !== undefined) groups.get(next)?.focus();
  }

  /** Opens a field over an object to write its text in. */
  function write(id: string): void {
    const object = objects.get(id);
    if (object === undefined || object.kind === "path" || !mayChange(id)) return;
    model.step();
    const input = el("textarea", {
      class: "board-text",
      "aria-label": `Text of the ${object.kind}`,
      maxlength: 4_000,
      oninput: () => model.setText(id, input.value),
      onkeydown: (event: KeyboardEvent) => {
        event.stopPropagation();
        if (event.key === "Escape") groups.get(id)?.focus();
      },
      onblur: () => input.remove(),
    });
    input.value = object.text;
    Object.assign(input.style, {
      left: `${object.x * zoom}px`,
      top: `${object.y * zoom}px`,
      width: `${Math.max(object.width * zoom, 120)}px`,
      height: `${Math.max(object.height * zoom, 60)}px`,
    });
    scroller.append(input);
    input.focus();
  }

  const writeDrag = throttled(DRAG_MS, () => {
    if (pending === undefined) return;
    const { id, properties } = pending;
    pending = undefined;
    model.set(id, properties);
  });

  // ---- pointer

  function placeOf(event: PointerEvent): Point {
    const { left, top } = board.getBoundingClientRect();
    return { x: (event.clientX - left) / zoom, y: (event.clientY - top) / zoom };
  }

  function onDown(event: PointerEvent): void {
    if (event.button !== 0) return;
    const from = placeOf(event);
    const tool = isReadOnly ? "select" : bar.tool;
    if (tool === "select") return grab(event, from);
    event.preventDefault();
    board.setPointerCapture(event.pointerId);
    if (tool === "path") {
      const line = svg("polyline", { class: "draft" });
      draftLayer.append(line);
      drag = { kind: "pen", places: [from], line };
      return;
    }
    const span = svg("rect", { class: "draft" });
    draftLayer.append(span);
    drag = { kind: "span", shape: tool, from, frame: span };
  }

  function grab(event: PointerEvent, from: Point): void {
    const target = event.target as Element;
    const id = target === handle ? selection : target.closest<SVGGElement>("[data-id]")?.dataset.id;
    if (id === undefined) return select(undefined);
    groups.get(id)?.focus({ preventScroll: true });
    select(id);
    const before = objects.get(id);
    if (before === undefined || !mayChange(id)) return;
    event.preventDefault();
    board.setPointerCapture(event.pointerId);
    model.step();
    drag = { kind: target === handle ? "resize" : "move", id, from, before };
  }

  function onMove(event: PointerEvent): void {
    const at = placeOf(event);
    tellPointer(at);
    if (drag === undefined) return;
    switch (drag.kind) {
      case "pen":
        if (drag.places.length < STROKE_PLACES_MAX) drag.places.push(at);
        set(drag.line, {
          points: drag.places.map(({ x, y }) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" "),
        });
        return;
      case "span":
        set(drag.frame, boxOf(drag.from, at));
        return;
      default:
        pending = { id: drag.id, properties: moved(drag, at) };
        writeDrag();
    }
  }

  function onUp(event: PointerEvent): void {
    const done = drag;
    drag = undefined;
    if (done === undefined) return;
    draftLayer.replaceChildren();
    const at = placeOf(event);
    if (done.kind === "pen") {
      if (done.places.length > 1) {
        model.create("path", { ...strokeOf(done.places), ...topLevel(), ...bar.style("path") });
      }
    } else if (done.kind === "span") {
      const box = boxOf(done.from, at);
      // A click without a drag makes a shape of the usual size around it.
      if (box.width < SIZE_MIN || box.height < SIZE_MIN) insert(done.shape, aroundOf(done.from));
      else insert(done.shape, box, box);
    } else if (pending !== undefined) {
      const { id, properties } = pending;
      pending = undefined;
      model.set(id, properties);
    }
  }

  const tell = throttled(POINTER_MS, () => client.awareness.setLocalStateField("pointer", told ?? null));
  let told: Point | undefined;
  function tellPointer(at: Point | undefined): void {
    told = at && { x: Math.round(at.x), y: Math.round(at.y) };
    tell();
  }

  function centre(): Point {
    const { scrollLeft, scrollTop, clientWidth, clientHeight } = scroller;
    return aroundOf({ x: (scrollLeft + clientWidth / 2) / zoom, y: (scrollTop + clientHeight / 2) / zoom });
  }

  // ---- keyboard

  function onKey(event: KeyboardEvent, id: string): void {
    const object = objects.get(id);
    if (object === undefined) return;
    if (event.key === "Escape") return select(undefined);
    if (!mayChange(id)) return;
    const step = event.shiftKey ? LONG_STEP : STEP;
    const by = ({
      ArrowLeft: [-step, 0],
      ArrowRight: [step, 0],
      ArrowUp: [0, -step],
      ArrowDown: [0, step],
    } as Record<string, [number, number]>)[event.key];
    if (by !== undefined) {
      event.preventDefault();
      const [dx, dy] = by;
      model.set(id, event.altKey ? resizedBy(object, dx, dy) : movedBy(object, dx, dy));
    } else if (event.key === "Delete" || event.key === "Backspace") {
      event.preventDefault();
      remove(id);
    } else if (event.key === "Enter") {
      event.preventDefault();
      write(id);
    } else if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      if (event.shiftKey) model.undoManager.redo();
      else model.undoManager.undo();
    }
  }

  return {
    element: el("div", { class: "editor board-editor" }, bar.element, scroller),
    setReadOnly(value) {
      isReadOnly = value;
      bar.setReadOnly(value);
      drawSelection();
    },
    setLocked(holders) {
      locked = holders;
      for (const [id, group] of groups) markLocked(id, group);
      drawSelection();
    },
    selected: () => selection,
    focus: () => (groups.values().next().value ?? bar.element.querySelector("button"))?.focus(),
  };
}

/** Shows what somebody else has selected. */
function heldFrame({ x, y, width, height }: BoardObject, color: string): SVGElement {
  const frame = svg("rect", { x: x - 3, y: y - 3, width: width + 6, height: height + 6, class: "selection" });
  frame.style.setProperty("--user", color);
  return frame;
}

function moved({ kind, from, before }: Pull, at: Point): Properties {
  const dx = at.x - from.x;
  const dy = at.y - from.y;
  return kind === "resize" ? resizedBy(before, dx, dy) : movedBy(before, dx, dy);
}

function movedBy({ x, y, width, height }: BoardObject, dx: number, dy: number): Properties {
  return { x: clamp(x + dx, 0, BOARD.width - width), y: clamp(y + dy, 0, BOARD.height - height) };
}

function resizedBy({ x, y, width, height }: BoardObject, dx: number, dy: number): Properties {
  return {
    width: clamp(width + dx, SIZE_MIN, BOARD.width - x),
    height: clamp(height + dy, SIZE_MIN, BOARD.height - y),
  };
}

function aroundOf({ x, y }: Point): Point {
  return { x: x - NEW_SIZE.width / 2, y: y - NEW_SIZE.height / 2 };
}

function boxOf(a: Point, b: Point) {
  const x = clamp(Math.min(a.x, b.x), 0, BOARD.width);
  const y = clamp(Math.min(a.y, b.y), 0, BOARD.height);
  return {
    x,
    y,
    width: clamp(Math.abs(a.x - b.x), 1, BOARD.width - x),
    height: clamp(Math.abs(a.y - b.y), 1, BOARD.height - y),
  };
}

function clamp(value: number, min: number, max: number): number {
  return Math.round(Math.min(Math.max(value, min), Math.max(min, max)));
}
