/** The text editor: CodeMirror on the shared text, with the cursors of others. */
import { defaultKeymap } from "@codemirror/commands";
import { openSearchPanel, search, searchKeymap } from "@codemirror/search";
import { Annotation, Compartment, EditorState, type Range, RangeSet } from "@codemirror/state";
import {
  Decoration,
  type DecorationSet,
  drawSelection,
  EditorView,
  keymap,
  placeholder,
  ViewPlugin,
  type ViewUpdate,
  WidgetType,
} from "@codemirror/view";
import { yCollab, yUndoManagerKeymap } from "y-codemirror.next";
import type { Awareness } from "y-protocols/awareness";
import * as Y from "yjs";
import { button, el } from "../dom.ts";
import type { Editor, EditorContext } from "./editor.ts";
import { asRecord } from "../unknown_value.ts";
import { peopleOf } from "./people.ts";

/** Makes the editor. */
export function textEditor({ client, signal }: EditorContext): Editor {
  const text = client.doc.getText("content");
  const undoManager = new Y.UndoManager(text);
  const writable = new Compartment();
  const editing = (isReadOnly: boolean) => [
    EditorState.readOnly.of(isReadOnly),
    EditorView.contentAttributes.of({ "aria-readonly": String(isReadOnly) }),
  ];
  const view = new EditorView({
    state: EditorState.create({
      doc: text.toString(),
      extensions: [
        // The style that the editor makes for itself passes the page's policy by this.
        EditorView.cspNonce.of(styleNonce()),
        // Positions are those of the shared text, where a carriage return is a character like any other.
        EditorState.lineSeparator.of("\n"),
        writable.of(editing(false)),
        keymap.of([...yUndoManagerKeymap, ...searchKeymap, ...defaultKeymap]),
        yCollab(text, null, { undoManager }),
        remoteCursors(text, client.awareness),
        drawSelection(),
        search({ top: true }),
        EditorView.lineWrapping,
        EditorView.contentAttributes.of({ "aria-label": "Text", spellcheck: "true" }),
        placeholder("Write here…"),
      ],
    }),
  });
  signal.addEventListener("abort", () => {
    view.destroy();
    undoManager.destroy();
  });

  const undo = button("Undo", () => undoManager.undo());
  const redo = button("Redo", () => undoManager.redo());
  const find = button("Find", () => openSearchPanel(view));
  const toolbar = el("div", { class: "toolbar", role: "toolbar", "aria-label": "Text" }, undo, redo, find);

  return {
    element: el("div", { class: "editor text-editor" }, toolbar, view.dom),
    setReadOnly(isReadOnly) {
      view.dispatch({ effects: writable.reconfigure(editing(isReadOnly)) });
      undo.disabled = redo.disabled = isReadOnly;
    },
    selected() {
      const { from, to } = view.state.selection.main;
      return from === to ? undefined : `${from}:${to - from}`;
    },
    focus: () => view.focus(),
  };
}

function styleNonce(): string {
  return document.querySelector<HTMLMetaElement>('meta[name="style-nonce"]')?.content ?? "";
}

/** Somebody's cursor has moved. */
const moved = Annotation.define<true>();

/** Shows where others are, and tells them where we are. */
function remoteCursors(text: Y.Text, awareness: Awareness) {
  return ViewPlugin.fromClass(
    class {
      decorations: DecorationSet = RangeSet.empty;
      readonly #stop: () => void;

      constructor(view: EditorView) {
        const onChange = ({ added, updated, removed }: Record<"added" | "updated" | "removed", number[]>) => {
          const others = [...added, ...updated, ...removed].some((id) => id !== awareness.clientID);
          if (others) view.dispatch({ annotations: moved.of(true) });
        };
        awareness.on("change", onChange);
        this.#stop = () => awareness.off("change", onChange);
        this.decorations = decorationsOf(view.state, text, awareness);
      }

      update({ view, state, docChanged, selectionSet, focusChanged, transactions }: ViewUpdate): void {
        if (selectionSet || docChanged || focusChanged) tellCursor(view, text, awareness);
        if (docChanged || transactions.some((transaction) => transaction.annotation(moved))) {
          this.decorations = decorationsOf(state, text, awareness);
        }
      }

      destroy(): void {
        this.#stop();
      }
    },
    { decorations: (plugin) => plugin.decorations },
  );
}

/** Tells where our cursor is, as a place that moves with the text. */
function tellCursor(view: EditorView, text: Y.Text, awareness: Awareness): void {
  const { anchor, head } = view.state.selection.main;
  const at = (index: number) => Y.createRelativePositionFromTypeIndex(text, index);
  const cursor = view.hasFocus ? { anchor: at(anchor), head: at(head) } : null;
  const before = awareness.getLocalState()?.cursor;
  if (JSON.stringify(before ?? null) === JSON.stringify(cursor)) return;
  awareness.setLocalStateField("cursor", cursor);
}

function decorationsOf(state: EditorState, text: Y.Text, awareness: Awareness): DecorationSet {
  const ranges: Range<Decoration>[] = [];
  for (const { name, color, isMe, state: told } of peopleOf(awareness)) {
    if (isMe) continue;
    const cursor = asRecord(told.cursor);
    const anchor = indexOf(cursor.anchor, text);
    const head = indexOf(cursor.head, text);
    if (anchor === undefined || head === undefined || Math.max(anchor, head) > state.doc.length) continue;
    if (anchor !== head) {
      ranges.push(
        Decoration.mark({ class: "remote-selection", attributes: { style: `--user: ${color}` } })
          .range(Math.min(anchor, head), Math.max(anchor, head)),
      );
    }
    ranges.push(
      Decoration.widget({ widget: new Caret(name, color), side: head > anchor ? -1 : 1 }).range(head),
    );
  }
  return Decoration.set(ranges, true);
}

/** Where a told place is now; undefined for what is none. */
function indexOf(told: unknown, text: Y.Text): number | undefined {
  if (typeof told !== "object" || told === null) return undefined;
  try {
    const position = Y.createRelativePositionFromJSON(told);
    const absolute = Y.createAbsolutePositionFromRelativePosition(position, text.doc!);
    return absolute?.type === text ? absolute.index : undefined;
  } catch {
    // What others tell of themselves may be anything: a cursor that is none is not shown.
    return undefined;
  }
}

/** The cursor of somebody else, with the name above it. */
class Caret extends WidgetType {
  constructor(readonly name: string, readonly color: string) {
    super();
  }

  override toDOM(): HTMLElement {
    const caret = el(
      "span",
      { class: "remote-caret", "aria-hidden": "true" },
      el("span", { class: "remote-name" }, this.name),
    );
    caret.style.setProperty("--user", this.color);
    return caret;
  }

  override eq(other: Caret): boolean {
    return other.name === this.name && other.color === this.color;
  }

  override ignoreEvent(): boolean {
    return true;
  }
}
