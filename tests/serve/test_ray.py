"""The server on Ray Serve: one local Ray of two cores, real replicas, real requests through its proxy."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
import time
from contextlib import contextmanager
from itertools import cycle

import pytest

from bertport.runtime import load
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.packing import pack
from bertport.runtime.errors import BertportError, BundleError, PathError, UsageError

pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # of Ray's own parts
]

from bertport.serve.ray import application, build, deploy  # noqa: E402 — after the check that ray is there

REQUESTS = 1000
"""Requests that are answered between the beginning and the end of changes of the bundle, at least."""
IN_HAND = 8
"""Requests of the clients that an old replica may have accepted before a change came to its end: two of each."""
TEXTS = ("The [MASK] barked all night.", "She poured a cup of [MASK].")
"""The two variants give them scores that differ by 0.003 and more."""
CLOSE = 1e-4
"""Between a score that is computed alone and in a batch; the two variants differ by more."""


@pytest.fixture(scope="module", autouse=True)
def _clients():
    """In place of the folder's: the Hub's client is not in Ray's environment."""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Two bundles of one model that answer differently: by its variant."""
    place = tmp_path_factory.mktemp("bundles")
    return {name: pack(default_bundle(), place / name, [name]).path for name in ("int8-dynamic", "fp32")}


@pytest.fixture(scope="module")
def expected(bundles):
    """Answers of `predict` to each text, by variant."""
    return {name: [load(path).fill_mask(text, top_k=1)[0] for text in TEXTS] for name, path in bundles.items()}


@pytest.fixture(scope="module")
def port():
    """The port of Ray Serve's proxy."""
    import ray
    from ray import serve

    from tests.serve.running import free_port

    ray.init(num_cpus=2, object_store_memory=100_000_000, include_dashboard=False, log_to_driver=False)
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield port
    serve.shutdown()
    ray.shutdown()


def ask(connection, number):
    """Ask about one of the texts: the status, the variant that answered, and the answer."""
    body = json.dumps({"inputs": TEXTS[number % len(TEXTS)], "parameters": {"top_k": 1}})
    connection.request("POST", "/tasks/fill-mask", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.getheader("x-bertport-variant"), answer.read()


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    status, content = answer.status, answer.read()
    connection.close()
    return status, content


@contextmanager
def asking(port, clients):
    """Clients that ask one request after the other; gives what they were answered, as it comes."""
    answers, end = [], threading.Event()

    def run(first):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        number = first
        while not end.is_set():
            try:
                answers.append((number, *ask(connection, number)))
            except OSError as error:
                answers.append((number, 0, None, repr(error)))
                connection.close()
            number += clients
        connection.close()

    threads = [threading.Thread(target=run, args=(first,)) for first in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        end.set()
        for thread in threads:
            thread.join()


def until(condition, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def more(answers, count):
    """Wait for so many more answers."""
    goal = len(answers) + count
    until(lambda: len(answers) >= goal)


def running():
    """Return the number of replicas that run."""
    from ray import serve

    return serve.status().applications["bertport"].deployments["bertport"].replica_states.get("RUNNING", 0)


def test_a_bundle_is_exchanged_under_load_and_no_request_is_lost(port, bundles, expected):
    deploy(f"model={bundles['int8-dynamic']}")
    assert get(port, "/ready") == (200, b'{"status":"ready"}')
    during, changes = 0, []
    with asking(port, clients=4) as answers:
        more(answers, REQUESTS // 10)
        for variant in cycle(("fp32", "int8-dynamic")):
            before = len(answers)
            deploy(f"model={bundles[variant]}")
            after = len(answers)
            during += after - before
            more(answers, REQUESTS // 10)
            changes.append((variant, after + IN_HAND, len(answers)))
            if during >= REQUESTS:
                break
    assert {status for _, status, _, _ in answers} == {200}
    assert {variant for _, _, variant, _ in answers} == set(expected)
    for number, _, variant, content in answers:
        [answer], wanted = json.loads(content), expected[variant][number % len(TEXTS)]
        assert answer["sequence"] == wanted["sequence"]
        assert answer["score"] == pytest.approx(wanted["score"], abs=CLOSE)
    for changed, first, last in changes:
        assert {variant for _, _, variant, _ in answers[first:last]} == {changed}, "an old replica after the change"
    differ = [abs(a["score"] - b["score"]) for a, b in zip(*expected.values(), strict=True)]
    assert min(differ) > 2 * CLOSE, "the answers do not tell the bundles apart"


@pytest.mark.long
def test_a_bundle_that_no_replica_can_load_leaves_the_old_one(port, bundles):
    deploy(f"model={bundles['fp32']}")
    digest = "sha256:" + "0" * 64
    with asking(port, clients=2) as answers:
        with pytest.raises(BertportError) as caught:
            deploy(f"model=/nowhere/bundle@{digest}")
        before = len(answers)
        until(lambda: len(answers) > before + 20)
    assert "/nowhere/bundle" in caught.value.message
    assert "\n" not in caught.value.message
    assert "Traceback" not in caught.value.message
    assert {(status, variant) for _, status, variant, _ in answers} == {(200, "fp32")}


@pytest.mark.long
def test_replicas_are_added_while_requests_wait_and_taken_away_again(port, bundles):
    deploy(f"model={bundles['fp32']}", max_replicas=2, target_requests=1, upscale_seconds=1, downscale_seconds=2)
    until(lambda: running() == 1)
    with asking(port, clients=6) as answers:
        until(lambda: running() == 2)
    until(lambda: running() == 1)
    assert {status for _, status, _, _ in answers} == {200}


@pytest.mark.long
def test_a_server_of_several_bundles_with_a_key(port, bundles):
    deploy([f"{name}={path}" for name, path in bundles.items()], api_key="secret", variant="all")
    assert get(port, "/ready")[0] == 200
    assert get(port, "/models")[0] == 401
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/models", headers={"authorization": "Bearer secret", "x-request-id": "mine"})
    answer = connection.getresponse()
    assert answer.headers.get_all("x-request-id") == ["mine"]
    assert [each["name"] for each in json.loads(answer.read())] == list(bundles)
    connection.close()


def test_null_in_a_file_of_settings_is_the_default(bundles):
    bare, null = (
        build({"bundles": str(bundles["fp32"]), **more}) for more in ({}, {"max_replicas": None, "gpus": None})
    )
    assert null._bound_deployment._deployment_config == bare._bound_deployment._deployment_config  # noqa: SLF001


def test_a_damaged_bundle_is_refused_before_anything_is_deployed(bundles, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(bundles["fp32"], damaged)
    (damaged / "vocab.txt").write_text("no vocabulary")
    with pytest.raises(BundleError, match=r"vocab\.txt"):
        application(damaged)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"bundles": "/nowhere"}, PathError, "give it after the path"),
        ({"max_replicas": "many"}, UsageError, "max_replicas is 'many'"),
        ({"min_replicas": 3, "max_replicas": 2}, UsageError, "min_replicas is 3 and max_replicas 2"),
        ({"target_requests": 0}, UsageError, "target_requests is 0"),
        ({"target_requests": 500}, UsageError, "takes on up to 2000"),
        ({"provider": "cuda"}, UsageError, "give gpus=1"),
        ({"port": 8000}, UsageError, "port cannot be set, as Ray Serve's proxies listen"),
        ({"colour": "red"}, UsageError, "--colour"),
        ({"threads": "two"}, UsageError, "two"),
    ],
)
def test_what_cannot_be_is_one_sentence(settings, error, said):
    with pytest.raises(error) as caught:
        build(settings)
    assert said in caught.value.message
    assert "\n" not in caught.value.message
