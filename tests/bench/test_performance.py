"""The speed benchmark: how it counts operations, what it draws from a profile, and what each model is given."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from bench.performance import pages, profiling, report, sections
from bench.performance.classes import CLASSES, class_of
from bench.performance.inputs import inputs_of, share_of
from bench.performance.models import OPTIMUM, Prepared
from bench.performance.peers import open_peer
from bench.performance.subjects import subjects_of
from bertport.runtime import load
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.providers.cpu import INSTRUCTION_SETS


@pytest.fixture(scope="module")
def operators(tiny_bundle):
    """The operators of one profiled run of the tiny bundle's fp32 graph."""
    manifest = Bundle.open(tiny_bundle).manifest
    feeds = profiling.feeds_of(1, 24, manifest.architecture.vocab_size)
    path = tiny_bundle / manifest.variants["fp32"].file
    return profiling.operators(path, feeds, seconds=0.2, threads=1)


def test_a_profile_counts_the_operations_that_the_share_of_the_peak_is_made_of(operators, tiny_bundle):
    architecture = dataclasses.asdict(Bundle.open(tiny_bundle).manifest.architecture)
    hidden = architecture["hidden_size"]
    heads = 2 * hidden**2 + 2 * hidden * 2  # the pooler and next-sentence run too, which `needed` leaves out
    assert sum(operator["flops"] for operator in operators) == report.needed(architecture, [24], 1) + heads


def test_a_profile_is_shown_with_the_speed_of_each_product(operators):
    shapes = {shape for operator in operators if (shape := sections.product_shape(operator))}
    assert {rows for rows, _, _ in shapes} == {24, 1}
    profile = {
        "cost": {"fp32": {"fixed_ms": 1.0, "ms_per_token": 0.05, "overhead_tokens": 20.0}},
        "operators": {"fp32": operators},
        "products": [{"shape": list(shape), "gflops": 50.0} for shape in shapes],
    }
    cost, listed = sections.profile_sections({"profile": profile}, peak=100.0)
    assert "| fp32 | 1.00 | 50 | 20 |" in cost
    for rows, inner, columns in shapes:
        if f"{rows}x{inner}x{columns}" in listed:
            assert "50 (50%)" in listed
    assert "of the peak of 100 GFLOP/s" in listed


def test_what_a_run_costs_is_given_in_tokens(tiny_bundle):
    cost = profiling.cost(load(tiny_bundle, threads=1), seconds=0.2)
    assert cost["runs"] >= 1
    assert len(cost["ms"]) == len(profiling.COST_SHAPES)
    assert all(ms > 0 for _, _, ms in cost["ms"])
    assert cost["overhead_tokens"] == pytest.approx(cost["fixed_ms"] / cost["ms_per_token"])


def test_every_page_and_the_readme_say_what_the_data_say():
    pages.check_pages()


def test_a_page_that_is_not_what_the_data_say_is_named(monkeypatch):
    monkeypatch.setattr(pages, "written", lambda: {pages.README: "another text"})
    with pytest.raises(SystemExit, match=r"README\.md is not what the data say: run python -m bench\.performance"):
        pages.check_pages()


def test_a_readme_that_quotes_other_figures_is_named(monkeypatch):
    monkeypatch.setattr(pages, "quoted", lambda: "a thousand times as fast")
    with pytest.raises(SystemExit, match=r"README\.md does not quote what the data say"):
        pages.check_pages()


def test_an_instruction_set_belongs_to_one_class_or_has_one_of_its_own():
    belongs = [name for row in CLASSES.values() for name in row.instruction_sets]
    assert len(belongs) == len(set(belongs))
    assert set(belongs) < INSTRUCTION_SETS.keys()
    assert class_of("avx_vnni") is CLASSES["vnni"]
    assert class_of("arm64").stem == "performance-arm64"


def test_a_large_model_gets_fewer_of_the_same_texts():
    inputs = inputs_of(10)
    small, large = share_of(inputs, "default"), share_of(inputs, "base")
    assert {task: len(texts) for task, texts in small.items()} == {"fill-mask": 10, "next-sentence": 4, "features": 4}
    assert {task: len(texts) for task, texts in large.items()} == {"fill-mask": 5, "next-sentence": 2, "features": 2}
    for task, texts in large.items():
        assert texts == small[task][: len(texts)]


@pytest.fixture
def prepared(tiny_bundle, tiny_checkpoint, tmp_path):
    """A model's forms, with Optimum's in another environment."""
    return Prepared(
        name="tiny",
        bundle=tiny_bundle,
        checkpoint=tiny_checkpoint,
        optimum=tmp_path / "optimum",
        optimum_python="another/python",
        variants=("fp32",),
    )


def test_optimums_rows_run_in_the_environment_that_has_it_or_not_at_all(prepared):
    rows = {row.peer: row for row in subjects_of(prepared, "fill-mask", None, batches=(8,))}
    assert rows["optimum"].python == "another/python"
    assert rows["transformers"].python == sys.executable
    assert "optimum" not in {row.peer for row in subjects_of(prepared, "next-sentence", None)}
    without = dataclasses.replace(prepared, optimum=None, optimum_python=None)
    assert {row.peer for row in subjects_of(without, "fill-mask", None)} == rows.keys() - {"optimum"}


@pytest.mark.optimum
def test_optimums_rows_answer_as_the_bundle_does(prepared, tiny_bundle, tiny_checkpoint):
    make = [sys.executable, "-c", OPTIMUM, str(tiny_checkpoint), str(prepared.optimum), "avx2"]
    subprocess.run(make, check=True, capture_output=True)
    inputs = ["the capital of france is [MASK].", "a [MASK] of tea"]
    expected = [rows[0] for rows in load(tiny_bundle).predict("fill-mask", inputs, top_k=1)]
    here = dataclasses.replace(prepared, optimum_python=sys.executable)
    rows = [row for row in subjects_of(here, "fill-mask", None, batches=(2,)) if row.peer == "optimum"]
    fp32, int8 = (open_peer(row.spec(1)).answer("fill-mask", inputs) for row in rows)
    assert [row["token"] for row in fp32] == [row["token"] for row in expected]
    assert [row["score"] for row in fp32] == pytest.approx([row["score"] for row in expected], abs=1e-5)
    assert len(int8) == len(inputs)
    assert int8 != fp32
