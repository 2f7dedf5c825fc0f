/** fill-mask: the likeliest words for each mask of a text, in the fields of transformers' pipeline. */

import { largest } from "../arrays.js";
import { excerpt, InputTextError, UsageError } from "../errors.js";
import type { Tokens } from "../tokenizer.js";
import { rowAt } from "./labels.js";
import { boolean, type Context, oneText, rowOf, type Shared, type Task, wholeNumber } from "./task.js";

/** Parameters of fill-mask. */
export interface FillMaskParameters extends Shared {
  /** Answers per mask; 5 by default. */
  readonly top_k?: number | null;
  /** Only these words compete; their scores stay those of the full vocabulary. */
  readonly targets?: string | readonly string[] | null;
}

/** One word for one mask. */
export interface FilledMask {
  /** Probability of the word. */
  readonly score: number;
  /** Token id of the word. */
  readonly token: number;
  /** The word, or piece of one. */
  readonly token_str: string;
  /** The text with the word in place of the mask. */
  readonly sequence: string;
}

/** The row of fill-mask: a list of words for a text with one mask, and a list of such lists for several. */
export const fillMask: Task<unknown, FillMaskParameters, FilledMask[] | FilledMask[][]> = {
  parameters: ["top_k", "targets", "truncation"],
  bind(parameters, context) {
    const { tokens, manifest } = context;
    const { maskId, maskToken } = tokens;
    if (maskId === null) {
      throw new UsageError(
        `the tokenizer of ${manifest.name} has no mask token, so nothing can be filled: use a bundle whose tokenizer has one`,
      );
    }
    const truncation = boolean("truncation", parameters.truncation);
    const given = parameters.targets ?? null;
    const targets = given === null ? null : targetIds(given, context);
    const top = wholeNumber("top_k", parameters.top_k, 5);
    if (targets === null && top > manifest.vocabSize) {
      throw new UsageError(
        `top_k is ${top} and the vocabulary has ${manifest.vocabSize} words: ask for that many at most`,
      );
    }
    return {
      head: "mlm",
      prepare(input) {
        const text = oneText("fill-mask", input);
        const encoded = tokens.encode(text, { truncation, masks: true });
        const positions = encoded.ids.flatMap((id, place) => (id === maskId ? [place] : []));
        if (!positions.length) {
          throw new InputTextError(
            `No mask_token (${maskToken}) found on the input: write ${maskToken} where a word is to be filled in: ${excerpt(text)}`,
          );
        }
        return {
          rows: [rowOf(encoded, positions)],
          answer([values]) {
            const filled = positions.map((position, place) => {
              const logits = values ? rowAt(values, place) : new Float32Array();
              const sequence = sequences(encoded.ids, position, tokens, positions.length === 1);
              return words(logits, top, targets, tokens).map(([token, score]) => ({
                score,
                token,
                token_str: tokens.decode([token], { skipSpecial: false }),
                sequence: sequence(token),
              }));
            });
            return positions.length === 1 ? (filled[0] ?? []) : filled;
          },
        };
      },
    };
  },
};

/** Return the likeliest words of a position with their probabilities over the whole vocabulary. */
function words(
  logits: Float32Array,
  top: number,
  targets: readonly number[] | null,
  tokens: Tokens,
): [number, number][] {
  const most = logits.reduce((best, logit) => Math.max(best, logit), Number.NEGATIVE_INFINITY);
  const total = logits.reduce((sum, logit) => sum + Math.exp(logit - most), 0);
  const scored = (id: number): [number, number] => [id, Math.exp((logits[id] as number) - most) / total];
  if (targets) {
    const chosen = largest(
      targets.map((id) => logits[id] as number),
      top,
    );
    return chosen.map((place) => scored(targets[place] as number));
  }
  let ids = largest(logits, top);
  if (ids.some((id) => tokens.tokenOf(id) === undefined)) {
    const nameless = logits.map((logit, id) => (tokens.tokenOf(id) === undefined ? Number.NEGATIVE_INFINITY : logit));
    ids = largest(nameless, top).filter((id) => tokens.tokenOf(id) !== undefined);
  }
  return ids.map(scored);
}

/**
 * Return what gives the text with a word in place of a mask.
 *
 * Padding is dropped wherever it stands, as transformers does, and of a text with several masks the special tokens are
 * kept, because the other masks are among them.
 */
function sequences(ids: readonly number[], position: number, tokens: Tokens, single: boolean): (id: number) => string {
  const [before, after] = [ids.slice(0, position), ids.slice(position + 1)].map((part) =>
    part.filter((id) => id !== tokens.padId),
  ) as [number[], number[]];
  const options = { skipSpecial: single };
  const filled = tokens.filling(before, after, options);
  return (id) => (id === tokens.padId ? tokens.decode([...before, ...after], options) : filled(id));
}

function targetIds(targets: unknown, context: Context): number[] {
  const listed = typeof targets === "string" ? [targets] : targets;
  if (!Array.isArray(listed)) throw new UsageError(`targets is a word or a list of words, not ${excerpt(targets)}`);
  const ids = new Set<number>();
  for (const word of listed) {
    if (typeof word !== "string") throw new UsageError(`a target is a word, not ${excerpt(word)}`);
    if (/\p{Cs}/u.test(word)) {
      throw new UsageError(`the target ${excerpt(word)} is not Unicode text (a lone surrogate): repair it`);
    }
    const exact = context.tokens.idOf(word);
    const id = exact ?? context.tokens.firstPiece(word);
    if (exact === null) {
      const piece = id === null ? "it is left out" : `its first piece '${context.tokens.tokenOf(id)}' stands for it`;
      context.warn(`the target ${excerpt(word)} is not in the vocabulary: ${piece}`);
    }
    if (id !== null) ids.add(id);
  }
  if (!ids.size) throw new UsageError("targets holds no word: give one at least, or leave targets out");
  return [...ids].sort((a, b) => a - b);
}
