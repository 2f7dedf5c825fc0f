"""Bundles that are served by their Hub id: fetched where that is allowed, and from the cache alone where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from bertport.runtime import cli
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.errors import BundleError, PathError, UsageError
from bertport.serve.cli import settings_of
from tests.hub_stand_in import Repository
from tests.serve.running import Running


@pytest.fixture
def repository(hub, tiny_bundle):
    """Return a repository acme/tiny whose branch v1 is a bundle, and whose main branch is none."""
    paths = [path for path in tiny_bundle.rglob("*") if path.is_file()]
    hub.repositories["acme/tiny"] = repository = Repository()
    repository.commit({"README.md": b"x"})
    repository.commit({path.relative_to(tiny_bundle).as_posix(): path.read_bytes() for path in paths}, "v1")
    return repository


@pytest.mark.usefixtures("repository")
def test_without_leave_the_hub_is_not_asked(hub):
    done = CliRunner().invoke(cli.app, ["serve", "acme/tiny", "--revision", "v1"])
    assert done.exit_code == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("bertport: error: no bundle acme/tiny@v1: there is no directory of that name, and")
    assert line.endswith("while nothing may be fetched: allow it with --allow-download")
    assert hub.asked == []


def test_with_leave_the_whole_bundle_is_fetched_at_the_revision(hub, repository):
    settings, _ = settings_of(["mine=acme/tiny", "--allow-download", "--revision", "v1"])
    [served] = settings.bundles
    assert served.name == "mine"
    assert Path(served.path).name == repository.branches["v1"]
    assert Bundle.open(served.path).verify() == ()
    hub.asked.clear()
    # From then on the cache has it, and no leave is needed.
    assert settings_of(["acme/tiny", "--revision", repository.branches["v1"]])[0].bundles[0].path == served.path
    assert hub.asked == []
    with pytest.raises(PathError, match=r"acme/tiny on the Hub is not a bundle: it has no manifest\.json"):
        settings_of(["acme/tiny", "--allow-download"])


@pytest.mark.usefixtures("repository")
def test_of_a_bundle_with_another_digest_the_manifest_alone_is_fetched(hub):
    with pytest.raises(BundleError, match="has the digest"):
        settings_of([f"acme/tiny@sha256:{'0' * 64}", "--allow-download", "--revision", "v1"])
    assert {line.rpartition("/")[2] for line in hub.asked} == {"manifest.json"}


def test_the_variable_allows_it_as_the_option_does(repository, monkeypatch):
    monkeypatch.setenv("BERTPORT_ALLOW_DOWNLOAD", "1")
    monkeypatch.setenv("BERTPORT_REVISION", "v1")
    assert settings_of(["acme/tiny"])[0].bundles[0].path.endswith(repository.branches["v1"])
    monkeypatch.setenv("BERTPORT_ALLOW_DOWNLOAD", "")
    with pytest.raises(UsageError, match="BERTPORT_ALLOW_DOWNLOAD is set and empty"):
        settings_of(["acme/tiny"])


def test_a_directory_has_no_revision(tiny_bundle):
    with pytest.raises(UsageError, match="--revision was given, and no BUNDLE is a Hub id, written as owner/name"):
        settings_of([str(tiny_bundle), "--allow-download", "--revision", "v1"])


@pytest.mark.slow
@pytest.mark.usefixtures("repository")
def test_a_server_answers_from_what_it_fetched(hub, tmp_path):
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    options = ("acme/tiny", "--allow-download", "--revision", "v1", "--variant", "fp32", "--no-warm-up")
    with Running(*options, HF_HUB_DISABLE_XET="1", **environment) as running:
        status, answer = running.post("/", {"inputs": "the [MASK]"})
        assert status == 200, answer
        assert running.stop() == 0
