// The playground's beginning: a tab for each task that is served, the one in the address first.

import { answering } from "./answering.js";
import { element, tabs } from "./dom.js";
import { recommending } from "./recommending.js";
import { modelCards } from "./service.js";
import { watchThroughput } from "./throughput.js";
import { workbench } from "./workbench.js";
import { summarizing, translating } from "./writing.js";

const TASKS = {
  translation: translating,
  summarization: summarizing,
  "question-answering": answering,
  recommendation: recommending,
};

/** Past the tabs; the address goes on naming the task. */
function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

async function begin() {
  document.querySelector(".skip").addEventListener("click", skip);
  const notice = document.getElementById("notice");
  let cards;
  try {
    cards = await modelCards();
  } catch (error) {
    notice.textContent = `${error.message} Reload this page to try again.`;
    notice.classList.add("wrong");
    return;
  }
  const served = Object.keys(TASKS).filter((task) => cards.some((card) => card.task === task));
  if (!served.length) {
    notice.textContent = "None of the models served has a task that this page knows.";
    return;
  }
  notice.remove();
  const pairs = served.map((task) => ({
    tab: element("button", { type: "button" }, TASKS[task].label),
    panel: element("section", { class: "task" }, workbench(TASKS[task], cards.filter((card) => card.task === task))),
  }));
  const select = tabs(pairs, (index) => history.replaceState(null, "", `#${served[index]}`));
  document.getElementById("tabs").append(...pairs.map(({ tab }) => tab));
  document.getElementById("main").append(...pairs.map(({ panel }) => panel));
  const fromAddress = () => served.indexOf(location.hash.slice(1));
  select(Math.max(0, fromAddress()));
  addEventListener("hashchange", () => fromAddress() >= 0 && select(fromAddress()));
  watchThroughput(document.getElementById("throughput"));
}

begin();
