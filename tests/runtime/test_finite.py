"""An output with NaN or infinity is an error of its input: no empty or NaN answer, and no error of another input."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from bertport.runtime import cli, load
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.errors import OutputError
from bertport.runtime.finite import finite, first_not_finite
from bertport.runtime.heads import HEADS, MLM
from bertport.runtime.model import Model
from bertport.runtime.providers.table import PROVIDERS
from bertport.runtime.session import open_graph
from bertport.runtime.tasks.table import Several
from bertport.runtime.top_k import TopKResult, top_k_head

SECOND_SEGMENT = ("bert.embeddings.token_type_embeddings.weight", 1)
"""Makes every pair NaN and leaves single texts as they are."""


@pytest.fixture
def poisoned(edited, tiny_bundle):
    """A function that gives a copy of the tiny bundle with some weights replaced, and hashes to match."""

    def copy(name, where=..., value=np.nan):
        entry = Bundle.open(tiny_bundle).manifest.variants["fp32"]
        graph = onnx.load(tiny_bundle / entry.file)  # with the weights, which lie in the portable one
        [tensor] = [tensor for tensor in graph.graph.initializer if tensor.name == name]
        array = numpy_helper.to_array(tensor).copy()
        array[where] = value
        tensor.CopyFrom(numpy_helper.from_array(array, name))
        content = graph.SerializeToString()

        def record(manifest):
            manifest["variants"]["fp32"]["external_data"] = []
            manifest["files"][entry.file] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}

        bundle = edited(record)
        (bundle / entry.file).write_bytes(content)
        return bundle

    return copy


CASES = {
    "words": ("cls.predictions.bias", "fill-mask", {}, "a [MASK]"),
    "one word": ("cls.predictions.bias", "fill-mask", {}, "a [MASK] [MASK]"),
    "targets": ("cls.predictions.bias", "fill-mask", {"targets": ["king", "queen"]}, "a [MASK]"),
    "next sentence": ("cls.seq_relationship.bias", "next-sentence", {}, ("a", "b")),
    "pooler": ("bert.pooler.dense.bias", "features", {"pooling": "pooler"}, "a"),
    "mean": ("bert.embeddings.LayerNorm.bias", "features", {"pooling": "mean", "normalize": True}, "a"),
    "tokens": ("bert.embeddings.LayerNorm.bias", "features", {}, "a"),
}


@pytest.mark.parametrize(
    ("case", "value"),
    [(case, value) for case in CASES for value in (np.nan, np.inf) if (case, value) != ("pooler", np.inf)],  # tanh is 1
)
def test_every_kind_of_output_is_looked_at(poisoned, case, value):
    name, task, parameters, text = CASES[case]
    where = 20 if case == "one word" else ...
    model = load(poisoned(name, where, value))
    with pytest.raises(
        OutputError, match=r"no finite numbers .*variant 'fp32' of tiny-bert has NaN.*: choose another variant"
    ):
        list(model.predict(task, [text], **parameters))
    outcomes = list(model.outcomes(model.bind(task, **parameters), [text, text]))
    assert [type(outcome) for outcome in outcomes] == [OutputError, OutputError]


def test_the_place_of_the_input_is_named(poisoned):
    answers = load(poisoned(*SECOND_SEGMENT)).predict("features", ["a", ("a", "b")])
    assert next(answers).shape == (3, 32)
    with pytest.raises(OutputError, match=r"^input 2: the model gives no finite numbers"):
        next(answers)


def test_batch_mates_have_their_answers(poisoned, model):
    bad = load(poisoned(*SECOND_SEGMENT))
    outcomes = list(bad.outcomes(bad.bind("features", pooling="mean"), ["a b", ("a", "b"), "c d", ("c", "d")]))
    assert [type(outcome) for outcome in outcomes] == [np.ndarray, OutputError, np.ndarray, OutputError]
    np.testing.assert_allclose(outcomes[0], model.features("a b", pooling="mean"), atol=1e-5)
    np.testing.assert_allclose(outcomes[2], model.features("c d", pooling="mean"), atol=1e-5)


def test_the_words_that_a_graph_chose_are_looked_at(poisoned, model):
    bundle = Bundle.open(poisoned("cls.predictions.bias", 20))
    graph = open_graph(
        bundle.file(bundle.manifest.variants["fp32"].file), PROVIDERS["cpu"], appended=top_k_head(HEADS[MLM].output)
    )
    with pytest.raises(OutputError, match="logits of variant 'fp32'"):
        Model(bundle, "fp32", graph, model.tokens).fill_mask("a [MASK]")


def test_a_number_too_small_to_be_written_is_not_taken_for_nan(model):
    """Also in a program that has NumPy raise every error of arithmetic."""

    def tiny(_):
        return np.full(2, 1e-30, np.float32) ** 2

    call = model.bind("features", pooling="mean")
    [work] = call.prepare(["a"])

    class Combining:
        """As the tasks whose answer is made of several texts' rows."""

        reading = staticmethod(call.reading)

        @staticmethod
        def tokenized(read):
            return [Several(works=(work,), combine=tiny) for _ in read]

    with np.errstate(all="raise"):
        [answer] = model.run([dataclasses.replace(work, finish=tiny)])
        [combined] = model.outcomes(Combining(), ["a"])
    assert answer.tolist() == combined.tolist() == [0, 0]


def test_the_command_line_fails(poisoned, tmp_path):
    bundle = poisoned(*SECOND_SEGMENT)
    done = CliRunner().invoke(cli.app, ["next-sentence", "a", "b", "-m", str(bundle)])
    assert (done.exit_code, done.stdout) == (1, "")
    assert "bertport: error: the model gives no finite numbers" in done.stderr
    lines = tmp_path / "lines"
    lines.write_text('"a"\n["a", "b"]\n"c"\n', encoding="utf-8")
    done = CliRunner().invoke(cli.app, ["predict", "features", str(lines), "-m", str(bundle), "-p", "pooling=mean"])
    assert done.exit_code == 1
    assert [list(json.loads(line)) for line in done.stdout.splitlines()] == [
        ["line", "result"],
        ["line", "error"],
        ["line", "result"],
    ]
    assert "NaN" not in done.stdout.replace("has NaN or infinity", "")


def test_a_dictionary_of_outputs():
    good = {
        "a": np.zeros(3, np.float32),
        "ids": np.arange(3),
        "best": TopKResult(log_probabilities=np.zeros(1), ids=None),
    }
    assert first_not_finite(good) is None
    assert first_not_finite(good | {"b": np.array([0, np.inf], np.float16)}) == "b"
    assert not finite(TopKResult(log_probabilities=np.array([np.nan]), ids=None))
    assert finite(np.zeros(0, np.float32))


def test_rows_that_are_decoded_as_they_are_read_are_looked_at_too(poisoned):
    """Where a batch has more masks than are decoded at once, what a task gets is no array."""
    model = load(poisoned("bert.embeddings.position_embeddings.weight", slice(20, None)), variant="fp32")
    whole = model.fill_mask("[MASK] " * 10)
    model.positions = 4
    assert [fillings[0]["token"] for fillings in model.fill_mask("[MASK] " * 10)] == [
        fillings[0]["token"] for fillings in whole
    ]
    with pytest.raises(OutputError, match="no finite numbers"):
        model.fill_mask("[MASK] " * 30)
