"""Train small fine-tuned checkpoints for the guide: `python docs/small_models.py DIRECTORY`.

`classifier` tells liked from disliked, `tagger` finds people, places and companies, `reader` finds an answer in a text,
and `ranker` says how well a text answers a question. Each is a BERT of two layers of width 64, trained from nothing in
seconds on sentences of a few patterns: enough to try what a bundle does, and nothing else. `embedder` is the embedded
model with a mean over its tokens, as sentence-transformers writes it.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

MODEL = Path(__file__).resolve().parents[1] / "models" / "default"
"""The default model of this checkout: an installation's has no fp32 graph, whose weights are those of a checkpoint."""
BATCH = 32
"""Sentences in a step."""
FAST, GENTLE = (3e-3, 1), (2e-3, 20)
"""Rates of AdamW, far more than a pretrained model takes, each with the steps in which it is reached: with the first,
the ranker learnt nothing on some CPUs."""
LIKED, DISLIKED = (
    ["loved", "liked", "enjoyed", "admired", "adored"],
    ["hated", "disliked", "despised", "regretted", "loathed"],
)
GOOD, BAD = ["wonderful", "great", "brilliant", "funny", "moving"], ["boring", "terrible", "awful", "dull", "sad"]
THINGS = ["film", "book", "play", "song", "meal", "story", "game", "show"]
PEOPLE = ["Ann", "Bob", "Clara", "David", "Emma", "George", "Helen", "Jack", "Maria", "Peter", "Sarah", "Tom"]
PLACES = ("Berlin", "Paris", "London", "Rome", "Madrid", "New York", "Vienna", "Oslo")
COMPANIES = ("Royal Mail", "Ford", "Shell", "Sun Life", "North Bank")
LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG")
SLOTS = {"P": ("PER", PEOPLE), "L": ("LOC", PLACES), "C": ("ORG", COMPANIES)}
TAGGED = (
    "P lives in L .",
    "P works for C in L .",
    "Yesterday P met P in L .",
    "C moved from L to L .",
    "My name is P and I work for C in L .",
    "The train to L was late , said P .",
)
"""Sentences whose capitals alone stand for people, places and companies."""

Batch = dict[str, Any]


def reviews(tokenizer: Any, rng: random.Random) -> Batch:  # noqa: ANN401 — transformers is partly typed
    """Return sentences with 1 for those that like something."""
    import torch

    texts, labels = [], []
    for _ in range(BATCH):
        good = rng.random() < 0.5  # noqa: PLR2004 — as often as not
        verb, thing = rng.choice(LIKED if good else DISLIKED), rng.choice(THINGS)
        word = rng.choice(GOOD if good else BAD)
        texts.append(
            rng.choice(
                [
                    f"I {verb} this {thing}.",
                    f"A {word} {thing}.",
                    f"The {thing} was {word}, and I {verb} it.",
                    f"We {verb} it: what a {word} {thing}!",
                ]
            )
        )
        labels.append(int(good))
    return {**tokenizer(texts, padding=True, return_tensors="pt"), "labels": torch.tensor(labels)}


def tagged(tokenizer: Any, rng: random.Random) -> Batch:  # noqa: ANN401 — as above
    """Return sentences with a label for each token."""
    import torch

    sentences, labels = [], []
    for _ in range(BATCH):
        words, named = [], []
        for word in rng.choice(TAGGED).split():
            kind, listed = SLOTS.get(word, ("", [word]))
            for place, part in enumerate(rng.choice(listed).split()):
                words.append(part)
                named.append(LABELS.index(f"{'I' if place else 'B'}-{kind}") if kind else 0)
        sentences.append(words)
        labels.append(named)
    encoded = tokenizer(sentences, is_split_into_words=True, padding=True, return_tensors="pt")
    rows = [
        [-100 if word is None else labels[text][word] for word in encoded.word_ids(text)]  # -100: no label is learnt
        for text in range(BATCH)
    ]
    return {**encoded, "labels": torch.tensor(rows)}


def _facts(rng: random.Random) -> tuple[str, str, str]:
    """Return a question, a text of three sentences, and the answer in it."""
    person, place, company, year = (
        rng.choice(PEOPLE),
        rng.choice(PLACES),
        rng.choice(COMPANIES),
        rng.randint(1900, 2020),
    )
    sentences = [f"{person} lives in {place}.", f"{person} works for {company}.", f"{person} was born in {year}."]
    question, answer = rng.choice(
        [
            (f"Where does {person} live?", place),
            (f"Who does {person} work for?", company),
            (f"When was {person} born?", str(year)),
        ]
    )
    rng.shuffle(sentences)
    return question, " ".join(sentences), answer


def questions(tokenizer: Any, rng: random.Random) -> Batch:  # noqa: ANN401 — as above
    """Return questions with texts, and where the answers begin and end."""
    import torch

    asked, texts, answers = zip(*(_facts(rng) for _ in range(BATCH)), strict=True)
    encoded = tokenizer(list(asked), list(texts), padding=True, return_tensors="pt")
    begins = [text.index(answer) for text, answer in zip(texts, answers, strict=True)]
    ends = [begin + len(answer) - 1 for begin, answer in zip(begins, answers, strict=True)]
    starts, stops = ([encoded.char_to_token(text, at, 1) for text, at in enumerate(spots)] for spots in (begins, ends))
    return {**encoded, "start_positions": torch.tensor(starts), "end_positions": torch.tensor(stops)}


def documents(tokenizer: Any, rng: random.Random) -> Batch:  # noqa: ANN401 — as above
    """Return questions with sentences, and 1 for a sentence that answers its question."""
    import torch

    asked, texts, labels = [], [], []
    for _ in range(BATCH):
        question, text, answer = _facts(rng)
        sentence = rng.choice(text.split(". ")).rstrip(".") + "."
        asked.append(question)
        texts.append(sentence)
        labels.append(float(answer in sentence))
    encoded = tokenizer(asked, texts, padding=True, return_tensors="pt")
    return {**encoded, "labels": torch.tensor(labels)[:, None]}


def trained(model: torch.nn.Module, batches: Iterator[Batch], rate: float, warm: int) -> None:
    """Train a model on batches, at a rate that is reached after `warm` of them, and leave it ready to answer."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), rate)
    model.train()
    for step, batch in enumerate(batches, 1):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, step / warm)
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    model.eval()


def labelled(names: tuple[str, ...]) -> dict[str, Any]:
    """Return the settings that name labels."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: place for place, name in enumerate(names)}}


ONE_OF_TWO = {**labelled(("negative", "positive")), "problem_type": "single_label_classification"}
YES = {**labelled(("answers",)), "problem_type": "multi_label_classification"}
MODELS: dict[str, tuple[str, Callable[[Any, random.Random], Batch], int, tuple[float, int], dict[str, Any]]] = {
    "classifier": ("BertForSequenceClassification", reviews, 60, FAST, ONE_OF_TWO),
    "tagger": ("BertForTokenClassification", tagged, 100, FAST, labelled(LABELS)),
    "reader": ("BertForQuestionAnswering", questions, 200, FAST, {}),
    "ranker": ("BertForSequenceClassification", documents, 240, GENTLE, YES),
}
"""By name: transformers' class, what makes a batch, steps, their rate, and settings of config.json."""


def write(directory: Path) -> None:
    """Write every checkpoint below a directory."""
    import torch
    import transformers

    torch.set_num_threads(1)  # of so small a model, threads only wait for each other
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    for name, (kind, batch, steps, rate, settings) in MODELS.items():
        torch.manual_seed(7)
        rng = random.Random(7)  # noqa: S311 — sentences, not secrets
        config = transformers.BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            **settings,
        )
        model = getattr(transformers, kind)(config)
        trained(model, (batch(tokenizer, rng) for _ in range(steps)), *rate)
        model.save_pretrained(directory / name)
        tokenizer.save_pretrained(directory / name)
    embedder(directory / "embedder")


def embedder(directory: Path) -> None:
    """Write the embedded model as one of sentence-transformers, the mean over its tokens scaled to length 1."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    from bertport.export import restore

    with tempfile.TemporaryDirectory() as place:
        restore(MODEL, Path(place) / "checkpoint")
        encoder = Transformer(str(Path(place) / "checkpoint"))
        pooling = Pooling(encoder.get_embedding_dimension(), pooling_mode="mean")
        SentenceTransformer(modules=[encoder, pooling, Normalize()], device="cpu").save(str(directory))


if __name__ == "__main__":
    if len(sys.argv) != 2:  # noqa: PLR2004 — the program and the directory
        sys.exit("usage: python docs/small_models.py DIRECTORY")
    import transformers

    transformers.logging.set_verbosity_error()  # it reports each weight of a head that an encoder leaves out
    transformers.logging.disable_progress_bar()
    write(Path(sys.argv[1]))
