// Why this answer: attention and occlusion side by side, for written texts, found stretches and recommended items.

import { element, freshId } from "./dom.js";
import { ask } from "./service.js";

const LEAST_SHOWN = 0.3; // of the largest weight; below it a number would only be noise

const SIDES = {
  attention: {
    title: "Attention",
    says: "where the model looked",
    write: (weight) => `${Math.round(weight * 100)} %`,
  },
  occlusion: {
    title: "Occlusion",
    says: "how much less likely the answer is without each",
    write: (weight) => `${weight < 0 ? "−" : "+"}${Math.abs(weight).toFixed(1)}`,
  },
};

/**
 * A place below an answer from which its explanation can be asked for.
 * @param {object} card of the model
 * @param {(body: object) => void} asked is told the request that is on the screen then
 * @returns {{node: HTMLElement, clear: () => void, offer: (route: string, body: object) => void}}
 */
export function explaining(card, asked) {
  const node = element("section", { class: "why", "aria-label": "Explanation", hidden: true });
  let running;

  function clear() {
    running?.abort();
    node.hidden = true;
    node.replaceChildren();
  }

  function offer(route, body) {
    const status = element("p", { class: "hint", role: "status" });
    const button = element("button", { type: "button", class: "quiet", onclick: () => show(route, body, status, button) }, "Why this answer?");
    node.hidden = false;
    node.replaceChildren(button, status);
  }

  async function show(route, body, status, button) {
    const own = (running = new AbortController());
    const full = { ...body, explain: { method: card.explains } };
    button.disabled = true;
    status.textContent = "Looking…";
    asked(full);
    try {
      const { answer } = await ask(route, full, own.signal);
      const answers = [answer].flat().filter((each) => each.explanation);
      node.replaceChildren(...explained(answers, body));
      if (document.activeElement === document.body) node.querySelector("h3").focus(); // else the reader has gone on
    } catch (error) {
      if (own.signal.aborted) return;
      button.disabled = false;
      status.textContent = error.message;
    }
  }

  return { node, clear, offer };
}

function explained(answers, body) {
  const heading = element("h3", { tabindex: "-1" }, "Why this answer");
  const caution = element(
    "p",
    { class: "hint" },
    "Attention alone explains nothing: a model can look at a word and not use it. Occlusion leaves words out and looks what changes. Trust what both say.",
  );
  if (answers.length < 2 || !answers[0].title) {
    return [heading, caution, ...answers.flatMap((answer) => answer.explanation.parts.map((part) => partView(part, body)))];
  }
  const choice = element("select", {}, ...answers.map(({ title }, index) => element("option", { value: index }, title)));
  choice.id = freshId("explained");
  const place = element("div");
  const draw = () => place.replaceChildren(...answers[Number(choice.value)].explanation.parts.map((part) => partView(part, body)));
  choice.addEventListener("change", draw);
  draw();
  return [heading, caution, element("div", { class: "field" }, element("label", { for: choice.id }, "Recommended item"), choice), place];
}

/** One sentence, window or history: its output to choose from, and what led to it by each method. */
function partView(part, body) {
  const said = element("p", { class: "status", role: "status" });
  const sides = Object.keys(SIDES)
    .filter((method) => part[method])
    .map((method) => side(method, part, body));
  const visible = part.output.map((unit, index) => ({ unit, index })).filter(({ unit }) => unit.start !== undefined);
  const choices = [{ text: "All", row: null }, ...visible.map(({ unit, index }) => ({ text: unit.text, row: index }))];
  const buttons = choices.map(({ text, row }) => {
    const select = () => {
      buttons.forEach((each) => each.setAttribute("aria-pressed", String(each === own)));
      sides.forEach((each) => each.show(row));
      said.textContent = sides.map((each) => each.said(text)).join(" ");
    };
    const own = element("button", { type: "button", class: "word", "aria-pressed": String(row === null), onclick: select, onmouseenter: select, onfocus: select }, text);
    return own;
  });
  sides.forEach((each) => each.show(null));
  const agreement =
    part.rank_correlation === undefined
      ? null
      : element("p", { class: "hint agreement" }, `The two rank the ${part.source.some(({ start }) => start !== undefined) ? "words" : "items"} with a correlation of `, element("b", {}, part.rank_correlation.toFixed(2)), " (1: alike, 0: unrelated, −1: opposite).");
  const linked = visible.length > 1 ? element("p", { class: "linked", role: "group", "aria-label": "Words of the answer" }, ...buttons.flatMap((button) => [button, " "])) : null;
  return element("div", { class: "part-why" }, linked, element("div", { class: "sides" }, ...sides.map(({ node }) => node)), agreement, said, visible.length > 1 ? table(part) : null);
}

function side(method, part, body) {
  const { title, says, write } = SIDES[method];
  const alike = samePlace(method === "attention" ? part.source : part.occlusion.units);
  const units = alike.map(([{ unit }]) => unit);
  const spots = units.map((unit) => spot(unit));
  const rest = element("p", { class: "hint" });
  const texts = [...new Set(units.map((unit) => unit.pointer).filter(Boolean))];
  const isItems = units.length > 0 && units.every((unit) => unit.start === undefined && unit.pointer);
  const read = isItems
    ? element("ol", { class: "weighed" }, ...spots.map(({ node }) => element("li", {}, node)))
    : element("div", {}, ...[...fields(texts)].map(([pointer, label]) => element("p", { class: "read" }, label && element("b", { class: "hint" }, `${label}: `), ...inPlace(units, spots, pointer, textAt(body, pointer)))));
  let shown = [];

  function show(row) {
    const weights = weightsOf(method, part, row);
    shown = alike.map((those) => those.reduce((sum, { index }) => sum + weights[index], 0));
    const visible = shown.filter((_, index) => spots[index].visible);
    const most = Math.max(1e-6, ...visible.map(Math.abs));
    shown.forEach((weight, index) => spots[index].set(weight, weight / most, write));
    const hidden = shown.reduce((sum, weight, index) => sum + (spots[index].visible ? 0 : weight), 0);
    rest.textContent = method === "attention" && hidden > 0.005 ? `${write(hidden)} went to special tokens, which are in no text.` : "";
  }

  function said(text) {
    const first = shown
      .map((weight, index) => ({ weight, index }))
      .filter(({ index }) => spots[index].visible)
      .sort((one, other) => Math.abs(other.weight) - Math.abs(one.weight))
      .slice(0, 3);
    return `${title}, ${text}: ${first.map(({ weight, index }) => `${units[index].text} ${write(weight)}`).join(", ")}.`;
  }

  const node = element("figure", { class: `side ${method}` }, element("figcaption", {}, element("b", {}, title), `, ${says}`), read, rest);
  return { node, show, said };
}

/** The units by their place in the text: the tokens of the bytes of one character, such as 😀, all have the same. */
function samePlace(units) {
  const groups = new Map();
  units.forEach((unit, index) => {
    const place = unit.start === undefined ? index : `${unit.pointer} ${unit.start} ${unit.end}`;
    groups.set(place, [...(groups.get(place) ?? []), { unit, index }]);
  });
  return [...groups.values()];
}

/** A word or item whose weight is to be seen: by tint, by the thickness of its line, and as a number. */
function spot(unit) {
  const number = element("small", { class: "weight" });
  const node = element("span", { class: "spot" }, unit.text, number);
  return {
    node,
    visible: unit.pointer !== undefined && (unit.start !== undefined || unit.pointer.startsWith("/inputs/history")),
    set(weight, share, write) {
      node.style.setProperty("--share", Math.min(1, Math.abs(share)).toFixed(3));
      node.classList.toggle("against", weight < 0 && Math.abs(share) >= LEAST_SHOWN);
      number.textContent = Math.abs(share) >= LEAST_SHOWN ? write(weight) : "";
      node.title = write(weight);
    },
  };
}

/** Of each source unit for one output unit, or for all of them together: attention on average, occlusion in all. */
function weightsOf(method, part, row) {
  if (method === "occlusion" && (row === null || !part.occlusion.weights)) return part.occlusion.changes;
  const rows = part[method].weights.values;
  if (row !== null) return rows[row];
  return rows[0].map((_, column) => rows.reduce((sum, each) => sum + each[column], 0) / rows.length);
}

function fields(pointers) {
  const labels = { "/inputs/question": "Question", "/inputs/context": "Text" };
  return new Map(pointers.map((pointer) => [pointer, labels[pointer] ?? ""]));
}

function textAt(body, pointer) {
  return pointer.split("/").slice(1).reduce((value, name) => value[name], body);
}

/** The stretch of the text that the units lie in, with each of them in its place; offsets count characters. */
function inPlace(units, spots, pointer, text) {
  const characters = Array.from(text);
  const placed = units.map((unit, index) => ({ unit, index })).filter(({ unit }) => unit.pointer === pointer && unit.start !== undefined);
  placed.sort((one, other) => one.unit.start - other.unit.start);
  let at = placed[0]?.unit.start ?? 0;
  return placed.flatMap(({ unit, index }) => {
    const gap = characters.slice(at, unit.start).join("");
    at = Math.max(at, unit.end);
    return [gap, spots[index].node];
  });
}

/** Every weight as numbers in tinted cells: the alignment. */
function table(part) {
  const maps = Object.keys(SIDES)
    .filter((method) => part[method]?.weights)
    .map((method) => {
      const { title, write } = SIDES[method];
      const units = method === "attention" ? part.source : part.occlusion.units;
      const most = Math.max(1e-6, ...part[method].weights.values.flat().map(Math.abs));
      const head = element("tr", {}, element("td"), ...units.map((unit) => element("th", { scope: "col" }, unit.text)));
      const rows = part[method].weights.values.map((weights, row) =>
        element("tr", {}, element("th", { scope: "row" }, part.output[row].text), ...weights.map((weight) => {
          const cell = element("td", { class: weight < 0 ? "cell against" : "cell" }, Math.abs(weight) / most >= 0.05 ? write(weight) : "·");
          cell.style.setProperty("--share", Math.min(1, Math.abs(weight) / most).toFixed(3));
          return cell;
        })),
      );
      return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${title}, every weight` }, element("table", { class: "heat" }, element("caption", {}, title), element("thead", {}, head), element("tbody", {}, ...rows)));
    });
  return element("details", { class: "alignment" }, element("summary", {}, "Every weight as a heat map"), element("div", { class: "maps" }, ...maps));
}
