"""A run's record: what of it is believed, what it does not tell, and runs of the version before."""

from __future__ import annotations

import errno
import json
import shutil
import stat
import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from bertport.batch import places, run
from bertport.batch.engines import ENGINES, Engine
from bertport.batch.job import Part, Span
from bertport.batch.places import open_place
from bertport.batch.record import open_record
from bertport.runtime.errors import PathError, UsageError
from tests.conftest import contents


def lines(path, rows):
    path.write_text("".join(f"{json.dumps({'text': f'the [MASK] {row}'})}\n" for row in range(rows)), encoding="utf-8")
    return path


@pytest.fixture
def done(tiny_bundle, tmp_path):
    """Return a function that runs the same command again, once it has run."""
    data = lines(tmp_path / "in.jsonl", 6)

    def again(engine="local"):
        return run(tiny_bundle, "fill-mask", data, tmp_path / "out", part_rows=2, engine=engine)

    again()
    return again


def test_a_part_of_another_size_than_was_written_is_not_done(done, tmp_path):
    """As a crash of the machine leaves it: the name is there, and not all bytes."""
    part = tmp_path / "out" / "part-0000001.parquet"
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(
        PathError, match=r"part-0000001.parquet is not a part of a run .*: remove it, and it is made again"
    ):
        done()
    part.unlink()
    assert done()["parts_done_before"] == 2


def test_parts_are_on_the_disk_before_they_have_their_names(done, tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(places, "sync_file", lambda path: synced.append((path.name, path.exists())))
    monkeypatch.setattr(places, "sync_directory", lambda path: synced.append(path.name))
    (tmp_path / "out" / "part-0000001.parquet").unlink()
    done()
    [number] = [number for number, each in enumerate(synced) if each[0].startswith("part-0000001")]
    assert synced[number][1]
    assert synced[number + 1] == "out"


def test_a_run_of_the_version_before_goes_on(done, tmp_path):
    records = tmp_path / "out" / "_bertport"
    (records / "id.json").unlink()
    stored = json.loads((records / "done.json").read_text())
    for stats in stored["done"]:
        del stats["size"]
    (records / "done.json").write_text(json.dumps(stored))
    (tmp_path / "out" / "part-0000001.parquet").unlink()
    summary = done()
    assert (summary["parts_done_before"], summary["rows"]) == (2, 6)
    assert json.loads((records / "id.json").read_text()) == {"id": stored["run"]}


def test_a_part_that_says_nothing_of_its_run_is_another_s(done, tmp_path):
    part = tmp_path / "out" / "part-0000001.parquet"
    table = pa.table({"text": ["a"]}).replace_schema_metadata({"bertport": "{}"})
    pq.write_table(table, part)
    with pytest.raises(
        PathError, match=r"out/part-0000001.parquet is a part of another run: give another output folder"
    ):
        done()


def test_an_input_that_changes_during_a_run_ends_it(done, tmp_path, monkeypatch):
    def changing(job, parts, carriers, model):
        yield from ENGINES["local"].make(job, parts, carriers, model)
        lines(tmp_path / "in.jsonl", 7)

    monkeypatch.setitem(ENGINES, "changing", Engine(name="changing", make=changing))
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(PathError, match=r"files of the input .*in.jsonl changed while they were read"):
        done("changing")
    assert {"_bertport/done.json", "part-0000002.parquet"} <= contents(tmp_path / "out").keys()
    assert not (tmp_path / "out" / "_bertport" / "summary.json").exists()
    with pytest.raises(UsageError, match="holds a run over other files: those of the input have changed since"):
        done()


def test_a_record_with_passwords_is_its_owner_s_alone(tmp_path, monkeypatch):
    """Workers open the input by the URLs that it holds; nothing else of them is told."""
    url = "https://me:word@host/a.jsonl?sig=0123"

    def begun(name, url):
        parts = [Part(number=0, spans=(Span(url, 0, -1),), weight=1)]
        output = open_place(str(tmp_path / name))
        open_record(output, {"input": "https://***@host/a.jsonl?***"}, lambda: parts)
        return tmp_path / name / "_bertport" / "run.json"

    kept = begun("a", url)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(begun("b", "https://host/a.jsonl").stat().st_mode) & 0o044
    stored = json.loads(kept.read_text())
    stored["asked"]["input"] = url  # as the version before wrote it
    kept.write_text(json.dumps(stored))
    begun("a", url)
    with pytest.raises(UsageError) as raised:
        open_record(open_place(str(tmp_path / "a")), {"input": "s3://bucket/a.jsonl"}, list)
    assert "me:word" not in raised.value.message
    assert "0123" not in raised.value.message

    monkeypatch.delattr("os.link")
    assert stat.S_IMODE(begun("c", url).stat().st_mode) == 0o600


def test_each_worker_reads_the_run_s_name_and_not_its_parts(done, tmp_path, monkeypatch):
    read = []
    original = places.Place.read
    monkeypatch.setattr(
        places.Place, "read", lambda self: (read.append(self.path.rpartition("/")[2]), original(self))[1]
    )
    for part in (tmp_path / "out").glob("part-*"):
        part.unlink()
    done()
    assert read.count("run.json") == 1
    assert read.count("id.json") == 1 + 3


def test_an_output_that_cannot_be_listed_is_one_sentence(tiny_bundle, tmp_path, monkeypatch):
    def refused(_, path, **__):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    (tmp_path / "out").mkdir()
    monkeypatch.setattr(LocalFileSystem, "ls", refused)
    with pytest.raises(PathError, match=r"cannot use .*/out \(Permission denied\): check the path"):
        run(tiny_bundle, "fill-mask", lines(tmp_path / "in.jsonl", 1), tmp_path / "out")


def test_a_folder_that_a_store_s_console_made_is_empty(tiny_bundle, tmp_path, monkeypatch):
    """An object store lists it as an object in itself, whose name ends in a slash."""
    listed = MemoryFileSystem.ls

    def ls(self, path, **how):
        found = listed(self, path, **how)
        return found if how.get("detail", True) else [f"{path}/", *found]

    output = open_place(f"memory://{uuid.uuid4().hex}/out")
    output.make()
    monkeypatch.setattr(MemoryFileSystem, "ls", ls)
    data = lines(tmp_path / "in.jsonl", 2)
    assert run(tiny_bundle, "fill-mask", data, output.url)["rows"] == 2
    output.fs.pipe_file(f"{output.path}-other/notes.txt", b"mine")
    with pytest.raises(PathError, match=r"out-other is not empty \('notes.txt'\), and holds no run"):
        run(tiny_bundle, "fill-mask", data, f"{output.url}-other")


def test_a_part_that_cannot_be_read_is_not_called_another_file(done, tmp_path, monkeypatch):
    """Who is told to remove it loses a part that is whole."""
    opened = LocalFileSystem.open

    def refused(self, path, *how, **more):
        if path.endswith(".parquet"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return opened(self, path, *how, **more)

    (tmp_path / "out" / "_bertport" / "done.json").unlink()
    monkeypatch.setattr(LocalFileSystem, "open", refused)
    with pytest.raises(PathError, match=r"^cannot use .*out/part-\d+.parquet \(Permission denied\): check the path"):
        done()
