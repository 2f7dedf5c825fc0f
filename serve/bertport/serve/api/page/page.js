// The page at /: asks this server, and shows what it answers. No library, no other host, nothing is stored.

import { TASKS, able } from "./tasks.js";
import { element } from "./views.js";

const $ = (id) => document.getElementById(id);

let models = [];
let asked = 0;

function choice(type, name, value, text, checked) {
  const input = element("input", { type, name, value, checked });
  return element("label", {}, input, text);
}

const bundle = () => models.find((each) => each.name === $("bundle").value) ?? models[0];
const chosen = (name) => [...document.querySelectorAll(`input[name="${name}"]:checked`)].map((each) => each.value);
const task = () => chosen("task")[0];
const values = () => [...$("fields").querySelectorAll("textarea")].map((each) => each.value);
// For an address in single quotes of a shell, which encodeURIComponent leaves as they are.
const encoded = (text) => encodeURIComponent(text).replaceAll("'", "%27");
const topK = () => Number($("top-k").value) || 5;
const headers = () => {
  const found = { "content-type": "application/json" };
  if ($("key").value) found.authorization = `Bearer ${$("key").value}`;
  return found;
};

function fill(id, ...children) {
  const box = $(id);
  const legend = box.querySelector("legend");
  box.replaceChildren(...(legend ? [legend] : []), ...children);
}

function showBundle() {
  const { variants } = bundle();
  const names = able(bundle());
  const before = names.includes(task()) ? task() : names[0];
  fill("tasks", ...names.map((name) => choice("radio", "task", name, TASKS[name].title, name === before)));
  fill("variants", ...variants.map((each) => choice("checkbox", "variant", each.variant, each.variant, true)));
  showTask();
}

function showTask() {
  asked += 1; // what is under way is of another task
  say("");
  const row = TASKS[task()];
  const mask = bundle().mask_token;
  fill("fields", ...row.fields(mask).map(([name, text, rows, empty]) =>
    element("label", {}, text, element("textarea", { name, rows, required: !empty, spellcheck: false }))));
  const examples = row.examples(mask);
  fill("examples", ...examples.map((texts) => {
    const button = element("button", { type: "button", textContent: texts.filter(Boolean).join(" · ").replaceAll("\n", " / ") });
    button.addEventListener("click", () => { setValues(texts); ask(); });
    return button;
  }));
  $("top-k-label").hidden = task() !== "fill-mask";
  $("top-k").disabled = task() !== "fill-mask"; // or a wrong number that is not seen stops the form
  setValues(examples[0]);
  $("results").replaceChildren();
  $("repeat").hidden = true;
}

function setValues(texts) {
  $("fields").querySelectorAll("textarea").forEach((each, index) => { each.value = texts[index] ?? ""; });
}

async function question(variant, path, body) {
  const began = performance.now();
  const response = await fetch(`${path}?variant=${encoded(variant)}`,
    { method: "POST", headers: headers(), body: JSON.stringify(body) });
  const answer = await response.json();
  const run = /run;dur=([\d.]+)/.exec(response.headers.get("server-timing") ?? "")?.[1];
  return { ok: response.ok, answer, run, total: performance.now() - began };
}

async function ask() {
  const number = ++asked;
  const row = TASKS[task()];
  const texts = values();
  const variants = chosen("variant");
  if (!variants.length) return say("Choose a variant.");
  const name = bundle().name.split("/").map(encoded).join("/");
  const path = `models/${name}/tasks/${task()}`;
  const body = { inputs: row.inputs(texts), parameters: row.parameters?.(topK(), texts) ?? {} };
  say("Asking …");
  const cards = [];
  const raw = {};
  for (const variant of variants) { // one after the other: the times are those of a server that is not busy
    const card = element("article", {}, element("h2", { textContent: variant }));
    try {
      const { ok, answer, run, total } = await question(variant, path, body);
      raw[variant] = answer;
      if (ok) {
        const timing = `${run ? `${run} ms in the model, ` : ""}${total.toFixed(1)} ms in all`;
        card.append(element("p", { className: "timing", textContent: timing }), ...row.view(answer, texts, bundle()));
      } else {
        card.append(element("p", { className: "wrong", textContent: answer.error }));
        if (answer.error_type === "unauthorized") $("key-box").open = true;
      }
    } catch (error) {
      card.append(element("p", { className: "wrong", textContent: `The server cannot be reached: ${error.message}` }));
    }
    if (number !== asked) return undefined; // asked again meanwhile
    cards.push(card);
  }
  $("results").replaceChildren(...cards);
  // Where the bundle has a head of its own under the Hub's name, that name asks something else.
  const taken = able(bundle()).includes(row.hub);
  showRepeat(path, body, variants, raw, taken ? undefined : row.python?.(texts, topK()));
  return say(`Answered by ${variants.length === 1 ? "one variant" : `${variants.length} variants`}.`);
}

function showRepeat(path, body, variants, raw, call) {
  const base = new URL(".", location.href).href;
  const key = $("key").value ? ' -H "Authorization: Bearer $BERTPORT_API_KEY"' : "";
  const quoted = JSON.stringify(body).replaceAll("'", "'\\''");
  const token = $("key").value ? ', token=os.environ["BERTPORT_API_KEY"]' : "";
  $("json").textContent = JSON.stringify(raw, null, 2);
  $("curl").textContent = variants
    .map((variant) => `curl '${base}${path}?variant=${encoded(variant)}'${key} -d '${quoted}'`).join("\n");
  $("python").textContent = call ? byHub(base + path, variants, token, call) : byUrllib(base + path, variants, body);
  $("repeat").hidden = false;
}

// With the Hub's client, where it knows the task.
function byHub(address, variants, token, call) {
  const url = address.replace(/[^/]+$/, TASKS[task()].hub ?? task());
  return `${token ? "import os\n\n" : ""}from huggingface_hub import InferenceClient\n\n`
    + variants.map((variant) =>
      `client = InferenceClient(model="${url}?variant=${encoded(variant)}"${token})\nprint(${call})`).join("\n");
}

function byUrllib(address, variants, body) {
  const key = $("key").value;
  const more = key ? ', {"Authorization": "Bearer " + os.environ["BERTPORT_API_KEY"]}' : "";
  return `import json${key ? "\nimport os" : ""}\nimport urllib.request\n\nbody = json.loads(${JSON.stringify(JSON.stringify(body))})\n`
    + variants.map((variant) =>
      `request = urllib.request.Request("${address}?variant=${encoded(variant)}", json.dumps(body).encode()${more})\n`
      + "print(json.load(urllib.request.urlopen(request)))").join("\n");
}

function say(text, wrong = false) {
  $("status").textContent = text;
  $("status").className = wrong ? "wrong" : "";
}

async function start() {
  try {
    const response = await fetch("models", { headers: headers() });
    const found = await response.json();
    if (!response.ok) {
      if (response.status === 401) $("key-box").open = true;
      if (response.status === 503) setTimeout(start, 1000);
      return say(found.error, response.status !== 503);
    }
    models = found;
  } catch (error) {
    return say(`The server cannot be reached: ${error.message}`, true);
  }
  $("bundle").replaceChildren(...models.map((each) => element("option", { value: each.name, textContent: each.name })));
  showBundle();
  return say("");
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); if (models.length) ask(); });
$("form").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); $("form").requestSubmit(); }
});
$("bundle").addEventListener("change", showBundle);
$("tasks").addEventListener("change", showTask);
$("key").addEventListener("change", start);
start();
