"""The benchmark of served heads: how far answers are apart, the table, and a short run of everything."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.serving import heads
from bench.serving.heads import DATA, PAGE, PEER, SERVED, VARIANTS, of_labels, of_vectors, section

ROOT = Path(__file__).resolve().parents[2]


def test_how_far_labels_are_apart():
    reference = [[{"label": "a", "score": 0.9}], [{"label": "b", "score": 0.6}], [{"label": "a", "score": 0.5}]]
    # the Hub's format has all labels of a text in a list within a list
    answers = [
        [[{"label": "b", "score": 0.2}, {"label": "a", "score": 0.8}]],
        {"label": "b", "score": 0.6},
        [{"label": "c", "score": 0.7}],
    ]
    apart = of_labels(reference, answers)
    assert apart == {"same_label": pytest.approx(2 / 3), "largest_score_difference": pytest.approx(0.1)}
    assert of_labels(reference, reference) == {"same_label": 1.0, "largest_score_difference": 0.0}


def test_how_far_vectors_are_apart():
    apart = of_vectors([[[1.0, 0.0]], [[0.0, 2.0]]], [[1.0, 0.0], [0.0, 1.0]])
    assert apart == {"mean_cosine": pytest.approx(1), "smallest_cosine": pytest.approx(1)}
    apart = of_vectors([[[1.0, 0.0]], [[0.0, 2.0]]], [[[1.0, 0.0]], [[1.0, 0.0]]])
    assert apart == {"mean_cosine": pytest.approx(0.5), "smallest_cosine": pytest.approx(0)}


def turns(*rates):
    return [
        {"requests_per_s": rate, "p50_ms": 5.0, "p99_ms": 9.0, "cpu_ms_per_request": 2.5, "outcomes": {"200": 10}}
        for rate in rates
    ]


def test_the_table_has_the_median_of_ratios_and_what_the_answers_cost():
    fidelity = {"same_label": 0.97, "largest_score_difference": 0.0123}
    servers = {
        "int8-dynamic": {"rounds": turns(40, 80, 60), "fidelity": fidelity},
        "fp32": {"rounds": turns(20, 20, 20), "fidelity": fidelity | {"same_label": 1.0}},
        PEER: {"rounds": turns(10, 40, 10), "fidelity": fidelity},
    }
    machine = {"cpu": "CPU", "instruction_set": "avx2", "usable_cores": 2.0, "system": "Linux"}
    text = section(
        {
            "machine": machine,
            "commit": "0" * 40,
            "date": "2026-01-01",
            "clients": 64,
            "rounds": 3,
            "seconds": 12,
            "asked": 64,
            "heads": {"classifier": {"task": "t", "peer": "its peer", "servers": servers}},
        }
    )
    assert "| classifier | `bertport serve`, int8-dynamic | 60.0 | 4.0 | 5 | 9 | 2.50 | same label 97.0%, " in text
    assert "| classifier | its peer, fp32 | 10.0 | 1.0 |" in text
    assert text.endswith("by status: 200: 60.\n")


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_short_run_serves_both_heads_beside_their_peers(tmp_path):
    command = [sys.executable, "-m", "bench.serving.heads", "--quick", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    data = json.loads((tmp_path / DATA).read_text(encoding="utf-8"))
    assert data["heads"].keys() == {row.name for row in SERVED}
    assert (tmp_path / PAGE).read_text(encoding="utf-8").count("`bertport serve`") == 2 * len(VARIANTS)
    for measured in data["heads"].values():
        for server in measured["servers"].values():
            assert server["rounds"][0]["outcomes"].keys() == {"200"}
    fidelity = {name: measured["servers"]["fp32"]["fidelity"] for name, measured in data["heads"].items()}
    assert fidelity["classifier"]["same_label"] == 1
    assert fidelity["classifier"]["largest_score_difference"] < 1e-4  # float32 in two libraries
    assert fidelity["embeddings"]["smallest_cosine"] > 1 - 1e-6
    again = subprocess.run([*command, "--check"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr


def test_the_page_is_what_the_data_say():
    command = [sys.executable, "-m", "bench.serving.heads", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_what_was_made_by_earlier_recipes_is_made_again(tmp_path, monkeypatch):
    class EndedError(Exception):
        """In place of making models."""

    def end(*_, **__):
        raise EndedError

    monkeypatch.setattr(heads, "KEPT", tmp_path)
    monkeypatch.setattr(heads.models, "prepare", end)
    made = tmp_path / "heads" / "classifier-bundle"
    for changed, stays in ((["a"], False), (["a"], True), (["a", "b"], False)):
        made.mkdir(parents=True, exist_ok=True)
        monkeypatch.setattr(heads.models, "CHANGED", changed)
        with pytest.raises(EndedError):
            heads.prepare(SERVED[0], tiny=False)
        assert made.exists() is stays
