"""Ways through the rooms: a text, a checkpoint, a bundle and a request come back to no room more than twice.

`python -m pytest tests/test_ways.py -s -m ""` prints the files of each, in order.
"""

from __future__ import annotations

import shutil
import signal
import sys
import time

import pytest

from tests.ways import ROOT, recorded, returns, rooms

MOST = 2
"""Times that a way may come back to a room that it left."""


def check(way, area, through):
    """Require that a way enters these files in this order, and comes back to no room of the area too often."""
    sys.stdout.write("\n  ".join(["", f"through {area}:", *way, ""]))
    files = [file for file in way if file in through]
    assert files == list(through)
    assert max(returns(rooms(way, area)).values(), default=0) <= MOST, rooms(way, area)


def test_a_text_through_fill_mask(tiny_bundle):
    from bertport.runtime import load

    model = load(tiny_bundle, variant="fp32")
    with recorded() as way:
        [answer] = model.predict("fill-mask", ["the capital of france is [MASK]"])
    assert answer
    steps = ("runtime/model.py", "runtime/tasks/table.py", "runtime/text/tokenizer.py", "runtime/session.py")
    check(way, "runtime", steps)


@pytest.mark.slow
def test_a_checkpoint_through_export(tiny_checkpoint, tmp_path):
    from bertport.export import export

    with recorded() as way:
        export(tiny_checkpoint, tmp_path / "bundle")
    steps = (
        "export/exporter.py",
        "export/checkpoint/read.py",
        "export/checkpoint/tokenizer.py",
        "export/graph/wrapper.py",
        "export/graph/build.py",
        "export/validation/check.py",
        "export/card.py",
        "runtime/bundle/exchange.py",
    )
    check(way, "export", steps)


@pytest.mark.slow
def test_a_bundle_through_quantize(tiny_bundle, held_out, tmp_path):
    from bertport.measure.budget import Budget
    from bertport.quantize.job import Options
    from bertport.quantize.quantizer import quantize

    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    budget = Budget.parse("top1=0.5")
    with recorded() as way:
        quantize(bundle, options=Options(text=held_out, budget=budget, positions=120, pairs=20, force=True))
    steps = (
        "quantize/quantizer.py",
        "quantize/graph/fusion.py",
        "quantize/calibration/observe.py",
        "quantize/weights/rounding.py",
        "measure/quality/fidelity.py",
        "measure/speed/timing.py",
        "quantize/card.py",
    )
    check(way, "quantize", steps)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals tell the server's process what to record")
def test_a_request_through_serve(tiny_bundle, tmp_path):
    """In the server's own process, in all of its threads."""
    from tests.serve.running import Running

    target = tmp_path / "way"
    before = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom tests.ways import record_process as record\n"
    with Running(f"tiny={tiny_bundle}", "--variant", "fp32", before=f"{before}record({str(target)!r})") as running:
        running.process.send_signal(signal.SIGUSR1)
        status, _ = running.post("/tasks/fill-mask", {"inputs": "the capital of france is [MASK]"})
        assert status == 200
        assert running.get("/health")[0] == 200  # when it is answered, the first request's accounts are closed
        running.process.send_signal(signal.SIGUSR2)
        deadline = time.monotonic() + 60
        while not target.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert running.stop() == 0
    way = target.read_text(encoding="utf-8").splitlines()
    steps = (
        "serve/http/protocol.py",
        "serve/app.py",
        "serve/api/huggingface.py",
        "runtime/tasks/table.py",
        "serve/engine/worker.py",
        "runtime/session.py",
        "serve/api/operations.py",
    )
    check(way, "serve", steps)
