"""The demonstration's figures: what a run writes, and the part of models/README.md that is made of it."""

from __future__ import annotations

import shutil

import pytest

from bench import demonstration
from bench.demonstration import run, section, summary
from tests.models.test_demonstration import write_corpus


def test_the_page_is_what_the_data_say():
    demonstration.main(["--check"])


@pytest.mark.slow
def test_a_run_gives_what_the_page_tells(tiny_bundle, tmp_path):
    corpus, encoder = write_corpus(tmp_path / "corpus.jsonl"), shutil.copytree(tiny_bundle, tmp_path / "encoder")
    options = ("--bundle", str(encoder), "--heldout", "9", "--accuracy-budget", "none")
    one = run(corpus, tmp_path / "output", *options)
    assert 0 < one["bundle_seconds"] < one["process_seconds"]
    figures = summary([one, one])
    machine = {"usable_cores": 2.0, "cpu": "Some CPU", "instruction_set": "avx2", "versions": {"bertport": "1"}}
    text = section({**figures, "machine": machine, "date": "2026-11-30T00:00:00Z", "commit": "0123456789"})
    assert f"is there {one['bundle_seconds']:.0f} seconds after the start" in text.replace("\n", " ")
    assert "(medians of 2 runs). Of 9 held-out passages fp32 places " in text.replace("\n", " ")


def test_a_run_that_fails_is_told_with_its_sentence(tmp_path):
    with pytest.raises(RuntimeError, match="has passages of 0 textbooks"):
        run(write_corpus(tmp_path / "corpus.jsonl", {}), tmp_path / "output")
