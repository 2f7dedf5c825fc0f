/** token-classification and replaced-tokens: labels of tokens, or the entities that neighbours of one label make. */

import { argmax, softmax } from "../arrays.js";
import { excerpt, UsageError } from "../errors.js";
import type { Values } from "../graph.js";
import type { Encoded, Pieces, Tokens } from "../tokenizer.js";
import { checkColumns, labelled, rowAt } from "./labels.js";
import { boolean, type Context, oneOf, oneText, rowOf, type Shared, type Task } from "./task.js";

const STRATEGIES = ["none", "simple"] as const;

/** Parameters of replaced-tokens. */
export interface TokenParameters extends Shared {
  /** Tokens or entities with these labels are left out. */
  readonly ignore_labels?: readonly string[];
}

/** Parameters of token-classification. */
export interface TokenClassificationParameters extends TokenParameters {
  /** `none`: a row for each token; `simple`: neighbouring tokens of one label are an entity. */
  readonly aggregation_strategy?: (typeof STRATEGIES)[number];
}

/** The label of one token. `start` and `end` count UTF-16 units, as `slice` does. */
export interface TokenLabel {
  /** The more probable label, as the bundle records it. */
  readonly entity: string;
  /** Probability of the label. */
  readonly score: number;
  /** Position of the token in the input, special tokens counted. */
  readonly index: number;
  /** The token, as the vocabulary writes it; of token-classification, what the vocabulary lacks as the text writes it. */
  readonly word: string;
  /** Its first character in the text. */
  readonly start: number;
  /** The character behind its last. */
  readonly end: number;
}

/** Neighbouring tokens under one label. `start` and `end` count UTF-16 units, as `slice` does. */
export interface Entity {
  /** The label of them all, without the prefix that says whether a token begins an entity. */
  readonly entity_group: string;
  /** Mean of the tokens' probabilities. */
  readonly score: number;
  /** The tokens, joined. */
  readonly word: string;
  /** Its first character in the text. */
  readonly start: number;
  /** The character behind its last. */
  readonly end: number;
}

/** The row of token-classification. */
export const tokenClassification: Task<unknown, TokenClassificationParameters, TokenLabel[] | Entity[]> = {
  parameters: ["aggregation_strategy", "ignore_labels", "truncation"],
  bind(parameters, context) {
    const strategy = oneOf("aggregation_strategy", parameters.aggregation_strategy, STRATEGIES, "none");
    const left = ignored(parameters.ignore_labels ?? ["O"]);
    return {
      head: "token-classification",
      prepare: reader("token-classification", "token-classification", parameters, context, written, (rows) =>
        strategy === "none"
          ? rows.filter((row) => !left.has(row.entity))
          : groups(rows)
              .map((group) => entity(group, context.tokens))
              .filter((made) => !left.has(made.entity_group)),
      ),
    };
  },
};

/** The row of replaced-tokens: for each token, whether it stands in place of another. */
export const replacedTokens: Task<unknown, TokenParameters, TokenLabel[]> = {
  parameters: ["ignore_labels", "truncation"],
  bind(parameters, context) {
    const left = ignored(parameters.ignore_labels ?? []);
    return {
      head: "rtd",
      prepare: reader("replaced-tokens", "rtd", parameters, context, ofVocabulary, (rows) =>
        rows.filter((row) => !left.has(row.entity)),
      ),
    };
  },
};

/** Return what a row shows of a token, from its id and the part of the text that it stands for. */
type Shown = (tokens: Tokens, id: number, part: string) => string;

const ofVocabulary: Shown = (tokens, id) => tokens.tokenOf(id) ?? "";
/** What the vocabulary does not hold is shown as it is written. */
const written: Shown = (tokens, id, part) => (id === tokens.unknownId ? part : ofVocabulary(tokens, id, part));

function reader<A>(
  name: string,
  head: string,
  parameters: Shared,
  context: Context,
  shown: Shown,
  answer: (rows: TokenLabel[]) => A,
) {
  const { tokens, manifest } = context;
  const { labels } = labelled(head, manifest);
  const truncation = boolean("truncation", parameters.truncation);
  tokens.needPlaces(name);
  return (input: unknown) => {
    const text = oneText(name, input);
    const encoded = tokens.encode(text, { truncation, places: true });
    return {
      rows: [rowOf(encoded)],
      answer([values]: readonly Values[]): A {
        checkColumns(values as Values, labels, manifest);
        return answer(tokenLabels(values as Values, encoded, labels, (id, part) => shown(tokens, id, part), text));
      },
    };
  };
}

/** Return a row for each token that is not special: its likeliest label. */
function tokenLabels(
  values: Values,
  encoded: Encoded,
  labels: readonly string[],
  shown: (id: number, part: string) => string,
  text: string,
): TokenLabel[] {
  const [first] = encoded.parts[0] as readonly [number, number];
  const part = encoded.tokens[0] as Pieces;
  return part.ids.map((id, place) => {
    const shares = softmax(rowAt(values, first + place));
    const best = argmax(shares);
    const [start, end] = [part.starts[place] as number, part.ends[place] as number];
    return {
      entity: labels[best] as string,
      score: shares[best] as number,
      index: first + place,
      word: shown(id, text.slice(start, end)),
      start,
      end,
    };
  });
}

/** Return runs of tokens of one label, but for the prefix that says that one begins or continues an entity. */
function groups(rows: readonly TokenLabel[]): TokenLabel[][] {
  const made: TokenLabel[][] = [];
  for (const row of rows) {
    const group = made.at(-1);
    const before = group?.at(-1);
    const continues = before && !row.entity.startsWith("B-") && kind(row.entity) === kind(before.entity);
    if (group && continues) group.push(row);
    else made.push([row]);
  }
  return made;
}

function kind(label: string): string {
  return /^[BI]-/.test(label) ? label.slice(2) : label;
}

function entity(group: readonly TokenLabel[], tokens: Tokens): Entity {
  const [first, last] = [group[0] as TokenLabel, group.at(-1) as TokenLabel];
  const dash = first.entity.indexOf("-");
  return {
    entity_group: dash < 0 ? first.entity : first.entity.slice(dash + 1),
    score: group.reduce((sum, row) => sum + row.score, 0) / group.length,
    word: tokens.join(group.map((row) => row.word)),
    start: first.start,
    end: last.end,
  };
}

function ignored(names: unknown): ReadonlySet<string> {
  if (Array.isArray(names) && names.every((name) => typeof name === "string")) return new Set(names);
  throw new UsageError(`ignore_labels is a list of labels, not ${excerpt(names)}`);
}
