"""What an evaluation comes to in words: sizes in points, how many examples show a difference, what to deploy."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bertport.compare.evaluate.document import Comparison, EvaluatedVariant, RecordedSpeed
from bertport.compare.evaluate.sentences import conclusion, difference_sentence, examples_to_show, points
from bertport.measure.labelled.figures import PairedDifference, TaskFigures
from bertport.measure.statistics import Estimate

FIGURES = TaskFigures(
    task="text-classification",
    kind="classification",
    data="d",
    fingerprint="sha256:",
    examples=872,
    metrics={},
    labels={},
    calibration=None,
    notes=(),
)


def estimate(value, low, high, count=872):
    return Estimate(value=value, low=low, high=high, count=count, clusters=count)


AGREEMENT = Estimate(value=0.999, low=0.99, high=1.0, count=872, clusters=872)


def paired(value, low, high, p_value=0.5, metric="accuracy", *, undefined=None):  # noqa: PLR0913 — what differs
    return PairedDifference(
        metric=metric,
        difference=estimate(value, low, high),
        p_value=p_value,
        test="mcnemar",
        agreement=None if metric == "spearman" else AGREEMENT,
        spearman=None,
        undefined=undefined,
    )


NOT_DEFINED = paired(math.nan, math.nan, math.nan, math.nan, "spearman", undefined="all predictions are the same")
"""The difference of a variant that answers every example alike from one that does not."""
SAME = paired(0.0, -0.01, 0.01)


def variant(name, speedup=None):
    speeds = {} if speedup is None else {"1x128": RecordedSpeed(speedup=speedup, low=speedup, high=speedup)}
    return EvaluatedVariant(
        name=name,
        recipe=name,
        provider="cpu",
        size_bytes=1,
        figures=FIGURES,
        recorded_speed=speeds,
        recorded_on=None if speedup is None else "a CPU",
    )


def compared(name, *differences):
    return Comparison(variant=name, differences={one.metric: one for one in differences}, sentences=())


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (
            paired(-0.003, -0.009, 0.002),
            (
                "int8 costs 0.3 points of accuracy (difference -0.9 to +0.2): no difference can be shown on 872 "
                "examples; to see 0.5 points you need about 2,200"
            ),
        ),
        (
            paired(-0.013, -0.02, -0.006, p_value=0.0012),
            (
                "int8 costs 1.3 points of accuracy (difference -2.0 to -0.6): the loss is shown on 872 examples "
                "(p = 0.0012, mcnemar)"
            ),
        ),
        (
            paired(0.02, 0.01, 0.03, p_value=0.001),
            (
                "int8 gains 2.0 points of accuracy (difference +1.0 to +3.0): the gain is shown on 872 examples "
                "(p = 0.001, mcnemar)"
            ),
        ),
        (
            paired(-0.0004, -0.001, 0.0002, metric="spearman"),
            (
                "int8 costs 0.04 points of spearman (difference -0.1 to +0.02): no difference can be shown on 872 "
                "examples; a difference of 0.5 points would show on as many"
            ),
        ),
        (
            paired(0.001, 0.0, 0.002),
            (
                "int8 gains 0.1 points of accuracy (difference 0.0 to +0.2): no difference can be shown on 872 "
                "examples; to see 0.5 points you need about 1,100"
            ),
        ),
        (
            paired(0.0, 0.0, 0.0),
            (
                "int8 has fp32's accuracy to the last example: no difference can be shown on 872 examples; "
                "to see 0.5 points you need about 1,100"
            ),
        ),
        (
            paired(0.0, -0.004, 0.004),
            (
                "int8 has fp32's accuracy (difference -0.4 to +0.4): no difference can be shown on 872 examples; "
                "to see 0.5 points you need about 1,200"
            ),
        ),
        (
            paired(0.03, 0.01, 0.05, p_value=0.01, metric="ece"),
            (
                "int8 raises ece by 3.0 points (difference +1.0 to +5.0): the loss is shown on 872 examples "
                "(p = 0.01, mcnemar)"
            ),
        ),
        (
            paired(-0.001, -0.002, 0.001, metric="ece"),
            (
                "int8 lowers ece by 0.1 points (difference -0.2 to +0.1): no difference can be shown on 872 examples; "
                "a difference of 0.5 points would show on as many"
            ),
        ),
        (
            paired(-0.03, -0.05, -0.01, p_value=0.01, metric="ece"),
            (
                "int8 lowers ece by 3.0 points (difference -5.0 to -1.0): the gain is shown on 872 examples "
                "(p = 0.01, mcnemar)"
            ),
        ),
        (
            paired(-0.00001, -0.00002, -0.00001, p_value=0.01),
            (
                "int8 costs less than 0.01 points of accuracy (difference 0.0 to 0.0): the loss is shown on 872 "
                "examples (p = 0.01, mcnemar)"
            ),
        ),
        (
            paired(math.nan, math.nan, math.nan, p_value=math.nan, metric="f1"),
            "int8: f1 is not defined on these 872 examples, so its difference is not known",
        ),
        (
            NOT_DEFINED,
            "int8 loses fp32's spearman, which is not defined for its answers: all predictions are the same",
        ),
    ],
)
def test_a_difference_in_words(one, said):
    assert difference_sentence("int8", "fp32", one, 872) == said


def test_so_many_examples_do_show_a_difference():
    """Simulated: of data sets of that size, four in five reject that there is none."""
    rng = np.random.default_rng(0)
    loss, gain = 0.02, 0.01  # a share of examples each; the difference is a point
    pilot = rng.choice([-1.0, 1.0, 0.0], p=[loss, gain, 1 - loss - gain], size=100_000)
    half = 1.96 * pilot.std() / math.sqrt(len(pilot))
    needed = examples_to_show(estimate(-0.01, -0.01 - half, -0.01 + half, count=len(pilot)), least=0.01)
    samples = rng.multinomial(needed, [loss, gain, 1 - loss - gain], size=2000)
    means = (samples[:, 1] - samples[:, 0]) / needed
    deviations = np.sqrt((samples[:, 0] + samples[:, 1]) / needed - means**2)
    assert np.mean(means + 1.96 * deviations / math.sqrt(needed) < 0) == pytest.approx(0.8, abs=0.05)


def test_queries_without_a_relevant_document_show_no_difference():
    fifty = Estimate(value=0.0, low=0.0, high=0.0, count=50, clusters=1000)
    assert examples_to_show(fifty) == 20 * examples_to_show(estimate(0.0, 0.0, 0.0, count=50)) == 380_000


def test_without_an_interval_no_number_is_said():
    assert examples_to_show(estimate(0.0, math.nan, math.nan)) is None
    assert examples_to_show(estimate(0.0, 0.0, 0.0, count=0)) is None
    assert examples_to_show(estimate(0.0, 0.0, 0.0), answers=False) == 0
    said = difference_sentence("a", "b", paired(0.01, math.nan, math.nan), 9)
    assert said.endswith("no difference can be shown on 9 examples")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0"),
        (0.003, "0.3"),
        (0.0004, "0.04"),
        (-0.0004, "-0.04"),
        (-0.00001, "0.0"),
        (0.0001, "0.01"),
        (0.001, "0.1"),
        (0.5, "50.0"),
    ],
)
def test_points(value, text):
    assert points(value) == text


@pytest.mark.parametrize(
    ("variants", "comparisons", "said"),
    [
        ([variant("fp32")], [], "fp32 was measured alone"),
        (
            [variant("fp32"), variant("a", 3.0), variant("b", 2.0)],
            [compared("a", paired(-0.02, -0.03, -0.01, 0.001)), compared("b", paired(-0.002, -0.006, 0.002))],
            (
                "deploy b: no loss is shown, and it is the fastest such variant by the manifest's record (2.00 times "
                "as fast as fp32 at 1x128, on a CPU; speed was not measured here); a loss of up to 0.6 points of "
                "accuracy is not excluded"
            ),
        ),
        (
            [variant("fp32"), variant("a", 2.0)],
            [compared("a", paired(0.02, 0.01, 0.03, 0.001), paired(0.1, 0.05, 0.2, 0.001, "ece"))],
            "deploy a: ",
        ),
        (
            [variant("fp32"), variant("a", 2.0)],
            [compared("a", paired(0.0, 0.0, 0.0, 1.0, "entity_f1"))],
            (
                "deploy a: no loss is shown, and it is the fastest such variant by the manifest's record (2.00 times "
                "as fast as fp32 at 1x128, on a CPU; speed was not measured here); a loss of up to 0.4 points of "
                "entity_f1 is not excluded"
            ),
        ),
        (
            [variant("fp32"), variant("a", 0.9)],
            [compared("a", paired(0.0, -0.01, 0.01))],
            "no loss is shown for a, and the manifest records none as faster than fp32 beyond doubt: deploy fp32",
        ),
        (
            [variant("fp32"), variant("a")],
            [compared("a", paired(0.0, -0.01, 0.01))],
            (
                "no loss is shown for a, and the manifest records no speed to set beside fp32's: measure it with "
                "bertport compare before you choose"
            ),
        ),
        (
            [variant("fp32"), variant("a", 2.0)],
            [compared("a", paired(-0.02, -0.03, -0.01, 0.001))],
            "every other variant is shown to lose against fp32: deploy fp32",
        ),
        (
            [variant("fp32"), variant("a", 2.0)],
            [compared("a", NOT_DEFINED)],
            "every other variant is shown to lose against fp32: deploy fp32",
        ),
        (
            [variant("fp32"), variant("a", 2.0)],
            [compared("a", paired(0.3, 0.2, 0.4, 0.001, "ece"))],
            (
                "no variant is advised: ece alone cannot tell on these examples whether answers become worse: measure "
                "another metric as well"
            ),
        ),
        (
            [variant("fp32"), variant("a", 2.0)],
            [compared("a", paired(math.nan, math.nan, math.nan, math.nan, "f1"))],
            "no variant is advised: f1 alone cannot tell",
        ),
        (
            [variant("x", 3.0), variant("a", 1.5)],
            [compared("a", SAME)],
            "no loss is shown for a, and the manifest records none as faster than x beyond doubt: deploy x",
        ),
        (
            [variant("x", 0.8), variant("a", 1.5), variant("fp32")],
            [compared("a", SAME), compared("fp32", SAME)],
            (
                "deploy a: no loss is shown, and it is the fastest such variant by the manifest's record (1.50 times "
                "as fast as fp32 at 1x128, on a CPU; x: 0.80 times as fast as fp32 at 1x128, on a CPU; speed was not"
            ),
        ),
        (
            [variant("x", 0.8), variant("fp32")],
            [compared("fp32", SAME)],
            (
                "deploy fp32: no loss is shown, and it is the fastest such variant by the manifest's record (x: 0.80 "
                "times as fast as fp32 at 1x128, on a CPU; speed was not measured here)"
            ),
        ),
        (
            [variant("x"), variant("a", 1.5)],
            [compared("a", SAME)],
            "no loss is shown for a, and the manifest records no speed to set beside x's: measure it with",
        ),
    ],
)
def test_what_to_deploy(variants, comparisons, said):
    assert conclusion(variants[0].name, variants, comparisons).startswith(said)


def test_speeds_that_two_cpus_recorded_are_not_compared():
    base = replace(variant("x", 0.8), recorded_on="another CPU")
    said = conclusion("x", [base, variant("a", 1.5)], [compared("a", SAME)])
    assert said.startswith("no loss is shown for a, and the manifest records no speed to set beside x's: measure it")


def test_a_better_calibration_does_not_make_up_for_a_loss():
    losing = compared("a", paired(-0.02, -0.03, -0.01, 0.001), paired(-0.1, -0.2, -0.05, 0.001, "ece"))
    assert "shown to lose" in conclusion("fp32", [variant("fp32"), variant("a", 2.0)], [losing])
