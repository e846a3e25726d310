// The service as the page sees it: cards, answers, streams, the catalogue, metrics; every failure is a sentence.

/** A request that brought no answer; `message` is the service's own sentence. */
export class Refusal extends Error {
  constructor(message, { status = 0, requestId = "", pointers = [] } = {}) {
    super(message);
    this.status = status;
    this.requestId = requestId;
    this.pointers = pointers;
  }
}

/** The cards of the models that are served. */
export async function modelCards() {
  return (await fetched("v1/models")).json();
}

/**
 * One answer, and where its time went.
 * @returns {Promise<{answer: unknown, timing: {queue: number, compute: number, total: number}}>} in milliseconds
 */
export async function ask(route, body, signal) {
  const began = performance.now();
  const response = await fetched(path(route), posted(body, signal));
  const answer = await arriving(response.json());
  return { answer, timing: { ...serverTiming(response), total: performance.now() - began } };
}

/** The events of an answer while it is being written. */
export async function* stream(route, body, signal) {
  const response = await fetched(path(route), posted({ ...body, stream: true }, signal));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = {};
  for (;;) {
    const { value, done } = await arriving(reader.read());
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("event:")) event.name = line.slice(6).trim();
      else if (line.startsWith("data:")) event.data = (event.data ?? "") + line.slice(5);
      else if (line.trim() === "" && event.data !== undefined) {
        const data = JSON.parse(event.data);
        if (event.name === "error") throw refusal(data);
        yield data;
        event = {};
      }
    }
  }
}

/** Why an answer that has begun has no end. */
export function brokenOff() {
  return new Refusal("The answer broke off. Is the service still running?");
}

/** Items of a recommendation model whose title or id has every word of `search`. */
export async function items(route, search, signal) {
  const query = new URLSearchParams({ search, limit: "20" });
  return (await fetched(`${path(route)}/items?${query}`, { signal })).json();
}

/**
 * Tokens read and written so far, by series: one for each model, direction and replica.
 * @returns {Promise<Map<string, number>>}
 */
export async function tokensSoFar() {
  const page = await (await fetched("metrics")).text();
  return new Map(
    page
      .split("\n")
      .filter((line) => line.startsWith("heedful_tokens_total{"))
      .map((line) => line.split(/ (?=\S+$)/))
      .map(([series, value]) => [series, Number(value)]),
  );
}

/** From the `Server-Timing` header, in milliseconds; a model that answers in one pass has no reading apart from it. */
function serverTiming(response) {
  const header = response.headers.get("server-timing") ?? "";
  const { queue = 0, encode = 0, decode = 0 } = Object.fromEntries(
    [...header.matchAll(/(\w+);dur=([\d.]+)/g)].map(([, name, ms]) => [name, Number(ms)]),
  );
  return { queue, compute: encode + decode };
}

function path(route) {
  return route.replace(/^\//, "");
}

function posted(body, signal) {
  return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal };
}

async function fetched(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    throw unreached(error);
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw refusal({ status: response.status, ...problem }, response.headers.get("retry-after"));
}

async function arriving(body) {
  try {
    return await body;
  } catch (error) {
    throw error.name === "AbortError" ? error : brokenOff();
  }
}

function unreached(error) {
  if (error.name === "AbortError") return error;
  return new Refusal("The service cannot be reached. Is it still running?");
}

function refusal(problem, retryAfter) {
  const again = retryAfter ? ` Try again in ${retryAfter} s.` : "";
  const detail = problem.detail ?? `the service answered with status ${problem.status} and no explanation`;
  return new Refusal(/[.!?]$/.test(detail) ? detail + again : `${detail}.${again}`, {
    status: problem.status,
    requestId: problem.request_id,
    pointers: (problem.errors ?? []).map((each) => each.pointer),
  });
}
