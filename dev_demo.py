"""Demo of `python3 dev.py demo`: the embedded model's answers, then a checkpoint on its way to a server.

Every step prints its command, which runs in a folder of its own below `out/`, and its time. Standard library only.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent
DEFAULT = ROOT / "models" / "default"
TEXT = "He poured her a cup of [MASK]."
FIRST = "He opened the door of the old house and went in."
NEXT = "It was dark inside, and nobody answered when he called."
STRANGER = "The planet has two small moons and a thin atmosphere."
ANSWERS = (("fill-mask", TEXT), ("next-sentence", FIRST, NEXT), ("next-sentence", FIRST, STRANGER))

SHORTENED = ("--positions", "500", "--pairs", "200", "--accuracy-budget", "top1=0.96,nsp=0.02", "--force")
SHORTENED_HOW = """\
Shortened for this demo: quantize measures on 500 masked positions and 200 pairs of sentences (2,000 of each by default)
against a budget that so few do not break by chance (top1=0.98,nsp=0.005 by default, for which it may search for
minutes), and --force keeps a variant that a busy machine makes look slow. Everything else is as by default."""
CLIENT = """\
from huggingface_hub import InferenceClient

client = InferenceClient(model="{url}")
for answer in client.fill_mask("{text}", top_k=3):
    print(f"  {{answer.token_str:10}} {{answer.score:6.1%}}")
"""
PATIENCE = 120
"""Seconds that the server may take to be ready, or to end; it takes two or three."""
NOTHING: Mapping[str, str] = MappingProxyType({})
GRACE = 10
"""Seconds that a program may take to end when it is told to."""


def answers(bertport: Path) -> None:
    """Answer with the embedded default model: ONNX Runtime alone, no PyTorch.

    Args:
        bertport: The command line of an environment that has the extra `cpu`.
    """
    for arguments in ANSWERS:
        print(f"\n$ bertport {typed(arguments)}", flush=True)
        subprocess.run([bertport, *arguments], cwd=ROOT, check=True)
    print(f"\nMore commands: {bertport.relative_to(ROOT)} --help", flush=True)


def main_job(programs: Path, *, bundle: Path = DEFAULT, parent: Path = ROOT / "out") -> None:
    """Restore a checkpoint, export, verify, quantize and ask it, and serve it to a client.

    Args:
        programs: The folder of `python` and `bertport` of an environment with the extras that this needs.
        bundle: The bundle whose checkpoint is restored.
        parent: Where the temporary folder of all that is made stands; it is removed with it unless it is in use.

    Raises:
        subprocess.CalledProcessError: when a step fails.
        KeyboardInterrupt: for SIGINT, SIGTERM and SIGHUP. Nothing that was started or written outlives it.
    """
    began = time.monotonic()
    print(f"\nWhat bertport is for: a trained checkpoint becomes a served INT8 model.\n{SHORTENED_HOW}")
    print(f"`python` and `bertport` are those in {programs}.", flush=True)
    with scratch_folder(parent) as scratch:
        demo = Demo(programs, scratch)
        demo.step("the model's checkpoint, out of its bundle", "bertport", "restore", str(bundle), "checkpoint")
        demo.step("a verified bundle: every output compared with PyTorch", "bertport", "export", "checkpoint", "bundle")
        demo.step("every file as the manifest says", "bertport", "verify", "bundle")
        demo.step("INT8, and what it costs", "bertport", "quantize", "bundle", *SHORTENED)
        for variant in ("fp32", "int8-dynamic"):
            demo.step(f"asked in {variant}", "bertport", "fill-mask", TEXT, "-m", "bundle", "--variant", variant)
        demo.serve()
    print(f"\nFrom a checkpoint to a served model in {time.monotonic() - began:.0f} s.", flush=True)


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Make a temporary folder, removed at the end of the block, which SIGTERM and SIGHUP end as Ctrl-C does."""
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="demo-", dir=parent) as scratch:
            yield Path(scratch)
    finally:
        with suppress(OSError):  # something else is in it
            parent.rmdir()


class Demo:
    """Steps that run in one folder.

    Args:
        programs: The folder of `python` and `bertport`.
        scratch: The folder that they run in.
    """

    def __init__(self, programs: Path, scratch: Path) -> None:
        self.programs = programs
        self.scratch = scratch
        kept = {name: value for name, value in os.environ.items() if not name.startswith("BERTPORT_")}
        self.environment = kept | {"HF_HUB_OFFLINE": "1"}

    def step(self, title: str, *command: str) -> None:
        """Run a command, with its title before it and its time behind it."""
        print(f"\n# {title}\n$ {typed(command)}", flush=True)
        self.run(command)

    def run(self, command: Sequence[str], changes: Mapping[str, str] = NOTHING) -> None:
        """Run a command to its end, and print its time."""
        began = time.monotonic()
        with self.started(command, changes=changes) as process:
            code = process.wait()
        if code:
            raise subprocess.CalledProcessError(code, typed(command))
        print(f"({time.monotonic() - began:.1f} s)", flush=True)

    def serve(self) -> None:
        """Start a server, let the Hub's client ask it, and stop it."""
        command = ("bertport", "serve", "bundle", "--port", "0")
        print(f"\n# served to the Hub's client\n$ {typed(command)}", flush=True)
        began = time.monotonic()
        log = self.scratch / "server.log"
        with log.open("wb") as lines, self.started(command, stderr=lines.fileno()) as server:
            url = address(server, log)
            print(f"ready at {url} ({time.monotonic() - began:.1f} s)", flush=True)
            program = CLIENT.format(url=url, text=TEXT)
            print("".join(f"> {line}".rstrip() + "\n" for line in program.splitlines()), end="", flush=True)
            # The client asks this machine alone: it has to be online for that, and to pass by a proxy.
            direct = {"HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
            self.run(("python", "-c", program), direct)
            server.terminate()
            if code := server.wait(PATIENCE):
                raise subprocess.CalledProcessError(code, typed(command))
        print("the server has stopped", flush=True)

    @contextmanager
    def started(
        self, command: Sequence[str], *, stderr: int | None = None, changes: Mapping[str, str] = NOTHING
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Start a program in a process group of its own; at the end of the block none of it is left."""
        path = self.programs / (f"{command[0]}.exe" if os.name == "nt" else command[0])
        process = subprocess.Popen(
            [path, *command[1:]],
            cwd=self.scratch,
            env={**self.environment, **changes},
            stderr=stderr,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then tells the group
        )
        try:
            yield process
        finally:
            end(process)


def end(process: subprocess.Popen[bytes], grace: float = GRACE) -> None:
    """End a process and those that it started: asked first, killed when they do not listen."""
    if process.returncode == 0:
        return
    if os.name == "nt":
        process.terminate()
        process.wait()
        return
    try:
        with suppress(ProcessLookupError):  # of a group that has ended
            os.killpg(process.pid, signal.SIGINT)
        process.wait(grace)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def address(server: subprocess.Popen[bytes], log: Path) -> str:
    """Return the address of a server when it is ready, as its log says."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        whole, _, _ = log.read_text(encoding="utf-8").rpartition("\n")
        lines = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        said = {line["message"]: line for line in lines}
        if "ready" in said:
            return str(said["listening"]["url"])
        if server.poll() is not None:
            break
        time.sleep(0.05)
    print(log.read_text(encoding="utf-8"))
    raise subprocess.CalledProcessError(server.poll() or 1, "bertport serve")


def typed(command: Sequence[str]) -> str:
    """Return a command as it is typed."""
    return " ".join(f'"{word}"' if " " in word else word for word in command)
