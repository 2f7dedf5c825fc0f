"""Build the CPU image without a daemon, run it as a container, and state its size.

    python -m bench.image [--keep]

As root, with Debian's mmdebstrap, buildah, umoci and runc. The base is Debian trixie with its own Python, for which no
registry is asked: buildah builds docs/how-to/deploy/Dockerfile on it, in place of python:3.13-slim-trixie.
The image is then unpacked and run by runc with a read-only root, a tmpfs at /tmp, no capability and no new privileges,
as the image's own user; its answers are compared with those here, and SIGTERM ends it. Writes docs/data/image.json. It
takes five minutes of a quiet machine, and 3 GB below out/bench/image, which are removed at the end unless `--keep` is
given; a base that is there is not made again, nor an image of the same commit.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from bench.checkout import ROOT, commit, is_made_of, provenance
from bertport.runtime import load

PLACE = ROOT / "out" / "bench" / "image"
OUTPUT = ROOT / "docs" / "data" / "image.json"
TOOLS = ("mmdebstrap", "buildah", "umoci", "runc")
"""Programs that are asked for: packages of Debian by the same names."""
SUITE = "trixie"
PACKAGES = "python3,python3-venv,ca-certificates"
TEXT = "He poured her a cup of [MASK]."
BAR_MB = 150
"""Compressed megabytes (10^6 bytes) over the base, at most."""
SECONDS = 180
"""Seconds in which the server has to be ready on a busy machine."""
NAME = "bertport-bench-image"


def main() -> None:
    """Build, measure, run, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="leave the base and the image in out/bench/image")
    keep = parser.parse_args().keep
    if os.geteuid() != 0:
        sys.exit("bench.image makes a root file system and runs a container: run it as root")
    if missing := [name for name in TOOLS if not shutil.which(name)]:
        sys.exit(f"bench.image needs {', '.join(missing)}: apt-get install {' '.join(missing)}")
    PLACE.mkdir(parents=True, exist_ok=True)
    base = _base()
    layers = _image(base)
    over = sum(layers[1:])
    figures = {
        "command": "python -m bench.image",
        **provenance(),
        "base": f"Debian {SUITE}, minbase with {PACKAGES}",
        "tools": {name: _version(name) for name in TOOLS},
        "compressed_bytes": {"base": layers[0], "over_the_base": over},
        "bar_bytes": BAR_MB * 10**6,
        **_run(),
    }
    OUTPUT.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(f"{layers[0] / 1e6:.1f} MB base, {over / 1e6:.1f} MB over it (limit: {BAR_MB}); {OUTPUT.relative_to(ROOT)}")
    if not keep:
        shutil.rmtree(PLACE)
    if over > BAR_MB * 10**6:
        sys.exit("the image is larger than its limit")


def _base() -> Path:
    """Return the archive of a root file system with Python."""
    archive = PLACE / f"{SUITE}.tar"
    if not archive.exists():
        made = archive.with_suffix(".made.tar")
        debian = "http://deb.debian.org/debian"
        _call("mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(made), debian)
        made.rename(archive)
    return archive


def _image(base: Path) -> list[int]:
    """Build the image and unpack it for runc; return the compressed size of each layer in bytes, the base's first."""
    layout, made_of = PLACE / "layout", PLACE / "made-of"
    if not (layout.exists() and is_made_of(made_of, commit())):
        for left in ("layout", "made", "unpacked"):
            shutil.rmtree(PLACE / left, ignore_errors=True)
        _buildah("rm", "--all")  # what a build that failed has left, whose name is taken
        _buildah("from", "--name", NAME, "scratch")
        _buildah("add", "--quiet", NAME, str(base), "/")
        _buildah("commit", "--quiet", "--rm", NAME, "localhost/debian-python")
        build = ("--build-arg", "BASE=localhost/debian-python", "--volume", "/etc/ssl/certs:/etc/ssl/certs:ro")
        file = str(ROOT / "docs" / "how-to" / "deploy" / "Dockerfile")
        _buildah(
            "bud", "--quiet", *build, "--format", "docker", "--tag", "localhost/bertport", "--file", file, str(ROOT)
        )
        _buildah("push", "--quiet", "--format", "oci", "localhost/bertport", f"oci:{PLACE / 'made'}:cpu")
        _call("umoci", "unpack", "--image", f"{PLACE / 'made'}:cpu", str(PLACE / "unpacked"))
        (PLACE / "made").rename(layout)
        made_of.write_text(commit(), encoding="ascii")
    index = json.loads((layout / "index.json").read_text(encoding="utf-8"))
    manifest = json.loads(_blob(layout, index["manifests"][0]["digest"]).read_text(encoding="utf-8"))
    return [int(layer["size"]) for layer in manifest["layers"]]


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / "sha256" / digest.removeprefix("sha256:")


def _run() -> dict[str, Any]:
    """Run the container, ask it, end it; return what was seen."""
    port = _free_port()
    _settings(port)
    began = time.monotonic()
    runc = ["runc", "--root", str(PLACE / "state")]
    delete = [*runc, "delete", "--force", NAME]
    subprocess.run(delete, check=False)  # the container of a run that was killed
    with subprocess.Popen(
        [*runc, "run", "--bundle", str(PLACE / "unpacked"), NAME], stderr=subprocess.DEVNULL
    ) as started:
        try:
            _wait(started, f"http://127.0.0.1:{port}/ready")
            ready = time.monotonic() - began
            state = json.loads(subprocess.check_output([*runc, "state", NAME]))
            status = dict(
                line.split(":\t", 1)
                for line in Path(f"/proc/{state['pid']}/status").read_text(encoding="ascii").splitlines()
            )
            body = json.dumps({"inputs": TEXT}).encode()
            url = f"http://127.0.0.1:{port}/"
            request = urllib.request.Request(url, body, {"content-type": "application/json"})
            with urllib.request.urlopen(request) as answer:  # noqa: S310 — it is loopback
                answered = json.load(answer)
            write = [*runc, "exec", NAME, "python", "-c", "open('/opt/bertport/written', 'w')"]
            refused = subprocess.run(write, capture_output=True, text=True, check=False)
        finally:
            subprocess.run([*runc, "kill", NAME, "TERM"], check=False)
            try:
                code = started.wait(60)
            except subprocess.TimeoutExpired:
                subprocess.run(delete, check=False)
                code = -signal.SIGKILL
    here = load().fill_mask(TEXT)
    off = max(abs(one["score"] - two["score"]) for one, two in zip(answered, here, strict=True))
    seen = {
        "ready_seconds": round(ready, 2),
        "user": status["Uid"].split()[0],
        "capabilities": status["CapEff"].strip(),
        "no_new_privileges": status["NoNewPrivs"].strip() == "1",
        "read_only": "Read-only file system" in refused.stderr,
        "same_words_as_here": [each["token_str"] for each in answered] == [each["token_str"] for each in here],
        "largest_difference_of_a_score": off,
        "exit_code_after_sigterm": code,
    }
    wanted = {"user": "10001", "capabilities": "0" * 16, "no_new_privileges": True, "read_only": True}
    wanted |= {"same_words_as_here": True, "exit_code_after_sigterm": 0}
    wrong = {name: seen[name] for name, value in wanted.items() if seen[name] != value}
    if wrong:
        sys.exit(f"the container is not what it is said to be: {wrong}")
    return {"run": seen}


def _settings(port: int) -> None:
    """Set the container up as the page's `docker run` does, on the host's network."""
    path = PLACE / "unpacked" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["root"]["readonly"] = True
    config["process"]["capabilities"] = {}
    config["process"]["noNewPrivileges"] = True
    config["process"]["terminal"] = False
    config["process"]["env"] = [each for each in config["process"]["env"] if not each.startswith("BERTPORT_PORT=")]
    config["process"]["env"].append(f"BERTPORT_PORT={port}")
    # /sys is mounted by what has a network of its own alone.
    left_out = {"/tmp", "/sys", "/sys/fs/cgroup"}  # noqa: S108
    config["mounts"] = [each for each in config["mounts"] if each["destination"] not in left_out]
    options = ["nosuid", "nodev", "mode=1777"]
    config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": options})  # noqa: S108
    config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "network"]
    config["linux"].pop("resources", None)
    path.write_text(json.dumps(config), encoding="utf-8")


def _wait(started: subprocess.Popen[bytes], url: str) -> None:
    """Return when a server is ready."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if started.poll() is not None:
            sys.exit(f"the container ended with {started.returncode} before it was ready")
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 — it is loopback
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    sys.exit(f"the container was not ready within {SECONDS} s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _buildah(*arguments: str) -> None:
    stores = ("--root", str(PLACE / "store"), "--runroot", str(PLACE / "scratch"), "--storage-driver", "vfs")
    _call("buildah", *stores, *arguments, isolation="chroot")


def _call(*command: str, isolation: str = "") -> None:
    environment = {**os.environ, **({"BUILDAH_ISOLATION": isolation} if isolation else {})}
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)


def _version(name: str) -> str:
    return subprocess.check_output([name, "--version"], text=True).splitlines()[0]


if __name__ == "__main__":
    main()
