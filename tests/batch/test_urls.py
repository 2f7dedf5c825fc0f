"""A batch whose input and output are in an object store: moto's server stands in for S3."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pyarrow.parquet as pq
import pytest

from bench.batch.cluster import nodes, sentences
from bertport.batch import reading, run
from bertport.batch.places import open_place
from bertport.batch.reading import cut
from bertport.runtime.errors import PathError, UsageError

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning:ray"),
]
ROWS = 300


@pytest.fixture
def bucket(monkeypatch):
    """Return the URL of an empty bucket."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    name = f"batch-{uuid.uuid4().hex}"  # moto keeps buckets as long as the process lives
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_rows_of_an_object_store_are_answered_into_it(engine, bucket, bundle, tmp_path):
    data = sentences(tmp_path / "in.jsonl", ROWS)
    chosen = {"parameters": {"top_k": 1}, "part_rows": 100, "threads": 1, "streams": 1}
    run(bundle, "fill-mask", data, tmp_path / "out", **chosen)
    fs = open_place(bucket).fs
    fs.put_file(str(data), f"{bucket}/rows/in.jsonl")
    if engine == "ray":
        with nodes(1) as cluster:
            place = {"engine": "ray", "address": cluster.address}
            run(bundle, "fill-mask", f"{bucket}/rows", f"{bucket}/out", **chosen, **place)
    else:
        run(bundle, "fill-mask", f"{bucket}/rows", f"{bucket}/out", **chosen)
    fs.get(f"{bucket}/out", str(tmp_path / "fetched"), recursive=True)
    assert pq.read_table(tmp_path / "fetched").equals(pq.read_table(tmp_path / "out"))
    names = {path.rpartition("/")[2] for path in fs.find(f"{bucket}/out")}
    assert {"run.json", "done.json", "summary.json"} < names
    assert not [name for name in names if not name.startswith("part-") and not name.endswith(".json")]
    # One part is lost: the same command makes it again, and no other.
    fs.rm(f"{bucket}/out/part-0000001.parquet")
    again = run(bundle, "fill-mask", f"{bucket}/rows", f"{bucket}/out", **chosen)
    assert again["parts_done_before"] == again["parts"] - 1
    assert again["rows"] == ROWS
    fs.put_file(str(data), f"{bucket}/rows/more.jsonl")
    with pytest.raises(UsageError, match="holds a run over other files: those of the input have changed since"):
        run(bundle, "fill-mask", f"{bucket}/rows", f"{bucket}/out", **chosen)


def test_runs_that_begin_in_one_folder_at_one_moment_go_on_together(bucket, bundle, tmp_path, monkeypatch):
    """Each finds no record there before the other writes its own, of which the store takes one."""
    data = sentences(tmp_path / "in.jsonl", 20)
    both = Barrier(2, timeout=60)
    # Between the look into the folder and the record.
    monkeypatch.setattr(reading, "cut", lambda *asked: (both.wait(), cut(*asked))[1])
    chosen = {"parameters": {"top_k": 1}, "part_rows": 5, "threads": 1, "streams": 1}
    with ThreadPoolExecutor(2) as pool:
        begun = [pool.submit(run, bundle, "fill-mask", data, f"{bucket}/out", **chosen) for _ in range(2)]
        summaries = [each.result() for each in begun]
    assert len({summary["run"] for summary in summaries}) == 1
    assert [summary["rows"] for summary in summaries] == [20, 20]
    open_place(bucket).fs.get(f"{bucket}/out", str(tmp_path / "fetched"), recursive=True)
    assert pq.read_table(tmp_path / "fetched").column("id").to_pylist() == list(range(20))


def test_a_bucket_that_is_not_there_is_one_sentence(bucket, bundle, tmp_path):
    with pytest.raises(PathError, match=r"holds no files with anything in them|cannot use s3"):
        run(bundle, "fill-mask", f"{bucket}-none/rows", tmp_path / "out")
    data = sentences(tmp_path / "in.jsonl", 3)
    with pytest.raises(PathError, match=f"cannot use {bucket}-none/out"):
        run(bundle, "fill-mask", data, f"{bucket}-none/out")


def test_a_folder_that_a_console_made_is_empty(bucket, bundle, tmp_path):
    """It is an empty object there, whose name ends in a slash."""
    fs = open_place(bucket).fs
    fs.call_s3("put_object", Bucket=bucket.removeprefix("s3://"), Key="out/", Body=b"")
    data = sentences(tmp_path / "in.jsonl", 3)
    for before in (0, 1):
        summary = run(bundle, "fill-mask", data, f"{bucket}/out")
        assert (summary["rows"], summary["parts_done_before"]) == (3, before)
