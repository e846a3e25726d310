// A model's card: what it is, how good it is by which measure, and what it takes.

import { element } from "./dom.js";

export function modelCard(card) {
  const { languages } = card;
  const facts = [
    ["Size", `${millions(card.parameters)} parameters, ${megabytes(card.bytes)} on disk, ${card.precision}`],
    ["Family", card.family],
    ["Languages", languages.source.length ? [languages.source.join(", "), languages.target.join(", ")].filter(Boolean).join(" → ") : null],
    ["Takes", limits(card)],
    ["Version", card.version],
    ["Licence", card.licence],
    ["Source", card.source],
  ];
  const list = facts
    .filter(([, value]) => value)
    .flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]);
  const rows = card.quality.map(({ metric, value, dataset, command }) =>
    element("tr", { title: command }, element("th", { scope: "row" }, metric), element("td", {}, String(value)), element("td", {}, dataset)),
  );
  const quality = rows.length
    ? element("table", {}, element("caption", {}, "Measured quality"), element("tbody", {}, ...rows))
    : element("p", { class: "hint" }, "No quality was measured.");
  return element(
    "section",
    { class: "card", "aria-label": `Model ${card.name}` },
    element("h3", {}, card.name),
    element("dl", {}, ...list),
    quality,
  );
}

function limits({ task, limits: { max_tokens, max_new_tokens, max_items, max_characters } }) {
  if (task === "recommendation") return `histories of up to ${count(max_items)} items, of which it reads the last ${count(max_tokens)}`;
  const written = max_new_tokens > 1 ? `, writes up to ${count(max_new_tokens)}` : "";
  return `${count(max_tokens)} tokens at once${written}; texts of up to ${count(max_characters)} characters`;
}

const count = (number) => number.toLocaleString("en");
const millions = (number) => `${(number / 1e6).toFixed(1)} M`;
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
