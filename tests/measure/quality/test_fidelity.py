import dataclasses
import json
import math
import tracemalloc

import numpy as np
import pytest

from bertport.measure.quality.fidelity import measure, measure_batch_invariance
from bertport.measure.quality.model import Batch, CachedModel, in_order, make_batch, open_onnx
from bertport.measure.quality.results import Conventions
from bertport.measure.quality.samples import masked_samples
from bertport.measure.statistics import Settings, says_no_difference
from bertport.runtime import threads as threads_of
from bertport.runtime.errors import BundleError, UsageError, ValidationError
from bertport.runtime.session import open_session

QUICK = Settings(resamples=200)


def test_a_model_against_itself(bag, samples):
    fidelity = measure(bag, bag, samples, settings=QUICK)
    assert (
        fidelity.heads["mlm"].top1_agreement.value,
        fidelity.heads["mlm"].top5_agreement.value,
        fidelity.heads["mlm"].kl.value,
    ) == (1, 1, 0)
    assert fidelity.heads["mlm"].top1_agreement.count == sum(len(sample.positions) for sample in samples)
    assert fidelity.heads["mlm"].top1_agreement.clusters == 40
    assert 0.89 < fidelity.heads["mlm"].top1_agreement.low < 1
    assert says_no_difference(fidelity.heads["mlm"].accuracy_difference)
    assert says_no_difference(fidelity.heads["mlm"].nll_difference)
    assert fidelity.heads["mlm"].perplexity_difference.value == 0
    assert (
        fidelity.heads["nsp"].flips.value,
        fidelity.heads["nsp"].largest_change,
        fidelity.heads["nsp"].kl.value,
    ) == (0, 0, 0)
    assert fidelity.heads["nsp"].flips.count == sum(sample.is_pair for sample in samples)
    assert fidelity.heads["nsp"].accuracy_difference.p_value == 1
    assert fidelity.heads["hidden"].worst == pytest.approx(1)
    assert fidelity.samples == len(samples)


def test_figures_against_a_computation_of_one_batch(bag, make_bag, samples):
    """The streamed figures are those of all positions at once, computed here without any of the project's code."""
    candidate = make_bag(noise=0.1)
    fidelity = measure(bag, candidate, samples, settings=QUICK, stability=0)
    probabilities, labels, nsp, cosine = [[], []], [], [[], []], []
    for sample in samples:
        feeds = {
            "input_ids": sample.input_ids[None],
            "attention_mask": np.ones_like(sample.input_ids)[None],
            "token_type_ids": sample.token_type_ids[None],
            "masked_positions": sample.positions,
        }
        outputs = [graph.session.run(None, feeds) for graph in (bag, candidate)]
        for side, (logits, pair, _) in enumerate(outputs):
            exponentials = np.exp(logits.astype(np.float64))
            probabilities[side] += list(exponentials / exponentials.sum(-1, keepdims=True))
            if sample.is_pair:
                nsp[side].append(np.exp(pair[0]) / np.exp(pair[0]).sum())
        labels += sample.labels.tolist()
        one, two = (output[2][0].astype(np.float64) for output in outputs)
        cosine += list((one * two).sum(-1) / np.sqrt((one**2).sum(-1) * (two**2).sum(-1)))
    p, q = map(np.array, probabilities)
    rows = np.arange(len(labels))
    assert fidelity.heads["mlm"].top1_agreement.value == pytest.approx((p.argmax(1) == q.argmax(1)).mean())
    assert fidelity.heads["mlm"].kl.value == pytest.approx((p * np.log(p / q)).sum(1).mean(), rel=1e-5)
    assert fidelity.heads["mlm"].nll_candidate.value == pytest.approx(-np.log(q[rows, labels]).mean(), rel=1e-6)
    assert fidelity.heads["mlm"].perplexity_difference.value == pytest.approx(
        np.exp(-np.log(q[rows, labels]).mean()) - np.exp(-np.log(p[rows, labels]).mean()), rel=1e-4
    )
    assert fidelity.heads["mlm"].accuracy_reference.value == pytest.approx((p.argmax(1) == labels).mean())
    five = [len(set(np.argsort(a)[-5:]) & set(np.argsort(b)[-5:])) / 5 for a, b in zip(p, q, strict=True)]
    assert fidelity.heads["mlm"].top5_agreement.value == pytest.approx(np.mean(five))
    r, s = map(np.array, nsp)
    assert fidelity.heads["nsp"].flips.value == pytest.approx((r.argmax(1) != s.argmax(1)).mean())
    assert fidelity.heads["nsp"].largest_change == pytest.approx(np.abs(r[:, 0] - s[:, 0]).max(), rel=1e-5)
    truth = np.array([sample.label for sample in samples if sample.is_pair])
    assert fidelity.heads["nsp"].accuracy_candidate.value == pytest.approx((s.argmax(1) == truth).mean())
    assert fidelity.heads["hidden"].cosine.value == pytest.approx(np.mean(cosine))
    assert fidelity.heads["hidden"].worst == pytest.approx(np.min(cosine))
    assert fidelity.stability is None


def test_a_more_perturbed_model_is_measured_as_worse(bag, make_bag, samples):
    slightly, badly = (measure(bag, make_bag(noise=noise), samples, settings=QUICK) for noise in (0.03, 1.0))
    assert 1 > slightly.heads["mlm"].top1_agreement.value > badly.heads["mlm"].top1_agreement.high
    assert 0 < slightly.heads["mlm"].kl.high < badly.heads["mlm"].kl.low
    assert slightly.heads["nsp"].largest_change < badly.heads["nsp"].largest_change
    assert slightly.heads["hidden"].cosine.low > badly.heads["hidden"].cosine.high
    assert slightly.heads["hidden"].worst > badly.heads["hidden"].worst
    assert badly.heads["mlm"].nll_difference.difference.low > 0
    assert not says_no_difference(badly.heads["mlm"].nll_difference)


def test_order_does_not_matter(bag, make_bag, samples):
    candidate = make_bag(noise=0.1)
    one, two = (measure(bag, candidate, order, settings=QUICK, stability=0) for order in (samples, samples[::-1]))
    assert one.heads["mlm"].kl.value == pytest.approx(two.heads["mlm"].kl.value)
    assert one.heads["nsp"].flips == two.heads["nsp"].flips


def test_a_model_without_crosstalk_does_not_move(bag, samples):
    invariance = measure_batch_invariance(bag, samples, limit=10, settings=QUICK)
    assert (invariance.texts, invariance.rows) == (20, 8)
    for movement in (invariance.batch_mates, invariance.padding):
        assert movement["top1_agreement"].value == 1
        assert movement["kl"].value < 1e-9  # float32 sums in another order
        assert movement["nsp_flips"].value == 0
        assert movement["nsp_largest_change"] < 1e-5
        assert movement["worst_cosine"] == pytest.approx(1)


def test_crosstalk_is_seen_as_the_effect_of_mates_and_not_of_padding(make_bag, samples):
    invariance = measure_batch_invariance(make_bag(crosstalk=0.5), samples, limit=10, settings=QUICK)
    assert invariance.batch_mates["kl"].value > 1e-3
    assert invariance.batch_mates["nsp_largest_change"] > 1e-3
    assert invariance.batch_mates["worst_cosine"] < 0.9999
    assert invariance.padding["worst_cosine"] > invariance.batch_mates["worst_cosine"]


def test_blindness_to_padding_is_seen_as_the_effect_of_padding_and_not_of_mates(make_bag, samples):
    invariance = measure_batch_invariance(make_bag(mask_aware=False), samples, limit=10, settings=QUICK)
    assert invariance.batch_mates["kl"].value < 1e-9
    assert invariance.batch_mates["worst_cosine"] == pytest.approx(1)
    assert invariance.padding["kl"].value > 1e-3
    assert invariance.padding["worst_cosine"] < 0.9999


def test_padding_stays_within_the_longest_input(bag, word_tokenizer, word_texts):
    samples = list(masked_samples(word_texts, word_tokenizer))
    longest = max(len(sample.input_ids) for sample in samples)
    shortest = min(len(sample.input_ids) for sample in samples)
    assert measure_batch_invariance(bag, samples, conventions=Conventions(max_length=shortest)).padding is None
    wide = CachedModel(bag)
    measure_batch_invariance(wide, samples, conventions=Conventions(max_length=longest))
    assert max(int(key.split(b", ")[-1].split(b")")[0]) for key in wide._cache) == longest


def test_only_common_heads_are_measured(bag, bag_bytes, samples):
    from onnx import ModelProto, load_from_string

    model: ModelProto = load_from_string(bag_bytes)
    del model.graph.output[1]
    fidelity = measure(bag, open_onnx(model.SerializeToString()), samples, settings=QUICK, stability=4)
    assert fidelity.heads["nsp"] is None
    assert fidelity.stability.batch_mates["nsp_flips"] is None
    assert fidelity.heads["mlm"].kl.value == 0


def test_a_session_never_falls_back_to_another_provider(bag):
    """ONNX Runtime's own would, at the first error of a run, open the session again and measure that."""
    assert not bag.session._enable_fallback


def test_a_graph_that_decodes_everything_gives_the_same(bag, bag_bytes, samples):
    from onnx import helper, load_from_string

    model = load_from_string(bag_bytes)
    del model.graph.input[3]
    gather = next(node for node in model.graph.node if node.output[0] == "masked")
    gather.CopyFrom(helper.make_node("Identity", ["last_hidden_state"], ["masked"]))
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    for name in ("batch", "sequence", "vocabulary"):
        model.graph.output[0].type.tensor_type.shape.dim.add().dim_param = name
    portable = open_onnx(model.SerializeToString())
    fidelity = measure(bag, portable, samples, settings=QUICK, stability=0)
    assert fidelity.heads["mlm"].kl.value < 1e-9
    assert fidelity.heads["mlm"].top1_agreement.value == 1


def test_nothing_to_measure_is_an_error(bag):
    with pytest.raises(UsageError, match="0 samples"):
        measure(bag, bag, [])


def test_outputs_that_are_not_numbers_are_an_error(bag, make_bag, samples):
    with pytest.raises(ValidationError, match="the candidate gives last_hidden_state that are not finite"):
        measure(bag, make_bag(noise=math.inf), samples[:2])


def test_a_file_that_is_no_graph_is_an_error(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(BundleError, match=r"cannot load .*model\.onnx"):
        open_onnx(tmp_path / "model.onnx")


def test_the_threads_are_those_of_the_runtime_under_a_quota(bag_bytes, monkeypatch):
    opened = []

    def opening(graph, options, providers):
        opened.append(options.intra_op_num_threads)
        return open_session(graph, options, providers)

    monkeypatch.setattr("bertport.measure.quality.model.open_session", opening)
    monkeypatch.setattr(threads_of, "_processors", lambda: 8)
    for cores, asked in ((2.0, None), (2.0, 3), (8.0, None)):
        monkeypatch.setattr(threads_of, "usable_cores", lambda cores=cores: cores)
        open_onnx(bag_bytes, threads=asked)
    assert opened == [2, 3, 0]  # the last is left to ONNX Runtime


def test_the_figures_are_json(bag, make_bag, samples):
    value = measure(bag, make_bag(noise=0.1), samples[:5] + samples[-5:], settings=QUICK).to_json()
    text = json.dumps(value, allow_nan=False)
    assert json.loads(text) == value
    assert set(value["mlm"]["kl"]) == {"value", "low", "high", "count", "clusters"}


def test_a_remembered_reference_gives_the_same_and_runs_once(bag, make_bag, samples):
    calls = []

    class Counted:
        outputs = bag.outputs

        def run(self, batch, outputs):
            calls.append(batch)
            return bag.run(batch, outputs)

    remembered = CachedModel(Counted())
    candidate = make_bag(noise=0.1)
    measured = [measure(remembered, candidate, samples, settings=QUICK, stability=0) for _ in range(2)]
    assert measured[0] == measured[1] == measure(bag, candidate, samples, settings=QUICK, stability=0)
    assert len(calls) == len(samples)


def test_what_is_remembered_is_bounded_and_of_use_again(bag, samples):
    calls = []

    class Counted:
        outputs = bag.outputs

        def run(self, batch, outputs):
            calls.append(batch)
            return bag.run(batch, outputs)

    remembered = CachedModel(Counted(), limit=50_000)
    for _ in range(2):
        for sample in samples:
            remembered.run(make_batch([sample]), ["last_hidden_state"])
    sizes = [values["last_hidden_state"].nbytes for values in remembered._cache.values()]
    assert 40_000 < sum(sizes) <= 50_000
    assert len(calls) == 2 * len(samples) - len(sizes)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_samples(bag, make_bag, samples):
    candidate = make_bag(noise=0.1)

    def peak(times):
        tracemalloc.start()
        try:
            many = [dataclasses.replace(sample, text=sample.text + 40 * n) for n in range(times) for sample in samples]
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            measure(bag, candidate, many, settings=Settings(resamples=1), stability=0)
            return tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()

    # The logits of one pass over the samples alone are 40 x 6 x 67 x 4 bytes and the hidden states 150 x 40 x 16 x 4,
    # 450 kB; a text's sums are 300 bytes. numpy reports what it allocates to tracemalloc.
    assert peak(6) - peak(2) < 300_000


def test_progress_is_told(bag, samples):
    told = []
    measure(bag, bag, samples[:3], settings=QUICK, stability=0, progress=lambda *done: told.append(done))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_samples_that_run_at_once_give_the_same_figures(bag, make_bag, samples):
    one, three = (
        measure(bag, make_bag(noise=0.1), samples, settings=QUICK, stability=5, streams=streams) for streams in (1, 3)
    )
    assert one == three


class RowByRow:
    """A graph that notes the shape of each batch, and runs its rows one by one: they answer to the bit as alone."""

    def __init__(self, graph):
        self.graph, self.outputs, self.shapes = graph, graph.outputs, []

    def run(self, batch, outputs):
        self.shapes.append(batch.input_ids.shape)
        assert batch.attention_mask.all()
        rows, length = batch.input_ids.shape
        owners = batch.masked_positions // length
        answers = [
            self.graph.run(
                Batch(
                    input_ids=batch.input_ids[row : row + 1],
                    attention_mask=batch.attention_mask[row : row + 1],
                    token_type_ids=batch.token_type_ids[row : row + 1],
                    masked_positions=batch.masked_positions[owners == row] - row * length,
                ),
                outputs,
            )
            for row in range(rows)
        ]
        return {name: np.concatenate([answer[name] for answer in answers]) for name in outputs}


@pytest.mark.parametrize("streams", [1, 3])
def test_samples_of_one_length_in_a_batch_give_the_same_figures(bag, make_bag, samples, streams):
    # A text whose samples lie apart: its sums must be rounded in the same order as well.
    samples = [dataclasses.replace(sample, text=sample.text // 3) for sample in samples]
    candidate = make_bag(noise=0.1)
    graphs = RowByRow(bag), RowByRow(candidate)
    told = []
    together = measure(
        *graphs,
        samples,
        settings=QUICK,
        stability=0,
        streams=streams,
        tokens=120,
        progress=lambda *done: told.append(done),
    )
    assert together == measure(bag, candidate, samples, settings=QUICK, stability=0)
    lengths = sorted(length for rows, length in graphs[0].shapes for _ in range(rows))
    assert lengths == sorted(len(sample.input_ids) for sample in samples)
    assert all(rows == 1 or rows * length <= 120 for rows, length in graphs[0].shapes)
    assert len(graphs[0].shapes) == len(graphs[1].shapes) < 0.7 * len(samples)
    assert told == sorted(told)
    assert told[-1] == (len(samples), len(samples))


def test_a_batch_is_not_for_a_model_that_answers_by_its_batch_mates(bag, make_bag, samples):
    candidate = make_bag(crosstalk=0.5)
    alone, together = (
        measure(bag, candidate, samples, settings=QUICK, stability=0, tokens=tokens) for tokens in (0, 120)
    )
    assert together.heads["mlm"].kl != alone.heads["mlm"].kl


def test_an_error_in_a_stream_is_the_callers():
    def broken(number):
        if number == 5:
            raise ValidationError("no number")
        return number

    results = []
    with pytest.raises(ValidationError, match="no number"):
        results.extend(in_order(broken, range(100), 2))
    assert list(in_order(lambda number: number * 2, range(50), 4)) == list(range(0, 100, 2))


@pytest.mark.parametrize("limit", [1, 3, 9])
def test_each_chosen_text_counts_once_whatever_fills_its_batch(bag, samples, limit):
    invariance = measure_batch_invariance(bag, samples, limit=limit, settings=QUICK, streams=2)
    assert (invariance.texts, invariance.rows) == (2 * limit, 8)
    assert invariance.batch_mates["nsp_flips"].count == limit
    assert invariance.batch_mates["worst_cosine"] == pytest.approx(1)
