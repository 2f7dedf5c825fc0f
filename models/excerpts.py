"""Cut the two sample texts in data/ out of the held-out books: `python models/excerpts.py --help`."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import click

from pretraining.corpus import read_sections
from pretraining.errors import RecipeError

BOOKS = (
    "books/Robert Hugh Benson/Lord of the World",
    "books/Samuel Hopkins Adams/The Great American Fraud",
    "books/H. Rider Haggard/She",
)
"""A novel, reportage and an adventure; the other held-out books are named in data/README.md with the reason."""
SAMPLES = ("calibration", "evaluation")
"""Sections of a book go to them in turn, so that they share no chapter, let alone a paragraph."""
MOST_BYTES = 200_000
LENGTHS = range(80, 2001)
"""Paragraphs taken, in characters: shorter ones are mostly headings and exclamations."""
Sections = list[tuple[str, list[str]]]
"""Names of sections with their paragraphs, as `pretraining.corpus.read_sections` gives them."""
LEFT_OUT = re.compile(r"\b(?:negro|nigger|kafir|kaffir|savage|jew)", re.IGNORECASE)
"""Beginnings of words by which these books speak of peoples; a sample that ships needs none of it."""


@click.command()
@click.option("--heldout", type=click.Path(exists=True, path_type=Path), required=True, help="The held-out text.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default=Path("data"), show_default=True)
@click.option("--rest", type=click.Path(path_type=Path), help="Write the held-out text that is in neither here.")
def main(heldout: Path, output: Path, rest: Path | None) -> None:
    """Cut data/calibration.txt and data/evaluation.txt: a paragraph a line, at most 200 KB each.

    With --rest, also write what is left of the held-out text as JSON lines: variants of the default model are
    measured on it, and neither the search for their layers nor any calibration has seen it.
    """
    try:
        sections = list(read_sections(heldout))
    except RecipeError as error:
        raise click.ClickException(str(error)) from error
    there = {_book(name) for name, _ in sections}
    if absent := [book for book in BOOKS if book not in there]:
        raise click.ClickException(
            f"{heldout} has no section of {absent[0]}, of which the samples are cut: leave this step out with other "
            "text"
        )
    output.mkdir(parents=True, exist_ok=True)
    for name, lines in cut_samples(sections).items():
        (output / f"{name}.txt").write_text("".join(lines), encoding="utf-8")
        click.echo(f"{output / name}.txt: {len(lines)} paragraphs", err=True)
    if rest:
        write_rest(sections, rest)


def cut_samples(sections: Sections) -> dict[str, list[str]]:
    """Return the lines of each sample."""
    return {name: [line for book in BOOKS for line in cut(sections, book, index)] for index, name in enumerate(SAMPLES)}


def write_rest(sections: Sections, path: Path) -> None:
    """Write the paragraphs that are in no sample, as JSON lines."""
    taken = {line for lines in cut_samples(sections).values() for line in lines}
    with path.open("w", encoding="utf-8") as file:
        for section, paragraphs in sections:
            left = [paragraph for paragraph in paragraphs if _line(paragraph) not in taken]
            if left:
                file.write(json.dumps({"id": section, "paragraphs": left}, ensure_ascii=False) + "\n")


def cut(sections: Sections, book: str, index: int) -> Iterator[str]:
    """Yield lines of every second section of a book, from its beginning, up to the book's part of the sample."""
    room = MOST_BYTES // len(BOOKS)
    own = [paragraphs for name, paragraphs in sections if _book(name) == book]
    for paragraph in (paragraph for paragraphs in own[index :: len(SAMPLES)] for paragraph in paragraphs):
        line = _line(paragraph)
        if len(line) not in LENGTHS or LEFT_OUT.search(line):
            continue
        room -= len(line.encode())
        if room < 0:
            return
        yield line


def _book(section: str) -> str:
    return section.partition("#")[0]


def _line(paragraph: str) -> str:
    return " ".join(paragraph.split()) + "\n"


if __name__ == "__main__":
    main()
