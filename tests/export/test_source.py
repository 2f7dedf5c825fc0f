"""Where checkpoints come from."""

from __future__ import annotations

import shutil

import pytest

from bertport.export.source import locate, read_json
from bertport.runtime.errors import CheckpointError, PathError, UsageError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(tiny_checkpoint, tmp_path, monkeypatch):
    """Give a huggingface_hub cache that holds the tiny checkpoint as acme/tiny, in offline mode."""
    from huggingface_hub import constants

    repository = tmp_path / "hub" / "models--acme--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "refs" / "v1").write_text(COMMIT)
    shutil.copytree(tiny_checkpoint, repository / "snapshots" / COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert constants.HF_HUB_OFFLINE, "tests/conftest.py sets it"
    return tmp_path / "hub"


def test_a_directory_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bert").mkdir()
    located = locate("bert")
    assert (located.name, located.revision) == ("bert", None)


def test_a_directory_is_named_after_itself_even_as_a_dot(tmp_path, monkeypatch):
    (tmp_path / "bert").mkdir()
    monkeypatch.chdir(tmp_path / "bert")
    assert locate(".").name == "bert"


def test_a_hub_id_is_found_in_the_cache_with_its_commit(hub_cache):
    located = locate("acme/tiny")
    assert located.directory == hub_cache / "models--acme--tiny" / "snapshots" / COMMIT
    assert (located.name, located.revision) == ("acme/tiny", COMMIT)


@pytest.mark.parametrize("revision", ["v1", COMMIT])
@pytest.mark.usefixtures("hub_cache")
def test_a_revision_is_honoured(revision):
    assert locate("acme/tiny", revision).revision == COMMIT


@pytest.mark.parametrize(("source", "revision"), [("acme/other", None), ("acme/tiny", "v2"), ("nobody", None)])
@pytest.mark.usefixtures("hub_cache")
def test_offline_and_not_in_the_cache(source, revision):
    with pytest.raises(PathError, match=f"no checkpoint {source}.*offline mode is on and it is not in the cache"):
        locate(source, revision)


@pytest.mark.usefixtures("hub_cache")
def test_an_unreachable_hub_is_one_sentence(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PathError, match=r"no checkpoint acme/other.*the Hub can"):
        locate("acme/other")


@pytest.mark.parametrize("source", ["/no/such/place", "./bert", "a/b/c", "~/bert", ""])
def test_no_such_path(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if source == "":
        assert locate(source).directory.resolve() == tmp_path  # as everywhere, the empty path is the current directory
        return
    with pytest.raises(PathError, match="no such directory") as caught:
        locate(source)
    assert caught.value.exit_code == 2


def test_a_file_is_not_a_checkpoint(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is a file"):
        locate(str(tmp_path / "model.bin"))


def test_a_local_directory_has_no_revisions(tmp_path):
    with pytest.raises(UsageError, match="--revision main"):
        locate(str(tmp_path), "main")


@pytest.mark.parametrize(
    ("text", "message"), [("{", "cannot be read as JSON"), ("[1]", "holds a list"), ("[" * 100_000, "cannot be read")]
)
def test_json_that_is_none(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_json(tmp_path / "config.json")
