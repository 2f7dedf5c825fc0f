"""Timing layers alone: what is told while another process holds the machine."""

from contextlib import contextmanager, nullcontext

from bertport.quantize.graph.rewrite import linears
from bertport.quantize.search import layer_timing
from bertport.quantize.search.layer_timing import saved_milliseconds
from bertport.runtime import threads as threads_of
from bertport.runtime.session import open_session
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


def test_layers_are_timed_with_the_threads_that_a_container_may_use(monkeypatch):
    opened = []

    def opening(graph, options):
        opened.append(options.intra_op_num_threads)
        return open_session(graph, options)

    monkeypatch.setattr(layer_timing, "open_session", opening)
    monkeypatch.setattr(layer_timing, "machine_lock", lambda _: nullcontext())
    monkeypatch.setattr(threads_of, "_processors", lambda: 8)
    monkeypatch.setattr(threads_of, "usable_cores", lambda: 2.0)
    saved_milliseconds(linears(filled(SHARED)), lambda _: InFloat(), progress=lambda *_: None)
    assert opened == [2, 2]
