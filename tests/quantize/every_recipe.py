"""Any recipe from any bundle, to its end: made, valid ONNX, written, opened, and near fp32."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx

from bertport.quantize.calibration.ranges import Calibration
from bertport.quantize.calibrator import Calibrator
from bertport.quantize.graph.fusion import LEAST_OPSET, fuse, load_plain
from bertport.quantize.graph.storage import write_graph
from bertport.quantize.quantizer import describe
from bertport.quantize.recipes.source import GraphSource
from bertport.quantize.recipes.table import RECIPES
from bertport.quantize.weights.cache import WeightCache
from bertport.quantize.weights.calibrated import calibrate_weights
from bertport.runtime.bundle.select import providers_for
from tests.quantize.conftest import cosine, feeds, session

GRAPHS = [name for name, recipe in RECIPES.items() if not recipe.shares_fp32]
"""The recipes that make a graph; what shares fp32's has to be computed by its provider to be compared."""
NEAR = {"fp16": 0.99999, "int8-dynamic": 0.99, "int8-weight-only": 0.99, "int8-static": 0.95, "int4-weight-only": 0.9}
"""The least cosine of any hidden state to fp32's; two matrices in each other's place give less than 0.8."""


class Source:
    """A bundle, and the fp32 answers to compare with."""

    def __init__(self, bundle, *, calibrates=True):
        self.bundle, self.calibrates = bundle, calibrates
        self.path = self.bundle.file(self.bundle.manifest.variants["fp32"].file)
        reference = session(self.path)
        self.outputs = [output.name for output in reference.get_outputs()]
        known = {argument.name for argument in reference.get_inputs()}
        entries = min(400, bundle.manifest.architecture.vocab_size)
        self.feeds = {name: value for name, value in feeds(entries=entries).items() if name in known}
        self.feeds["attention_mask"][1, 9:] = 0
        self.expected = reference.run(self.outputs, self.feeds)
        self.plain = load_plain(self.path)
        self.fused = fuse(load_plain(self.path), self.bundle.manifest.architecture)
        self.calibrator = None

    def graph_source(self, recipe, text):
        """Return the source that the recipe's graph is made from."""
        source = GraphSource(
            plain=self.plain, fused=self.fused, instruction_set=None, weights=WeightCache(saturating=True)
        )
        if recipe.calibrates_weights and self.calibrates:
            weights = calibrate_weights(self.bundle, self.fused, text, saturating=True, progress=lambda *_: None)
            return dataclasses.replace(source, weights=weights)
        if recipe.scheme is None:
            return source
        if self.calibrator is None:
            how = Calibration(samples=12, gptq=self.calibrates)
            self.calibrator = Calibrator(self.bundle, self.plain, how, text=text, progress=lambda *_: None)
        return self.calibrator.apply(source, recipe)

    def distance(self, graph, *, as_defined=False):
        """The least cosine of a hidden state, once every output is found to have its shape and to be finite."""
        outputs = dict(
            zip(self.outputs, session(graph, as_defined=as_defined).run(self.outputs, self.feeds), strict=True)
        )
        for name, expected in zip(self.outputs, self.expected, strict=True):
            assert outputs[name].shape == expected.shape
            assert outputs[name].dtype == np.float32
            assert np.isfinite(outputs[name]).all()
        real = self.feeds["attention_mask"] == 1
        hidden = self.outputs.index("last_hidden_state")
        return float(cosine(self.expected[hidden][real], outputs["last_hidden_state"][real]).min())


def to_its_end(source, name, text, place, *, least=None):
    """Make, check, write, open and compare."""
    recipe = RECIPES[name]
    model = recipe.make(source.graph_source(recipe, text))
    path = place / "model.onnx"
    write_graph(model, path)
    onnx.checker.check_model(str(path), full_check=True)
    assert model.opset_import[0].version >= LEAST_OPSET
    names = [node.name for node in model.graph.node if node.name]
    assert len(names) == len(set(names))
    # A graph for other providers may have weights that the products of this CPU do not hold.
    cosine_to_fp32 = source.distance(path, as_defined="cpu" not in recipe.providers)
    assert cosine_to_fp32 > (least or near(name)), f"{name}: {cosine_to_fp32}"
    requires = describe(recipe, model, None, outputs=(), fidelity={}).requires
    assert set(providers_for(requires)) == set(recipe.providers)
    stored = {"float16"} if name == "fp16" else {"uint8"} if name.endswith("weight-only") else {"int8"}
    assert stored <= set(requires.dtypes) <= {"float32", "float16", "int8", "uint8"}
    assert requires.opset == model.opset_import[0].version


def near(name):
    return NEAR[name.removesuffix("-cpu")]
