"""Killed, interrupted or out of room: one complete bundle is left, and after an error nothing else."""

from __future__ import annotations

import logging
import os
import resource
import shutil
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from bertport.export import export
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.cli import app
from bertport.runtime.errors import PathError
from bertport.runtime.installation import install_command

# Replaces the bundle at `target`, and sends itself a signal at a moment: the begin of a stage, the time just after the
# old and the new bundle were exchanged, or, where the system exchanges nothing, the time between the old bundle's
# leaving and the new one's coming, when `target` does not exist.
CHILD = """
import os, signal, sys
from pathlib import Path
from bertport.runtime.cli import app
from bertport.export.progress import Stages

source, target, moment, number = sys.argv[1:]

def strike():
    os.kill(os.getpid(), int(number))

if moment in ("exchanged", "between"):
    import bertport.runtime.bundle.exchange as exchanging
    exchange = exchanging.exchange
    def exchanged(new, old):
        if moment == "between" or not exchange(new, old):
            return False
        strike()
    exchanging.exchange = exchanged
    rename = Path.rename
    def renamed(self, other):
        result = rename(self, other)
        if self == Path(target):
            strike()
        return result
    Path.rename = renamed
else:
    stage = Stages.stage
    def staged(self, name):
        if name == moment:
            strike()
        return stage(self, name)
    Stages.stage = staged
app(["export", source, target, "--overwrite", "--name", "new"])
"""


def complete_bundles(folder):
    """Name every bundle below a folder that verifies."""
    names = []
    for manifest in folder.rglob("manifest.json"):
        bundle = Bundle.open(manifest.parent)
        bundle.verify()
        names.append(bundle.manifest.name)
    return names


def strike(source, target, moment, number):
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(source), str(target), moment, str(int(number))],
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["between", "making the graphs", "writing the bundle", "exchanged"])
def test_a_killed_export_leaves_one_complete_bundle(moment, tiny_checkpoint, tiny_bundle, tmp_path, caplog):
    target = shutil.copytree(tiny_bundle, tmp_path / "out")
    result = strike(tiny_checkpoint, target, moment, signal.SIGKILL)
    assert result.returncode == -signal.SIGKILL, result.stderr
    if moment == "between":
        with pytest.raises(PathError, match="a process was stopped while it replaced the bundle, which is whole in"):
            Bundle.open(target)
        assert sorted(complete_bundles(tmp_path)) == ["new", "tiny-bert"]
    else:
        assert complete_bundles(target) == ["new" if moment == "exchanged" else "tiny-bert"]
    # The next one goes on, and removes what this one left.
    with caplog.at_level(logging.WARNING):
        assert export(tiny_checkpoint, target, overwrite=True, name="next").manifest.name == "next"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert "removed what a stopped process had left of its work on" in caplog.text
    assert ("restored" in caplog.text) == (moment == "between")


@pytest.mark.slow
def test_an_interrupted_export_leaves_nothing(tiny_checkpoint, tiny_bundle, tmp_path):
    target = shutil.copytree(tiny_bundle, tmp_path / "out")
    result = strike(tiny_checkpoint, target, "comparing with PyTorch", signal.SIGINT)
    assert result.returncode == 130  # as a shell says of SIGINT
    assert "Traceback" not in result.stderr
    assert complete_bundles(tmp_path) == ["tiny-bert"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("limit", [10_000, 100_000, 150_000])
def test_files_that_may_not_grow(limit, tiny_checkpoint, tiny_bundle, tmp_path):
    """The limit that a shell sets with `ulimit -f`."""
    target = shutil.copytree(tiny_bundle, tmp_path / "out")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        with pytest.raises(PathError, match=r"cannot write .*File too large.*nothing was changed"):
            export(tiny_checkpoint, target, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert complete_bundles(tmp_path) == ["tiny-bert"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.fixture
def small_disk(tmp_path):
    """Return a file system of 512 KiB, where that can be had."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small file system; test_files_that_may_not_grow runs everywhere")
    mounted = subprocess.run([mount, "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)], check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting is not allowed here; test_files_that_may_not_grow runs everywhere")
    yield disk
    subprocess.run([shutil.which("umount"), str(disk)], check=True)


def test_a_full_disk(small_disk, tiny_checkpoint, tiny_bundle):
    target = shutil.copytree(tiny_bundle, small_disk / "out")
    result = CliRunner().invoke(app, ["export", str(tiny_checkpoint), str(target), "--overwrite"])
    assert result.exit_code == 2
    assert "No space left on device): free some space; nothing was changed" in result.stderr.splitlines()[-1]
    assert complete_bundles(small_disk) == ["tiny-bert"]
    assert [path.name for path in small_disk.iterdir()] == ["out"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tiny_checkpoint, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(PathError, match="Permission denied"):
        export(tiny_checkpoint, tmp_path / "closed" / "out")


@pytest.mark.parametrize(
    ("module", "extra"),
    [("onnxruntime", "cpu,export"), ("optimum", "export"), ("torch", "export"), ("transformers", "export")],
)
def test_a_package_that_is_not_installed(module, extra, tiny_checkpoint, tmp_path):
    """In a process of its own, where the package cannot be found; nothing heavy is loaded before that is known."""
    code = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
from bertport.runtime.cli import app
try:
    app(["export", {str(tiny_checkpoint)!r}, {str(tmp_path / "out")!r}])
finally:
    assert not {{"torch", "transformers", "onnx", "onnxruntime"}} & set(sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    expected = f"export needs the package {module}, which is not installed: {install_command(extra)}"
    assert result.stderr.strip() == f"bertport: error: {expected}"
    assert not (tmp_path / "out").exists()
