"""Passages of textbooks with their subjects, parted by chapter into those to train on and those held out."""

import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from bertport.measure.labelled.data import LEAST_EXAMPLES
from pretraining.corpus import read_sections
from pretraining.errors import RecipeError

BOOK = re.compile(r"openstax/([^/#]+)/([^#]+)#\d+")
"""The id of a section: book, and chapter (a module, as OpenStax calls it)."""
ORDINARY = re.compile(r"^(introduction|principles)-|-bundle$")
"""Parts of a book's name that name no subject."""
SHORTEST, LONGEST = 20, 40
"""Words of a passage: shorter paragraphs are passed over, and longer ones cut."""
HELD_OUT = 5
"""One chapter of so many is held out, of each book."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """The beginning of a paragraph."""

    text: str
    """Its words."""
    subject: str
    """The subject of its book."""
    chapter: str
    """Its chapter, with the book."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Passages in two parts that share no chapter."""

    training: tuple[Passage, ...]
    """Passages to train on, in random order."""
    heldout: tuple[Passage, ...]
    """Passages to measure on, in random order."""

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subjects of the passages to train on, in alphabetical order: the labels."""
        return tuple(sorted({passage.subject for passage in self.training}))


def split_passages(corpus: Path, *, training: int, heldout: int, seed: int) -> Split:
    """Return passages of a corpus, of each part as many as asked for, where there are as many.

    Raises:
        RecipeError: for a file without passages of two textbooks, each of two chapters at least, for so few to train on
            that a subject is not among them, and for too few to measure on.
    """
    rng = random.Random(seed)  # noqa: S311 — a sample, not secrets
    kept, held = [], []
    every = sorted(_passages(corpus), key=lambda passage: passage.chapter)  # stable: paragraphs stay in their order
    chapters = [list(group) for _, group in groupby(every, key=lambda passage: passage.chapter)]
    for subject, group in groupby(sorted(chapters, key=_subject), key=_subject):
        shuffled = list(group)
        rng.shuffle(shuffled)
        count = len(shuffled) // HELD_OUT or 1
        if count == len(shuffled):
            raise RecipeError(
                f"{corpus} has one chapter on {subject}, and one to train on and one to hold out are needed: add some"
            )
        held += [passage for chapter in shuffled[:count] for passage in chapter]
        kept += [passage for chapter in shuffled[count:] for passage in chapter]
    books = {passage.subject for passage in every}
    if len(books) < 2:  # noqa: PLR2004 — to tell one from another
        raise RecipeError(
            f"{corpus} has passages of {len(books)} textbooks (sections with an id such as "
            "openstax/us-history/m50085#0), and a classifier needs two: name the corpus with the textbooks"
        )
    parts = (_sample(kept, training, rng), _sample(held, heldout, rng))
    split = Split(training=parts[0], heldout=parts[1])
    if lacking := sorted(books - set(split.subjects)):
        raise RecipeError(
            f"the {len(split.training)} passages to train on have none on {lacking[0]}: take more of them (--passages)"
        )
    if len(split.heldout) < LEAST_EXAMPLES:
        raise RecipeError(
            f"{corpus} has {len(split.heldout)} passages in the chapters that are held out, and {LEAST_EXAMPLES} are "
            "needed to measure on: add some"
        )
    return split


def _passages(corpus: Path) -> Iterator[Passage]:
    """Yield the passages of a corpus's textbooks; what else it holds is passed over."""
    for name, paragraphs in read_sections(corpus):
        if (book := BOOK.fullmatch(name)) is None:
            continue
        subject = ORDINARY.sub("", book[1]).replace("-", " ")
        for paragraph in paragraphs:
            words = paragraph.split()
            if len(words) >= SHORTEST:
                yield Passage(text=" ".join(words[:LONGEST]), subject=subject, chapter=f"{book[1]}/{book[2]}")


def _subject(chapter: Sequence[Passage]) -> str:
    return chapter[0].subject


def _sample(passages: Sequence[Passage], count: int, rng: random.Random) -> tuple[Passage, ...]:
    return tuple(rng.sample(passages, min(count, len(passages))))


def write_labelled(passages: Sequence[Passage], path: Path) -> None:
    """Write passages as `bertport evaluate` reads labelled texts."""
    lines = (json.dumps({"text": passage.text, "label": passage.subject}, ensure_ascii=False) for passage in passages)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
