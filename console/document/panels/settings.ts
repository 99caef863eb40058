/** Who may do what with the document, and what becomes of it. */
import { call, documentPath } from "../../api.ts";
import { button, el, field, select } from "../../dom.ts";
import { nameOfUser } from "../../users.ts";
import { act, confirmed, notice } from "../../view.ts";
import type { Desk, Panel } from "../desk.ts";

/** Permissions as the API has them. */
interface Permissions {
  readonly owner?: string;
  readonly editors?: readonly string[];
  readonly commenters?: readonly string[];
  readonly viewers?: readonly string[];
  readonly public?: boolean;
}

/** Makes the panel, for who manages the document. */
export function settingsPanel({ record, signal }: Desk): Panel {
  const lists = {
    editors: el("input", { autocapitalize: "none" }),
    commenters: el("input", { autocapitalize: "none" }),
    viewers: el("input", { autocapitalize: "none" }),
  };
  const isPublic = el("input", { type: "checkbox" });
  const policy = select([["merge", "Merge: both edits stay"], ["lww", "The later edit wins"], [
    "manual",
    "A person decides",
  ]]);
  const owner = el("p", { class: "small muted" });
  const save = el("button", { class: "primary" }, "Save");
  const archive = button("Archive", () => void act(archive, toggleArchive));
  const remove = button("Delete", () => void act(remove, removeDocument), { class: "bad" });
  let permissions: Permissions = {};
  let state = record.state;

  async function refresh(): Promise<void> {
    const { document } = await call<
      { document: { state?: string; conflictPolicy?: string; metadata?: { permissions?: Permissions } } }
    >("GET", documentPath(record.id), { query: { withoutContent: true }, signal });
    permissions = document.metadata?.permissions ?? {};
    state = document.state;
    owner.textContent = `Owner: ${nameOfUser(permissions.owner)}`;
    for (const [name, input] of Object.entries(lists)) {
      input.value = (permissions[name as keyof typeof lists] ?? []).join(", ");
    }
    isPublic.checked = permissions.public === true;
    policy.value = document.conflictPolicy ?? "merge";
    archive.textContent = state === "archived" ? "Make active again" : "Archive";
  }

  function update(body: unknown): Promise<unknown> {
    return call("PATCH", documentPath(record.id), { body });
  }

  async function toggleArchive(): Promise<void> {
    await update({ state: state === "archived" ? "active" : "archived" });
    await refresh();
  }

  async function removeDocument(): Promise<void> {
    if (!await confirmed("Delete this document? It can be restored by who manages it.", "Delete")) return;
    await call("DELETE", documentPath(record.id));
    location.hash = "#/documents";
  }

  async function saveAll(): Promise<void> {
    const named = Object.fromEntries(
      Object.entries(lists).map(([name, input]) => [name, namesIn(input.value)]),
    );
    await update({
      conflictPolicy: policy.value,
      metadata: { permissions: { ...permissions, ...named, public: isPublic.checked } },
    });
    notice("Saved.");
    await refresh();
  }

  return {
    title: "Settings",
    element: el(
      "form",
      {
        class: "stack",
        onsubmit: (event: SubmitEvent) => {
          event.preventDefault();
          void act(save, saveAll);
        },
      },
      owner,
      field("May edit", lists.editors, "Names of users, with commas between them"),
      field("May comment", lists.commenters),
      field("May read", lists.viewers),
      el("label", { class: "check" }, isPublic, "Everybody who is signed in may read it"),
      field("When edits conflict", policy),
      save,
      el("div", { class: "row wrap" }, archive, remove),
    ),
    refresh,
    concerns: ({ type, data }) => type === "document_updated" && data?.change !== "content",
    isAlwaysFresh: false,
  };
}

function namesIn(text: string): string[] {
  return text.split(",").map((name) => name.trim()).filter((name) => name !== "");
}
