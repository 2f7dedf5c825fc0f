"""Bundles by their Hub id: from a Hub of our own, and from the cache."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bertport.runtime import cli, load
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.hub import OnHub, is_hub_id
from bertport.runtime.errors import BundleError, PathError, UsageError
from tests.hub_cache import COMMIT, in_hub_cache, serving
from tests.hub_stand_in import TOKEN, Repository


@pytest.fixture
def cache(tiny_bundle, tmp_path, monkeypatch):
    """Return the cache of huggingface_hub with the tiny bundle as acme/tiny, in offline mode."""
    from huggingface_hub import constants

    in_hub_cache(tiny_bundle, tmp_path / "hub")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    assert constants.HF_HUB_OFFLINE, "tests/conftest.py sets it"
    return tmp_path / "hub"


def files_of(bundle):
    return {path.relative_to(bundle).as_posix(): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}


PROGRAM = """
import json, sys
from huggingface_hub import constants
from bertport.runtime import load
from bertport.batch.worker import bundle_directory
from bertport.runtime.bundle.hub import find_bundle
from bertport.runtime.errors import BertportError
for line in sys.stdin:
    how, name, offline, options = json.loads(line)
    constants.HF_HUB_OFFLINE = offline
    try:
        if how == "batch":
            said = [bundle_directory(name, **options)]
        elif how == "find":
            said = [str(find_bundle(name, **options))]
        else:
            model = load(name, **options)
            said = [str(model.bundle.path), model.features("a word").tolist()]
    except BertportError as error:
        said = f"{type(error).__name__}: {error}"
    print(json.dumps(said), flush=True)
"""
"""Asks a Hub whose address its environment names: huggingface_hub reads it once, when it is imported."""


@pytest.fixture(scope="module")
def asking(tiny_bundle, tmp_path_factory):
    """Return a function that asks in a process of its own, with a cache that begins empty, and what the Hub served."""
    files = files_of(tiny_bundle)
    lacking = {name: content for name, content in files.items() if not name.startswith("tokenizer")}
    other = files | {"manifest.json": files["manifest.json"].replace(b'"name": "', b'"name": "x')}
    repositories = {"acme/tiny": files | {"big.bin": b"x"}, "acme/lacking": lacking, "acme/other": other}
    repositories |= {"acme/checkpoint": {"config.json": b"{}"}, "acme/whole": files, "acme/reset": files}
    repositories["acme/pinned"] = files
    place = tmp_path_factory.mktemp("asking")
    with serving(repositories, reset={"acme/reset/vocab.txt"}) as (endpoint, asked):
        environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(place / "hub"), "HF_HUB_DISABLE_XET": "1"}
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env={**environment, "HF_HUB_OFFLINE": "0"},
            cwd=place,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:

            def ask(name, how="load", *, offline=False, **options):
                print(json.dumps([how, name, offline, options]), file=process.stdin, flush=True)
                return json.loads(process.stdout.readline())

            yield ask, asked
            process.stdin.close()


def test_what_a_variant_needs_is_fetched_and_no_more(asking, tiny_bundle):
    ask, asked = asking
    asked.clear()
    place, states = ask("acme/tiny", variant="portable", revision="v1")
    assert states == load(tiny_bundle, variant="portable").features("a word").tolist()
    assert Path(place).name == COMMIT
    manifest = Bundle.open(tiny_bundle).manifest
    graphs = {name for variant in manifest.variants for name in manifest.hashes_of(variant)}
    small = set(manifest.files) - graphs
    assert set(asked) == {"manifest.json"} | small | set(manifest.hashes_of("portable"))
    asked.clear()
    # From then on the cache answers, with the Hub and without.
    assert ask("acme/tiny", variant="portable", revision=COMMIT)[0] == place
    assert ask("acme/tiny", variant="portable", revision="v1", offline=True)[0] == place
    assert asked == []


def test_a_server_fetches_all_of_a_bundle_where_it_may(asking, tiny_bundle):
    ask, asked = asking
    asked.clear()
    refused = ask("acme/whole", "find", download=False)
    assert refused.endswith("while nothing may be fetched: allow it with --allow-download")
    assert asked == []
    [place] = ask("acme/whole", "find", download=True)
    assert set(asked) == {"manifest.json", *Bundle.open(tiny_bundle).manifest.files}
    Bundle.open(place).verify()
    assert ask("acme/whole", "find", download=False) == [place]


def test_a_batch_takes_the_same_bundle_by_its_address(asking):
    ask, _ = asking
    [place] = ask("acme/tiny", "find", download=True, revision="v1")
    assert ask("hf://acme/tiny@v1", "batch") == [place]
    assert "acme/nothing" in ask("hf://acme/nothing", "batch")
    assert "acme/tiny@v9" in ask("hf://acme/tiny@v9", "batch")
    assert ask("hf://a/b/c", "batch").startswith("PathError: ")


def test_a_batch_fetches_nothing_of_a_bundle_of_another_digest(asking, tiny_bundle):
    ask, asked = asking
    asked.clear()
    assert "has the digest" in ask("hf://acme/pinned", "batch", digest="sha256:" + "0" * 64)
    assert asked == ["manifest.json"]
    [place] = ask("hf://acme/pinned", "batch", digest=Bundle.open(tiny_bundle).digest)
    Bundle.open(place).verify()


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        (
            "acme/nothing",
            {},
            "no directory of that name, and the Hub answered: RepoNotFound: acme/nothing: check the name, or give a",
        ),
        ("acme/tiny", {"revision": "v9"}, "PathError: no bundle acme/tiny@v9: there is no directory of that name, and"),
        (
            "acme/checkpoint",
            {},
            "acme/checkpoint on the Hub is not a bundle: it has no manifest.json; make one",
        ),
        ("acme/lacking", {}, "on the Hub lacks tokenizer"),
        ("acme/other", {}, "BundleError: "),
        (
            "acme/reset",
            {},
            "and the Hub cannot be reached ([Errno 104] Connection reset by peer) and vocab.txt is not in its cache: ",
        ),
        ("acme/tiny", {"digest": "sha256:" + "0" * 64}, "has the digest"),
    ],
)
def test_what_the_hub_has_not_or_has_changed(asking, name, options, said):
    answer = asking[0](name, **options)
    assert isinstance(answer, str)
    assert said in answer
    assert len(answer.splitlines()) == 1


@pytest.fixture
def silent():
    """Return the address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(params=["refused", "silent"])
def away(request, cache, monkeypatch):
    """Return the cache, with a Hub that is not there: nobody listens, or nobody answers."""
    from huggingface_hub import constants, file_download

    address = "http://127.0.0.1:9" if request.param == "refused" else request.getfixturevalue("silent")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    template = f"{address}/{{repo_id}}/{{revision}}/{{filename}}"
    for place in (constants, file_download):  # the second before huggingface_hub 1
        monkeypatch.setattr(place, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "set")
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    return cache


def test_a_hub_that_is_not_there_is_not_waited_for(away):
    began = time.monotonic()
    with pytest.raises(PathError, match=r"no bundle acme/other: .*the Hub cannot be reached \(.+\) and manifest.json"):
        load("acme/other")
    assert time.monotonic() - began < 5  # huggingface_hub alone asks six times: 24 s
    assert load("acme/tiny").bundle.path == away / "models--acme--tiny" / "snapshots" / COMMIT


@pytest.mark.usefixtures("away")
def test_a_commit_that_is_in_the_cache_is_not_asked_for(monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *_, **__: pytest.fail("the Hub was asked"))
    assert load("acme/tiny", revision=COMMIT).bundle.path.name == COMMIT


def test_the_cache_answers_offline_as_the_directory_does(cache, tiny_bundle):
    found = load("acme/tiny")
    assert found.bundle.path == cache / "models--acme--tiny" / "snapshots" / COMMIT
    assert (found.features("a word") == load(tiny_bundle).features("a word")).all()


@pytest.mark.usefixtures("cache")
def test_offline_and_not_in_the_cache():
    with pytest.raises(PathError, match=r"manifest.json is not in the Hub's cache while offline mode is on: fetch it"):
        load("acme/other")


def test_a_cache_that_cannot_be_read_is_one_sentence(cache, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(13, "Permission denied", str(cache / "models--acme--tiny" / "refs" / "main"))

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", denied)
    with pytest.raises(PathError, match=r"no bundle acme/tiny: .*the Hub's cache cannot be read \(.*/main'\): give"):
        load("acme/tiny")


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied", "/shared/hub/models--acme--tiny"),  # another user's cache
        OSError(errno.ENOSPC, "No space left on device"),  # in the middle of a file
    ],
    ids=["denied", "full"],
)
def test_a_cache_that_cannot_be_written_is_not_called_the_hub(hub, tiny_bundle, monkeypatch, error):
    hub.repositories["acme/tiny"] = repository = Repository()
    repository.commit(files_of(tiny_bundle))

    def failing(*_, **__):
        raise error

    monkeypatch.setattr("huggingface_hub.hf_hub_download", failing)
    with pytest.raises(PathError, match=rf"the Hub's cache cannot be used \(.*{error.strerror}.*\): make room in it"):
        load("acme/tiny")


def test_a_cache_that_cannot_be_read_is_not_taken_for_a_hub_that_is_away(hub, tiny_bundle, monkeypatch):
    hub.repositories["acme/tiny"] = repository = Repository()
    commit = repository.commit(files_of(tiny_bundle))

    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", "/shared/hub/models--acme--tiny/refs/main")

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", denied)
    assert load("acme/tiny").bundle.path.name == commit


@pytest.mark.usefixtures("cache")
def test_a_directory_comes_first(tiny_bundle):
    shutil.copytree(tiny_bundle, "acme/tiny")
    assert load("acme/tiny").bundle.path == Path("acme/tiny")
    with pytest.raises(UsageError, match="a revision was given, and acme/tiny is not a repository of the Hub"):
        load("acme/tiny", revision="v1")


@pytest.mark.parametrize("option", ["revision", "token"])
def test_the_embedded_bundle_has_no_revision(option):
    with pytest.raises(UsageError, match=f"a {option} was given, and the embedded bundle is not a repository"):
        load(**{option: "main"})


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("revision", ["", " "])
def test_an_empty_revision_is_not_the_main_branch(revision):
    """As a variable of a shell gives it that is not set."""
    with pytest.raises(UsageError, match="the revision is empty: name a branch, tag or commit, or leave it out"):
        load("acme/tiny", revision=revision)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("token", ["", " ", "hf_secret\n", "hf_secret hf_secret", "hf_sécret"])
def test_what_is_no_token_is_said_without_it(token):
    """As a variable of a shell gives it that is not set, or a file with its last line break."""
    with pytest.raises(UsageError, match="the token is empty, or has a space, a line break or another") as raised:
        load("acme/tiny", token=token)
    assert "cret" not in str(raised.value)


@pytest.mark.parametrize("text", ["bert", "./a/b", "/a/b", "a/b/c", "a/", "../b", "a\\b/c d", "a/é", "~/b", ""])
def test_what_is_no_id(text):
    assert not is_hub_id(text)


def test_a_token_is_in_no_message():
    assert "secret" not in repr(OnHub(name="acme/tiny", token="secret"))  # noqa: S106 — none


@pytest.mark.usefixtures("cache")
def test_the_command_line_takes_an_id(tiny_bundle):
    by_id = CliRunner().invoke(cli.app, ["features", "-m", "acme/tiny", "--json", "a word"])
    assert by_id.exit_code == 0, by_id.output
    assert by_id.stdout == CliRunner().invoke(cli.app, ["features", "-m", str(tiny_bundle), "--json", "a word"]).stdout
    refused = CliRunner().invoke(cli.app, ["features", "-m", "acme/none", "a word"])
    assert refused.exit_code == 2
    assert "no bundle acme/none" in refused.stderr


def test_the_command_line_passes_a_revision_and_a_token_on(hub, tiny_bundle, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    hub.repositories["acme/private"] = repository = Repository(private=True)
    repository.commit({"README.md": b"x"})
    repository.commit(files_of(tiny_bundle), "v1")

    def ask(*options):
        return CliRunner().invoke(cli.app, ["features", "-m", "acme/private", "a word", "--json", *options])

    for options, said in (
        (["--revision", "v1"], "Repository not found: check the name, or give a token that may read it, by --token"),
        (["--revision", "v1", "--token", "hf_wrong"], "check the name, or give a token that may read it"),
        (["--token", TOKEN], "acme/private on the Hub is not a bundle: it has no manifest.json"),
        (["--token", TOKEN, "--revision", "v9"], "Invalid rev id: v9: give a branch, tag or commit that it has"),
    ):
        refused = ask(*options)
        assert refused.exit_code == 2
        [line] = refused.stderr.splitlines()
        assert said in line
        assert TOKEN not in line
    answered = ask("--revision", "v1", "--token", TOKEN)
    assert answered.exit_code == 0, answered.stderr
    assert np.allclose(json.loads(answered.stdout)[0], load(tiny_bundle).features("a word"), atol=1e-6)


def test_without_huggingface_hub_it_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(PathError, match=r"no bundle acme/tiny: there is no directory of that name, and asking the Hub"):
        load("acme/tiny")


def test_a_file_that_the_cache_has_changed_is_refused(cache, tiny_bundle):
    place = cache / "models--acme--tiny" / "snapshots" / COMMIT
    name = Bundle.open(tiny_bundle).manifest.variants["portable"].file
    (place / name).unlink()
    (place / name).write_bytes(b"x")
    with pytest.raises(BundleError, match="is not the file that was exported"):
        load("acme/tiny", variant="portable")
