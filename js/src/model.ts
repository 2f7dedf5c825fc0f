/** A loaded model: a bundle's tokenizer and one of its graphs, which answer inputs of the tasks that it has heads for. */

import { Bundle, type ReadFile } from "./bundle.js";
import { excerpt, MissingHeadError, ProviderError, UsageError } from "./errors.js";
import { type Proof, prove } from "./golden.js";
import { Graph, type OnnxRuntime, obstacle, type Values } from "./graph.js";
import { HIDDEN_STATES, OUTPUTS } from "./heads.js";
import type { Manifest, Variant } from "./manifest.js";
import { type AnswerOf, ELSEWHERE, type ParametersOf, TASKS, type TaskName } from "./tasks/table.js";
import type { Bound, Context, Prepared, Task } from "./tasks/task.js";
import { Tokens } from "./tokenizer.js";

/** Options of `load`. */
export interface LoadOptions {
  /** Return the content of a file of the bundle by its path inside the bundle. */
  readonly readFile: ReadFile;
  /** The module onnxruntime-node or onnxruntime-web. */
  readonly runtime: OnnxRuntime;
  /** The variant; by default, see `preferred`. */
  readonly variant?: string;
  /** The digest that the bundle must have. */
  readonly digest?: string;
  /** Options of ONNX Runtime's session, such as `{ executionProviders: ["wasm"] }`. */
  readonly sessionOptions?: object;
  /** Called with each warning; `console.warn` by default. */
  readonly warn?: (message: string) => void;
}

/** Inputs that are prepared and run together, at most: they bound the memory of what the graph gives. */
const WINDOW = 256;

/** A bundle's tokenizer and one of its graphs. */
export class Model {
  private constructor(
    /** The bundle, whose files are checked when they are read. */
    readonly bundle: Bundle,
    /** Name of the variant that answers. */
    readonly variant: string,
    /** The tokenizer. */
    readonly tokens: Tokens,
    private readonly graph: Graph,
    private readonly warn: (message: string) => void,
  ) {}

  /** Return a model, of which every file was compared with its hash before it was opened. */
  static async load(options: LoadOptions): Promise<Model> {
    const bundle = await Bundle.open(options.readFile, options.digest);
    const variant = chosen(bundle.manifest, options.variant);
    const tokens = await Tokens.read(bundle);
    const graph = await Graph.open(bundle, variant, options.runtime, options.sessionOptions ?? {}, tokens.padId ?? 0);
    const warn = options.warn ?? console.warn;
    const entry = bundle.manifest.variants[variant] as Variant;
    if (!isRightAnywhere(entry)) {
      warn(
        `variant ${excerpt(variant)} is made for CPUs with ${entry.isa}, and on others its 8-bit products may ` +
          "overflow and its answers be wrong: check it by prove(), or choose another variant",
      );
    }
    return new Model(bundle, variant, tokens, graph, warn);
  }

  /** The manifest: what the bundle states about itself. */
  get manifest(): Manifest {
    return this.bundle.manifest;
  }

  /** Names of the tasks that the bundle has a head for. */
  get tasks(): TaskName[] {
    return (Object.keys(TASKS) as TaskName[]).filter((name) => {
      try {
        this.bind(name, {});
        return true;
      } catch {
        return false;
      }
    });
  }

  /**
   * Return the answer to one input.
   *
   * @param task - the name of a task.
   * @param input - what the task takes: a text, a pair, or an object, as in Python.
   * @param parameters - the task's, by the names that they have in Python.
   */
  async ask<N extends TaskName>(task: N, input: unknown, parameters?: ParametersOf<N>): Promise<AnswerOf<N>> {
    const [answer] = await this.predict(task, [input], parameters);
    return answer as AnswerOf<N>;
  }

  /** Return the answer to each input, in order; inputs of nearly equal length share a run. */
  async predict<N extends TaskName>(
    task: N,
    inputs: readonly unknown[],
    parameters?: ParametersOf<N>,
  ): Promise<AnswerOf<N>[]> {
    if (!Array.isArray(inputs)) throw new UsageError(`inputs is a list, not ${excerpt(inputs)}: for one input use ask`);
    const bound = this.bind(task, parameters ?? {});
    const output = bound.head === null ? HIDDEN_STATES : OUTPUTS[bound.head];
    const answers: AnswerOf<N>[] = [];
    for (let start = 0; start < inputs.length; start += WINDOW) {
      const prepared = inputs.slice(start, start + WINDOW).map((input) => bound.prepare(input));
      answers.push(...((await this.answered(prepared, output)) as AnswerOf<N>[]));
    }
    return answers;
  }

  /**
   * Compare tokenizer and graph with the bundle's golden vectors.
   *
   * @returns what was compared and how far it was at most; BundleError for a bundle without them.
   */
  async prove(): Promise<Proof> {
    return prove(this.bundle, this.variant, this.tokens, this.graph);
  }

  /** Release the memory of the graph. */
  async release(): Promise<void> {
    await this.graph.release();
  }

  private async answered(prepared: readonly Prepared<unknown>[], output: string): Promise<unknown[]> {
    const shares = await this.graph.run(
      prepared.flatMap((input) => input.rows),
      output,
    );
    let at = 0;
    return prepared.map((input) => {
      const values: Values[] = shares.slice(at, at + input.rows.length);
      at += input.rows.length;
      return input.answer(values);
    });
  }

  private bind(name: TaskName, parameters: object): Bound<unknown, unknown> {
    const task = taskOf(name);
    const unknown = Object.keys(parameters).find((key) => !task.parameters.includes(key as never));
    if (unknown !== undefined) {
      throw new UsageError(`unknown parameter ${excerpt(unknown)} of ${name}: choose ${task.parameters.join(", ")}`);
    }
    const context: Context = { manifest: this.manifest, tokens: this.tokens, warn: this.warn };
    this.needHead(name);
    const bound = task.bind(parameters, context);
    this.needHead(name, bound.head);
    return bound;
  }

  private needHead(name: TaskName, head: string | null = USUAL[name]): void {
    const { heads } = this.manifest;
    if (head === null || Object.hasOwn(heads, head)) return;
    throw new MissingHeadError(
      `${name} needs the head '${head}', which the checkpoint of ${this.manifest.name} does not hold ` +
        `(heads: ${Object.keys(heads).join(", ") || "none"}): use a bundle that has it`,
    );
  }
}

/** The head of each task, as far as its parameters do not choose it. */
const USUAL: Readonly<Record<TaskName, string | null>> = {
  "fill-mask": "mlm",
  "next-sentence": "nsp",
  "sentence-order": "sop",
  "replaced-tokens": "rtd",
  "text-classification": "sequence-classification",
  "token-classification": "token-classification",
  "question-answering": "question-answering",
  "multiple-choice": "multiple-choice",
  "text-ranking": "sequence-classification",
  features: null,
  embeddings: "embedding",
};

function taskOf(name: string): Task<unknown, object, unknown> {
  if (Object.hasOwn(TASKS, name)) return TASKS[name as TaskName] as Task<unknown, object, unknown>;
  const instead = Object.hasOwn(ELSEWHERE, name) ? ELSEWHERE[name] : undefined;
  if (instead) throw new UsageError(`${name} is not in this package: ${instead}`);
  throw new UsageError(`unknown task ${excerpt(name)}: choose ${Object.keys(TASKS).join(", ")}`);
}

/** Return the name of the variant to open; ProviderError or UsageError for one that cannot be. */
function chosen(manifest: Manifest, asked: string | undefined): string {
  const names = Object.keys(manifest.variants);
  if (asked === undefined) return preferred(manifest);
  const variant = Object.hasOwn(manifest.variants, asked) ? manifest.variants[asked] : undefined;
  if (!variant) throw new UsageError(`unknown variant ${excerpt(asked)}: choose ${names.join(", ")}`);
  const reason = obstacle(variant);
  if (reason) {
    const others = names.filter((name) => !obstacle(manifest.variants[name] as Variant));
    const advice = others.length ? `choose ${others.join(" or ")}` : "use another bundle";
    throw new ProviderError(`variant ${excerpt(asked)} ${reason}: ${advice}`);
  }
  return asked;
}

/** Return whether a variant is right on every CPU: of INT8, one made for CPUs whose 8-bit products may overflow. */
function isRightAnywhere({ isa }: Variant): boolean {
  return isa === null || ["avx2", "avx512"].includes(isa);
}

/**
 * Return the variant to open where none is asked for: `int8-dynamic`, or else `portable`.
 *
 * INT8 is taken where it is right on every CPU: which one this is cannot be told in a browser.
 */
export function preferred(manifest: Manifest): string {
  const int8 = Object.hasOwn(manifest.variants, "int8-dynamic") ? manifest.variants["int8-dynamic"] : undefined;
  if (int8 && isRightAnywhere(int8) && !obstacle(int8)) return "int8-dynamic";
  const fallback = Object.entries(manifest.variants).find(
    ([name, variant]) => name === "portable" && !obstacle(variant),
  );
  if (fallback) return "portable";
  const any = Object.entries(manifest.variants).find(([, variant]) => !obstacle(variant) && variant.isa === null);
  if (any) return any[0];
  const reasons = Object.entries(manifest.variants).map(
    ([name, variant]) => `${name} ${obstacle(variant) ?? `is made for CPUs with ${variant.isa}`}`,
  );
  throw new ProviderError(
    `the bundle ${manifest.name} has no variant that ONNX Runtime's CPU runs everywhere ` +
      `(${reasons.join("; ").slice(0, 300)}): name one, or use another bundle`,
  );
}
