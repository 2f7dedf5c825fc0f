/**
 * question-answering: the part of a context that answers a question.
 *
 * A context that is too long for the model is read in windows that overlap, each behind the whole question. In each, the
 * score of a span is the product of two probabilities: that its first token begins the answer, and that its last ends it.
 */
import { largest, softmax } from "../arrays.js";
import { excerpt, InputTextError, UsageError } from "../errors.js";
import { boolean, hasFields, refuseSegments, rowOf, wholeNumber } from "./task.js";
const MOST_TOKENS = 384;
const MOST_STRIDE = 128;
const MOST_ANSWERS = 100;
/** The row of question-answering. */
export const questionAnswering = {
    parameters: [
        "top_k",
        "max_answer_len",
        "max_seq_len",
        "doc_stride",
        "handle_impossible_answer",
        "align_to_words",
        "truncation",
    ],
    bind(parameters, { tokens, manifest }) {
        tokens.needPlaces("question-answering");
        if (tokens.padsLeft) {
            throw new UsageError(`question-answering with a tokenizer that pads on the left (${manifest.name}) is not in this package: use bertport in Python for this bundle`);
        }
        const top = wholeNumber("top_k", parameters.top_k, 1, 1, MOST_ANSWERS);
        const longest = wholeNumber("max_answer_len", parameters.max_answer_len, 15);
        const fallback = Math.min(tokens.maxLength, MOST_TOKENS);
        const length = wholeNumber("max_seq_len", parameters.max_seq_len, fallback, 1, tokens.maxLength);
        const usual = Math.min(Math.floor(length / 2), MOST_STRIDE);
        const first = boolean("truncation", parameters.truncation);
        const stride = wholeNumber("doc_stride", parameters.doc_stride, usual, 0, length);
        const windows = { length, stride: first ? 0 : stride, cut: 1 }; // one window has no neighbour
        const impossible = boolean("handle_impossible_answer", parameters.handle_impossible_answer);
        const align = boolean("align_to_words", parameters.align_to_words, true);
        return {
            head: "question-answering",
            prepare(input) {
                const pair = questionIn(input);
                const all = tokens.windows(pair, windows);
                if (!all[0]?.tokens[1]?.ids.length) {
                    throw new InputTextError(`the context has no tokens: give one with words in it: ${excerpt(pair)}`);
                }
                const encoded = first ? all.slice(0, 1) : all;
                for (const window of encoded)
                    refuseSegments(pair, window, manifest.segmentCount);
                return {
                    rows: encoded.map((window) => rowOf(window)),
                    answer(values) {
                        // Several spans may be one answer once they are extended to words.
                        const count = align ? 2 * top + 10 : top;
                        const made = new Map();
                        let empty = Number.POSITIVE_INFINITY;
                        for (const [index, window] of encoded.entries()) {
                            const found = spans(values[index], window, count, longest);
                            empty = Math.min(empty, found.empty);
                            for (const span of found.spans)
                                add(made, span, window, pair[1], align);
                        }
                        const answers = [...made.values()];
                        if (impossible)
                            answers.push({ score: empty, start: 0, end: 0, answer: "" });
                        const order = largest(answers.map((answer) => answer.score), top);
                        const best = order.map((place) => answers[place]);
                        return best.length === 1 ? best[0] : best;
                    },
                };
            },
        };
    },
};
function questionIn(input) {
    if (!hasFields(input, ["question", "context"]) ||
        typeof input.question !== "string" ||
        typeof input.context !== "string") {
        throw new InputTextError(`question-answering takes {"question": "Q", "context": "C"}, not ${excerpt(input)}`);
    }
    for (const name of ["question", "context"]) {
        if (input[name] === "")
            throw new InputTextError(`the ${name} is empty: give one with words in it`);
    }
    return [input.question, input.context];
}
/** Return the likeliest spans of a window, best first, and the score of the empty answer. */
function spans(values, window, count, longest) {
    const [begin, end] = window.parts[1];
    // The first special token stands for the empty answer; nothing else outside of the context competes.
    const special = window.parts[0][0] > 0;
    const places = [...(special ? [0] : []), ...Array.from({ length: end - begin }, (_, place) => begin + place)];
    const [starts, ends] = [0, 1].map((column) => softmax(places.map((place) => values.data[2 * place + column])));
    const ahead = special ? 1 : 0;
    const scores = [];
    const spanOf = [];
    for (let first = 0; first < end - begin; first++) {
        for (let last = first; last < Math.min(end - begin, first + longest); last++) {
            scores.push(starts?.[first + ahead] * ends?.[last + ahead]);
            spanOf.push([first, last]);
        }
    }
    const chosen = largest(scores, count).map((place) => {
        const [first, last] = spanOf[place];
        return { score: scores[place], first, last };
    });
    return { spans: chosen, empty: special ? starts?.[0] * ends?.[0] : 0 };
}
/** Add a span to the answers; those with the same text, whatever its case, are one, whose score is their sum. */
function add(answers, span, window, context, align) {
    const part = window.tokens[1];
    let { first, last } = span;
    if (align) {
        while (part.words[first - 1] === part.words[first])
            first--;
        while (part.words[last + 1] === part.words[last])
            last++;
    }
    const [start, end] = [part.starts[first], part.ends[last]];
    const answer = context.slice(start, end);
    const known = answers.get(answer.toLowerCase());
    answers.set(answer.toLowerCase(), known ? { ...known, score: known.score + span.score } : { score: span.score, start, end, answer });
}
