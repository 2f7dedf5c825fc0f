"""A batch on Ray: the answers of one machine, nothing lost when processes die, and one sentence for each mistake.

Each node is a raylet of its own on this machine. `python3 dev.py ray` runs them.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import bertport
from bench.batch.cluster import QUIET, STORE, killed_again_and_again, nodes, sentences
from bertport.batch import run
from bertport.runtime.errors import UsageError
from tests.batch.conftest import asked, command
from tests.hub_cache import in_hub_cache

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::FutureWarning:ray"),  # of its own settings
]
ROWS = 3000
PARAMETERS = {"top_k": 2}
NO_OPENVINO = "provider 'openvino' is not available here (available: cpu): the package onnxruntime-ep-openvino is not "
"""The beginning of what a node says that has no such provider."""
UNSHARE = shutil.which("unshare") or "unshare"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return sentences(tmp_path_factory.mktemp("data") / "in.jsonl", ROWS)


@pytest.fixture(scope="module")
def one_machine(bundle, data, tmp_path_factory):
    """The answers of the engine `local`."""
    out = tmp_path_factory.mktemp("local") / "out"
    summary = run(bundle, "fill-mask", data, out, parameters=PARAMETERS, part_rows=250, threads=1, streams=1)
    return pq.read_table(out), summary


def check(out, one_machine):
    """See that every row is there once, in order, with the answers of one machine."""
    table, expected = pq.read_table(out), one_machine[0]
    assert table.column("id").to_pylist() == list(range(ROWS))
    assert table.equals(expected)  # the same parts make the same batches: bit for bit


def on_ray(address, bundle, data, out, **settings):
    """Run what `one_machine` did on a cluster."""
    place = {"engine": "ray", "address": address, **settings}
    return run(bundle, "fill-mask", data, out, parameters=PARAMETERS, part_rows=250, **place)


def settled(address, cpus):
    """Wait until the cluster has so many CPUs."""
    import ray

    ray.init(address=address, log_to_driver=False)
    end = time.monotonic() + 60
    while ray.cluster_resources().get("CPU", 0) != cpus and time.monotonic() < end:
        time.sleep(0.2)
    found = ray.cluster_resources().get("CPU", 0)
    ray.shutdown()
    assert found == cpus


def test_no_cluster_there_is_one_sentence(bundle, data, tmp_path):
    """Before any other test has a cluster, which `auto` would find."""
    for address, sentence in (
        ("auto", "no cluster of Ray is found at auto .*none runs here.*ray start --head"),
        ("127.0.0.1:9", "no cluster of Ray is found at 127.0.0.1:9 .*Connection refused"),
        ("nowhere", "'nowhere' is not an address of Ray: give HOST:PORT, auto or local"),
    ):
        with pytest.raises(UsageError, match=sentence):
            run(
                bundle,
                "features",
                data,
                tmp_path / "out",
                parameters={"pooling": "mean"},
                engine="ray",
                address=address,
            )


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.long), 2])
def test_workers_on_every_cpu_answer_as_one_machine(  # noqa: PLR0913, PLR0917 — fixtures
    workers, two_nodes, bundle, data, one_machine, tmp_path
):
    """Two workers hold both CPUs that there are: nothing else may need one."""
    settled(two_nodes, 2)
    out = tmp_path / "out"
    summary = on_ray(two_nodes, bundle, data, out, workers=workers)
    check(out, one_machine)
    for name in ("rows", "tokens", "padding", "errors", "parts"):
        assert summary[name] == one_machine[1][name]
    made = pids(out)
    assert len(made) == workers
    assert [node["workers"] for node in summary["nodes"].values()] == [1] * workers  # told apart on one machine
    assert {worker.rpartition(":")[0] for worker in made} == summary["nodes"].keys()
    assert summary["cpu_seconds"]["driver"] > 0


def pids(out):
    """Return the processes that made the parts of an output."""
    return {
        json.loads(pq.read_metadata(path).metadata[b"bertport"])["worker"] for path in Path(out).glob("part-*.parquet")
    }


@pytest.mark.long
def test_the_bundle_is_passed_on_through_ray(two_nodes, bundle, data, one_machine, tmp_path):
    """Of the Hub's cache, where each file is a link."""
    on_ray(two_nodes, in_hub_cache(bundle, tmp_path / "hub"), data, tmp_path / "out", ship=True)
    check(tmp_path / "out", one_machine)


def test_workers_and_the_driver_are_killed(bundle, data, one_machine, tmp_path):
    """A small version of `bench.batch kills`."""
    out = tmp_path / "out"
    with nodes(1, 1) as cluster:
        arguments = [bundle, "fill-mask", data, "--output", out, "-p", "top_k=2", "--part-rows", "250"]
        arguments += ["--engine", "ray", "--address", cluster.address, "--json"]
        deaths, printed = killed_again_and_again(command(*arguments), workers=3, drivers=1)
    killed = [death["kind"] for death in deaths]
    assert killed.count("driver") == 1
    assert killed.count("worker") >= 1, killed  # the last ones come too late on a quick machine
    assert json.loads(printed)["rows"] == ROWS
    assert not (out / "_bertport" / "tmp").exists()
    check(out, one_machine)


@pytest.mark.long
def test_a_run_goes_on_with_another_number_of_workers(two_nodes, bundle, data, one_machine, tmp_path):
    out = tmp_path / "out"
    arguments = [bundle, "fill-mask", data, "--output", out, "-p", "top_k=2", "--part-rows", "250"]
    driver = subprocess.Popen(
        command(*arguments, "--engine", "ray", "--address", two_nodes, "--workers", "1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **QUIET},
    )
    end = time.monotonic() + 90
    while len(list(out.glob("part-*"))) < 2 and driver.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    driver.kill()
    driver.wait()
    done = len(list(out.glob("part-*")))
    assert 2 <= done < one_machine[1]["parts"] - 2
    assert len(pids(out)) == 1
    summary = on_ray(two_nodes, bundle, data, out, workers=2)
    check(out, one_machine)
    assert summary["parts_done_before"] >= done
    assert len(pids(out)) == 1 + 2


@pytest.mark.long
def test_a_node_that_goes_takes_no_row_along(bundle, data, one_machine, tmp_path):
    out = tmp_path / "out"
    arguments = [bundle, "fill-mask", data, "--output", out, "-p", "top_k=2", "--part-rows", "250"]
    with nodes(1) as cluster:
        leaving = cluster.add_node(num_cpus=1, object_store_memory=STORE)
        driver = subprocess.Popen(
            command(*arguments, "--engine", "ray", "--address", cluster.address), stderr=subprocess.PIPE, text=True
        )
        end = time.monotonic() + 90
        while len(list(out.glob("part-*"))) < 2 and driver.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        cluster.remove_node(leaving, allow_graceful=False)
        _, stderr = driver.communicate(timeout=240)
        assert driver.returncode == 0, stderr
    check(out, one_machine)


def check_refused(done, code, sentence):
    """See that a command ended with a code and one sentence of ours: Ray's own core prints lines beside it.

    Those are of C++ (ray-project/ray#53727), on the same stream, and no setting of Ray's keeps all of them away.
    """
    assert done.returncode == code, done.stderr
    ours = [line for line in done.stderr.splitlines() if line.startswith("bertport: ")]
    assert len(ours) == 1, done.stderr
    assert ours[0].startswith("bertport: error: ")
    assert sentence in ours[0]
    assert "Traceback" not in done.stderr
    assert not done.stdout


@pytest.mark.long
def test_what_a_node_meets_is_one_sentence(two_nodes, bundle, tmp_path):
    places = ["--engine", "ray", "--address", two_nodes]
    for number, (more, code, sentence) in enumerate(
        (
            (["--provider", "cuda"], 2, "a worker asks for 1 CPU and 1 GPU, and the largest machine"),
            (["--threads", "2"], 2, "a worker asks for 2 CPUs, and the largest machine of the cluster has 1 CPUs"),
            (["--provider", "openvino"], 2, f"error: {platform.node()}: {NO_OPENVINO}"),
            (["--on-error", "fail"], 2, "the line at byte 0 of"),
        )
    ):
        bad = tmp_path / f"bad{number}.jsonl"
        bad.write_text('{"text": "no mask"}\n')
        done = asked(bundle, "fill-mask", bad, "--output", tmp_path / f"out{number}", *places, *more)
        check_refused(done, code, sentence)


@contextmanager
def node_apart(address, own):
    """Start a node of one CPU that has folders of its own under paths where all others have other ones.

    Args:
        address: the cluster's.
        own: the node's folder by path.
    """
    if os.geteuid() != 0 or subprocess.call([UNSHARE, "-m", "true"]) != 0:
        pytest.skip("a folder of one node's own takes root and mount namespaces")
    ray = Path(sys.executable).with_name("ray")
    start = [f"mount --bind {folder} {path}" for path, folder in own.items()]
    start += [f"exec {ray} start --address={address} --num-cpus=1 --block --object-store-memory={STORE}"]
    node = subprocess.Popen(
        [UNSHARE, "-m", "sh", "-c", " && ".join(start)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **QUIET},
        start_new_session=True,
    )
    try:
        settled(address, 1)
        yield
    finally:
        os.killpg(node.pid, signal.SIGTERM)
        node.wait(60)


@pytest.fixture
def apart(tmp_path):
    """A node that has a folder of its own under a path where all others have another one."""
    place, own = tmp_path / "place", tmp_path / "own"
    place.mkdir()
    own.mkdir()
    with nodes() as cluster, node_apart(cluster.address, {place: own}):
        yield cluster.address, place, own


@pytest.mark.long
def test_a_node_without_bertport_is_one_sentence(bundle, data, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with nodes() as cluster, node_apart(cluster.address, dict.fromkeys(bertport.__path__, empty)):
        done = asked(
            bundle, "fill-mask", data, "--output", tmp_path / "out", "--engine", "ray", "--address", cluster.address
        )
    check_refused(done, 2, "a machine of the cluster lacks bertport: install the same version there, with the extras")


@pytest.mark.long
def test_what_one_node_sees_otherwise_is_one_sentence(apart, bundle, data, tmp_path):
    address, place, own = apart
    places = ["--engine", "ray", "--address", address, "-p", "top_k=2"]
    # The input is the driver's alone.
    shutil.copy(data, place / "in.jsonl")
    done = asked(bundle, "fill-mask", place / "in.jsonl", "--output", tmp_path / "a", *places)
    check_refused(done, 2, f"cannot use {place}/in.jsonl (No such file or directory)")
    # So is the output: the node would write on its own disk.
    done = asked(bundle, "fill-mask", data, "--output", place / "out", *places)
    check_refused(done, 2, f"the output {place}/out is not seen from")
    assert not list(own.rglob("part-*"))
    # The bundle is not there, then is another one.
    shutil.copytree(bundle, place / "bundle")
    done = asked(place / "bundle", "fill-mask", data, "--output", tmp_path / "b", *places)
    check_refused(done, 2, "does not load the bundle of this run")
    assert "--ship" in done.stderr
    shutil.copytree(bundle, own / "bundle")
    manifest = own / "bundle" / "manifest.json"
    value = json.loads(manifest.read_text())
    value["name"] = "another"
    value.pop("digest", None)
    manifest.write_text(json.dumps(value))
    done = asked(place / "bundle", "fill-mask", data, "--output", tmp_path / "b", *places)
    check_refused(done, 1, "digest")
    # Passed on through Ray, the same command goes on.
    done = asked(place / "bundle", "fill-mask", data, "--output", tmp_path / "b", *places, "--ship")
    assert done.returncode == 0, done.stderr
