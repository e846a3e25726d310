// The API page: every operation of /openapi.json with its fields, an example and its answers.

import { element } from "./dom.js";

async function begin() {
  const notice = document.getElementById("notice");
  let description;
  try {
    description = await (await fetch("openapi.json")).json();
  } catch {
    notice.textContent = "The description cannot be read. Reload this page to try again.";
    return;
  }
  notice.remove();
  const groups = new Map();
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const tag = operation.tags?.[0] ?? "other";
      groups.set(tag, [...(groups.get(tag) ?? []), operationOf(description, method, path, operation)]);
    }
  }
  const last = (tag) => tag === "operations"; // the tasks come first
  const sections = [...groups].sort(([one], [other]) => last(one) - last(other));
  document.getElementById("main").append(
    element("p", { class: "hint" }, `${description.info.summary} Version ${description.info.version}.`),
    ...sections.flatMap(([tag, operations]) => [element("h2", {}, tag.replaceAll("-", " ")), ...operations]),
  );
}

function operationOf(description, method, path, operation) {
  const body = operation.requestBody?.content?.["application/json"];
  const parameters = (operation.parameters ?? []).map(({ name, in: where, schema, required }) =>
    fieldOf(description, `${name} (${where})`, schema, required),
  );
  const success = operation.responses?.["200"]?.content?.["application/json"]?.schema;
  const problems = Object.keys(operation.responses ?? {}).filter((status) => status !== "200");
  return element(
    "details",
    { class: "operation" },
    element("summary", {}, element("span", { class: "verb" }, method.toUpperCase()), element("code", {}, path), element("span", { class: "hint" }, operation.summary ?? "")),
    element(
      "div",
      { class: "inside" },
      operation.description ? element("p", {}, operation.description) : null,
      parameters.length ? section("Parameters", element("ul", { class: "schema" }, ...parameters)) : null,
      body ? section("Request", fieldsOf(description, body.schema)) : null,
      body?.example ? section("Example", element("pre", {}, curl(path, body.example))) : null,
      success ? section("Answer", fieldsOf(description, success)) : null,
      problems.length ? section("Problems", element("p", { class: "hint" }, `${problems.join(", ")}, as application/problem+json (RFC 9457).`)) : null,
    ),
  );
}

function section(title, content) {
  return element("div", {}, element("h3", {}, title), content);
}

/** The fields of an object, or of the objects that a list or a choice is made of; a type's name where there are none. */
function fieldsOf(description, schema) {
  const found = objectOf(description, schema);
  if (!found) return element("p", { class: "hint" }, typeOf(description, schema));
  const list = Object.entries(found.properties).map(([name, each]) => fieldOf(description, name, each, found.required?.includes(name)));
  return element("ul", { class: "schema" }, ...list);
}

function fieldOf(description, name, schema, required) {
  const inner = objectOf(description, schema);
  const about = schema.description ?? resolved(description, schema).description;
  return element(
    "li",
    {},
    element("code", {}, name),
    element("span", { class: "hint" }, ` ${typeOf(description, schema)}${required ? ", required" : ""}`),
    about && !inner ? element("p", { class: "hint" }, about) : null,
    inner ? fieldsOf(description, schema) : null,
  );
}

function resolved(description, schema) {
  return schema?.$ref ? description.components.schemas[schema.$ref.split("/").pop()] : schema ?? {};
}

function objectOf(description, schema) {
  const plain = resolved(description, schema);
  if (plain.properties) return plain;
  const inside = [plain.items, ...(plain.anyOf ?? [])].filter(Boolean);
  return inside.map((each) => objectOf(description, each)).find(Boolean);
}

function typeOf(description, schema) {
  const plain = resolved(description, schema);
  if (plain.anyOf) return [...new Set(plain.anyOf.map((each) => typeOf(description, each)))].filter((type) => type !== "null").join(" or ");
  if (plain.type === "array") return `list of ${typeOf(description, plain.items)}`;
  if (plain.enum) return plain.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (plain.const !== undefined) return JSON.stringify(plain.const);
  const bounds = [["minimum", "at least"], ["exclusiveMinimum", "above"], ["maximum", "at most"], ["exclusiveMaximum", "below"]]
    .filter(([name]) => plain[name] !== undefined)
    .map(([name, words]) => `${words} ${plain[name]}`);
  return [plain.properties ? "object" : plain.type ?? "any", ...bounds].join(", ");
}

function curl(path, example) {
  const url = new URL(path.slice(1), document.baseURI).href;
  const quoted = JSON.stringify(example).replaceAll("'", String.raw`'\''`);
  return `curl ${url} \\\n  -H 'Content-Type: application/json' \\\n  -d '${quoted}'`;
}

begin();
