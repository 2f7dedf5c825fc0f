/** The model's worker, seen from the page: it has a thread of its own, so that the page does not freeze. */
/** A model in a worker. */
export class Client {
    worker;
    waiting = new Map();
    asked = 0;
    /** Why it answers no more. */
    stopped;
    /** @param progress - is told how many bytes have arrived. */
    constructor(progress = () => { }) {
        this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
        this.worker.addEventListener("message", ({ data }) => {
            if (data.kind === "progress")
                return progress(data.bytes);
            const waiting = this.waiting.get(data.id);
            this.waiting.delete(data.id);
            if (data.kind === "answer")
                waiting?.resolve(data.value);
            else
                waiting?.reject(Object.assign(new Error(data.message), { name: data.name }));
        });
        this.worker.addEventListener("error", (event) => {
            const said = event.message ? ` (${event.message.slice(0, 200)})` : "";
            this.stop(`the part of this page that runs the model has stopped${said}: load the page again`);
        });
    }
    /** Load a variant. */
    load(site, variant, device) {
        return this.send({ kind: "load", site, variant, device });
    }
    /** Return the answers to inputs of a task. */
    ask(task, inputs, parameters = {}) {
        return this.send({ kind: "ask", task, inputs, parameters });
    }
    /** Compare the model with the bundle's golden vectors. */
    prove() {
        return this.send({ kind: "prove" });
    }
    /** End the worker, and with it the model. */
    end() {
        this.stop("another model was chosen meanwhile");
    }
    send(request) {
        if (this.stopped)
            return Promise.reject(this.stopped);
        const id = ++this.asked;
        return new Promise((resolve, reject) => {
            this.waiting.set(id, { resolve: (value) => resolve(value), reject });
            this.worker.postMessage({ id, ...request });
        });
    }
    stop(message) {
        this.worker.terminate();
        this.stopped = new Error(message);
        for (const waiting of this.waiting.values())
            waiting.reject(this.stopped);
        this.waiting.clear();
    }
}
