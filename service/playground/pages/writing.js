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
    { label: "The model's own", values: { text: card.example.inputs, languages: card.example.parameters ?? {} } },
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

/** As HTML names it: BCP 47's own form, or nothing, which stands for an unknown language. */
function tagOf(code) {
  try {
    return Intl.getCanonicalLocales(code.replace("_", "-"))[0] ?? "";
  } catch {
    return "";
  }
}

/**
 * With a choice of language where the model knows several. What its example leaves out need not be said: the model has
 * answered that. What the example names may have to be.
 */
function translatingControls(card) {
  const { source, target } = card.languages;
  const common = controls(card, source.length === 1 ? `Text in ${languageOf(source[0])}` : "Text", 5);
  const choices = [
    ["From", "src_lang", source],
    ["Into", "tgt_lang", target],
  ]
    .filter(([, , codes]) => codes.length > 1)
    .map(([label, name, codes]) => {
      const named = card.example.parameters?.[name];
      const options = codes.map((code) => element("option", { value: code }, languageOf(code)));
      if (named === undefined) options.unshift(element("option", { value: "" }, "The model's own"));
      const control = element("select", {}, ...options);
      control.value = named ?? "";
      return { label, name, control };
    });
  return {
    ...common,
    nodes: [...choices.map(({ label, control }) => field(label, control)), ...common.nodes],
    body() {
      const { inputs, parameters } = common.body();
      const chosen = choices.filter(({ control }) => control.value).map(({ name, control }) => [name, control.value]);
      return chosen.length ? { inputs, parameters: { ...Object.fromEntries(chosen), ...parameters } } : common.body();
    },
    fill(values) {
      common.fill(values);
      if (values.languages) choices.forEach(({ name, control }) => (control.value = values.languages[name] ?? ""));
    },
    language: () => tagOf(target.length === 1 ? target[0] : choices.find(({ name }) => name === "tgt_lang")?.control.value ?? ""),
    at: (pointer) => choices.find(({ name }) => pointer === `/parameters/${name}`)?.control ?? common.at(pointer),
  };
}

function controls({ limits, languages: { source } }, label, rows) {
  const text = element("textarea", { rows, required: true, spellcheck: "true", dir: "auto" });
  const possible = DECODINGS.filter(([, settings]) => (settings?.num_beams ?? 1) <= limits.max_beams);
  const decoding = element("select", {}, ...possible.map(([name], index) => element("option", { value: index }, name)));
  return {
    nodes: [field(label, text), field("Decoding", decoding)],
    body() {
      const settings = possible[Number(decoding.value)][1];
      return settings ? { inputs: text.value, parameters: { generate_parameters: settings } } : { inputs: text.value };
    },
    fill: (values) => (text.value = values.text),
    language: () => tagOf(source.length === 1 ? source[0] : ""),
    at: (pointer) => (pointer.startsWith("/inputs") ? text : pointer.startsWith("/parameters") ? decoding : undefined),
  };
}

function view(controls) {
  const text = element("p", { class: "written", dir: "auto" });
  const node = element("div", { class: "output" }, text);
  return {
    node,
    clear() {
      text.replaceChildren();
      text.lang = controls.language(); // so that a voice reads it as what it is
    },
    language: () => text.lang,
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
    return { timing: { ...details.timing_ms, first, total: performance.now() - began }, said: whole, language: view.language() };
  }
  throw brokenOff();
}
