"""The rate of labelled data: the texts that are timed, and what is said of the figures."""

from bench.labelled_rate import MOST_WORDS, table, texts, write
from bertport.measure.labelled.records import open_records


def test_texts_are_seeded_and_short(tmp_path):
    assert texts(50) == texts(50)
    assert {len(text.split()) for text in texts(500)} == set(range(3, MOST_WORDS + 1))
    path = write(tmp_path / "data.jsonl", 50)
    assert [record.values["text"] for record in open_records(path)] == texts(50)


def figures(share):
    return {
        "predict": {"texts_per_second": 1000.0},
        "labelled": {"texts_per_second": 1000.0 * share},
        "share": {"value": share, "low": share - 0.01, "high": share + 0.01},
        "peak_bytes": {"10,000": 100_000_000, "40,000": 101_000_000},
    }


def test_the_bar_is_met_or_missed():
    lines = table({"fp32": figures(0.95), "int8": figures(0.85)}).splitlines()
    assert "0.950 of it (0.940 to 0.960), met; peak 100 MB for 10,000 texts, 101 MB for 40,000" in lines[0]
    assert "missed" in lines[1]
