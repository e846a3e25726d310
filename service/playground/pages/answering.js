// Question answering: the answer is a stretch of the reader's own text, so it is shown there.

import { element, field } from "./dom.js";
import { ask } from "./service.js";

const SEINE =
  "The Seine is a river in northern France. It rises at Source-Seine, near Dijon, and flows through Paris into the English Channel at Le Havre. It is 777 kilometres long, and ocean-going vessels can use it as far as Rouen, 120 kilometres from the sea.";
const CURIE =
  "Marie Curie was born in Warsaw in 1867. She moved to Paris in 1891 to study physics at the Sorbonne. In 1903 she shared the Nobel Prize in Physics with Pierre Curie and Henri Becquerel.";

const NOTHING = "No answer in this text";

export const answering = {
  label: "Question answering",
  verb: "Find the answer",
  result: () => "Answer",
  controls,
  view,
  examples: () => [
    { label: "Where does the Seine rise?", values: { question: "Where does the Seine rise?", context: SEINE } },
    { label: "How long is it?", values: { question: "How long is the Seine?", context: SEINE } },
    { label: "Who shared the prize?", values: { question: "With whom did Marie Curie share the Nobel Prize?", context: CURIE } },
  ],
  async answer(view, route, body, signal) {
    const { answer, timing } = await ask(route, body, signal);
    const answers = [answer].flat();
    view.show(answers, body.inputs.context);
    return { timing, said: `${answers[0].answer || NOTHING}.` };
  },
};

function controls({ limits }) {
  const question = element("input", { type: "text", required: true, autocomplete: "off", dir: "auto" });
  const context = element("textarea", { rows: 6, required: true, spellcheck: "true", dir: "auto" });
  const counts = [1, 3, 5].filter((count) => count <= limits.max_top_k);
  const top = element("select", {}, ...counts.map((count) => element("option", { value: count }, count === 1 ? "The best one" : `The best ${count}`)));
  top.value = String(counts.includes(3) ? 3 : 1);
  return {
    nodes: [field("Question", question), field("Text that may hold the answer", context), field("Answers", top)],
    body() {
      const inputs = { question: question.value, context: context.value };
      return top.value === "1" ? { inputs } : { inputs, parameters: { top_k: Number(top.value) } };
    },
    fill(values) {
      question.value = values.question;
      context.value = values.context;
    },
    at: (pointer) => ({ "/inputs/question": question, "/inputs/context": context, "/parameters/top_k": top })[pointer],
  };
}

function view() {
  const found = element("ol", { class: "candidates" });
  const passage = element("p", { class: "passage", dir: "auto" });
  const node = element("div", { class: "output" }, found, passage);

  /** Offsets count characters as Python does, where JavaScript counts UTF-16 units. */
  function mark(context, { start, end, answer }) {
    const characters = Array.from(context);
    const piece = (from, to) => characters.slice(from, to).join("");
    const marked = answer ? [element("mark", {}, piece(start, end))] : [];
    passage.replaceChildren(piece(0, start), ...marked, piece(end));
  }

  function show(answers, context) {
    const buttons = answers.map((answer, rank) => {
      const share = element("span", { class: "share", "aria-hidden": "true" });
      share.style.width = `${answer.score * 100}%`;
      const select = () => {
        buttons.forEach((button) => button.setAttribute("aria-pressed", String(button === own)));
        mark(context, answer);
      };
      const own = element(
        "button",
        { type: "button", class: rank === 0 ? "candidate best" : "candidate", onclick: select, onmouseenter: select, onfocus: select },
        element("span", { class: "said", dir: "auto" }, answer.answer || NOTHING),
        element("span", { class: "score" }, `${(answer.score * 100).toFixed(1)} %`),
        share,
      );
      return own;
    });
    found.replaceChildren(...buttons.map((button) => element("li", {}, button)));
    buttons[0].setAttribute("aria-pressed", "true");
    mark(context, answers[0]);
  }

  return {
    node,
    show,
    clear() {
      found.replaceChildren();
      passage.replaceChildren();
    },
  };
}
