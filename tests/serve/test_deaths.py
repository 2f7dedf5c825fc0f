"""Nothing dies unseen: failed loads and threads that end are told in the log, by /ready and to clients."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import shutil
import subprocess
import sys
import threading
import time
import weakref
from datetime import datetime

import pytest

from bertport.runtime import load
from bertport.runtime.errors import BertportError, BundleError
from bertport.serve.engine.pieces import Pieces, whole
from bertport.serve.engine.queue import FairBatchQueue
from bertport.serve.engine.registry import Registry, find_bundles
from bertport.serve.engine.slots import DeviceSlots
from bertport.serve.engine.worker import ModelWorker
from bertport.serve.errors import Conflict, Failed, Unprocessable
from bertport.serve.settings import Asked, Limits, Settings
from tests.broken import BROKEN, copied, edited_json, not_a_number, without_template
from tests.serve.running import PATIENCE, Running

ASK = {"inputs": "a [MASK]"}
LONG = {"inputs": ["the house " * 70 + "[MASK]"] * 8}
"""Enough characters to be tokenized beside the event loop."""
FP32 = ("--variant", "fp32")


@pytest.mark.parametrize("kind", BROKEN)
def test_a_load_that_fails_names_the_bundle_whatever_is_wrong_with_it(tiny_bundle, tmp_path, kind):
    bundle = copied(tiny_bundle, tmp_path / "bad", **BROKEN[kind])
    settings = Settings(bundles=(Asked("thebundle", str(bundle)),), variants=("fp32",))
    registry = Registry(settings, lambda *_: None, lambda *_: None, lambda _: None)
    with pytest.raises(BertportError, match="thebundle"):
        asyncio.run(registry.load())
    assert not registry.ready


def test_a_load_goes_on_when_its_caller_is_cancelled(tiny_bundle):
    settings = Settings(bundles=(Asked("thebundle", str(tiny_bundle)),), variants=("fp32",), warm_up=False)
    registry = Registry(settings, lambda *_: None, lambda *_: None, lambda _: None)

    async def use():
        loading = asyncio.create_task(registry.load())
        await asyncio.sleep(0)
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        with pytest.raises(Conflict, match="loaded already: ask again"):
            await registry.load()
        while not registry.ready:  # noqa: ASYNC110 — it has none to wait for
            await asyncio.sleep(0.05)
        await registry.close()

    asyncio.run(asyncio.wait_for(use(), 60))


def test_a_variant_that_is_named_twice_is_loaded_once(tiny_bundle, monkeypatch):
    opened = []

    def counted(*given, **named):
        opened.append(named["variant"])
        return load(*given, **named)

    async def use():
        await registry.load()
        await registry.close()

    monkeypatch.setattr("bertport.serve.engine.registry.load", counted)
    settings = Settings(bundles=(Asked("thebundle", str(tiny_bundle)),), variants=("fp32", "fp32"), warm_up=False)
    registry = Registry(settings, lambda *_: None, lambda *_: None, lambda _: None)
    asyncio.run(asyncio.wait_for(use(), 60))
    assert opened == ["fp32"]


@pytest.mark.parametrize("kind", ["an empty vocabulary", "a late position that is no number"])
def test_a_first_load_that_fails_ends_the_process_and_names_the_bundle(tiny_bundle, tmp_path, kind):
    bundle = copied(tiny_bundle, tmp_path / "bad", **BROKEN[kind])
    command = [sys.executable, "-m", "bertport.runtime", "serve", "--port", "0", *FP32, "--drain-seconds", "60"]
    done = subprocess.run(
        [*command, f"thebundle={bundle}"], capture_output=True, text=True, check=False, timeout=PATIENCE / 2
    )
    assert done.returncode == 1, done.stderr
    *lines, said = done.stderr.splitlines()
    assert said.startswith("bertport: error: ")
    assert "thebundle" in said
    assert "Traceback" not in "\n".join(line for line in lines if not line.startswith("{"))
    assert any('"level":"error"' in line and "thebundle" in line for line in lines)


def test_the_end_comes_within_a_second_of_the_failure(tiny_bundle, tmp_path):
    bundle = copied(tiny_bundle, tmp_path / "bad", **BROKEN["an empty vocabulary"])
    with Running(bundle, *FP32, "--drain-seconds", "60", wait=False) as server:
        server.process.wait(PATIENCE)
        server.reader.join()
        times = [datetime.fromisoformat(line["time"]) for line in server.lines if line["level"] == "error"]
        ended = datetime.fromisoformat(server.lines[-1]["time"])
        assert server.lines[-1]["message"] == "stopped"
        assert (ended - times[0]).total_seconds() < 5  # a second on an idle machine, and far from sixty


def test_the_rest_is_served_where_it_is_asked_to_keep_going(tiny_bundle, tmp_path):
    bad = copied(tiny_bundle, tmp_path / "bad", **BROKEN["a graph that is none"])
    no_bundle = tmp_path / "none"
    no_bundle.mkdir()
    bundles = (f"bad={bad}", f"none={no_bundle}", f"good={tiny_bundle}")
    with Running(*bundles, *FP32, "--no-warm-up", "--keep-going") as server:
        assert server.get("/ready") == (200, '{"status":"ready","failed":["bad","none"]}')
        assert [bundle["name"] for bundle in json.loads(server.get("/models")[1])] == ["good"]
        assert server.post("/models/good", ASK)[0] == 200
        status, answer = server.post("/", ASK)  # the first is the default one, and no other takes its place unseen
        assert (status, "'bad' could not be loaded" in answer["error"]) == (503, True)
        for name in ("bad", "none"):
            status, answer = server.post(f"/models/{name}", ASK)
            assert (status, answer["error_type"]) == (503, "failed")
        assert server.post("/models/other", ASK)[0] == 404
        assert {line["bundle"] for line in server.lines if line["level"] == "error"} == {"bad", "none"}
        assert server.stop() == 0


def test_a_bundle_that_fails_takes_no_name_of_one_that_can_be_served(tiny_bundle, tmp_path):
    bad = tmp_path / "tiny-bert"  # as the other one calls itself
    bad.mkdir()
    settings = Settings(bundles=(Asked(None, str(tiny_bundle)), Asked(None, str(bad))), keep_going=True)
    failed = {}
    bundles = find_bundles(settings, failed)
    assert {name: bundle is not None for name, bundle in bundles.items()} == {"tiny-bert": True, str(bad): False}
    assert list(failed) == [str(bad)]


def test_a_reload_that_fails_puts_no_other_bundle_in_the_place_of_the_default_one(tiny_bundle, tmp_path):
    first = tmp_path / "first"
    first.mkdir()
    settings = Settings(
        bundles=(Asked(None, str(first)), Asked("good", str(tiny_bundle))),
        variants=("fp32",),
        warm_up=False,
        keep_going=True,
    )
    registry = Registry(settings, lambda *_: None, lambda *_: None, lambda _: None)

    async def use():
        await registry.load()
        with pytest.raises(Failed, match="'first' could not be loaded"):
            registry.find(None, None)
        first.rmdir()
        copied(tiny_bundle, first, **BROKEN["a graph that is none"])  # which has a manifest, and so a name
        with pytest.raises(BertportError, match="tiny-bert"):
            await registry.load()
        with pytest.raises(Failed, match="'first' could not be loaded"):
            registry.find(None, None)
        await registry.close()

    asyncio.run(asyncio.wait_for(use(), 60))


def test_what_cannot_be_served_is_not_kept_in_memory(tiny_bundle, monkeypatch):
    loaded = []

    def fails(worker, **_):
        loaded.append(weakref.ref(worker))
        yield "asking"
        if len(loaded) in (1, 4):
            raise BundleError("no finite number")

    monkeypatch.setattr("bertport.serve.engine.registry.warm_up", fails)
    bundles = tuple(Asked(name, str(tiny_bundle)) for name in ("bad", "good"))
    settings = Settings(bundles=bundles, variants=("fp32",), warm_up=False, keep_going=True)
    registry = Registry(settings, lambda *_: None, lambda *_: None, lambda _: None)

    def kept():
        gc.collect()
        return [worker() is not None for worker in loaded]

    async def use():
        await registry.load()
        assert list(registry.failed) == ["bad"]
        assert kept() == [False, True]
        with pytest.raises(BundleError, match="no finite number"):
            await registry.load()
        assert kept() == [False, True, False, False]
        await registry.close()

    asyncio.run(asyncio.wait_for(use(), 60))


def test_nothing_is_kept_going_where_nothing_is_left(tiny_bundle, tmp_path):
    bad = copied(tiny_bundle, tmp_path / "bad", **BROKEN["a graph that is none"])
    with Running(f"bad={bad}", *FP32, "--keep-going", wait=False) as server:
        assert server.process.wait(PATIENCE) == 1


def test_a_reload_that_fails_is_409_whatever_it_is_and_the_old_bundle_goes_on(tiny_bundle, tmp_path):
    bundle = tmp_path / "changing"
    shutil.copytree(tiny_bundle, bundle)
    with Running(bundle, *FP32, BERTPORT_API_KEY="sesame") as server:
        key = {"authorization": "Bearer sesame"}
        for kind in BROKEN:
            shutil.rmtree(bundle)
            copied(tiny_bundle, bundle, **BROKEN[kind])
            status, answer = server.post("/reload", {}, **key)
            assert (status, answer["error_type"]) == (409, "conflict"), kind
            assert server.get("/ready")[0] == 200
            assert server.post("/", ASK, **key)[0] == 200
        shutil.rmtree(bundle)
        shutil.copytree(tiny_bundle, bundle)
        assert server.post("/reload", {}, **key)[0] == 200
        assert server.stop() == 0
        assert not server.other


def test_an_input_of_no_tokens_is_refused_and_the_server_goes_on(tiny_bundle, tmp_path):
    bundle = copied(tiny_bundle, tmp_path / "plain", tokenizer_json=edited_json(without_template))
    with Running(bundle, *FP32, "--no-warm-up") as server:
        for path in ("/tasks/features", "/tasks/feature-extraction"):
            for text in ("\u200b", "", " ", ["a", ""]):
                status, answer = server.post(path, {"inputs": text})
                assert status == 422, answer
                assert "has no tokens" in answer["error"]
        assert server.post("/tasks/next-sentence", {"inputs": {"text": "", "text_pair": " "}})[0] == 422
        similar = {"inputs": {"source_sentence": "", "sentences": ["a"]}}
        assert server.post("/tasks/sentence-similarity", similar)[0] == 422
        text = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [""]}
        asked = {"inputs": [text], "parameters": {"task": "features"}}
        assert server.post("/v2/models/tiny-bert/infer", asked)[0] == 422
        assert server.post("/tasks/features", {"inputs": "a"})[0] == 200
        assert server.get("/ready")[0] == 200
        assert server.stop() == 0
        assert not [line for line in server.lines if line["level"] == "error"]


def test_an_output_that_is_no_number_is_424_for_that_input_alone(tiny_bundle, tmp_path):
    late = not_a_number("position_embeddings.weight", slice(100, None))
    bundle = copied(tiny_bundle, tmp_path / "late", onnx_model_onnx=late)
    with Running(bundle, *FP32, "--no-warm-up") as server:
        long = "the house " * 60
        for path, text in (("fill-mask", long + "[MASK]"), ("features", long), ("feature-extraction", long)):
            status, answer = server.post(f"/tasks/{path}", {"inputs": text})
            assert (status, answer["error_type"]) == (424, "backend"), answer
            assert server.post(f"/tasks/{path}", {"inputs": "a [MASK]"})[0] == 200
        pair = {"inputs": {"text": long, "text_pair": "a"}}
        assert server.post("/tasks/next-sentence", pair)[0] == 424
        for length, status in ((110, 424), (90, 200)):
            ids = {"name": "input_ids", "shape": [1, length], "datatype": "INT64", "data": [20] * length}
            for output in ("logits", "last_hidden_state", "pooler_output", "seq_relationship_logits"):
                asked = {"inputs": [ids], "outputs": [{"name": output}]}
                assert server.post("/v2/models/tiny-bert/infer", asked)[0] == status, output
        assert server.stop() == 0


def test_a_model_thread_that_ends_is_told_and_ends_the_process(tiny_bundle, tmp_path):
    trigger = tmp_path / "now"
    fault = (
        "import os\nfrom bertport.serve.engine import queue\ntake = queue.FairBatchQueue.take\n"
        f"def fails(self, budget):\n    if os.path.exists({str(trigger)!r}): 1 / 0\n    return take(self, budget)\n"
        "queue.FairBatchQueue.take = fails"
    )
    with Running(tiny_bundle, *FP32, "--no-warm-up", before=fault) as server:
        assert server.post("/", ASK)[0] == 200
        trigger.touch()
        began = time.monotonic()
        status, answer = server.post("/", ASK)
        assert (status, answer["error_type"]) == (503, "failed")
        assert "ZeroDivisionError" in answer["error"]
        assert time.monotonic() - began < 20  # at once, and not when its thirty seconds are over
        assert server.process.wait(PATIENCE) == 1
        server.reader.join()
        [line] = [line for line in server.lines if line["level"] == "critical"]
        assert "division by zero" in line["exception"]
        [said] = server.other
        assert said.startswith("bertport: error: the server cannot go on: variant 'fp32' can answer no more")


def test_one_of_two_variants_that_ends_turns_ready_to_503_and_the_other_answers(tiny_bundle, tmp_path):
    trigger = tmp_path / "now"
    fault = (
        "import os\nfrom bertport.serve.engine import worker\ntake = worker.ModelWorker._take\n"
        f"def fails(self):\n    if self.variant == 'fp32' and os.path.exists({str(trigger)!r}): 1 / 0\n"
        "    return take(self)\n"
        "worker.ModelWorker._take = fails"
    )
    with Running(tiny_bundle, *FP32, "--variant", "portable", "--no-warm-up", before=fault) as server:
        assert server.post("/?variant=fp32", ASK)[0] == 200
        trigger.touch()
        assert server.post("/?variant=fp32", ASK)[0] == server.post("/?variant=fp32", ASK)[0] == 503
        for path in ("/ready", "/v2/health/ready", "/v2/models/tiny-bert/versions/fp32/ready"):
            status, said = server.get(path)
            assert status == 503
            assert "variant 'fp32' can answer no more" in said
        assert server.get("/health")[0] == 200
        assert server.post("/?variant=portable", ASK)[0] == 200
        assert server.get("/v2/models/tiny-bert/versions/portable/ready")[0] == 200
        assert server.metric("bertport_queue_items") == server.metric("bertport_queue_tokens") == 0
        assert server.stop() == 0


def test_the_thread_that_tokenizes_is_needed_by_all(tiny_bundle, tmp_path):
    trigger = tmp_path / "now"
    fault = (
        "import os\nfrom bertport.serve.engine import pieces\nstep = pieces.Pieces._step\n"
        f"def fails(work, future):\n    if os.path.exists({str(trigger)!r}): 1 / 0\n    return step(work, future)\n"
        "pieces.Pieces._step = staticmethod(fails)"
    )
    with Running(tiny_bundle, *FP32, "--no-warm-up", before=fault) as server:
        assert server.post("/", LONG)[0] == 200
        trigger.touch()
        assert server.post("/", LONG)[0] == 503
        assert server.process.wait(PATIENCE) == 1


def test_a_worker_that_ends_fails_what_waits_and_what_comes(model, monkeypatch, caplog):
    told = []

    async def use():
        worker = ModelWorker(model, DeviceSlots(), Limits(), lambda *_: None, lambda *death: told.append(death))
        [work] = model.bind("fill-mask").prepare(["a [MASK]"])
        with worker.slots:
            jobs = [worker.submit([work, work]) for _ in range(3)]
            monkeypatch.setattr(FairBatchQueue, "take", lambda *_: 1 / 0)
        for job in jobs:
            with pytest.raises(Failed, match="ZeroDivisionError"):
                await job.future
        with pytest.raises(Failed, match="can answer no more"):
            worker.submit([work])
        for job in jobs:
            worker.cancel(job)
        assert (worker.items, worker.tokens) == (0, 0)
        await asyncio.to_thread(worker.close)
        return worker

    with caplog.at_level(logging.CRITICAL):
        worker = asyncio.run(asyncio.wait_for(use(), 60))
    assert [dead for dead, _ in told] == [worker]
    [record] = caplog.records
    assert record.exc_info


def test_work_of_no_tokens_never_reaches_the_queue(model):
    async def use():
        worker = ModelWorker(model, DeviceSlots(), Limits(), lambda *_: None)
        [work] = model.bind("features").prepare(["a"])
        from dataclasses import replace

        try:
            with pytest.raises(Unprocessable, match="no tokens"):
                worker.submit([work, replace(work, ids=work.ids[:0])])
            assert len(await worker.submit([work]).future) == 1
        finally:
            await asyncio.to_thread(worker.close)

    asyncio.run(asyncio.wait_for(use(), 60))


def test_pieces_run_smallest_first_and_hand_errors_on():
    order, go = [], threading.Event()

    def work(name, steps):
        for _ in range(steps):
            assert go.wait(60)
            order.append(name)
            yield
        return name

    def fails(error):
        raise error

    class PanicException(BaseException):
        pass

    async def use():
        died = []
        pieces = Pieces(died.append)
        try:
            # The first piece of the long one runs until it may go on; all the others wait by then.
            long = asyncio.create_task(pieces.run(work("long", 3), 1_000_000))
            await asyncio.sleep(0.2)
            gone = asyncio.create_task(pieces.run(work("gone", 3), 10))
            short = asyncio.create_task(pieces.run(work("short", 2), 10))
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            assert len(pieces._waiting) == 1  # what nobody waits for holds nothing
            go.set()
            assert [await short, await long] == ["short", "long"]
            for error in (ValueError("no"), PanicException("no")):
                with pytest.raises((ValueError, RuntimeError), match="no"):
                    await pieces.run(whole(fails, error), 10)
            assert await pieces.run(whole(len, "four"), 10) == 4
        finally:
            await asyncio.to_thread(pieces.close)
        assert not died
        with pytest.raises(Failed):
            await pieces.run(whole(len, ""), 10)

    asyncio.run(asyncio.wait_for(use(), 60))
    assert order == ["long", "short", "short", "long", "long"]
