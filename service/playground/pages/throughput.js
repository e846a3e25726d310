// How many tokens the whole service reads and writes each second, as a sparkline in the masthead.

import { tokensSoFar } from "./service.js";

const EVERY_MS = 2000;
const POINTS = 40;

/** Draws into the figure from now on; rests while the page is hidden or the service is away. */
export function watchThroughput(figure) {
  const line = figure.querySelector(".line");
  const area = figure.querySelector(".area");
  const rate = figure.querySelector(".rate");
  const rates = [];
  let before;

  async function look() {
    if (!document.hidden) await sample().catch(() => (before = undefined));
    setTimeout(look, EVERY_MS);
  }

  async function sample() {
    const now = { tokens: await tokensSoFar(), at: performance.now() };
    if (before) {
      rates.push((growth(before.tokens, now.tokens) / (now.at - before.at)) * 1000);
      if (rates.length > POINTS) rates.shift();
      draw();
    }
    before = now;
  }

  function draw() {
    const top = Math.max(...rates, 1);
    const padded = [...Array(POINTS - rates.length).fill(0), ...rates];
    const points = padded.map((value, at) => `${(at * 100) / (POINTS - 1)},${(22 - (value / top) * 20).toFixed(1)}`);
    line.setAttribute("points", points.join(" "));
    area.setAttribute("points", ["0,24", ...points, "100,24"].join(" "));
    rate.textContent = Math.round(rates.at(-1)).toLocaleString("en");
    figure.hidden = false;
  }

  look();
}

/** Over the series in both samples: a replica may be left out of one, or have begun anew, and has not worked for that. */
function growth(before, now) {
  return [...now].reduce((sum, [series, total]) => sum + Math.max(0, total - (before.get(series) ?? total)), 0);
}
