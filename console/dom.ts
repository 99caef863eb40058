/** Makes elements. Text is always text: nothing here reads HTML, so that no name and no content can become markup. */

/** What stands in an element; undefined and false stand for nothing. */
export type Child = Node | string | undefined | false;

/** Attributes, by their names; true is an attribute without value, false and undefined leave it out. Names that begin
 *  with `on` take a listener. */
export type Attributes = Readonly<
  Record<string, string | number | boolean | undefined | ((event: never) => void)>
>;

/** Makes an HTML element. */
export function el<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  attributes: Attributes = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[Name] {
  const element = document.createElement(name);
  fill(element, attributes, children);
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** Makes an SVG element. */
export function svg<Name extends keyof SVGElementTagNameMap>(
  name: Name,
  attributes: Attributes = {},
  ...children: readonly Child[]
): SVGElementTagNameMap[Name] {
  const element = document.createElementNS(SVG, name);
  fill(element, attributes, children);
  return element;
}

/** Sets attributes of an element that is there. */
export function set(element: Element, attributes: Attributes): void {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") {
      element.addEventListener(name.slice(2), value as EventListener);
    } else if (value === undefined || value === false) element.removeAttribute(name);
    else {
      const text = value === true ? "" : String(value);
      // What is the same again costs no layout and no words of a screen reader.
      if (element.getAttribute(name) !== text) element.setAttribute(name, text);
    }
  }
}

/** Sets the text of an element, unless it is that already: live regions speak of every change. */
export function say(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Makes a button with a text. */
export function button(
  text: string,
  onclick: (event: MouseEvent) => void,
  attributes: Attributes = {},
): HTMLButtonElement {
  return el("button", { type: "button", ...attributes, onclick }, text);
}

/** A field with its label above it. */
export function field(label: string, input: HTMLElement, hint?: string): HTMLLabelElement {
  return el(
    "label",
    { class: "field" },
    el("span", {}, label),
    input,
    hint !== undefined && el("small", {}, hint),
  );
}

/** A select with options `[value, text]`. */
export function select(
  options: readonly (readonly [value: string, text: string])[],
  attributes: Attributes = {},
): HTMLSelectElement {
  return el("select", attributes, ...options.map(([value, text]) => el("option", { value }, text)));
}

/** A table with a head. `caption` is read out, and not shown. */
export function table(caption: string, heads: readonly string[], rows: readonly HTMLTableRowElement[]) {
  return el(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    el(
      "table",
      {},
      el("caption", { class: "unseen" }, caption),
      el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))),
      el("tbody", {}, ...rows),
    ),
  );
}

function fill(element: Element, attributes: Attributes, children: readonly Child[]): void {
  set(element, attributes);
  for (const child of children) if (child !== undefined && child !== false) element.append(child);
}
