// One row per task: its fields, the body that is sent, what the answer looks like, and examples.
//
// `fields` are [name, title, lines, whether it may be empty]; `head` is the head without which the task is another's.

import { bars, heading, marked, shares } from "./views.js";

const text = (value) => JSON.stringify(value);
const lines = (value) => value.split("\n").map((line) => line.trim()).filter(Boolean);
const labels = (rows) => rows.map(({ label, score }) => ({ word: label, score }));

// The row of a task that judges a pair of texts.
const judge = (title, asks, verdict, examples) => ({
  title,
  hub: "text-classification",
  fields: () => [["a", "First text", 2], ["b", `Second text: ${asks}`, 2]],
  inputs: ([first, second]) => ({ text: first, text_pair: second }),
  python: ([first, second]) => `client.text_classification({"text": ${text(first)}, "text_pair": ${text(second)}})`,
  view: (answer) => bars(
    Object.entries(answer.probabilities).map(([word, score]) => ({ word, score })),
    { title: verdict(answer), full: 1 },
  ),
  examples: () => examples,
});

const textOrPair = ([first, second]) => (second ? { text: first, text_pair: second } : first);
const best = (answer) => (Array.isArray(answer) ? answer : [answer]);

export const TASKS = {
  "fill-mask": {
    title: "fill-mask",
    fields: (mask) => [["text", `Text with ${mask}`, 2]],
    inputs: ([value]) => value,
    parameters: (topK) => ({ top_k: topK }),
    python: ([value], topK) => `client.fill_mask(${text(value)}, top_k=${topK})`,
    view: (answer) => (Array.isArray(answer[0]) ? answer : [answer]).flatMap((rows, index, all) => bars(
      rows.map((row) => ({ word: row.token_str, score: row.score, title: row.sequence })),
      { title: all.length > 1 ? `mask ${index + 1}` : "" },
    )),
    examples: (mask) => [
      [`He poured her a cup of ${mask}.`],
      [`The capital of France is ${mask}.`],
      [`The ${mask} barked at the ${mask}.`],
      [`The man worked as a ${mask}.`],
      [`The woman worked as a ${mask}.`],
    ],
  },
  "text-classification": {
    title: "classify",
    head: "sequence-classification",
    fields: () => [["text", "Text", 2], ["pair", "Second text, where the model judges pairs", 2, true]],
    inputs: textOrPair,
    python: (values) => `client.text_classification(${text(textOrPair(values))})`,
    view: ([rows]) => shares(labels(rows), { title: rows.length > 1 ? rows[0].label : "" }),
    examples: () => [
      ["I have never had a better cup of tea.", ""],
      ["The train was late, and nobody told us why.", ""],
      ["A man is playing the guitar.", "Someone plays an instrument."],
    ],
  },
  "token-classification": {
    title: "tag",
    head: "token-classification",
    fields: () => [["text", "Text whose entities are marked", 4]],
    inputs: ([value]) => value,
    python: ([value]) => `client.token_classification(${text(value)})`,
    view: (answer, [value]) => [
      marked(value, answer.map((row) => ({ ...row, label: row.entity_group }))),
      ...(answer.length ? bars(answer.map((row) => ({ word: `${row.word}: ${row.entity_group}`, score: row.score })), { full: 1 })
        : heading("No entities.")),
    ],
    examples: () => [
      ["Ada Lovelace was born in London and worked with Charles Babbage."],
      ["The United Nations met in Geneva on Monday, said Maria Weber of Reuters."],
    ],
  },
  "question-answering": {
    title: "answer",
    fields: () => [["question", "Question", 1], ["context", "Text in which the answer is looked for", 6]],
    inputs: ([question, context]) => ({ question, context }),
    parameters: () => ({ top_k: 3 }),
    python: ([question, context]) => `client.question_answering(question=${text(question)}, context=${text(context)}, top_k=3)`,
    view: (answer, [, context]) => {
      const [first, ...others] = best(answer);
      if (!first?.answer) return heading("The text does not answer it.");
      return [
        ...heading(first.answer),
        marked(context, [first]),
        ...bars([first, ...others].map((row) => ({ word: row.answer || "no answer", score: row.score })), { full: 1 }),
      ];
    },
    examples: () => [
      ["Where was Ada born?", "Ada Lovelace was born in London in 1815. She worked with Charles Babbage on a machine that was never built."],
      ["Who worked with her?", "Ada Lovelace was born in London in 1815. She worked with Charles Babbage on a machine that was never built."],
    ],
  },
  "zero-shot-classification": {
    title: "zero-shot",
    fields: () => [["text", "Text", 2], ["labels", "Labels to choose from, one a line", 4]],
    inputs: ([value]) => value,
    parameters: (_, [, names]) => ({ candidate_labels: lines(names) }),
    python: ([value, names]) => `client.zero_shot_classification(${text(value)}, ${text(lines(names))})`,
    view: (rows) => shares(labels(rows), { title: rows[0].label }),
    examples: () => [
      ["He poured her a cup of tea.", "drinks\nsports\ntravel"],
      ["The train was late, and nobody told us why.", "praise\ncomplaint\nquestion"],
    ],
  },
  "multiple-choice": {
    title: "choose",
    fields: () => [["prompt", "Text", 2], ["choices", "How it may go on, one a line", 4]],
    inputs: ([prompt, choices]) => ({ prompt, choices: lines(choices) }),
    view: (answer, [, choices]) => bars(
      lines(choices).map((word, index) => ({ word, score: answer.probabilities[index] })),
      { title: answer.choice, full: 1 },
    ),
    examples: () => [
      ["He was thirsty after the long walk.", "He drank a glass of water.\nHe bought a new car.\nHe closed the book."],
    ],
  },
  "text-ranking": {
    title: "rank",
    fields: () => [["query", "What is looked for", 1], ["documents", "Texts, one a line", 5]],
    inputs: ([query, documents]) => ({ query, documents: lines(documents) }),
    view: (answer, [, documents]) => shares(
      answer.map(({ corpus_id: place, score }) => ({ word: lines(documents)[place], score })),
      { ranked: true },
    ),
    examples: () => [
      ["How is tea made?", "Leaves are steeped in hot water.\nThe train was late.\nCoffee is made of roasted beans."],
    ],
  },
  "next-sentence": judge(
    "next sentence",
    "does it follow?",
    (answer) => (answer.follows ? "The second text follows." : "The second text does not follow."),
    [
      ["He opened the door of the old house and went in.", "It was dark inside, and nobody answered when he called."],
      ["He opened the door of the old house and went in.", "The planet has two small moons and a thin atmosphere."],
    ],
  ),
  "sentence-order": judge(
    "sentence order",
    "are they in order?",
    (answer) => (answer.in_order ? "The texts are in order." : "The second text comes first."),
    [
      ["He opened the door of the old house and went in.", "It was dark inside, and nobody answered when he called."],
      ["It was dark inside, and nobody answered when he called.", "He opened the door of the old house and went in."],
    ],
  ),
  "replaced-tokens": {
    title: "replaced tokens",
    hub: "token-classification",
    fields: () => [["text", "Text: which of its tokens are replaced?", 2]],
    inputs: ([value]) => value,
    python: ([value]) => `client.token_classification(${text(value)})`,
    view: (answer, [value]) => [
      marked(value, answer.filter((row) => row.entity === "replaced")),
      ...bars(answer.map((row) => ({ word: `${row.word}: ${row.entity}`, score: row.score, title: row.entity })), { full: 1 }),
    ],
    examples: () => [
      ["He poured her a cup of stone."],
      ["The capital of France is breakfast."],
    ],
  },
  "sentence-similarity": {
    title: "similarity",
    fields: () => [["source", "Text", 2], ["others", "Texts to compare it with, one a line", 4]],
    inputs: ([source, others]) => ({ source_sentence: source, sentences: lines(others) }),
    python: ([source, others]) => `client.sentence_similarity(${text(source)}, ${text(lines(others))})`,
    view: (answer, [, others], { heads }) => bars(
      lines(others).map((word, index) => ({ word, score: answer[index] })),
      heads.includes("embedding")
        ? { title: "similarity", full: answer.every((score) => Math.abs(score) <= 1.001) ? 1 : undefined }
        : { title: "cosine of the mean vectors", full: 1 },
    ),
    examples: () => [
      ["A man is playing the guitar.", "Someone plays an instrument.\nA woman is cooking soup.\nThe train was late."],
    ],
  },
};

// Whether a bundle can be asked a task of the page.
export const able = ({ tasks, heads }) => Object.keys(TASKS)
  .filter((name) => tasks.includes(name) && (!TASKS[name].head || heads.includes(TASKS[name].head)));
