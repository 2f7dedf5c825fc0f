"""Workloads made of a text, the count of operations."""

from types import SimpleNamespace

import numpy as np
import pytest

from bertport.compare.entries import Entry, open_bundles
from bertport.compare.report.speed import RowSpeed
from bertport.compare.workloads import Inputs, arrivals, flops, make_inputs
from bertport.measure.speed.baselines import padded_by, padded_tokens
from bertport.measure.speed.timing import Run
from bertport.measure.speed.workload import OFFLINE, WorkerSpec
from bertport.measure.statistics import Settings
from bertport.measure.text import Text, read_texts
from bertport.runtime.bundle.manifest import Architecture
from bertport.runtime.errors import InputTextError
from bertport.runtime.heads import MULTIPLE_CHOICE
from tests.compare.test_quality import with_heads

BASE = Architecture(
    model_class="BertForPreTraining",
    layers=12,
    hidden_size=768,
    attention_heads=12,
    intermediate_size=3072,
    vocab_size=30522,
    type_vocab_size=2,
    parameters=110_106_428,
)


def test_operations_of_bert_base():
    # 12 (8 768^2 + 4 768 3072) = 169.9 million per token, 36,864 more for each token attended to; 48.1 per position.
    assert flops(BASE, 1, 128, masked=0) == pytest.approx(128 * (169.87e6 + 128 * 36864), rel=1e-4)
    assert flops(BASE, 1, 16, masked=1) - flops(BASE, 1, 16, masked=0) == pytest.approx(48.06e6, rel=1e-3)
    assert flops(BASE, 8, 16) == 8 * flops(BASE, 1, 16)


def test_arrivals_are_a_poisson_process():
    times = np.array(arrivals(50.0, 20_000, seed=1))
    gaps = np.diff(times)
    assert (gaps > 0).all()
    # An exponential distribution's mean and standard deviation are equal; 2% is three standard errors of 20,000.
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.03)
    assert gaps.std() == pytest.approx(1 / 50, rel=0.03)
    assert arrivals(50.0, 10, seed=1) == tuple(times[:10])


def test_inputs_have_one_mask_and_the_lengths_of_the_text(tiny_bundle, held_out):
    bundles = open_bundles([tiny_bundle])
    texts = read_texts(held_out)
    inputs = make_inputs(bundles, texts, 10, seed=0)
    assert len(inputs.texts) == len(set(inputs.texts)) == 10
    originals = [text.text for text in texts]
    for masked, length in zip(inputs.texts, inputs.lengths, strict=True):
        before, after = masked.split("[MASK]")
        assert any(text.startswith(before) and text.endswith(after) for text in originals)
        assert length <= 160
    assert inputs.summary().real_tokens == sum(inputs.lengths)
    assert make_inputs(bundles, texts, 10, seed=0) == inputs


def test_a_long_text_is_cut_to_what_the_model_takes(tiny_bundle):
    long = Text(text="the man went home " * 200, document=0)
    inputs = make_inputs(open_bundles([tiny_bundle]), [long], 1, seed=0)
    assert inputs.cut == 1
    assert inputs.lengths[0] <= 160
    with pytest.raises(InputTextError, match="no word"):
        make_inputs(open_bundles([tiny_bundle]), [Text(text="[MASK]", document=0)], 1, seed=0)


def test_padding_counts_the_longest_of_each_batch():
    assert padded_tokens([3, 5, 2], rows=2) == 2 * 5 + 2
    assert padded_tokens([7] * 9, rows=8) == 63


def test_a_question_is_as_many_texts_as_the_model_reads_for_it(tiny_bundle, held_out):
    inputs = make_inputs([with_heads(tiny_bundle, MULTIPLE_CHOICE)], read_texts(held_out), 4, seed=0)
    assert inputs.task == "multiple-choice"
    assert [len(row) for row in inputs.rows] == [2] * 4
    assert inputs.lengths == tuple(one + other for one, other in inputs.rows)
    longest = max(length for row in inputs.rows for length in row)
    assert inputs.summary().padded_tokens_to_longest == 8 * longest


def test_the_work_of_a_query_is_that_of_each_of_its_documents():
    """A token attends to those of its own document alone."""
    rows = ((100, 100), (100, 50))
    inputs = Inputs(task="text-ranking", texts=("a", "b"), rows=rows, cut=0, all_lengths=(200, 150))
    run = Run(
        subject="peer",
        workload=OFFLINE,
        rounds=((1.0,), (1.0,)),
        warmup=(),
        load_s=(),
        start_s=(),
        peak_bytes=1,
        stages={},
    )
    spec = WorkerSpec(name="peer", baseline="sentence-transformers")
    entry = Entry(bundle="b", kind="sentence-transformers", recipe="fp32", size_bytes=1, spec=spec)
    machine = SimpleNamespace(matmul_gflops=1000.0)
    runs = {OFFLINE: {"peer": run}}
    measurements = SimpleNamespace(machine=machine, inputs=inputs, runs=runs, shapes={}, server={})
    offline = RowSpeed(measurements, entry, None, BASE, Settings(resamples=10)).speed().offline
    work = 3 * flops(BASE, 1, 100, 0) + flops(BASE, 1, 50, 0)
    assert offline.share_of_peak == pytest.approx(work / 1e12)
    assert (offline.texts_per_second.value, offline.real_tokens, offline.padded_tokens) == (2, 350, 400)


@pytest.mark.parametrize(
    ("name", "task", "rows", "tokens"),
    [
        ("transformers", "text-classification", [(9,), (1,)] * 8, 2 * 8 * 9),
        ("sentence-transformers", "embeddings", [(9,), (1,)] * 8, 8 * 9 + 8 * 1),
        ("transformers", "multiple-choice", [(9, 1), (2, 3)], 2 * 9 + 2 * 3),
        ("sentence-transformers", "text-ranking", [(9, 1) * 8, (2, 3)], 8 * 9 + 8 * 1 + 2 * 3),
    ],
)
def test_padding_is_that_of_the_batches_that_a_baseline_makes(name, task, rows, tokens):
    assert padded_by(name, task, rows) == tokens
