/** The page: a form for the tasks of the bundle, whose answers a worker of this browser gives. */
import { Client } from "./client.js";
import { RUNTIMES } from "./listing.js";
import { able, TASKS } from "./tasks.js";
import { element } from "./views.js";
const BASE = new URL(".", import.meta.url).href;
/** Milliseconds of a short text, up to which the golden vectors are compared without being asked for. */
const QUICK = 250;
/** Milliseconds that a first visit waits for the service worker, so that it keeps what is read then. */
const PATIENCE = 5000;
const AUTOMATIC = "automatic";
const DEVICES = {
    [AUTOMATIC]: "automatic",
    cpu: "CPU (WebAssembly)",
    gpu: "GPU (WebGPU)",
};
const MB = 1e6;
let site;
let gpu = false;
let client;
let loading = 0;
let asked = 0;
/** What is said while the model waits for a question; empty while none is loaded. */
let readiness = "";
/** Whether all that was loaded is kept for visits without a network. */
let kept = true;
function at(id) {
    return document.getElementById(id);
}
const row = () => TASKS[task()];
const boxes = () => [...at("fields").querySelectorAll("textarea")];
const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`)?.value ?? "";
const task = () => chosen("task");
const variant = () => site.variants.find(({ name }) => name === chosen("variant")) ?? site.variants[0];
function say(text, wrong = false) {
    at("status").textContent = text;
    at("status").className = wrong ? "wrong" : "";
}
function choices(id, rows, checked) {
    const labels = rows.map(([value, text]) => element("label", {}, element("input", { type: "radio", name: id, value, checked: value === checked }), text));
    const box = at(`${id}-box`);
    box.replaceChildren(box.querySelector("legend"), ...labels);
    box.hidden = rows.length < 2;
}
function showTask() {
    asked += 1; // what is under way is of another task
    if (readiness)
        say(readiness);
    const mask = site.mask_token;
    at("fields").replaceChildren(...row()
        .fields(mask)
        .map(([name, text, rows, empty]) => element("label", {}, text, element("textarea", { name, rows, required: !empty, spellcheck: false }))));
    const examples = row().examples(mask);
    const buttons = examples.map((texts) => {
        const text = texts.filter(Boolean).join(" · ").replaceAll("\n", " / ");
        const button = element("button", { type: "button", textContent: text });
        button.addEventListener("click", () => {
            fill(texts);
            void ask();
        });
        return button;
    });
    at("examples").replaceChildren(at("examples").querySelector("legend"), ...buttons);
    at("top-k-label").hidden = task() !== "fill-mask";
    at("top-k").disabled = task() !== "fill-mask"; // or a wrong number that is not seen stops the form
    fill(examples[0] ?? []);
    at("results").replaceChildren();
    at("repeat").hidden = true;
}
function fill(texts) {
    for (const [index, box] of boxes().entries())
        box.value = texts[index] ?? "";
}
async function ask() {
    if (!client || at("ask").disabled)
        return;
    const number = ++asked;
    const texts = boxes().map((box) => box.value);
    const parameters = row().parameters?.(Number(at("top-k").value) || 5, texts) ?? {};
    const [name, shown] = [task(), row()];
    say("Asking …");
    try {
        const { answers, milliseconds } = await client.ask(name, [shown.inputs(texts)], parameters);
        if (number !== asked)
            return; // asked again meanwhile
        const card = element("article", {}, element("h2", { textContent: variant().name }));
        const timing = `${milliseconds.toFixed(1)} ms in this browser`;
        card.append(element("p", { className: "timing", textContent: timing }), ...shown.view(answers[0], texts, site));
        at("results").replaceChildren(card);
        const written = (_, value) => (value instanceof Float32Array ? Array.from(value) : value);
        at("json").textContent = JSON.stringify(answers[0], written, 2);
        at("repeat").hidden = false;
        say("Answered here: no text left this browser.");
    }
    catch (error) {
        if (number === asked)
            say(error.message, true);
    }
}
/** Load the chosen variant on the chosen device; where that was left to the page and a GPU fails, on the CPU. */
async function load() {
    const number = ++loading;
    const wanted = chosen("device") || AUTOMATIC;
    const device = wanted === AUTOMATIC ? (gpu && variant().webgpu ? "gpu" : "cpu") : wanted;
    let [note, loaded] = ["", await loadOn(device, number)];
    // Where something else was chosen meanwhile, this one failed by that.
    if (number === loading && typeof loaded === "string" && device === "gpu" && wanted === AUTOMATIC) {
        note = ` The GPU was tried first, and failed: ${loaded}`;
        loaded = await loadOn("cpu", number);
    }
    if (number !== loading)
        return;
    at("progress-box").hidden = true;
    if (typeof loaded === "string") {
        say(loaded, true);
        return;
    }
    at("ask").disabled = false;
    at("prove").disabled = false;
    at("checked").textContent = "Every file of it was compared with the SHA-256 in its manifest.";
    readiness = `Ready: it answers in this browser.${note}`;
    say(readiness);
    kept &&= loaded.kept;
    await showKept();
}
/** Load on a device; returns what went wrong as a sentence. */
async function loadOn(device, number) {
    const { name, bytes } = variant();
    const total = bytes + (site.files[RUNTIMES[device].wasm]?.size ?? 0);
    asked += 1; // what is under way ends with its model
    client?.end();
    readiness = "";
    at("ask").disabled = true;
    at("prove").disabled = true;
    at("proof").textContent = "";
    at("where").textContent = "";
    at("checked").textContent = "";
    at("progress-box").hidden = false;
    showProgress(0, total);
    say("Loading …");
    const made = new Client((done) => {
        if (number === loading)
            showProgress(done, total);
    });
    client = made;
    try {
        const loaded = await made.load(site, name, device);
        at("where").textContent = device === "gpu" ? "on the GPU" : `on the CPU, ${count(loaded.threads, "thread")}`;
        if (device === "gpu" || loaded.shortText <= QUICK) {
            const failure = await prove();
            if (failure && device === "gpu")
                return failure;
        }
        return loaded;
    }
    catch (error) {
        made.end();
        return error.message;
    }
}
function showProgress(done, total) {
    const bar = at("progress");
    bar.max = total;
    bar.value = Math.min(done, total);
    const ready = done >= total ? "; opening it" : "";
    at("bytes").textContent = `${(done / MB).toFixed(1)} of ${(total / MB).toFixed(1)} MB${ready}`;
}
/** Compare with the golden vectors and show what came of it; returns a sentence where they do not hold. */
async function prove() {
    const number = loading;
    const shown = at("proof");
    shown.className = "";
    shown.textContent = "comparing with the golden vectors …";
    try {
        const proof = await client.prove();
        if (number !== loading)
            return undefined; // of a model that is gone
        const outputs = Object.entries(proof.outputs).map(([name, { worst, tolerance }]) => `${name} ${worst.toPrecision(2)} of ${tolerance.toPrecision(2)}`);
        if (proof.holds) {
            shown.textContent = `The golden vectors hold: ids of ${proof.texts} texts; largest differences: ${outputs.join(", ")}.`;
            return undefined;
        }
        throw new Error(`The golden vectors do not hold here, so do not trust its answers: ${proof.differences[0]}`);
    }
    catch (error) {
        const { message } = error;
        if (number === loading) {
            shown.className = "wrong";
            shown.textContent = message;
        }
        return message;
    }
}
function count(number, noun) {
    return `${number} ${noun}${number === 1 ? "" : "s"}`;
}
/** Return whether there is a GPU, not one in software, that WebGPU takes. */
async function hasGpu() {
    const { gpu: door } = navigator;
    try {
        const adapter = await door?.requestAdapter();
        return adapter ? adapter.info?.isFallbackAdapter !== true : false;
    }
    catch {
        return false;
    }
}
/** Register the service worker, and wait a moment until it keeps files: what is read then is there without a network. */
async function keepOffline() {
    const { serviceWorker } = navigator;
    if (!serviceWorker)
        return;
    const before = serviceWorker.controller;
    serviceWorker.addEventListener("controllerchange", () => {
        if (before)
            at("newer").hidden = false;
    });
    try {
        const registration = await serviceWorker.register(new URL("service-worker.js", BASE).href, {
            updateViaCache: "none",
        });
        await Promise.race([serviceWorker.ready, failed(registration.installing), after(PATIENCE)]);
    }
    catch {
        at("offline").textContent = "This browser keeps nothing of it for visits without a network.";
    }
}
/** Return when an installation has ended in nothing, as where a file was changed on the way. */
function failed(installing) {
    return new Promise((resolve) => {
        installing?.addEventListener("statechange", () => {
            if (installing.state === "redundant")
                resolve();
        });
    });
}
function after(milliseconds) {
    return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
async function listing() {
    let response;
    try {
        response = await fetch(new URL("site.json", BASE), { cache: "no-cache" });
    }
    catch {
        throw new Error("The server of this page cannot be reached: try again when there is a network.");
    }
    if (!response.ok) {
        throw new Error(`site.json is missing (the server says ${response.status}): copy the whole site there.`);
    }
    try {
        const read = (await response.json());
        const lists = [read?.variants, read?.tasks, read?.heads];
        if (read?.files && read.variants?.length && lists.every(Array.isArray))
            return read;
    }
    catch {
        // It is not JSON.
    }
    throw new Error("site.json is damaged: copy the site there again, or make it again with bertport site.");
}
function showSite() {
    document.title = site.title;
    at("title").textContent = site.title;
    at("about").replaceChildren(...[
        ["bundle", site.name],
        ["digest", site.digest],
        ["licence", site.licence ?? "not stated"],
        ["runtime", `onnxruntime-web ${site.runtime}`],
    ].flatMap(([name, value]) => [
        element("dt", { textContent: name }),
        element("dd", { textContent: value }),
    ]));
    at("card").hidden = !("bundle/README.md" in site.files);
    const names = able(site);
    choices("task", names.map((name) => [name, TASKS[name].title]), names[0] ?? "");
    choices("variant", site.variants.map(({ name, bytes }) => [name, `${name} (${(bytes / MB).toFixed(0)} MB)`]), variant().name);
    showDevices();
    if (!names.length)
        throw new Error("The bundle has no head whose answers this page shows: ask it in Python.");
    showTask();
    at("form").hidden = false;
}
function showDevices() {
    choices("device", gpu && variant().webgpu ? Object.entries(DEVICES) : [], chosen("device") || AUTOMATIC);
}
async function start() {
    if (document.documentElement.dataset.broken !== undefined)
        return;
    try {
        site = await listing();
        gpu = await hasGpu();
        showSite();
    }
    catch (error) {
        say(error.message, true);
        return;
    }
    await keepOffline();
    if (!loading)
        await load(); // another variant may have been chosen meanwhile
}
/** Say whether all that was used is kept for visits without a network. */
async function showKept() {
    const { serviceWorker } = navigator;
    if (kept && serviceWorker)
        await serviceWorker.ready; // it keeps the page's own files
    at("offline").textContent =
        kept && serviceWorker
            ? "Kept here: the next visit needs no network."
            : "Not all of it is kept here: the next visit needs the network.";
}
at("form").addEventListener("submit", (event) => {
    event.preventDefault();
    void ask();
});
at("form").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey))
        return;
    event.preventDefault();
    at("form").requestSubmit();
});
at("task-box").addEventListener("change", showTask);
at("variant-box").addEventListener("change", () => {
    showDevices();
    void load();
});
at("device-box").addEventListener("change", () => void load());
at("prove").addEventListener("click", () => void prove());
at("reload").addEventListener("click", () => location.reload());
void start();
