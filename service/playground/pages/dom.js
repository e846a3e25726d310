// Elements without markup in strings: whatever comes from a model or a caller can only become text.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes, listeners (`onclick`), properties for booleans, and children; strings become text. */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean") node[name] = value;
    else if (value !== undefined && value !== null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

let last = 0;

/** An id that no other element has. */
export function freshId(stem) {
  last += 1;
  return `${stem}-${last}`;
}

/** A control under its label, with a place for what is wrong with it. */
export function field(label, control, hint) {
  control.id ||= freshId("field");
  const note = element("p", { class: "hint", id: `${control.id}-note` }, hint ?? "");
  control.setAttribute("aria-describedby", note.id);
  return element("div", { class: "field" }, element("label", { for: control.id }, label), control, note);
}

/**
 * Makes the children of a tablist select among panels: arrows, Home and End move among those not hidden, as the ARIA pattern asks.
 * @param {{tab: HTMLElement, panel: HTMLElement}[]} pairs
 * @param {(index: number) => void} [onSelect]
 */
export function tabs(pairs, onSelect = () => {}) {
  const select = (index, { focus = false } = {}) => {
    pairs.forEach(({ tab, panel }, at) => {
      tab.setAttribute("aria-selected", String(at === index));
      tab.tabIndex = at === index ? 0 : -1;
      panel.hidden = at !== index;
    });
    if (focus) pairs[index].tab.focus();
    onSelect(index);
  };
  pairs.forEach(({ tab, panel }, at) => {
    tab.id ||= freshId("tab");
    panel.id ||= freshId("panel");
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-controls", panel.id);
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", tab.id);
    tab.addEventListener("click", () => select(at));
    tab.addEventListener("keydown", (event) => {
      const shown = [...pairs.keys()].filter((index) => !pairs[index].tab.hidden);
      const own = shown.indexOf(at);
      const to = { ArrowLeft: own - 1, ArrowRight: own + 1, Home: 0, End: -1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      select(shown.at(to % shown.length), { focus: true });
    });
  });
  return select;
}
