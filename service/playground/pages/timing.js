// Where the time of an answer went, as one bar: waiting, reading and writing or computing, and the way there and back.

import { element } from "./dom.js";

const PARTS = [
  ["queue", "waiting"],
  ["encode", "reading"],
  ["decode", "writing"],
  ["compute", "computing"],
  ["network", "network"],
];

/** A bar for `{total, first}` and the phases in milliseconds; `first` is when the first word was there. */
export function timingBar({ total, first, ...phases }) {
  const known = Object.values(phases).reduce((sum, ms) => sum + ms, 0);
  const all = { ...phases, network: Math.max(0, total - known) };
  const parts = PARTS.filter(([name]) => name in all).map(([name, label]) => ({ name, label, ms: all[name] }));
  const bar = element("div", { class: "bar", "aria-hidden": "true" });
  for (const { name, ms } of parts) {
    const part = element("span", { class: `part ${name}` });
    part.style.flexGrow = String(ms);
    bar.append(part);
  }
  const legend = parts.map(({ name, label, ms }) =>
    element("li", {}, element("span", { class: `swatch ${name}`, "aria-hidden": "true" }), `${label} `, element("b", {}, milliseconds(ms))),
  );
  const title = element("p", { class: "total" }, element("b", {}, milliseconds(total)), " in all");
  if (first !== undefined) title.append(`, first word after ${milliseconds(first)}`);
  return element("section", { class: "timing", "aria-label": "Where the time went" }, title, bar, element("ul", {}, ...legend));
}

export function milliseconds(ms) {
  return ms < 10 ? `${ms.toFixed(1)} ms` : ms < 10_000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}
