"""Bundles that are served by their digest: at the start, at each reload, and what is no digest."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

from bertport.runtime import cli
from bertport.runtime.bundle.changes import change_manifest, upgrade
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.errors import UsageError
from bertport.serve.cli import _asked
from bertport.serve.settings import Asked
from tests.conftest import OLD
from tests.serve.running import PATIENCE, Running

DIGITS = "1c6f4e4751f9e5889bab60fb07adfa195e17203f134922aaa5306b0fe469c6ae"
DIGEST = f"sha256:{DIGITS}"
ASK = {"inputs": "the [MASK]"}
FP32 = ("--variant", "fp32", "--no-warm-up")


@pytest.mark.parametrize(
    ("argument", "asked"),
    [
        ("dir", Asked(path="dir")),
        ("a=dir", Asked(name="a", path="dir")),
        (f"dir@{DIGEST}", Asked(path="dir", digest=DIGEST)),
        (f"a=dir@{DIGEST}", Asked(name="a", path="dir", digest=DIGEST)),
        (f"org/a=dir@{DIGEST}", Asked(name="org/a", path="dir", digest=DIGEST)),
        (f"dir@{DIGEST.upper()}", Asked(path="dir", digest=DIGEST)),
        (f"dir@sha256:{DIGITS.upper()}", Asked(path="dir", digest=DIGEST)),
        (f"a=b@c@{DIGEST}", Asked(name="a", path="b@c", digest=DIGEST)),
        (f"d@{DIGEST}@{DIGEST}", Asked(path=f"d@{DIGEST}", digest=DIGEST)),
        # What has a slash behind it is a path.
        (f"dir@{DIGEST}/", Asked(path=f"dir@{DIGEST}/")),
        (f"a=dir@{DIGEST}/", Asked(name="a", path=f"dir@{DIGEST}/")),
        (f"dir@{DIGEST}/bundle", Asked(path=f"dir@{DIGEST}/bundle")),
        (f"dir@{DIGEST}/bundle@{DIGEST}", Asked(path=f"dir@{DIGEST}/bundle", digest=DIGEST)),
        ("user@host", Asked(path="user@host")),
        ("İ@dir", Asked(path="İ@dir")),
        (f"İ@{DIGEST}", Asked(path="İ", digest=DIGEST)),
        # The embedded bundle.
        (f"@{DIGEST}", Asked(digest=DIGEST)),
        (f"a=@{DIGEST}", Asked(name="a", digest=DIGEST)),
    ],
)
def test_what_is_asked_for(argument, asked):
    assert _asked(argument) == asked


@pytest.mark.parametrize("digits", ["", "nonsense", "0" * 63, "0" * 65, "g" * 64, "０" * 64])  # noqa: RUF001 — digits, and none of ours
def test_what_is_no_digest_is_refused_and_not_taken_for_a_path(digits):
    for place in ("dir", "a=dir"):
        with pytest.raises(UsageError, match="is not a SHA-256: give sha256: and 64 hexadecimal digits"):
            _asked(f"{place}@sha256:{digits}")
    done = CliRunner().invoke(cli.app, ["serve", f"{OLD}@sha256:{digits}"], catch_exceptions=False)
    assert done.exit_code == 2
    assert "is not a SHA-256" in done.stderr


def test_a_directory_that_is_called_so(tmp_path):
    bundle = shutil.copytree(OLD, tmp_path / f"b@{DIGEST}")
    with Running(f"{bundle}/", *FP32) as server:
        assert server.post("/", ASK)[0] == 200
        assert server.stop() == 0


def test_a_reload_of_a_bundle_that_was_changed_is_refused_and_the_old_one_goes_on(tmp_path):
    pinned, free = shutil.copytree(OLD, tmp_path / "pinned"), shutil.copytree(OLD, tmp_path / "free")
    with Running(f"a={pinned}@sha256:{DIGITS.upper()}", f"b={free}", *FP32, BERTPORT_API_KEY="sesame") as server:
        key = {"authorization": "Bearer sesame"}
        assert server.post("/reload", {}, **key)[0] == 200
        upgrade(free)
        assert server.post("/reload", {}, **key)[0] == 200
        _, after = upgrade(pinned)
        status, answer = server.post("/reload", {}, **key)
        assert (status, answer["error_type"]) == (409, "conflict")
        server.until(lambda: [line for line in server.lines if line["level"] == "error"])
        [line] = [line for line in server.lines if line["level"] == "error"]
        assert f"has the digest {after.digest}, and {DIGEST} was asked for" in line["message"]
        assert server.get("/ready")[0] == 200
        assert server.post("/", ASK, **key)[0] == 200
        shutil.copy(OLD / "manifest.json", pinned)
        assert server.post("/reload", {}, **key)[0] == 200
        assert server.stop() == 0


def test_another_digest_ends_the_start_or_only_that_bundle():
    command = [sys.executable, "-m", "bertport.runtime", "serve", "--port", "0", *FP32, f"{OLD}@sha256:{'0' * 64}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert f"has the digest {DIGEST}, and sha256:{'0' * 64} was asked for" in done.stderr
    assert "Traceback" not in done.stderr
    with Running(f"bad={OLD}@sha256:{'0' * 64}", f"good={OLD}@{DIGEST}", *FP32, "--keep-going") as server:
        status, text = server.get("/ready")
        assert "bad" in text, (status, text)
        assert server.stop() == 0


def test_a_bundle_that_gains_a_variant_is_another(tmp_path):
    bundle = shutil.copytree(OLD, tmp_path / "bundle")
    _, before = upgrade(bundle)
    after = change_manifest(bundle, lambda now: now.manifest)
    assert after.digest == before.digest  # what is written is the same for the same content
    assert Bundle.open(bundle, digest=before.digest).pinned
