/** Comments: read from the shared document, written by operations, which commenters may do who may not edit. */
import { call, documentPath } from "../../api.ts";
import { button, el, field } from "../../dom.ts";
import { ago } from "../../format.ts";
import { nameOfUser } from "../../users.ts";
import { act, emptyLine, throttled } from "../../view.ts";
import { type Desk, mayAtLeast, type Panel } from "../desk.ts";

/** Comments that are shown, newest last. */
const SHOWN_MAX = 200;
/** Longest comment, in characters: 16 KiB of UTF-8 at worst. */
const BODY_CHARS_MAX = 4_000;
/** How often the list is drawn at most, in ms. */
const DRAW_MS = 200;

/** One comment. */
interface Comment {
  readonly id: string;
  readonly author: string;
  readonly body: string;
  readonly anchor: string;
  readonly isResolved: boolean;
  readonly createdAt: string | undefined;
}

/** Makes the panel. */
export function commentsPanel({ record, access, me, signal, client, selected }: Desk): Panel {
  const comments = client.doc.getMap("comments");
  const list = el("ul", { class: "plain stack", "aria-label": "Comments" });
  const body = el("textarea", { rows: 3, maxlength: BODY_CHARS_MAX, required: true });
  const submit = el("button", { class: "primary" }, "Comment");
  const mayComment = mayAtLeast(access, "comment");

  function operate(type: string, comment: Readonly<Record<string, unknown>>): Promise<unknown> {
    return call("POST", documentPath(record.id, "/operations"), { body: { type, comment } });
  }

  function add(event: SubmitEvent): void {
    event.preventDefault();
    void act(submit, async () => {
      await operate("create", { body: body.value.trim(), anchor: selected() ?? "" });
      body.value = "";
    });
  }

  function draw(): void {
    const all = commentsOf(comments);
    list.replaceChildren(
      ...all.length === 0 ? [el("li", {}, emptyLine("There are no comments."))] : all.map(card),
    );
  }

  function card({ id, author, body, anchor, isResolved, createdAt }: Comment): HTMLElement {
    const remove = button("Delete", () => void act(remove, () => operate("delete", { commentId: id })));
    const resolve = button(
      "Resolve",
      () => void act(resolve, () => operate("update", { commentId: id, body, anchor, resolved: true })),
    );
    const isMine = author === me.userId || author === me.name || mayAtLeast(access, "manage");
    return el(
      "li",
      { class: `card stack${isResolved ? " resolved" : ""}` },
      el(
        "p",
        { class: "small muted" },
        `${nameOfUser(author)} · ${ago(createdAt)}${anchor === "" ? "" : ` · on ${anchor}`}`,
        isResolved && el("span", { class: "chip ok" }, "resolved"),
      ),
      el("p", { class: "edit" }, body),
      isMine && mayComment && el("div", { class: "row" }, !isResolved && resolve, remove),
    );
  }

  const later = throttled(DRAW_MS, draw);
  comments.observe(later);
  signal.addEventListener("abort", () => comments.unobserve(later));
  draw();
  return {
    title: "Comments",
    element: el(
      "div",
      { class: "stack" },
      mayComment && el("form", { class: "stack", onsubmit: add }, field("New comment", body), submit),
      list,
    ),
    refresh: () => Promise.resolve(draw()),
    concerns: () => false,
    isAlwaysFresh: false,
  };
}

/** The comments of the shared map, `<comment>/<field>`; oldest first. */
function commentsOf(
  map: ReadonlyMap<string, unknown> | { entries(): Iterable<[string, unknown]> },
): Comment[] {
  const fields = new Map<string, Record<string, unknown>>();
  for (const [key, value] of map.entries()) {
    const slash = key.indexOf("/");
    const id = key.slice(0, slash);
    const found = fields.get(id) ?? {};
    found[key.slice(slash + 1)] = value;
    fields.set(id, found);
  }
  const comments = [...fields].filter(([, { body }]) => typeof body === "string").map(([id, found]) => ({
    id,
    author: String(found.author ?? ""),
    body: String(found.body),
    anchor: typeof found.anchor === "string" ? found.anchor : "",
    isResolved: found.resolved === true,
    createdAt: timeOf(found.createdAt),
  }));
  comments.sort((a, b) => (a.createdAt ?? "") < (b.createdAt ?? "") ? -1 : 1);
  return comments.slice(-SHOWN_MAX);
}

function timeOf(value: unknown): string | undefined {
  if (typeof value !== "number" && typeof value !== "string") return undefined;
  const at = new Date(value);
  return Number.isNaN(at.getTime()) ? undefined : at.toISOString();
}
