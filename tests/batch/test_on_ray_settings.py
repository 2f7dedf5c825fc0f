"""What an actor of Ray is told and sent, for which no Ray is needed."""

from __future__ import annotations

import os
import shutil
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from bertport.batch.job import Job, Runs, Source
from bertport.batch.on_ray import _answers, _for_workers, _packed, _resources, _unpacked
from bertport.batch.tasks import Form
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.errors import BundleError, PathError, UsageError
from tests.hub_cache import in_hub_cache


def job(bundle, **runs):
    """Return a job of a bundle."""
    digest = Bundle.open(bundle).digest
    source = Source(format="json", form=Form(needs=("text",)), columns={}, carried={})
    return Job(
        id="1",
        task="fill-mask",
        parameters={},
        runs=Runs(bundle=str(bundle), digest=digest, **runs),
        source=source,
        output="out",
        on_error="keep",
    )


@pytest.mark.parametrize("links", [False, True], ids=["files", "links"])
def test_what_is_sent_is_the_bundle(bundle, tmp_path, links):
    """In the Hub's cache each file is a link out of the directory."""
    place = in_hub_cache(bundle, tmp_path, links=links)
    (place / "notes.txt").write_text("not the bundle's")
    with _unpacked(_packed(job(place))) as folder:
        sent = Bundle.open(folder)
        sent.verify()
        assert sent.digest == Bundle.open(bundle).digest
        paths = {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}
        assert paths == {"manifest.json", *sent.manifest.files}
        assert not any(path.is_symlink() for path in Path(folder).rglob("*"))


def test_what_cannot_be_sent_is_one_sentence(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "bundle")
    asked = job(tmp_path / "bundle")
    (tmp_path / "bundle" / "vocab.txt").unlink()
    with pytest.raises(
        PathError, match=r"vocab\.txt of the bundle at .* cannot be sent \(No such file or directory\): "
    ):
        _packed(asked)
    os.mkfifo(tmp_path / "bundle" / "vocab.txt")
    with pytest.raises(BundleError, match=r"vocab\.txt is a FIFO"):
        _packed(asked)


def test_what_cannot_be_unpacked_is_one_sentence(bundle, tmp_path, monkeypatch):
    sent = _packed(job(bundle))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(
        PathError, match=r"cannot write the bundle that was sent to it \(No such file or directory\): free"
    ):
        _unpacked(sent)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    held = BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        link = tarfile.TarInfo("manifest.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(PathError, match="cannot write the bundle that was sent to it"):
        _unpacked(held.getvalue())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("provider", ["auto", "cuda"])
def test_a_number_that_is_given_is_taken(bundle, provider):
    """0 is no number of threads, and no way to leave it open."""
    asked = _for_workers(job(bundle, provider=provider))
    assert (asked.runs.threads, asked.runs.streams) == (1, 1)
    assert _resources(asked)["num_cpus"] == 1
    asked = _for_workers(job(bundle, provider=provider, threads=3, streams=2))
    assert (asked.runs.threads, asked.runs.streams, _resources(asked)["num_cpus"]) == (3, 2, 3)
    none = _for_workers(job(bundle, provider=provider, streams=0))
    assert none.runs.streams == 0  # which the bundle refuses when it is loaded
    for threads in (0, -1):
        with pytest.raises(UsageError, match=f"^threads is a number from 1 up, not {threads}$"):
            _resources(_for_workers(job(bundle, provider=provider, threads=threads)))


@pytest.mark.parametrize("port", ["", "\u00b2", "-1", "9" * 5000])
def test_an_address_without_a_number_for_a_port_is_one_sentence(port):
    with pytest.raises(UsageError, match="is not an address of Ray: give HOST:PORT, auto or local"):
        _answers(f"localhost:{port}")


def test_an_address_whose_host_is_no_name_is_one_sentence():
    with pytest.raises(UsageError, match=r"no cluster of Ray is found at a\.\.b:6379 \("):
        _answers("a..b:6379")
