"""The sample texts that ship are disjoint, small, one paragraph a line, and cut the same way every time."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import excerpts

DATA = Path(__file__).parents[2] / "data"


def lines_of(name: str) -> list[str]:
    return (DATA / f"{name}.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", excerpts.SAMPLES)
def test_a_sample_is_small_and_a_paragraph_a_line(name: str) -> None:
    assert 150_000 < (DATA / f"{name}.txt").stat().st_size <= 200_000
    for line in lines_of(name):
        assert len(line) + 1 in excerpts.LENGTHS
        assert line == " ".join(line.split())
        assert not excerpts.LEFT_OUT.search(line)


def test_the_samples_share_no_paragraph() -> None:
    calibration, evaluation = (set(lines_of(name)) for name in excerpts.SAMPLES)
    assert len(calibration) > 200
    assert not calibration & evaluation


def test_the_program_cuts_sections_in_turn_up_to_the_limit(tmp_path: Path) -> None:
    source = tmp_path / "heldout.jsonl"
    with source.open("w", encoding="utf-8") as file:
        for book in (*excerpts.BOOKS, "books/Somebody/Else", "openstax/physics/m1"):
            for number in range(60):
                paragraphs = [f"{book} {number} {part} " + "and so on " * 12 for part in range(20)]
                paragraphs += ["Too short.", "They spoke of savages there. " * 5]
                file.write(json.dumps({"id": f"{book}#{number}", "paragraphs": paragraphs}) + "\n")
    for output in (tmp_path / "first", tmp_path / "second"):
        rest = str(tmp_path / "rest.jsonl")
        result = CliRunner().invoke(excerpts.main, ["--heldout", str(source), "--output", str(output), "--rest", rest])
        assert result.exit_code == 0, result.output
    for name, parity in (("calibration", 0), ("evaluation", 1)):
        text = (tmp_path / "first" / f"{name}.txt").read_bytes()
        assert text == (tmp_path / "second" / f"{name}.txt").read_bytes()
        assert 190_000 < len(text) <= 200_000
        lines = text.decode().splitlines()
        for book in excerpts.BOOKS:
            numbers = [int(line.removeprefix(book).split()[0]) for line in lines if line.startswith(book)]
            assert numbers
            assert {number % 2 for number in numbers} == {parity}
        assert not [line for line in lines if "Else" in line or "openstax" in line or "savage" in line]

    samples = {
        line for name in excerpts.SAMPLES for line in (tmp_path / "first" / f"{name}.txt").read_text().splitlines()
    }
    left = [json.loads(line) for line in (tmp_path / "rest.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = [" ".join(paragraph.split()) for section in left for paragraph in section["paragraphs"]]
    every = [json.loads(line)["paragraphs"] for line in source.read_text(encoding="utf-8").splitlines()]
    assert not samples & set(kept)
    assert len(kept) == sum(map(len, every)) - len(samples)


def test_other_text_leaves_the_samples_as_they_are(tmp_path: Path) -> None:
    source, sample = tmp_path / "heldout.jsonl", tmp_path / "data" / "calibration.txt"
    source.write_text(json.dumps({"id": f"{excerpts.BOOKS[0]}#0", "paragraphs": ["Some text."]}), encoding="utf-8")
    sample.parent.mkdir()
    sample.write_text("As it was.\n", encoding="utf-8")
    result = CliRunner().invoke(excerpts.main, ["--heldout", str(source), "--output", str(sample.parent)])
    assert result.exit_code == 1
    assert f"has no section of {excerpts.BOOKS[1]}, of which the samples are cut: leave this step out" in result.stderr
    assert sample.read_text(encoding="utf-8") == "As it was.\n"
