"""Completion in the shell: what is offered, and that real shells take it when the tabulator key is pressed."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from bertport.runtime import cli
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.writer import write_manifest

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "install.md"
SHELLS = {
    "bash": ["bash", "--noprofile", "--norc", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
BEFORE = {"bash": "", "zsh": "bindkey -e; autoload -U compinit; compinit -u -D; ", "fish": ""}
"""A user's own settings before the line of the page, by shell."""
ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[()=>][0-9A-Za-z]?)")


def offered(*line, incomplete=""):
    complete = ShellComplete(cli.app, {}, "bertport", "_BERTPORT_COMPLETE")
    return [item.value for item in complete.get_completions(list(line), incomplete)]


def test_commands_are_offered_without_importing_other_areas():
    program = (
        "import sys\nfrom click.shell_completion import ShellComplete\nfrom bertport.runtime import cli\n"
        "complete = ShellComplete(cli.app, {}, 'bertport', 'X')\n"
        "print(*[item.value for item in complete.get_completions([], 'q')])\n"
        "print([name for name in sys.modules if name in ('numpy', 'bertport.quantize', 'onnxruntime')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["quantize", "[]"]


def test_values_that_are_known_are_offered(tiny_bundle, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert offered(incomplete="ver") == ["verify"]
    assert offered("fill-mask", "--provider", incomplete="a") == ["auto"]
    assert offered("predict", incomplete="text-") == ["text-classification", "text-ranking"]
    assert offered("fill-mask", "-m", str(tiny_bundle), "--variant", incomplete="p") == ["portable"]
    assert offered("verify", str(tiny_bundle), "--variant", incomplete="") == ["portable", "fp32"]
    assert offered("fill-mask", "-m", "nowhere", "--variant", incomplete="") == []
    too_long = "x" * 300  # Python before 3.14 raises an error for a name that no file can have
    assert offered("fill-mask", "-m", too_long, "--variant", incomplete="") == []
    assert offered("serve", f"name={too_long}", "--variant", incomplete="") == []
    assert "--top-k" in offered("fill-mask", incomplete="--t")


def test_every_command_that_names_a_bundle_offers_what_it_knows(tiny_bundle, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    bundle = str(tiny_bundle)
    lines = {
        ("batch", bundle, "fill-mask", "in.jsonl", "--output", "out"): True,
        ("serve", f"a/b={bundle}@sha256:{'0' * 64}"): True,
        ("triton", bundle, "out"): False,
        ("site", bundle): False,
        ("compare", bundle): True,
        ("evaluate", bundle): True,
        ("verify", bundle): True,
        ("pack", bundle, "out"): False,
    }
    for line, has_provider in lines.items():
        assert offered(*line, "--variant", incomplete="") == ["portable", "fp32"], line
        assert not has_provider or offered(*line, "--provider", incomplete="a") == ["auto"], line
    assert offered("batch", bundle, incomplete="text-") == ["text-classification", "text-ranking"]
    for name in ("batch", "serve", "triton", "site", "verify", "pack", "evaluate"):
        context = ShellComplete(cli.app, {}, "bertport", "_BERTPORT_COMPLETE")
        assert [item.type for item in context.get_completions([name], "")] in (["dir"], ["file"])


def test_the_variants_are_those_of_the_bundles_of_the_line(tiny_bundle, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    assert "int8-dynamic" in offered("serve", str(tiny_bundle), "default", "--variant", incomplete="")
    assert offered("serve", str(tiny_bundle), "nowhere", "--variant", incomplete="p") == ["portable"]
    assert "int8-dynamic" in offered("batch", "default", "fill-mask", "in", "--variant", incomplete="")
    assert "int8-dynamic" in offered("fill-mask", "in", "--variant", incomplete="")
    bundle = Bundle.open(shutil.copytree(tiny_bundle, tmp_path / "odd"))
    odd = dict.fromkeys(("p$(id)", "p q", "p\nplain,q", "p'", "p-2.x_1"), bundle.manifest.variants["fp32"])
    write_manifest(bundle.path, replace(bundle.manifest, variants={**bundle.manifest.variants, **odd}))
    assert offered("verify", "odd", "--variant", incomplete="p") == ["portable", "p-2.x_1"]  # no shell's own signs
    assert offered("batch", "hf://acme/tiny", "fill-mask", "in", "--variant", incomplete="") == []


class Typing:
    """A shell on a terminal of its own, which is typed into."""

    def __init__(self, shell, directory):
        import pty

        self.master, terminal = pty.openpty()
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "TERM": "xterm", "HOME": str(directory), "COLUMNS": "120"}
        # Opened by the leader of a session, it is the terminal that signals and job control go by.
        opening = 'exec "$@" < "$0" > "$0" 2>&1'
        self.process = subprocess.Popen(
            [shutil.which("sh"), "-c", opening, os.ttyname(terminal), *SHELLS[shell]],
            env=environment,
            cwd=directory,
            start_new_session=True,
        )
        self._terminal = terminal  # or reading would fail until the shell has opened it

    def types(self, keys, until):
        """Type, and return what is shown up to a pattern."""
        os.write(self.master, keys.encode())
        shown, end = b"", time.monotonic() + 60
        while time.monotonic() < end:
            if select.select([self.master], [], [], 0.2)[0]:
                shown += os.read(self.master, 65536)
            text = ESCAPES.sub("", shown.decode(errors="replace"))
            if re.search(until, text):
                return text
        raise AssertionError(f"{until!r} is not shown: {ESCAPES.sub('', shown.decode(errors='replace'))!r}")

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self._terminal)


def lines_of_the_page():
    """Return the line of each shell that the page on installing gives."""
    pattern = re.compile(r"^(.*_BERTPORT_COMPLETE=(\w+)_source.*?) *(?:#.*)?$", re.MULTILINE)
    return {shell: line for line, shell in pattern.findall(PAGE.read_text(encoding="utf-8"))}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no terminals of this kind")
@pytest.mark.parametrize("shell", SHELLS)
def test_a_real_shell_completes(shell, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    (tmp_path / "mybundle").mkdir()
    typing = Typing(shell, tmp_path)
    try:
        typing.types(f"{BEFORE[shell]}{lines_of_the_page()[shell]}; echo rea''dy\r", r"[\r\n]ready")
        for keys, rest, whole in (
            ("bertport next-s", "entence", "bertport next-sentence"),
            ("bertport fill-mask --variant int8", "-dynamic", "bertport fill-mask --variant int8-dynamic"),
            ("bertport verify myb", "undle", "bertport verify mybundle"),
        ):
            typing.types(f"{keys}\t", rest)
            typing.types("\x01echo typed: \r", rf"[\r\n]typed: {whole}")  # to the line's beginning, to be printed
    finally:
        typing.close()
