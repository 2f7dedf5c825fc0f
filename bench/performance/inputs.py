"""The frozen inputs of bench.performance: sentences of the held-out text."""

from __future__ import annotations

import itertools
import random
import re
import sys
from typing import TYPE_CHECKING, Any

from bench.checkout import ROOT
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.text.encoder import Encoded
from bertport.runtime.text.tokenizer import Tokens

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["TEXT", "inputs_of", "lengths_of", "share_of"]

TEXT = ROOT / "data" / "evaluation.txt"
SMALLER = {"base": 0.25}
"""The share of the texts that a model gets."""
OTHERS = 0.4
"""The share of the texts that a task beside fill-mask gets."""
# As in bertport.measure.quality.samples: an abbreviation is a false end, which makes a short "sentence" of real words.
SENTENCE = re.compile("(?<=[.!?])[\"'\u201d\u2019)]*\\s+(?=[\"'\u201c\u2018(]?[A-Z])")
WORDS = (4, 60)
"""Fewest and most words of a sentence."""


def inputs_of(count: int) -> dict[str, list[Any]]:
    """Return the frozen inputs: sentences with one word masked, pairs of which half are neighbours, sentences.

    Raises:
        SystemExit: with a sentence, where the text does not have so many.
    """
    rng = random.Random(0)  # noqa: S311 — a frozen choice, not a secret
    paragraphs = [SENTENCE.split(line.strip()) for line in TEXT.read_text(encoding="utf-8").splitlines()]
    fit = [
        [
            sentence
            for sentence in paragraph
            if WORDS[0] <= len(sentence.split()) <= WORDS[1] and re.search(r"\b[a-z]{4,}\b", sentence)
        ]
        for paragraph in paragraphs
    ]
    every = [sentence for paragraph in fit for sentence in paragraph]
    neighbours = [pair for paragraph in fit for pair in itertools.pairwise(paragraph)]
    if count > len(neighbours):
        sys.exit(f"{count:,} texts were asked for and {TEXT.relative_to(ROOT)} has {len(neighbours):,}: ask for fewer")
    chosen = rng.sample(every, count)
    masked = []
    for sentence in chosen:
        word = rng.choice(list(re.finditer(r"\b[a-z]{4,}\b", sentence)))
        masked.append(f"{sentence[: word.start()]}[MASK]{sentence[word.end() :]}")
    pairs = rng.sample(neighbours, count)
    strangers = [(a, rng.choice(every)) for a, _ in pairs]
    mixed = [pair if number % 2 else other for number, (pair, other) in enumerate(zip(pairs, strangers, strict=True))]
    return {"fill-mask": masked, "next-sentence": [list(pair) for pair in mixed], "features": chosen}


def share_of(inputs: dict[str, list[Any]], model: str) -> dict[str, list[Any]]:
    """Return a model's inputs: the first of each task's."""
    part = SMALLER.get(model, 1.0)
    return {
        task: texts[: max(1, round(len(texts) * part * (1 if task == "fill-mask" else OTHERS)))]
        for task, texts in inputs.items()
    }


def lengths_of(bundle: Path, inputs: dict[str, list[Any]]) -> dict[str, list[int]]:
    """Count the tokens of each input."""
    tokens = Tokens.read(Bundle.open(bundle))

    def count(value: Any) -> int:  # noqa: ANN401 — a text or a pair
        [encoded] = tokens.encode([value if isinstance(value, str) else (value[0], value[1])])
        if not isinstance(encoded, Encoded):
            raise encoded
        return len(encoded.ids)

    return {task: [count(text) for text in texts] for task, texts in inputs.items()}
