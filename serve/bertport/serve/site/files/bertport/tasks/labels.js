/** Labels: from the logits of a head that classifies to scores under the labels that the bundle records. */
import { sigmoid, softmax } from "../arrays.js";
import { BundleError, MissingHeadError } from "../errors.js";
/** Names of the functions that make scores of logits, as transformers has them. */
export const ACTIVATIONS = ["softmax", "sigmoid", "none"];
/** Return a head's entry, and its label per column. */
export function labelled(head, manifest) {
    const entry = manifest.heads[head];
    if (entry?.labels)
        return { entry, labels: entry.labels };
    throw new MissingHeadError(`${manifest.name} does not record what its ${head} labels mean: export it again`);
}
/** Refuse logits without a column for each label. */
export function checkColumns(values, labels, manifest) {
    if (values.width === labels.length)
        return;
    throw new BundleError(`manifest.json of ${manifest.name} gives ${labels.length} labels to a head of ${values.width} columns: the bundle ` +
        "is damaged; export again");
}
/** Return the scores of logits. */
export function activated(logits, activation) {
    if (activation === "softmax")
        return softmax(logits);
    return Array.from(logits, (logit) => (activation === "sigmoid" ? sigmoid(logit) : logit));
}
/** Return the row `index` of values. */
export function rowAt(values, index) {
    return values.data.subarray(index * values.width, (index + 1) * values.width);
}
