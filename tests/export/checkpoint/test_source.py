"""Where checkpoints come from."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bertport.export.checkpoint.source import _bar, locate, read_json
from bertport.runtime.errors import CheckpointError, PathError, UsageError
from tests.hub_cache import COMMIT, serving


@pytest.fixture
def hub_cache(tiny_checkpoint, tmp_path, monkeypatch):
    """Return a huggingface_hub cache that holds the tiny checkpoint as acme/tiny, in offline mode."""
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


@pytest.fixture
def hub(tiny_checkpoint, tmp_path):
    """Return a function that asks for a checkpoint of a Hub of our own, in a process of its own; and what it served."""
    files = {path.name: path.read_bytes() for path in tiny_checkpoint.iterdir()}
    others = {"pytorch_model.bin": b"large", "tf_model.h5": b"large", "onnx/model.onnx": b"large", "run.py": b"code"}
    pickled = {name: content for name, content in files.items() if name != "model.safetensors"}
    repositories = {"acme/tiny": files | others, "acme/pickled": pickled | others, "acme/reset": files}
    repositories["acme/half"] = pickled | others | {"model.fp16.safetensors": b"in 16 bits"}
    repositories["acme/adapter"] = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"small", "run.py": b""}
    code = (
        "import sys; from bertport.export.checkpoint.source import locate\n"
        "from bertport.runtime.errors import BertportError\n"
        "try: found = locate(*sys.argv[1:]); print(found.name, found.revision, found.directory)\n"
        "except BertportError as error: sys.exit(f'{type(error).__name__}: {error}')"
    )
    with serving(repositories, reset={"acme/reset/model.safetensors"}) as (endpoint, asked):
        environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}

        def ask(*arguments, offline="0"):
            command = [sys.executable, "-c", code, *arguments]
            return subprocess.run(
                command, env={**environment, "HF_HUB_OFFLINE": offline}, capture_output=True, text=True, check=False
            )

        yield ask, asked


def test_the_hub_is_asked_for_what_is_needed_and_no_more(hub, tiny_checkpoint):
    ask, asked = hub
    name, revision, directory = ask("acme/tiny", "v1").stdout.split()
    assert (name, revision) == ("acme/tiny", COMMIT)
    assert set(asked) == {path.name for path in tiny_checkpoint.iterdir()}
    weights = Path(directory) / "model.safetensors"
    assert weights.read_bytes() == (tiny_checkpoint / "model.safetensors").read_bytes()
    asked.clear()
    # From then on the cache answers, with the Hub and without.
    assert ask("acme/tiny", "v1").stdout.split()[2] == directory
    assert ask("acme/tiny", "v1", offline="1").stdout.split()[2] == directory
    assert asked == []


@pytest.mark.parametrize("name", ["acme/pickled", "acme/half"])
def test_pickles_are_fetched_only_where_there_is_nothing_else(hub, name):
    ask, asked = hub
    assert ask(name).returncode == 0
    assert "pytorch_model.bin" in asked
    assert not {"tf_model.h5", "onnx/model.onnx", "run.py"} & set(asked)


def test_an_adapter_is_fetched_whole(hub):
    """An error says to give the folder that it was fetched to."""
    ask, asked = hub
    assert ask("acme/adapter").returncode == 0
    assert set(asked) == {"adapter_config.json", "adapter_model.safetensors"}


@pytest.mark.parametrize("arguments", [("acme/nothing",), ("acme/tiny", "v9")])
def test_what_the_hub_does_not_have(hub, arguments):
    result = hub[0](*arguments)
    assert result.returncode == 1
    assert result.stderr.startswith(
        f"PathError: no checkpoint {'@'.join(arguments)}: there is no directory of that name"
    )
    assert len(result.stderr.splitlines()) == 1


def test_a_connection_that_is_reset_is_one_sentence(hub):
    result = hub[0]("acme/reset")
    assert result.returncode == 1
    said = (
        r"PathError: no checkpoint acme/reset: there is no directory of that name, and the Hub cannot be read "
        r"\(.*Connection reset by peer.*\): try again, or give a local directory"  # each HTTP library has its own words
    )
    assert re.fullmatch(said, result.stderr.rstrip("\n")), "one line, also of a thread that draws its bar meanwhile"


class Terminal(io.StringIO):
    """What a terminal would show."""

    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "drawn"), [(io.StringIO(), False), (Terminal(), True)])
def test_a_bar_is_drawn_on_a_terminal_alone_and_never_after_its_end(stream, drawn):
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    before = are_progress_bars_disabled()  # transformers turns them off with its own
    enable_progress_bars()
    bar = _bar()(total=3, desc="Fetching", file=stream, mininterval=0)
    bar.update()
    assert ("Fetching" in stream.getvalue()) == drawn
    bar.close()
    shown = stream.getvalue()
    assert shown == "" or shown.endswith("\n")
    bar.refresh()  # as a thread does that was about to when another one closed the bar
    assert stream.getvalue() == shown
    if before:
        disable_progress_bars()


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


def test_an_empty_revision_is_not_the_main_branch():
    with pytest.raises(UsageError, match="the revision is empty"):
        locate("acme/tiny", "")


@pytest.mark.parametrize(
    ("text", "message"), [("{", "cannot be read as JSON"), ("[1]", "holds a list"), ("[" * 100_000, "cannot be read")]
)
def test_json_that_is_none(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_json(tmp_path / "config.json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match=r"^\S+config.json is a FIFO and should be a regular file: restore"):
        read_json(tmp_path / "config.json")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device here")
def test_a_link_to_an_endless_device_is_not_read(tmp_path):
    (tmp_path / "config.json").symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match=r"^\S+config.json is a device and should be a regular file: restore"):
        read_json(tmp_path / "config.json")


def test_a_file_larger_than_any_of_its_kind_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr("bertport.export.checkpoint.source.LARGEST", 1000)
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(CheckpointError, match=r"config.json has more than 1,000 bytes"):
        read_json(tmp_path / "config.json")
