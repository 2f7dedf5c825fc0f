"""What bench.memory asks the processes that it measures."""

from __future__ import annotations

from pathlib import Path

from bench import memory


def test_each_process_has_the_bound_and_the_streams_that_were_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(memory, "own", lambda *arguments: asked.append(arguments) or {})
    memory.measure(Path("bundle"), ["fp32"], ["1G"], 0, 2)
    bounded, unbounded = (arguments for arguments in asked if "--one" in arguments)
    assert bounded[-4:] == ("--memory", "1G", "--streams", 2)
    assert unbounded[-2:] == ("--streams", 2)
    assert "--memory" not in unbounded
