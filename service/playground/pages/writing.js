// Translation and summarization: a text goes in, a text streams out.

import { element, field } from "./dom.js";
import { brokenOff, stream } from "./service.js";

const DECODINGS = [
  ["Likeliest token each time", undefined],
  ["Beam search, 4 beams", { num_beams: 4 }],
  ["Sampling, temperature 0.8", { do_sample: true, temperature: 0.8, top_p: 0.95 }],
];

const LANGUAGES = new Intl.DisplayNames(["en"], { type: "language" });

export const translating = {
  label: "Translation",
  verb: "Translate",
  result: ({ languages: { target } }) => (target.length === 1 ? `Translation into ${languageOf(target[0])}` : "Translation"),
  controls: translatingControls,
  view,
  examples: (card) => [
    { label: "Two sentences", values: { text: "I do not know where she lives. Can you help me find my keys?" } },
    { label: "A question", values: { text: "Where is the station?" } },
    { label: "A list", values: { text: "- Good morning.\n- Thank you very much.\n- The weather is nice today." } },
    { label: "The model's own", values: { text: card.example.inputs } },
  ],
  answer,
};

export const summarizing = {
  label: "Summarization",
  verb: "Summarize",
  result: () => "Summary",
  controls: (card) => controls(card, "Text", 8),
  view,
  examples: (card) => [
    {
      label: "Graph networks",
      values: {
        text: "Graph neural networks are widely used for node classification. We propose a graph convolutional network that learns from few labels. Experiments on citation networks show that our method outperforms other graph neural networks.",
      },
    },
    {
      label: "Small data",
      values: {
        text: "We present a new method for training neural networks on small data sets. The method adds noise to the inputs and averages the weights of several networks. Experiments on image classification show that it reduces the error.",
      },
    },
    { label: "The model's own", values: { text: card.example.inputs } },
  ],
  answer,
};

/** A language's English name; a code that is none of BCP 47's, such as NLLB's, stands for itself. */
function languageOf(code) {
  try {
    return LANGUAGES.of(code.replace("_", "-"));
  } catch {
    return code;
  }
}

/** With a choice of language where the model knows several. */
function translatingControls(card) {
  const { source, target } = card.languages;
  const common = controls(card, source.length === 1 ? `Text in ${languageOf(source[0])}` : "Text", 5);
  const choices = [
    ["From", "src_lang", source],
    ["Into", "tgt_lang", target],
  ]
    .filter(([, , codes]) => codes.length > 1)
    .map(([label, name, codes]) => ({ label, name, control: element("select", {}, ...codes.map((code) => element("option", { value: code }, languageOf(code)))) }));
  return {
    ...common,
    nodes: [...choices.map(({ label, control }) => field(label, control)), ...common.nodes],
    body() {
      const { inputs, parameters } = common.body();
      const languages = Object.fromEntries(choices.map(({ name, control }) => [name, control.value]));
      return choices.length ? { inputs, parameters: { ...languages, ...parameters } } : common.body();
    },
    at: (pointer) => choices.find(({ name }) => pointer === `/parameters/${name}`)?.control ?? common.at(pointer),
  };
}

function controls({ limits }, label, rows) {
  const text = element("textarea", { rows, required: true, spellcheck: "true" });
  const possible = DECODINGS.filter(([, settings]) => (settings?.num_beams ?? 1) <= limits.max_beams);
  const decoding = element("select", {}, ...possible.map(([name], index) => element("option", { value: index }, name)));
  return {
    nodes: [field(label, text), field("Decoding", decoding)],
    body() {
      const settings = possible[Number(decoding.value)][1];
      return settings ? { inputs: text.value, parameters: { generate_parameters: settings } } : { inputs: text.value };
    },
    fill: (values) => (text.value = values.text),
    at: (pointer) => (pointer.startsWith("/inputs") ? text : pointer.startsWith("/parameters") ? decoding : undefined),
  };
}

function view() {
  const text = element("p", { class: "written" });
  const node = element("div", { class: "output" }, text);
  return {
    node,
    clear: () => text.replaceChildren(),
    add: (more) => more && text.append(element("span", { class: "arriving" }, more)),
    settle: (whole) => (text.textContent = whole),
  };
}

async function answer(view, route, body, signal) {
  const began = performance.now();
  let first;
  for await (const { token, generated_text: whole, details } of stream(route, body, signal)) {
    if (token.text && first === undefined) first = performance.now() - began;
    signal.throwIfAborted();
    view.add(token.text);
    if (details === null) continue;
    view.settle(whole);
    return { timing: { ...details.timing_ms, first, total: performance.now() - began }, said: whole };
  }
  throw brokenOff();
}
