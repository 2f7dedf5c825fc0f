/** The table of heads that this package answers with: the output of each. */
/** Outputs of the graph by head. */
export const OUTPUTS = {
    mlm: "logits",
    nsp: "seq_relationship_logits",
    sop: "sentence_order_logits",
    rtd: "replaced_token_logits",
    "sequence-classification": "class_logits",
    "token-classification": "token_logits",
    "question-answering": "span_logits",
    "multiple-choice": "choice_logits",
    embedding: "sentence_embedding",
    pooler: "pooler_output",
};
/** The output that every encoder has, `[batch, sequence, hidden]`. */
export const HIDDEN_STATES = "last_hidden_state";
/** The input of serving graphs that states which positions are decoded: indices into `[batch x sequence]`. */
export const POSITIONS = "masked_positions";
/** The input of encoders that tell texts apart by segments. */
export const SEGMENTS = "token_type_ids";
/** Return whether an output has a row for each token of a text. */
export function isPerToken(output) {
    const perToken = [
        HIDDEN_STATES,
        OUTPUTS.mlm,
        OUTPUTS.rtd,
        OUTPUTS["token-classification"],
        OUTPUTS["question-answering"],
    ];
    return perToken.includes(output);
}
