"""The rate of labelled data: the texts that are timed, the processes that are, and what is said of the figures."""

import json

import pytest

from bench.checkout import ROOT
from bench.labelled_rate import GROWTH, MOST_WORDS, measure, run, table, texts, write
from bertport.measure.labelled.records import open_records
from bertport.runtime.heads import SEQUENCE_CLASSIFICATION
from tests.heads import head_bundle


def test_texts_are_seeded_and_short(tmp_path):
    assert texts(50) == texts(50)
    assert {len(text.split()) for text in texts(500)} == set(range(3, MOST_WORDS + 1))
    path = write(tmp_path / "data.jsonl", 50)
    assert [record.values["text"] for record in open_records(path)] == texts(50)


@pytest.mark.slow
def test_both_sides_are_processes_of_their_own(tmp_path_factory, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.labelled_rate.MOST_WORDS", 8)  # the tiny model takes 64 tokens
    _, bundle = head_bundle(tmp_path_factory, "bert", SEQUENCE_CLASSIFICATION)
    path = write(tmp_path / "data.jsonl", 60)
    seconds, printed = run("predict", bundle, ("fp32", "portable"), path)
    assert seconds > 0
    assert printed == ""
    _, printed = run("evaluate", bundle, ("fp32", "portable"), path)
    assert 2e7 < int(printed) < 1e9  # Python with NumPy and ONNX Runtime; pytest's own peak does not count
    with pytest.raises(RuntimeError, match="FileNotFoundError"):
        run("predict", bundle, ("fp32",), tmp_path / "none.jsonl")


def test_sides_take_turns_and_a_rate_is_of_all_answers(tmp_path, monkeypatch):
    ran = []

    def taken(side, _, variants, path):
        assert variants == ("fp32", "int8-dynamic")
        ran.append((side, path.stem))
        return {"predict": 9.0, "evaluate": 10.0}[side], str(len(ran) * 10**6)

    monkeypatch.setattr("bench.labelled_rate.run", taken)
    found = measure(tmp_path, ("fp32", "int8-dynamic"), tmp_path, 60, 2)
    short, longer = "60", str(60 * GROWTH)
    assert ran[2:] == [
        ("evaluate", short),
        ("predict", short),
        ("predict", short),
        ("evaluate", short),
        ("evaluate", longer),
    ]
    assert found["evaluate"] == {"seconds": [10.0, 10.0], "answers_per_second": 12.0}
    assert found["share"]["value"] == pytest.approx(0.9)
    assert found["peak_bytes"] == {short: 6 * 10**6, longer: 7 * 10**6}


def figures(share):
    return {
        "variants": ["fp32", "int8-dynamic"],
        "predict": {"answers_per_second": 1000.0},
        "evaluate": {"answers_per_second": 1000.0 * share},
        "share": {"value": share, "low": share - 0.01, "high": share + 0.01},
        "peak_bytes": {"10,000": 100_000_000, "40,000": 101_000_000},
    }


def test_the_bar_is_met_or_missed():
    line = table(figures(0.95))
    assert "0.950 of it (0.940 to 0.960), met; peak 100 MB for 10,000 texts, 101 MB for 40,000" in line
    assert "missed" in table(figures(0.85))


def test_the_index_of_research_says_what_the_data_say():
    data = json.loads((ROOT / "docs" / "data" / "labelled-rate.json").read_text(encoding="utf-8"))
    text = " ".join((ROOT / "docs" / "research" / "README.md").read_text(encoding="utf-8").split())
    share, (less, more) = data["share"], data["peak_bytes"].items()
    assert f"at {share['value']:.2f} ({share['low']:.2f} to {share['high']:.2f}) of the rate of `Model.predict`" in text
    assert f"{less[1] / 1e6:.0f} MB for {less[0]} texts and {more[1] / 1e6:.0f} MB for {more[0]}" in text
