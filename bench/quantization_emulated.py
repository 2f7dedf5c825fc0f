"""A graph that runs under qemu-user, which emulates a CPU without VNNI, to be measured as any other."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bertport.compare.graph import Batch, Outputs

__all__ = ["EmulatedGraph"]

PROGRAM = """
import sys, json
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 3
for key, value in json.loads(sys.argv[2]).items():
    options.add_session_config_entry(key, value)
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
print("ready", flush=True)
for line in sys.stdin:
    task = json.loads(line)
    feeds = {name: numpy.array(values, dtype=numpy.int64) for name, values in task["feeds"].items()}
    numpy.savez(task["to"], **dict(zip(task["names"], session.run(task["names"], feeds))))
    print("done", flush=True)
"""


class EmulatedGraph:
    """A session in a process of its own, under an emulated CPU.

    Args:
        path: The graph.
        cpu: A CPU model of qemu-user's, such as Haswell.
        config: Session configuration entries.
        directory: For what the process answers.
        outputs: Names of the graph's outputs.
    """

    def __init__(
        self, path: Path, cpu: str, config: Mapping[str, str], directory: Path, outputs: tuple[str, ...]
    ) -> None:
        emulator = shutil.which("qemu-x86_64")
        if emulator is None:
            sys.exit("--cpu needs qemu-user: apt-get install qemu-user")
        self.outputs = outputs
        self._answer = directory / "answer.npz"
        command = [emulator, "-cpu", cpu, sys.executable, "-c", PROGRAM, str(path), json.dumps(dict(config))]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._expect("ready")

    def run(self, batch: Batch, outputs: Sequence[str]) -> Outputs:
        """Run one batch."""
        names = ("input_ids", "attention_mask", "token_type_ids", "masked_positions")
        feeds = {name: getattr(batch, name).tolist() for name in names}
        task = {"feeds": feeds, "names": list(outputs), "to": str(self._answer)}
        if self._process.stdin:
            self._process.stdin.write(json.dumps(task) + "\n")
            self._process.stdin.flush()
        self._expect("done")
        with np.load(self._answer) as found:
            return {name: found[name] for name in outputs}

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _expect(self, word: str) -> None:
        line = self._process.stdout.readline().strip() if self._process.stdout else ""
        if line != word:
            sys.exit(f"the emulated process answered {line!r} instead of {word!r}")
