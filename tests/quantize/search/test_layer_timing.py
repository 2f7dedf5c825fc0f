"""Timing layers alone: what is told while another process holds the machine."""

from contextlib import contextmanager

from bertport.quantize.graph.rewrite import linears
from bertport.quantize.search import layer_timing
from bertport.quantize.search.layer_timing import saved_milliseconds
from tests.quantize.conftest import InFloat
from tests.quantize.graph.test_fusion import SHARED, filled


def test_what_is_waited_for_is_told(monkeypatch):
    @contextmanager
    def held(waiting=lambda: None):
        waiting()
        yield

    monkeypatch.setattr(layer_timing, "machine_lock", held)
    told = []
    layers = linears(filled(SHARED))
    saved = saved_milliseconds(layers, lambda _: InFloat(), progress=lambda stage, *_: told.append(stage))
    assert set(saved) == {"matrix"}
    assert told[0].startswith("waiting for a process, which measures or trains on this machine")
    assert told[1:] == ["timing layers"] * len(layers)
