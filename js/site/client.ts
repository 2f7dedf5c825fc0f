/** The model's worker, seen from the page: it has a thread of its own, so that the page does not freeze. */

import type { Device, Site } from "./listing.js";
import type { Answers, Message, Request } from "./protocol.js";

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** A model in a worker. */
export class Client {
  private readonly worker: Worker;
  private readonly waiting = new Map<number, Waiting>();
  private asked = 0;
  /** Why it answers no more. */
  private stopped: Error | undefined;

  /** @param progress - is told how many bytes have arrived. */
  constructor(progress: (bytes: number) => void = () => {}) {
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.worker.addEventListener("message", ({ data }: MessageEvent<Message>) => {
      if (data.kind === "progress") return progress(data.bytes);
      const waiting = this.waiting.get(data.id);
      this.waiting.delete(data.id);
      if (data.kind === "answer") waiting?.resolve(data.value);
      else waiting?.reject(Object.assign(new Error(data.message), { name: data.name }));
    });
    this.worker.addEventListener("error", (event) => {
      const said = event.message ? ` (${event.message.slice(0, 200)})` : "";
      this.stop(`the part of this page that runs the model has stopped${said}: load the page again`);
    });
  }

  /** Load a variant. */
  load(site: Site, variant: string, device: Device): Promise<Answers["load"]> {
    return this.send({ kind: "load", site, variant, device });
  }

  /** Return the answers to inputs of a task. */
  ask(task: string, inputs: readonly unknown[], parameters: object = {}): Promise<Answers["ask"]> {
    return this.send({ kind: "ask", task, inputs, parameters });
  }

  /** Compare the model with the bundle's golden vectors. */
  prove(): Promise<Answers["prove"]> {
    return this.send({ kind: "prove" });
  }

  /** End the worker, and with it the model. */
  end(): void {
    this.stop("another model was chosen meanwhile");
  }

  private send<K extends Request["kind"]>(request: Request & { kind: K }): Promise<Answers[K]> {
    if (this.stopped) return Promise.reject(this.stopped);
    const id = ++this.asked;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve: (value) => resolve(value as Answers[K]), reject });
      this.worker.postMessage({ id, ...request });
    });
  }

  private stop(message: string): void {
    this.worker.terminate();
    this.stopped = new Error(message);
    for (const waiting of this.waiting.values()) waiting.reject(this.stopped);
    this.waiting.clear();
  }
}
