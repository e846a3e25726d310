// Recommendation: a history is put together from the catalogue, and every recommended item can join it.

import { element, field, freshId } from "./dom.js";
import { ask, items } from "./service.js";

const SHOWN = 6;

export const recommending = {
  label: "Recommendation",
  verb: "Recommend",
  result: () => "Likely to come next",
  controls,
  view,
  examples: (card) => [
    { label: "The model's own", values: { history: card.example.inputs.history } },
    ...[
      ["Cakes and hearts", ["22423", "85123A"]],
      ["Lunch bags", ["20725", "20727", "22383"]],
    ].map(([label, history]) => ({ label, values: { history }, fits: () => knows(card.routes[0], history) })),
  ],
  async answer(view, route, body, signal) {
    const { answer, timing } = await ask(route, body, signal);
    view.show(answer);
    return { timing, said: `${answer.map(({ title }) => title).join(", ") || "Nothing is left to recommend"}.` };
  },
};

/** Whether all of these items are in the model's catalogue. */
async function knows(route, history) {
  const found = await Promise.all(history.map((item) => items(route, item).catch(() => [])));
  return found.every((entries, at) => entries.some(({ item }) => item === history[at]));
}

function controls(card, changed, run) {
  const route = card.routes[0];
  const titles = new Map();
  let history = [];

  const chosen = element("ol", { class: "history", "aria-label": "History, oldest first" });
  const search = element("input", {
    type: "text", role: "combobox", autocomplete: "off", "aria-autocomplete": "list", "aria-expanded": "false", placeholder: "Search the catalogue",
  });
  const list = element("ul", { role: "listbox", id: freshId("items"), class: "suggestions", hidden: true, "aria-label": "Items" });
  search.setAttribute("aria-controls", list.id);
  const searching = field("Add an item", search);
  searching.classList.add("combobox");
  searching.append(list);
  let options = [];
  let active = -1;
  let asked;

  function draw() {
    chosen.replaceChildren(
      ...history.map((item, at) =>
        element(
          "li",
          {},
          element("span", { class: "title" }, titles.get(item) ?? item),
          element("button", { type: "button", class: "remove", "aria-label": `Remove ${titles.get(item) ?? item}`, onclick: () => set(history.filter((_, other) => other !== at)) }, "×"),
        ),
      ),
    );
    changed();
  }

  function set(next) {
    history = next;
    draw();
    for (const item of history.filter((each) => !titles.has(each))) nameOf(item);
  }

  async function nameOf(item) {
    titles.set(item, item);
    const found = await items(route, item).catch(() => []);
    titles.set(item, found.find((each) => each.item === item)?.title ?? item);
    draw();
  }

  function add({ item, title }) {
    titles.set(item, title);
    set([...history, item]);
  }

  function close() {
    asked?.abort(); // what is still found would open it again
    options = [];
    active = -1;
    list.hidden = true;
    list.replaceChildren();
    search.setAttribute("aria-expanded", "false");
    search.removeAttribute("aria-activedescendant");
  }

  function pick(index) {
    add(options[index]);
    search.value = "";
    close();
  }

  function activate(index) {
    active = (index + options.length) % options.length;
    [...list.children].forEach((node, at) => node.setAttribute("aria-selected", String(at === active)));
    search.setAttribute("aria-activedescendant", list.children[active].id);
    list.children[active].scrollIntoView({ block: "nearest" });
  }

  async function suggest() {
    asked?.abort();
    const own = (asked = new AbortController());
    const found = await items(route, search.value, own.signal).catch(() => []); // the request itself will say why
    if (own.signal.aborted) return;
    options = found;
    active = -1;
    search.removeAttribute("aria-activedescendant");
    list.replaceChildren(
      ...options.map(({ item, title }, at) =>
        element("li", { role: "option", id: freshId("item"), "aria-selected": "false", onmousedown: (event) => { event.preventDefault(); pick(at); } },
          element("span", { class: "title" }, title), element("span", { class: "hint" }, item)),
      ),
    );
    if (!options.length) return close();
    list.hidden = false;
    search.setAttribute("aria-expanded", "true");
  }

  search.addEventListener("input", suggest);
  search.addEventListener("focus", suggest);
  search.addEventListener("blur", close);
  search.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape") {
      if (!list.hidden) event.stopPropagation(); // the list is left, an answer under way is not
      close();
    } else if (event.key === "ArrowDown" && list.hidden) suggest();
    else if (event.key === "ArrowDown") activate(active + 1);
    else if (event.key === "ArrowUp" && options.length) activate(active < 0 ? options.length - 1 : active - 1);
    else if (event.key === "Enter" && active >= 0) pick(active);
    else if (event.key === "Enter") { /* the form is sent by its button or with Ctrl */ }
    else return;
    event.preventDefault();
  });

  return {
    nodes: [element("div", { class: "field" }, element("span", { class: "label" }, "History, oldest first"), chosen), searching],
    body: () => ({ inputs: { history }, parameters: { top_k: Math.min(SHOWN, card.limits.max_top_k) } }),
    fill: (values) => set(values.history),
    at: (pointer) => (pointer.startsWith("/inputs") ? search : undefined),
    take(entry) {
      add(entry);
      run();
    },
  };
}

function view(controls) {
  const found = element("ol", { class: "recommended" });
  const node = element("div", { class: "output" }, found);
  return {
    node,
    clear: () => found.replaceChildren(),
    show(answers) {
      const best = answers[0]?.score ?? 1;
      found.replaceChildren(
        ...answers.map((answer) => {
          const share = element("span", { class: "share", "aria-hidden": "true" });
          share.style.width = `${(answer.score / best) * 100}%`;
          return element(
            "li",
            {},
            element("span", { class: "title" }, answer.title),
            element("span", { class: "score" }, `${(answer.score * 100).toFixed(1)} %`),
            element("button", { type: "button", class: "quiet", "aria-label": `Add ${answer.title} to the history`, onclick: () => controls.take(answer) }, "Add"),
            share,
          );
        }),
      );
    },
  };
}
