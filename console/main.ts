/** The console: finds out who looks at it, and shows the view that the address names. */
import { ApiError, call, refresh, whenSignedOut, wordsOf } from "./api.ts";
import { button, el, set } from "./dom.ts";
import { learnUsers } from "./users.ts";
import { type Me, noticeArea, report, type View } from "./view.ts";
import { documentsView } from "./views/documents.ts";
import { signInView } from "./views/sign_in.ts";

/** Views by the first segment of the address behind `#/`. Those of documents and operations are loaded when they are
 *  first shown. */
const VIEWS: Readonly<Record<string, View>> = {
  documents: documentsView,
  document: async (scope, id) => (await import("./views/document.ts")).documentView(scope, id),
  services: async (scope) => (await import("./views/operations.ts")).servicesView(scope),
  sessions: async (scope) => (await import("./views/operations.ts")).sessionsView(scope),
  keys: async (scope, prefix) => (await import("./views/operations.ts")).keysView(scope, prefix),
  charts: async (scope) => (await import("./views/operations.ts")).chartsView(scope),
  transport: async (scope) => (await import("./views/operations.ts")).transportView(scope),
};

const LINKS: readonly (readonly [view: string, text: string])[] = [
  ["documents", "Documents"],
  ["services", "Services"],
  ["sessions", "Sessions"],
  ["keys", "Keys"],
  ["charts", "Charts"],
  ["transport", "Transport"],
];

/** How often the access token is renewed while the page is looked at, in ms: well below its life of minutes. */
const RENEW_MS = 240_000;

let me: Me | undefined;
let leave = new AbortController();

const links = LINKS.map(([view, text]) => el("a", { href: `#/${view}`, "data-view": view }, text));
const who = el("span", { class: "who" });
const signOutButton = button("Sign out", signOut, { class: "quiet" });
const main = el("main", { id: "main", tabindex: -1 });
const header = el(
  "header",
  { class: "top" },
  el("a", { href: "#main", class: "skip", onclick: skip }, "Skip to content"),
  el("a", { href: "#/documents", class: "brand" }, "AetherFlow"),
  el("nav", { "aria-label": "Main" }, ...links),
  el("div", { class: "account" }, who, signOutButton),
);

document.body.replaceChildren(header, main, noticeArea());
addEventListener("hashchange", () => void show());
whenSignedOut(() => {
  if (me === undefined) return;
  me = undefined;
  void show();
});
void start();

async function start(): Promise<void> {
  try {
    me = await whoAmI();
    // Names may come later: without them ids are shown.
    learnUsers(me).catch(report);
  } catch (error) {
    if (!(error instanceof ApiError && error.status === 401)) {
      main.replaceChildren(
        el(
          "div",
          { class: "page narrow" },
          el("h1", {}, "Not available"),
          el("p", {}, wordsOf(error)),
          button("Try again", () => void start(), { class: "primary" }),
        ),
      );
      return;
    }
  }
  await show();
}

async function whoAmI(): Promise<Me> {
  const { principal, user } = await call<{
    principal: { kind?: string; userId?: string; username?: string; roles?: string[] };
    user?: { username: string };
  }>("GET", "/api/v1/auth/me");
  const isDeveloper = principal.kind === "KIND_DEVELOPER";
  return {
    userId: principal.userId ?? "",
    name: user?.username ?? principal.username ?? (principal.userId || "developer"),
    isAdmin: isDeveloper || (principal.roles ?? []).includes("admin"),
    isDeveloper,
  };
}

/** Shows the view that the address names, in place of the one before. */
async function show(): Promise<void> {
  leave.abort();
  leave = new AbortController();
  const { signal } = leave;
  header.hidden = me === undefined;
  main.classList.remove("full");
  if (me === undefined) {
    document.title = "Sign in – AetherFlow";
    main.replaceChildren(signInView(() => void start()));
    return;
  }
  links.find(({ dataset }) => dataset.view === "transport")!.hidden = !me.isAdmin;
  who.textContent = me.isDeveloper ? "No users: everybody here" : me.name;
  signOutButton.hidden = me.isDeveloper;
  const [name = "", ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  const viewName = Object.hasOwn(VIEWS, name) ? name : "documents";
  for (const link of links) {
    const isHere = link.dataset.view === (viewName === "document" ? "documents" : viewName);
    set(link, { "aria-current": isHere && "page" });
    if (isHere) link.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  const scope = {
    me,
    signal,
    setTitle: (title: string) => {
      if (!signal.aborted) document.title = `${title} – AetherFlow`;
    },
    reopen: () => {
      if (!signal.aborted) void show();
    },
  };
  try {
    const element = await VIEWS[viewName]!(scope, decoded(rest.join("/")));
    if (signal.aborted) return;
    main.replaceChildren(element);
    main.classList.toggle("full", element.classList.contains("document"));
    main.scrollTop = 0;
  } catch (error) {
    if (signal.aborted) return;
    report(error);
    main.replaceChildren(
      el(
        "div",
        { class: "page narrow" },
        el("h1", {}, "This cannot be shown"),
        el("p", {}, wordsOf(error)),
        el("p", {}, el("a", { href: "#/documents" }, "To the documents")),
      ),
    );
  }
}

/** What is no valid escape stands for itself. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function skip(event: MouseEvent): void {
  event.preventDefault();
  main.focus();
}

async function signOut(): Promise<void> {
  try {
    await call("POST", "/api/v1/auth/logout", { body: {} });
  } catch (error) {
    report(error);
  }
  me = undefined;
  location.hash = "#/documents";
  await show();
}

setInterval(() => {
  if (me !== undefined && !me.isDeveloper && !document.hidden) void refresh();
}, RENEW_MS);
