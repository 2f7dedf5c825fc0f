"""The digest of a bundle, asked for and printed; and `bertport upgrade`, which gives one to bundles without."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from bertport.runtime import cli, load
from bertport.runtime.bundle.changes import upgrade
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.errors import BundleError, PathError, UsageError
from tests.conftest import OLD, contents
from tests.hub_cache import in_hub_cache
from tests.unwritable import unwritable

DIGITS = "1c6f4e4751f9e5889bab60fb07adfa195e17203f134922aaa5306b0fe469c6ae"
DIGEST = f"sha256:{DIGITS}"


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.mark.parametrize("form", [DIGEST, DIGITS, DIGITS.upper(), DIGEST.upper(), f" {DIGEST}\n"])
def test_a_digest_in_any_form(form):
    assert Bundle.open(OLD, digest=form).pinned
    assert run("verify", OLD, "--digest", form).exit_code == 0


@pytest.mark.parametrize(
    "form",
    ["", "sha256:", "nonsense", DIGITS[1:], DIGITS + "0", f"sha512:{DIGITS}", f"sha256:sha256:{DIGITS}", "g" * 64],
)
def test_what_is_no_digest(form):
    said = "is not a SHA-256: give sha256: and 64 hexadecimal digits, as bertport verify prints them"
    with pytest.raises(UsageError, match=said):
        load(OLD, digest=form)
    done = run("verify", OLD, "--digest", form)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr


@pytest.mark.parametrize("form", [1, b"0", DIGITS.encode(), ["a"]])
def test_what_is_no_text_is_no_digest(form):
    with pytest.raises(UsageError, match="is not a SHA-256"):
        load(OLD, digest=form)


ASKING = {
    "verify": ("verify", OLD),
    "fill-mask": ("fill-mask", "the [MASK]", "-m", OLD, "--variant", "fp32"),
    "next-sentence": ("next-sentence", "the man", "the store", "-m", OLD, "--variant", "fp32"),
    "features": ("features", "the man", "-m", OLD, "--variant", "fp32"),
}


@pytest.mark.parametrize("command", ASKING)
def test_every_command_that_reads_a_bundle_asks_for_its_digest(command):
    assert run(*ASKING[command], "--digest", DIGEST).exit_code == 0
    done = run(*ASKING[command], "--digest", "0" * 64)
    assert (done.exit_code, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert f"has the digest {DIGEST}, and sha256:{'0' * 64} was asked for: it is another bundle, or was changed" in line


def test_verify_prints_the_digest_and_that_is_what_upgrade_says(old):
    assert run("verify", old).stdout.splitlines()[-1] == DIGEST
    said = json.loads(run("verify", old, "--json").stdout)
    assert (said["digest"], said["format_version"], said["files"]) == (DIGEST, 1, 8)
    done = json.loads(run("upgrade", old, "--json").stdout)
    assert (done["bundle"], done["from"], done["to"]) == (str(old), 1, 2)
    said = json.loads(run("verify", old, "--json").stdout)
    assert (said["digest"], said["format_version"]) == (done["digest"], 2)
    content = (old / "manifest.json").read_bytes()
    zeroed = content.replace(done["digest"].encode(), b"sha256:" + b"0" * 64)
    assert done["digest"] == "sha256:" + hashlib.sha256(zeroed).hexdigest()


def test_upgrading_twice_writes_once(old):
    first = run("upgrade", old).stdout
    assert first.startswith(f"{old}: from format 1 to 2\nsha256:")
    kept, status = contents(old), (old / "manifest.json").stat()
    second = run("upgrade", old).stdout
    assert second.startswith(f"{old}: already of format 2\nsha256:")
    assert first.splitlines()[1] == second.splitlines()[1]
    assert contents(old) == kept
    assert (old / "manifest.json").stat() == status


@pytest.mark.parametrize("name", ["onnx/model_int8_dynamic.onnx", "tokenizer.json", "vocab.txt"])
def test_a_damaged_bundle_is_not_vouched_for(old, name):
    content = bytearray((old / name).read_bytes())
    content[-1] ^= 1
    (old / name).write_bytes(content)
    kept = contents(old)
    done = run("upgrade", old)
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"{name} is not the file that was exported" in done.stderr
    assert contents(old) == kept


@pytest.mark.parametrize("what", ["nothing", "an empty directory", "a file"])
def test_what_is_no_bundle_is_not_upgraded(tmp_path, what):
    path = tmp_path / "it"
    if what == "an empty directory":
        path.mkdir()
    elif what == "a file":
        path.write_text("text")
    with pytest.raises((PathError, BundleError), match=r"no bundle at|is not a bundle|is a file"):
        upgrade(path)


@pytest.fixture
def immutable(old):
    with unwritable(old) as path:
        yield path


def test_a_bundle_that_may_not_be_written_is_told_in_a_sentence(immutable):
    done = run("upgrade", immutable)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "cannot write" in done.stderr
    assert "work on a copy of the bundle" in done.stderr
    assert Bundle.open(immutable).digest == DIGEST


def test_no_disk_space_leaves_it_as_it_was(old, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bertport.runtime.bundle.writer.sync_file", full)
    kept = contents(old)
    with pytest.raises(PathError, match=r"No space left on device\): free some space; nothing was changed"):
        upgrade(old)
    assert contents(old) == kept


def test_in_the_hubs_cache_the_blobs_stay_as_they_are(tmp_path):
    snapshot = in_hub_cache(OLD, tmp_path)
    blobs = snapshot.parents[2] / "blobs"
    kept = contents(blobs)
    _, after = upgrade(snapshot)
    assert contents(blobs) == kept
    assert (after.format_version, after.verify()) == (2, ())
    assert not (snapshot / "manifest.json").is_symlink()
    assert (snapshot / "tokenizer.json").is_symlink()
    assert load(snapshot, provider="cpu", variant="fp32", digest=after.digest).fill_mask("the [MASK]")


def test_a_bundle_by_way_of_a_link(old, tmp_path):
    (tmp_path / "link").symlink_to(old)
    _, after = upgrade(tmp_path / "link")
    assert Bundle.open(old).digest == after.digest
    assert (tmp_path / "link").is_symlink()


def test_several_that_upgrade_at_once(old):
    program = "import sys\nfrom bertport.runtime.bundle.changes import upgrade\nprint(upgrade(sys.argv[1])[1].digest)"
    processes = [
        subprocess.Popen([sys.executable, "-c", program, old], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    said = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert said == {Bundle.open(old).digest + "\n"}
    assert Bundle.open(old).verify() == ()
    assert {path.name for path in old.parent.iterdir()} == {"old"}
