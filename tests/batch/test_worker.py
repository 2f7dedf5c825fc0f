"""A worker's errors: each says what happened on this machine, and what to do about it there."""

from __future__ import annotations

import errno
import json
import re
import tempfile
import uuid

import pytest

from bertport.batch import run, worker
from bertport.batch.job import Job, Runs, Source
from bertport.batch.tasks import TASKS
from bertport.batch.worker import Worker, open_model
from bertport.runtime.errors import BundleError, PathError


def job(out, **runs):
    source = Source(format="json", form=TASKS["fill-mask"].forms[0], columns={"text": "text"}, carried={})
    asked = Runs(**{"bundle": None, "digest": "0" * 64, **runs})
    return Job(id="1", task="fill-mask", parameters={}, runs=asked, source=source, output=str(out), on_error="keep")


def test_one_machine_alone_is_told_nothing_of_others(tmp_path):
    with pytest.raises(PathError) as raised:
        open_model(Runs(bundle=str(tmp_path / "none"), digest="0" * 64))
    assert "--ship" not in raised.value.message
    assert "every machine" not in raised.value.message


def test_a_machine_of_many_is_told_how_the_bundle_gets_there(tmp_path):
    for error, runs, advice in (
        (PathError, {"bundle": "/none"}, "put the same bundle at /none on every machine, or pass the bundle on with"),
        (BundleError, {}, "install the same bertport on every machine, or pass the bundle on with"),
    ):
        with pytest.raises(error, match=rf"does not load the bundle of this run .*{advice} --ship"):
            Worker(job(tmp_path, **runs))._ready()  # noqa: SLF001 — on Ray, for the first part


@pytest.mark.parametrize("kind", ["disk", "store"])
def test_a_full_disk_is_one_sentence(kind, tiny_bundle, tmp_path, monkeypatch):
    """What goes to a store is written on this machine first, whose disk it then is."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "out" if kind == "disk" else f"memory://{uuid.uuid4().hex}"
    place = re.escape(str(out) if kind == "disk" else tempfile.gettempdir())
    monkeypatch.setattr(worker, "_writer", full)
    (tmp_path / "in.jsonl").write_text(json.dumps({"text": "the [MASK]"}))
    with pytest.raises(PathError, match=rf"cannot use {place} \(No space left on device\): make room there"):
        run(tiny_bundle, "fill-mask", tmp_path / "in.jsonl", out)
