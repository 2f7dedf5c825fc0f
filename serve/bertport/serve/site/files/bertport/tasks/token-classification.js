/** token-classification and replaced-tokens: labels of tokens, or the entities that neighbours of one label make. */
import { argmax, softmax } from "../arrays.js";
import { excerpt, UsageError } from "../errors.js";
import { checkColumns, labelled, rowAt } from "./labels.js";
import { boolean, oneOf, oneText, rowOf } from "./task.js";
const STRATEGIES = ["none", "simple"];
/** The row of token-classification. */
export const tokenClassification = {
    parameters: ["aggregation_strategy", "ignore_labels", "truncation"],
    bind(parameters, context) {
        const strategy = oneOf("aggregation_strategy", parameters.aggregation_strategy, STRATEGIES, "none");
        const left = ignored(parameters.ignore_labels ?? ["O"]);
        return {
            head: "token-classification",
            prepare: reader("token-classification", "token-classification", parameters, context, written, (rows) => strategy === "none"
                ? rows.filter((row) => !left.has(row.entity))
                : groups(rows)
                    .map((group) => entity(group, context.tokens))
                    .filter((made) => !left.has(made.entity_group))),
        };
    },
};
/** The row of replaced-tokens: for each token, whether it stands in place of another. */
export const replacedTokens = {
    parameters: ["ignore_labels", "truncation"],
    bind(parameters, context) {
        const left = ignored(parameters.ignore_labels ?? []);
        return {
            head: "rtd",
            prepare: reader("replaced-tokens", "rtd", parameters, context, ofVocabulary, (rows) => rows.filter((row) => !left.has(row.entity))),
        };
    },
};
const ofVocabulary = (tokens, id) => tokens.tokenOf(id) ?? "";
/** What the vocabulary does not hold is shown as it is written. */
const written = (tokens, id, part) => (id === tokens.unknownId ? part : ofVocabulary(tokens, id, part));
function reader(name, head, parameters, context, shown, answer) {
    const { tokens, manifest } = context;
    const { labels } = labelled(head, manifest);
    const truncation = boolean("truncation", parameters.truncation);
    tokens.needPlaces(name);
    return (input) => {
        const text = oneText(name, input);
        const encoded = tokens.encode(text, { truncation, places: true });
        return {
            rows: [rowOf(encoded)],
            answer([values]) {
                checkColumns(values, labels, manifest);
                return answer(tokenLabels(values, encoded, labels, (id, part) => shown(tokens, id, part), text));
            },
        };
    };
}
/** Return a row for each token that is not special: its likeliest label. */
function tokenLabels(values, encoded, labels, shown, text) {
    const [first] = encoded.parts[0];
    const part = encoded.tokens[0];
    return part.ids.map((id, place) => {
        const shares = softmax(rowAt(values, first + place));
        const best = argmax(shares);
        const [start, end] = [part.starts[place], part.ends[place]];
        return {
            entity: labels[best],
            score: shares[best],
            index: first + place,
            word: shown(id, text.slice(start, end)),
            start,
            end,
        };
    });
}
/** Return runs of tokens of one label, but for the prefix that says that one begins or continues an entity. */
function groups(rows) {
    const made = [];
    for (const row of rows) {
        const group = made.at(-1);
        const before = group?.at(-1);
        const continues = before && !row.entity.startsWith("B-") && kind(row.entity) === kind(before.entity);
        if (group && continues)
            group.push(row);
        else
            made.push([row]);
    }
    return made;
}
function kind(label) {
    return /^[BI]-/.test(label) ? label.slice(2) : label;
}
function entity(group, tokens) {
    const [first, last] = [group[0], group.at(-1)];
    const dash = first.entity.indexOf("-");
    return {
        entity_group: dash < 0 ? first.entity : first.entity.slice(dash + 1),
        score: group.reduce((sum, row) => sum + row.score, 0) / group.length,
        word: tokens.join(group.map((row) => row.word)),
        start: first.start,
        end: last.end,
    };
}
function ignored(names) {
    if (Array.isArray(names) && names.every((name) => typeof name === "string"))
        return new Set(names);
    throw new UsageError(`ignore_labels is a list of labels, not ${excerpt(names)}`);
}
