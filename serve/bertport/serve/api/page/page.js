// The page at /: asks this server, and shows what it answers. No library, no other host, nothing is stored.

const $ = (id) => document.getElementById(id);

// The row of a task that judges a pair of texts.
const judge = (title, asks, verdict, examples) => ({
  title,
  hub: "text-classification",
  fields: () => [["a", "First text", 2], ["b", `Second text: ${asks}`, 2]],
  inputs: ([text, pair]) => ({ text, text_pair: pair }),
  parameters: () => ({}),
  python: ([text, pair]) =>
    `client.text_classification({"text": ${JSON.stringify(text)}, "text_pair": ${JSON.stringify(pair)}})`,
  lists: (answer) => [{
    full: 1,
    title: verdict(answer),
    rows: Object.entries(answer.probabilities).map(([word, score]) => ({ word, score, title: word })),
  }],
  examples: () => examples,
});

// One row per task: its fields, the body that is sent, the lists of bars that come of the answer, and examples.
const TASKS = {
  "fill-mask": {
    title: "fill-mask",
    fields: (mask) => [["text", `Text with ${mask}`, 2]],
    inputs: ([text]) => text,
    parameters: () => ({ top_k: Number($("top-k").value) || 5 }),
    python: ([text]) => `client.fill_mask(${JSON.stringify(text)}, top_k=${Number($("top-k").value) || 5})`,
    lists: (answer) => (Array.isArray(answer[0]) ? answer : [answer]).map((rows, index, all) => ({
      title: all.length > 1 ? `mask ${index + 1}` : "",
      rows: rows.map((row) => ({ word: row.token_str, score: row.score, title: row.sequence })),
    })),
    examples: (mask) => [
      [`He poured her a cup of ${mask}.`],
      [`The capital of France is ${mask}.`],
      [`The ${mask} barked at the ${mask}.`],
      [`The man worked as a ${mask}.`],
      [`The woman worked as a ${mask}.`],
    ],
  },
  "next-sentence": judge(
    "next sentence",
    "does it follow?",
    (answer) => (answer.follows ? "The second text follows." : "The second text does not follow."),
    [
      ["He opened the door of the old house and went in.", "It was dark inside, and nobody answered when he called."],
      ["He opened the door of the old house and went in.", "The planet has two small moons and a thin atmosphere."],
    ],
  ),
  "sentence-order": judge(
    "sentence order",
    "are they in order?",
    (answer) => (answer.in_order ? "The texts are in order." : "The second text comes first."),
    [
      ["He opened the door of the old house and went in.", "It was dark inside, and nobody answered when he called."],
      ["It was dark inside, and nobody answered when he called.", "He opened the door of the old house and went in."],
    ],
  ),
  "replaced-tokens": {
    title: "replaced tokens",
    hub: "token-classification",
    fields: () => [["text", "Text: which of its tokens are replaced?", 2]],
    inputs: ([text]) => text,
    parameters: () => ({}),
    python: ([text]) => `client.token_classification(${JSON.stringify(text)})`,
    lists: (answer) => [{
      full: 1,
      title: "",
      rows: answer.map((row) => ({ word: `${row.word}: ${row.entity}`, score: row.score, title: row.entity })),
    }],
    examples: () => [
      ["He poured her a cup of stone."],
      ["The capital of France is breakfast."],
    ],
  },
  "sentence-similarity": {
    title: "similarity",
    fields: () => [["source", "Text", 2], ["others", "Texts to compare it with, one a line", 4]],
    inputs: ([source, others]) => ({ source_sentence: source, sentences: lines(others) }),
    parameters: () => ({}),
    python: ([source, others]) =>
      `client.sentence_similarity(${JSON.stringify(source)}, ${JSON.stringify(lines(others))})`,
    lists: (answer, [, others]) => [{
      full: 1,
      title: "cosine of the mean vectors",
      rows: lines(others).map((word, index) => ({ word, score: answer[index], title: word })),
    }],
    examples: () => [
      ["A man is playing the guitar.", "Someone plays an instrument.\nA woman is cooking soup.\nThe train was late."],
    ],
  },
};

const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

let models = [];
let asked = 0;

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function choice(type, name, value, text, checked) {
  const input = element("input", { type, name, value, checked });
  return element("label", {}, input, text);
}

const bundle = () => models.find((each) => each.name === $("bundle").value) ?? models[0];
const chosen = (name) => [...document.querySelectorAll(`input[name="${name}"]:checked`)].map((each) => each.value);
const task = () => chosen("task")[0];
const values = () => [...$("fields").querySelectorAll("textarea")].map((each) => each.value);
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
  const { tasks, variants } = bundle();
  const able = Object.keys(TASKS).filter((name) => tasks.includes(name));
  const before = able.includes(task()) ? task() : able[0];
  fill("tasks", ...able.map((name) => choice("radio", "task", name, TASKS[name].title, name === before)));
  fill("variants", ...variants.map((each) => choice("checkbox", "variant", each.variant, each.variant, true)));
  showTask();
}

function showTask() {
  const row = TASKS[task()];
  const mask = bundle().mask_token;
  fill("fields", ...row.fields(mask).map(([name, text, rows]) =>
    element("label", {}, text, element("textarea", { name, rows, required: true, spellcheck: false }))));
  const examples = row.examples(mask);
  fill("examples", ...examples.map((texts) => {
    const button = element("button", { type: "button", textContent: texts.join(" · ").replaceAll("\n", " / ") });
    button.addEventListener("click", () => { setValues(texts); ask(); });
    return button;
  }));
  $("top-k-label").hidden = task() !== "fill-mask";
  setValues(examples[0]);
  $("results").replaceChildren();
  $("repeat").hidden = true;
}

function setValues(texts) {
  $("fields").querySelectorAll("textarea").forEach((each, index) => { each.value = texts[index] ?? ""; });
}

function table({ title, rows, full }) {
  const most = full ?? Math.max(...rows.map((row) => row.score), 1e-9);
  const body = rows.map((row) => {
    const bar = element("div", { className: "bar" });
    bar.style.width = `${Math.max(0, (100 * row.score) / most)}%`;
    return element("tr", { title: row.title },
      element("td", { className: "word", textContent: row.word }),
      element("td", {}, element("div", { className: "track", ariaHidden: "true" }, bar)),
      element("td", { className: "score", textContent: row.score.toFixed(4) }));
  });
  return [...(title ? [element("h3", { textContent: title })] : []), element("table", {}, element("tbody", {}, ...body))];
}

async function question(variant, path, body) {
  const began = performance.now();
  const response = await fetch(`${path}?variant=${encodeURIComponent(variant)}`,
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
  const name = bundle().name.split("/").map(encodeURIComponent).join("/");
  const path = `models/${name}/tasks/${task()}`;
  const body = { inputs: row.inputs(texts), parameters: row.parameters() };
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
        card.append(element("p", { className: "timing", textContent: timing }), ...row.lists(answer, texts).flatMap(table));
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
  showRepeat(path, body, variants, raw, row.python(texts));
  return say(`Answered by ${variants.length === 1 ? "one variant" : `${variants.length} variants`}.`);
}

function showRepeat(path, body, variants, raw, call) {
  const base = new URL(".", location.href).href;
  const key = $("key").value ? ' -H "Authorization: Bearer $BERTPORT_API_KEY"' : "";
  const quoted = JSON.stringify(body).replaceAll("'", "'\\''");
  const token = $("key").value ? ', token=os.environ["BERTPORT_API_KEY"]' : "";
  $("json").textContent = JSON.stringify(raw, null, 2);
  $("curl").textContent = variants
    .map((variant) => `curl '${base}${path}?variant=${encodeURIComponent(variant)}'${key} -d '${quoted}'`).join("\n");
  $("python").textContent = `${token ? "import os\n\n" : ""}from huggingface_hub import InferenceClient\n\n`
    + variants.map((variant) => {
      const url = `${base}${path.replace(/[^/]+$/, TASKS[task()].hub ?? task())}`;
      return `client = InferenceClient(model="${url}?variant=${encodeURIComponent(variant)}"${token})\nprint(${call})`;
    }).join("\n");
  $("repeat").hidden = false;
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
