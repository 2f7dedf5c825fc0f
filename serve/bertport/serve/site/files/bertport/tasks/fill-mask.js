/** fill-mask: the likeliest words for each mask of a text, in the fields of transformers' pipeline. */
import { largest } from "../arrays.js";
import { excerpt, InputTextError, UsageError } from "../errors.js";
import { rowAt } from "./labels.js";
import { boolean, oneText, rowOf, wholeNumber } from "./task.js";
/** The row of fill-mask: a list of words for a text with one mask, and a list of such lists for several. */
export const fillMask = {
    parameters: ["top_k", "targets", "truncation"],
    bind(parameters, context) {
        const { tokens, manifest } = context;
        const { maskId, maskToken } = tokens;
        if (maskId === null) {
            throw new UsageError(`the tokenizer of ${manifest.name} has no mask token, so nothing can be filled: use a bundle whose tokenizer has one`);
        }
        const truncation = boolean("truncation", parameters.truncation);
        const given = parameters.targets ?? null;
        const targets = given === null ? null : targetIds(given, context);
        const top = wholeNumber("top_k", parameters.top_k, 5);
        if (targets === null && top > manifest.vocabSize) {
            throw new UsageError(`top_k is ${top} and the vocabulary has ${manifest.vocabSize} words: ask for that many at most`);
        }
        return {
            head: "mlm",
            prepare(input) {
                const text = oneText("fill-mask", input);
                const encoded = tokens.encode(text, { truncation, masks: true });
                const positions = encoded.ids.flatMap((id, place) => (id === maskId ? [place] : []));
                if (!positions.length) {
                    throw new InputTextError(`No mask_token (${maskToken}) found on the input: write ${maskToken} where a word is to be filled in: ${excerpt(text)}`);
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
function words(logits, top, targets, tokens) {
    const most = logits.reduce((best, logit) => Math.max(best, logit), Number.NEGATIVE_INFINITY);
    const total = logits.reduce((sum, logit) => sum + Math.exp(logit - most), 0);
    const scored = (id) => [id, Math.exp(logits[id] - most) / total];
    if (targets) {
        const chosen = largest(targets.map((id) => logits[id]), top);
        return chosen.map((place) => scored(targets[place]));
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
function sequences(ids, position, tokens, single) {
    const [before, after] = [ids.slice(0, position), ids.slice(position + 1)].map((part) => part.filter((id) => id !== tokens.padId));
    const options = { skipSpecial: single };
    const filled = tokens.filling(before, after, options);
    return (id) => (id === tokens.padId ? tokens.decode([...before, ...after], options) : filled(id));
}
function targetIds(targets, context) {
    const listed = typeof targets === "string" ? [targets] : targets;
    if (!Array.isArray(listed))
        throw new UsageError(`targets is a word or a list of words, not ${excerpt(targets)}`);
    const ids = new Set();
    for (const word of listed) {
        if (typeof word !== "string")
            throw new UsageError(`a target is a word, not ${excerpt(word)}`);
        if (/\p{Cs}/u.test(word)) {
            throw new UsageError(`the target ${excerpt(word)} is not Unicode text (a lone surrogate): repair it`);
        }
        const exact = context.tokens.idOf(word);
        const id = exact ?? context.tokens.firstPiece(word);
        if (exact === null) {
            const piece = id === null ? "it is left out" : `its first piece '${context.tokens.tokenOf(id)}' stands for it`;
            context.warn(`the target ${excerpt(word)} is not in the vocabulary: ${piece}`);
        }
        if (id !== null)
            ids.add(id);
    }
    if (!ids.size)
        throw new UsageError("targets holds no word: give one at least, or leave targets out");
    return [...ids].sort((a, b) => a - b);
}
