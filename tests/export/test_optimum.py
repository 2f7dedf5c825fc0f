"""Optimum's part in an export: its table of classes, its names of sizes, and its example inputs, for every family."""

from __future__ import annotations

import pytest
from optimum.exporters.tasks import TasksManager
from optimum.utils import DummyTextInputGenerator, NormalizedConfigManager

from bertport.export.checkpoint.families import FAMILIES
from bertport.export.checkpoint.heads import HEADS
from bertport.export.checkpoint.read import read_checkpoint
from bertport.export.checkpoint.source import Located
from bertport.export.graph.tracing import example_inputs
from bertport.export.graph.wrapper import build
from bertport.export.metadata import architecture
from tests.families import tiny
from tests.heads import class_of, combinations, head_checkpoint


@pytest.fixture
def asked(monkeypatch):
    """Return what Optimum is asked for: tasks, model types and names of inputs, as lists that grow."""
    listed = {"tasks": [], "types": [], "inputs": []}

    def spy(owner, name, key, place):
        call = getattr(owner, name)

        def spied(*arguments, **options):
            listed[key].append(arguments[place])
            return call(*arguments, **options)

        monkeypatch.setattr(owner, name, spied)

    spy(TasksManager, "get_model_class_for_task", "tasks", 0)
    spy(NormalizedConfigManager, "get_normalized_config_class", "types", 0)
    spy(DummyTextInputGenerator, "generate", "inputs", 1)
    return listed


def read(directory):
    return read_checkpoint(Located(directory=directory, name="tiny", revision=None))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_export_asks_optimum(asked, family, tmp_path):
    checkpoint = read(tiny(family, tmp_path))
    model = build(checkpoint)
    own = {HEADS[head].optimum for head in checkpoint.plan.heads if len(HEADS[head].attributes)} - {None}
    assert asked["tasks"].count("feature-extraction") >= 2  # the layout, and the model
    assert own <= set(asked["tasks"])
    inputs = example_inputs(model)
    assert asked["inputs"] == list(model.inputs) == list(inputs)
    asked["types"].clear()
    architecture(model, checkpoint.model_class)
    assert asked["types"]
    assert set(asked["types"]) == {family}


@pytest.mark.parametrize("case", [case for case in combinations() if case[0] == "bert"], ids=lambda case: case[1])
def test_the_class_of_a_head_is_that_of_optimums_table(asked, case, tmp_path_factory):
    model = build(read(head_checkpoint(tmp_path_factory, *case)))
    assert HEADS[case[1]].optimum in asked["tasks"]
    assert class_of(*case) in [type(made).__name__ for made, _ in model.classes]
