"""The server by Ray Serve's configuration file, on two nodes of which one goes and another comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bertport.runtime.bundle.default import default_bundle

pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = [
    pytest.mark.ray,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore"),  # of Ray's own parts
]

from bench.batch.cluster import QUIET, STORE, nodes  # noqa: E402 — after the check that ray is there
from tests.serve.running import free_port  # noqa: E402
from tests.serve.test_ray import asking, get, running, until  # noqa: E402

FILE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "deploy" / "ray-serve.yaml"
CLIENTS = 2


@pytest.fixture(scope="module", autouse=True)
def _clients():
    """In place of the folder's: the Hub's client is not in Ray's environment."""


def configuration(path, port):
    """Write the file of the page for this machine: one proxy, for its nodes share one address."""
    text = FILE.read_text(encoding="utf-8")
    for there, here in (
        ("EveryNode", "HeadOnly"),
        ("host: 0.0.0.0", "host: 127.0.0.1"),
        ("8000", str(port)),
        ("/srv/bundles/mine", str(default_bundle())),
        ("max_replicas: 8", "max_replicas: 2"),
    ):
        assert text.count(there) == 1
        text = text.replace(there, here)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_of_settings_serves_on_two_nodes_of_which_one_goes(tmp_path):
    import ray

    port, log = free_port(), tmp_path / "log"
    with nodes(1) as cluster, log.open("wb") as output:
        leaving = cluster.add_node(num_cpus=1, object_store_memory=STORE)
        program = Path(sys.executable).with_name("serve")
        server = subprocess.Popen(
            [program, "run", configuration(tmp_path / "serve.yaml", port), "--address", cluster.address],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **QUIET},
        )
        try:
            until(lambda: ready(port, server, log))
            ray.init(address=cluster.address, log_to_driver=False)
            until(lambda: running() == 2)  # nodes of one core: a replica each
            with asking(port, CLIENTS) as answers:
                until(lambda: len(answers) > 50)
                assert {status for _, status, _, _ in answers} == {200}
                cluster.remove_node(leaving, allow_graceful=False)
                until(lambda: running() == 1)
                gone = len(answers)
                until(lambda: len(answers) > gone + 50)
                cluster.add_node(num_cpus=1, object_store_memory=STORE)
                until(lambda: running() == 2)
                back = len(answers)
                until(lambda: len(answers) > back + 50)
            lost = [number for number, each in enumerate(answers) if each[1] != 200]
            # What the node had in hand is lost, at most a request a client; what came after went to the other.
            assert len(lost) <= CLIENTS, [answers[number] for number in lost]
            assert {status for _, status, _, _ in answers[gone + CLIENTS :]} == {200}
            server.send_signal(signal.SIGINT)
            assert server.wait(120) == 0, log.read_text(errors="replace")
        finally:
            ray.shutdown()
            if server.poll() is None:
                server.terminate()
                server.wait(60)


def ready(port, server, log):
    """Whether the server answers; fails where it ended."""
    assert server.poll() is None, log.read_text(errors="replace")
    try:
        return get(port, "/ready")[0] == 200
    except OSError:
        return False
