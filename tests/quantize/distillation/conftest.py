"""The tiny bundle's static graphs, made once, and samples to train on."""

from __future__ import annotations

import pytest

from bertport.quantize.recipes.table import RECIPES
from bertport.quantize.texts import read_evaluation
from tests.quantize.conftest import STATIC
from tests.quantize.every_recipe import Source


@pytest.fixture(scope="package")
def tiny_source(tiny):
    """What the tiny bundle's graphs are made from, and fp32's answers."""
    return Source(tiny, calibrates=False)


@pytest.fixture(scope="package")
def static_sources(tiny_source, held_out):
    """By recipe: what its graph is made from, calibrated."""
    return {name: tiny_source.graph_source(RECIPES[name], held_out) for name in STATIC}


@pytest.fixture(scope="package")
def static_graphs(static_sources):
    """By recipe: its graph; not to be changed."""
    return {name: RECIPES[name].make(source) for name, source in static_sources.items()}


@pytest.fixture(scope="package")
def trained_on(tiny, held_out):
    """Masked texts and pairs."""
    return read_evaluation(tiny, held_out, sample="calibration", positions=200, pairs=20).samples
