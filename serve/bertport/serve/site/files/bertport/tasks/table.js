/** The table of tasks, and of tasks of bertport that this package does not have. */
import { multipleChoice, textClassification, textRanking } from "./classification.js";
import { fillMask } from "./fill-mask.js";
import { nextSentence, sentenceOrder } from "./pairs.js";
import { questionAnswering } from "./question-answering.js";
import { replacedTokens, tokenClassification } from "./token-classification.js";
import { embeddings, features } from "./vectors.js";
/** The tasks by name. */
export const TASKS = {
    "fill-mask": fillMask,
    "next-sentence": nextSentence,
    "sentence-order": sentenceOrder,
    "replaced-tokens": replacedTokens,
    "text-classification": textClassification,
    "token-classification": tokenClassification,
    "question-answering": questionAnswering,
    "multiple-choice": multipleChoice,
    "text-ranking": textRanking,
    features,
    embeddings,
};
/** What to do for a task that is not in this package. */
export const ELSEWHERE = {
    "zero-shot-classification": "use bertport in Python",
    "sentence-similarity": "compare the vectors that embeddings gives",
};
