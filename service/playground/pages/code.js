// The call for what is on the screen in four dialects, each to be copied and run as it stands.

import { element, tabs } from "./dom.js";

const origin = () => new URL(".", document.baseURI).href.replace(/\/$/, "");

const METHODS = {
  translation: { ours: "translate", parameters: "TranslationParameters", hub: "translation", answer: "translation_text" },
  summarization: { ours: "summarize", parameters: "SummarizationParameters", hub: "summarization", answer: "summary_text" },
  "question-answering": { ours: "answer", parameters: "QuestionAnsweringParameters", hub: "question_answering", answer: "answer" },
  recommendation: { ours: "recommend", parameters: "RecommendationParameters", answer: "title" },
};

const DIALECTS = [
  ["curl", curl],
  ["Python", ours],
  ["huggingface_hub", hub],
  ["JavaScript", javascript],
];

/** @returns {{node: HTMLElement, show: (card: object, route: string, body: object) => void}} */
export function codePanel() {
  const pairs = DIALECTS.map(([name]) => ({ tab: element("button", { type: "button" }, name), panel: element("div", { class: "snippet", tabindex: "0" }, element("pre", {}, element("code"))) }));
  const copied = element("span", { class: "copied", role: "status" });
  let shown = 0;
  const select = tabs(pairs, (index) => (shown = index));
  const copy = element("button", { type: "button", class: "quiet copy", onclick: async () => (copied.textContent = await copyText(pairs[shown].panel)) }, "Copy");
  const node = element(
    "section",
    { class: "code", "aria-label": "This call as code" },
    element("div", { class: "code-head" }, element("div", { role: "tablist", class: "dialects", "aria-label": "Language" }, ...pairs.map(({ tab }) => tab)), copied, copy),
    ...pairs.map(({ panel }) => panel),
  );
  select(0);
  return {
    node,
    show(card, route, body) {
      copied.textContent = "";
      DIALECTS.forEach(([, write], index) => {
        const text = write(card.task, `${origin()}${route}`, body, card);
        pairs[index].panel.querySelector("code").textContent = text ?? "";
        pairs[index].tab.hidden = text === null;
        if (text === null && shown === index) select(0);
      });
    },
  };
}

async function copyText(panel) {
  const text = panel.textContent;
  try {
    await navigator.clipboard.writeText(text);
    return "Copied";
  } catch {
    getSelection().selectAllChildren(panel); // a page from elsewhere without https has no clipboard
    return "Selected: press Ctrl+C";
  }
}

function curl(_task, url, body) {
  const quoted = JSON.stringify(body).replaceAll("'", String.raw`'\''`);
  return `curl ${url} \\\n  -H 'Content-Type: application/json' \\\n  -d '${quoted}'`;
}

function javascript(task, url, body) {
  const { answer } = METHODS[task];
  const read = task === "question-answering" && !(body.parameters?.top_k > 1) ? `answer.${answer}` : `answer[0].${answer}`;
  return `const response = await fetch(${JSON.stringify(url)}, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(${indented(body)}),
});
const answer = await response.json();
if (!response.ok) throw new Error(answer.detail);
console.log(${read});`;
}

function ours(task, _url, body, card) {
  const model = card.routes.length > 1 ? null : card.name;
  const { ours: method, parameters, answer } = METHODS[task];
  const generate = body.parameters?.generate_parameters;
  const names = ["Client", body.explain && "Explain", body.parameters && parameters, generate && "GenerateParameters"].filter(Boolean).sort();
  const settings = body.parameters && `${parameters}(${keywords(generate ? { ...body.parameters, generate_parameters: undefined } : body.parameters, generate && `generate_parameters=GenerateParameters(${keywords(generate)})`)})`;
  const given = [...positional(task, body.inputs), settings, model && `model=${python(model)}`, body.explain && `explain=Explain(${keywords(body.explain)})`].filter(Boolean);
  return `from service.client import ${names.join(", ")}

with Client(${python(origin())}) as client:
    for answer in client.${method}(${given.join(", ")}):
        print(answer.${answer})${body.explain ? `\n        print(${task === "question-answering" ? "answer.explanation and " : ""}answer.explanation.parts[0].rank_correlation)` : ""}`;
}

function hub(task, url, body, { languages: { source, target } }) {
  const { hub: method, answer } = METHODS[task];
  if (!method || body.explain) return null;
  const { src_lang, tgt_lang, ...parameters } = body.parameters ?? {};
  if (src_lang || tgt_lang) {
    // It takes both languages or none, so the one that there is no choice of is said as well.
    parameters.src_lang = src_lang ?? only(source);
    parameters.tgt_lang = tgt_lang ?? only(target);
    if (!parameters.src_lang || !parameters.tgt_lang) return null;
  }
  const several = parameters.top_k > 1;
  const given = [...positional(task, body.inputs), keywords(parameters)].filter(Boolean).join(", ");
  const call = `InferenceClient(model=${python(url)}).${method}(${given})`;
  return `from huggingface_hub import InferenceClient\n\n${several ? `for answer in ${call}:\n    print(answer.${answer})` : `print(${call}.${answer})`}`;
}

const only = (codes) => (codes.length === 1 ? codes[0] : undefined);

function positional(task, inputs) {
  if (task === "question-answering") return [python(inputs.question), python(inputs.context)];
  return [python(task === "recommendation" ? inputs.history : inputs)];
}

function keywords(values, ...more) {
  const given = Object.entries(values).filter(([, value]) => value !== undefined);
  return [...given.map(([name, value]) => `${name}=${python(value)}`), ...more.filter(Boolean)].join(", ");
}

/** A JSON value as Python's literal: JSON's strings and numbers are Python's too. */
function python(value) {
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (value !== null && typeof value === "object") return `{${Object.entries(value).map(([name, each]) => `${python(name)}: ${python(each)}`).join(", ")}}`;
  if (typeof value === "boolean") return value ? "True" : "False";
  return value === null ? "None" : JSON.stringify(value);
}

function indented(body) {
  return JSON.stringify(body, null, 2).replaceAll("\n", "\n  ");
}
