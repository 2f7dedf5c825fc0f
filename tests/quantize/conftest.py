"""The tiny bundle's graph fused, a held-out text in its words, and what every test of a graph needs."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from bertport.quantize.evaluation import AS_DEFINED
from bertport.quantize.graph.rewrite import rewrite
from bertport.quantize.isa import saturates
from bertport.quantize.recipes.common import add_bias
from bertport.quantize.recipes.table import RECIPES
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.providers.cpu import INSTRUCTION_SETS, cpu

OUTPUTS = ["logits", "seq_relationship_logits", "last_hidden_state", "pooler_output"]
"""Every output of the tiny bundle's serving graphs."""
STATIC = [name for name, recipe in RECIPES.items() if recipe.scheme]
"""The recipes with calibrated activations."""


def silent(stage, done, count):
    """Show no progress."""


@pytest.fixture(scope="session")
def tiny(tiny_bundle):
    """The tiny bundle, opened; not to be changed."""
    return Bundle.open(tiny_bundle)


@pytest.fixture(scope="session")
def fused(tiny):
    """The tiny bundle's fp32 serving graph, fused; not to be changed."""
    from bertport.quantize.graph.fusion import fuse, load_plain

    return fuse(load_plain(tiny.file(tiny.manifest.variants["fp32"].file)), tiny.manifest.architecture)


@pytest.fixture
def bundle_copy(tiny_bundle, tmp_path):
    """A copy of the tiny bundle that a test may change."""
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


@pytest.fixture(scope="session")
def quantized(tiny_bundle, held_out, tmp_path_factory):
    """The tiny bundle with the variant int8-dynamic, and what adding it gave; not to be changed."""
    from bertport.measure.budget import Budget
    from bertport.quantize.job import Options
    from bertport.quantize.quantizer import quantize

    path = shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("quantized") / "bundle")
    # Forced: two layers of width 32 are all overhead, so 8 bits are slower than fp32.
    budget = Budget.parse("top1=0.5")
    [outcome] = quantize(path, options=Options(text=held_out, budget=budget, positions=120, pairs=20, force=True))
    return Bundle.open(path), outcome


HOLDS_FULL_RANGE = not saturates(INSTRUCTION_SETS.get(cpu().instruction_set))
"""Whether products of this CPU hold weights of the whole 8-bit range, which are made for no other."""


def session(model, *, as_defined=False):
    """An ONNX Runtime session on a model in memory or on disk; `as_defined` computes 8-bit products as ONNX does."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    for key, value in AS_DEFINED.items() if as_defined else ():
        options.add_session_config_entry(key, value)
    source = str(model) if hasattr(model, "exists") else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def feeds(rows=3, length=17, *, seed=0, entries=400, masked=(1, 5, 20)):
    """Random inputs of the tiny model, without padding."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(15, entries, size=(rows, length))
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": (np.arange(length) > length // 2).astype(np.int64)[None].repeat(rows, 0),
        "masked_positions": np.array(masked, dtype=np.int64),
    }


def manifest_of(path):
    return json.loads((path / "manifest.json").read_text(encoding="utf-8"))


def cosine(one, two):
    """The cosine of each row of two outputs."""
    one, two = one.reshape(-1, one.shape[-1]), two.reshape(-1, two.shape[-1])
    return (one * two).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(two, axis=-1)


class InFloat:
    """An emitter that writes every product and lookup in float32: what is left of a rewriting is fusion."""

    opset = 17
    tanh_gelu = False

    def linear(self, builder, linear):
        """Multiply."""
        add_bias(builder, "MatMul", [linear.source, builder.constant(f"{linear.name}.float", linear.weights)], linear)

    def lookup(self, builder, table, ids, output):
        """Look rows up."""
        builder.node("Gather", [builder.constant(table.name, table.rows), ids], output)

    def leading_rows(self, builder, table, count, output):
        """Take the first rows."""
        zero = builder.constant("constant.row_0", np.array([0], dtype=np.int64))
        builder.node("Slice", [builder.constant(table.name, table.rows), zero, count, zero], output)


def rewritten_in_float(fused):
    """A fused graph as every recipe rewrites it, all of it in float32."""
    return rewrite(fused, InFloat())


def gathered(rows):
    """Return what `collect` would return for these inputs of a layer, of shape (tokens, inputs), all of them kept."""
    from bertport.quantize.calibration.statistics import Activations

    rows = rows.astype(np.float32)
    return Activations(
        gram=rows.T @ rows,
        mean=rows.mean(axis=0, dtype=np.float64),
        lowest=rows.min(axis=0),
        highest=rows.max(axis=0),
        rows=rows,
        count=len(rows),
    )
