"""A head that nobody knew before is measured by its row in the table, and judged by the budget that the row brings."""

from dataclasses import dataclass

import numpy as np
import pytest

from bertport.measure import statistics
from bertport.measure.budget import applicable, default_budget, format_budget, judge_all, parse_budget, refuse_idle
from bertport.measure.quality.fidelity import measure
from bertport.measure.quality.heads import HEADS, known_limits
from bertport.measure.quality.model import open_onnx
from bertport.measure.quality.results import HeadFigures
from bertport.measure.quality.rows import Column, Figure, Head, Limit, Moved
from bertport.measure.quality.samples import TEXTS
from bertport.measure.statistics import Estimate, Settings
from bertport.runtime.errors import MissingHeadError

TOPICS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics(HeadFigures):
    """The figures of a head that tells a text's topic."""

    agreement: Estimate
    """Share of texts with the same topic."""
    largest: float
    """Largest difference of a logit."""

    @property
    def distance(self):
        """Share of texts with another topic."""
        return 1 - self.agreement.value


def compare(reference, candidate, sample, head):
    assert sample.kind == TEXTS
    assert head is None  # nothing is said of it here
    assert reference.shape == candidate.shape == (1, TOPICS)
    same = reference.argmax(axis=-1) == candidate.argmax(axis=-1)
    return np.stack([same, np.abs(reference - candidate).max(axis=-1)], axis=1).astype(np.float64)


ROW = Head(
    name="topic",
    output="topic_logits",
    samples=frozenset({TEXTS}),
    columns=("same", "difference"),
    unrecorded=frozenset({"difference"}),
    compare=compare,
    summarize=lambda sums, settings: Topics(
        agreement=statistics.share(sums.sums("same"), sums.counts, settings), largest=sums.highest("difference")
    ),
    results=Topics,
    title="Topics",
    reported=(Column(key="agreement", title="topic agreement", heading="agreement", form=".1%"),),
    figures=(Figure(key="agreement", title="topic agreement", form=".1%", unit="texts"),),
    moved=(Moved(key="largest", name="topic_largest", title="topic"),),
    limits=(
        Limit(
            name="topic",
            meaning="topic agreement",
            path=("topic", "agreement"),
            at_least=True,
            form=".1%",
            fine=".2%",
            counts=True,
            unit="texts",
            default=0.9,
        ),
    ),
)


def with_topics(graph_bytes, weights):
    """A graph of `bag` with one more output: three topics of each text, from its mean embedding."""
    from onnx import TensorProto, helper, load_from_string, numpy_helper

    model = load_from_string(graph_bytes)
    model.graph.initializer.append(numpy_helper.from_array(weights.astype(np.float32), "topics"))
    model.graph.node.append(helper.make_node("MatMul", ["pooled_noisy", "topics"], ["topic_logits"]))
    model.graph.output.append(helper.make_tensor_value_info("topic_logits", TensorProto.FLOAT, ["batch", TOPICS]))
    return open_onnx(model.SerializeToString(), threads=1)


@pytest.fixture(scope="module")
def graphs(bag_bytes):
    rng = np.random.default_rng(3)
    weights = rng.normal(size=(16, TOPICS))
    return with_topics(bag_bytes, weights), with_topics(bag_bytes, weights + 0.3 * rng.normal(size=weights.shape))


@pytest.fixture
def _topics(monkeypatch):
    monkeypatch.setitem(HEADS, "topic", ROW)


@pytest.mark.usefixtures("_topics")
def test_an_invented_head_is_measured_by_its_row(graphs, samples):
    sums = {}
    fidelity = measure(
        *graphs,
        samples,
        settings=Settings(resamples=100),
        stability=4,
        accumulated=lambda accumulator: sums.update(accumulator.per_text()),
    )
    answers = [
        [graph.session.run(["topic_logits"], feeds(sample))[0] for graph in graphs]
        for sample in samples
        if sample.kind == TEXTS
    ]
    same = [one.argmax() == other.argmax() for one, other in answers]
    agreement = fidelity.heads["topic"].agreement
    assert 0 < np.mean(same) < 1
    assert (agreement.value, agreement.count) == (pytest.approx(np.mean(same)), len(same))
    assert fidelity.heads["topic"].largest == pytest.approx(max(np.abs(one - other).max() for one, other in answers))
    assert fidelity.to_json()["topic"]["agreement"]["value"] == agreement.value
    assert [set(sums_of_text) for sums_of_text in sums["topic"]] == [{"text", "same", "count"}] * agreement.clusters
    assert fidelity.stability.batch_mates["topic_largest"] < 1e-5


def feeds(sample):
    return {
        "input_ids": sample.input_ids[None],
        "attention_mask": np.ones_like(sample.input_ids)[None],
        "token_type_ids": sample.token_type_ids[None],
        "masked_positions": sample.positions,
    }


@pytest.mark.usefixtures("_topics")
def test_the_default_budget_bounds_it(graphs, samples):
    assert default_budget().endswith(",topic=0.9")
    bounds = parse_budget(default_budget())
    assert "topic agreement at least 90.0%" in format_budget(bounds)
    assert applicable(bounds, {"topic"}) == {"topic": 0.9}
    fidelity = measure(*graphs, samples, settings=Settings(resamples=100), stability=0)
    assert set(judge_all(bounds, fidelity.to_json())) == {"top1", "nsp", "topic"}


def test_without_the_row_nothing_is_known_of_it(graphs, samples):
    assert "topic" not in measure(*graphs, samples[:2], stability=0).heads
    assert "topic" not in known_limits()
    assert list(known_limits())[-3:] == ["kl", "best", "cosine"]  # what the default does not bound is last
    with pytest.raises(MissingHeadError, match=r"there is no head 'nsp'"):
        refuse_idle({"nsp": 0.5}, {"mlm"})


def test_every_limit_is_found_where_it_says():
    for head in HEADS.values():
        assert [limit.path[0] for limit in head.limits] == [head.name] * len(head.limits)
