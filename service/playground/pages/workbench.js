// One task's panel: controls on one side, the answer on the other, and below them the time, the code and the card.

import { codePanel } from "./code.js";
import { element, field, freshId } from "./dom.js";
import { modelCard } from "./card.js";
import { explaining } from "./explaining.js";
import { Refusal } from "./service.js";
import { timingBar } from "./timing.js";

/**
 * @typedef {object} Task What a task brings; see writing.js, answering.js and recommending.js.
 * @property {string} label of the tab
 * @property {string} verb of the button
 * @property {(card: object) => string} result what stands above the answer
 * @property {(card: object, changed: () => void, run: () => void) => Controls} controls
 * @property {(controls: Controls) => View} view of the answer
 * @property {(card: object) => {label: string, values: object, fits?: () => Promise<boolean>}[]} examples the first one
 *   is there from the beginning; one with `fits` is shown once the model is found to know what it names
 * @property {(view: View, route: string, body: object, signal: AbortSignal) => Promise<{timing: object, said: string, language?: string}>} answer
 *   fills the view; says where the time went, and the answer in words for who cannot see it, with their language
 *
 * @typedef {object} Controls
 * @property {HTMLElement[]} nodes
 * @property {() => object} body the request as the service takes it
 * @property {(values: object) => void} fill
 * @property {(pointer: string) => HTMLElement | undefined} at the control of a JSON pointer
 *
 * @typedef {object} View
 * @property {HTMLElement} node
 * @property {() => void} clear
 */

/** The panel of a task with the models that are served for it, its default first. */
export function workbench(task, cards) {
  const bench = element("div");
  const choice = element("select", {}, ...cards.map((card, index) => element("option", { value: index }, card.name)));
  choice.addEventListener("change", () => build(cards[Number(choice.value)]));

  function build(card) {
    const route = card.routes[0];
    const code = codePanel();
    const controls = task.controls(card, () => code.show(card, route, controls.body()), () => form.requestSubmit());
    const view = task.view(controls);
    const title = element("h2", { class: "label", id: freshId("answer") }, task.result(card));
    const status = element("p", { class: "status", role: "status" });
    const problem = element("div", { class: "problem", role: "alert" });
    const time = element("div");
    const why = explaining(card, (body) => code.show(card, route, body));
    const stop = element("button", { type: "button", class: "quiet", hidden: true, onclick: () => running?.abort() }, "Stop");
    const go = element("button", { type: "submit", class: "go" }, task.verb);
    const examples = task.examples(card).map(({ label, values, fits }) => {
      const chip = element("button", { type: "button", class: "chip", hidden: fits !== undefined, onclick: () => { controls.fill(values); form.requestSubmit(); } }, label);
      fits?.().then((does) => (chip.hidden = !does));
      return chip;
    });
    const form = element(
      "form",
      { class: "ask", novalidate: true },
      ...controls.nodes,
      element("div", { class: "actions" }, go, stop, element("kbd", { class: "hint" }, "Ctrl + Enter")),
      element("div", { class: "examples", role: "group", "aria-label": "Examples" }, element("span", { class: "hint" }, "Try"), ...examples),
    );
    let running;

    async function run() {
      running?.abort();
      const own = (running = new AbortController());
      form.querySelectorAll("[aria-invalid]").forEach((control) => control.removeAttribute("aria-invalid"));
      problem.replaceChildren();
      time.replaceChildren();
      why.clear();
      view.clear();
      view.node.setAttribute("aria-busy", "true");
      status.textContent = "";
      stop.hidden = false;
      try {
        const body = controls.body();
        const { timing, said, language } = await task.answer(view, route, body, own.signal);
        time.replaceChildren(timingBar(timing));
        if (!body.parameters?.generate_parameters?.do_sample) why.offer(route, body); // another draw, another answer
        status.replaceChildren(element("span", { lang: language }, said), ` Answered in ${Math.round(timing.total)} milliseconds.`);
      } catch (error) {
        if (own.signal.aborted) {
          if (running === own) status.textContent = "Stopped.";
        } else show(error);
      } finally {
        if (running === own) {
          view.node.setAttribute("aria-busy", "false");
          stop.hidden = true;
          running = undefined;
        }
      }
    }

    function show(error) {
      if (!(error instanceof Refusal)) throw error;
      const id = error.requestId ? element("p", { class: "hint" }, `Request ${error.requestId}`) : null;
      problem.replaceChildren(element("p", {}, error.message), ...(id ? [id] : []));
      const wrong = error.pointers.map((pointer) => controls.at(pointer)).find(Boolean);
      wrong?.setAttribute("aria-invalid", "true");
      wrong?.focus();
    }

    form.addEventListener("submit", (event) => {
      event.preventDefault();
      run();
    });
    form.addEventListener("input", () => code.show(card, route, controls.body()));
    form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
      if (event.key === "Escape" && running) running.abort();
    });
    bench.replaceChildren(
      element("div", { class: "pair" }, form, element("section", { class: "answer", "aria-labelledby": title.id }, title, problem, view.node, status, time, why.node)),
      element("div", { class: "pair below" }, code.node, modelCard(card)),
    );
    controls.fill(task.examples(card)[0].values);
    code.show(card, route, controls.body());
  }

  build(cards[0]);
  return element("div", { class: "workbench" }, cards.length > 1 ? field("Model", choice) : null, bench);
}
