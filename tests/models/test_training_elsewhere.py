"""The training on a GPU, rehearsed without one: packed, started by the call, and brought back to a bundle."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

import export_default
from bench.checkout import ROOT
from bench.gpu import __main__ as gpu
from bench.gpu import calls, parts, training
from bertport.export import export
from bertport.runtime.bundle.directory import Bundle, file_sha256

SECONDS = 20
"""Those of the training: beside other work, the imports alone may take a third of them."""


@pytest.mark.slow
def test_from_the_bundle_that_ships_to_one_that_was_trained_further(
    tmp_path: Path, text_file: Path, heldout_file: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A checkout whose default model is a tiny one.
    checkout, kit = tmp_path / "checkout", tmp_path / "kit"
    (checkout / "models").mkdir(parents=True)
    for name in ("runtime", "measure", "bench", "models/pretrain.py", "models/pretraining", "models/pack.py"):
        (checkout / name).symlink_to(ROOT / name)
    export(encoder, checkout / "models" / "default", weights="float16", heads=("mlm", "nsp", "pooler"))
    monkeypatch.setattr(gpu, "ROOT", checkout)
    monkeypatch.setattr(calls, "KIT", str(tmp_path / "there"))
    for name, value in (("TRAIN_S", SECONDS), ("TOKENS_PER_BATCH", 1024), ("RATE", 5e-3)):
        monkeypatch.setattr(calls, name, value)
    packed = gpu.add_training(kit, text_file, heldout_file)
    start = load_file(packed / calls.START / "model.safetensors")
    assert {tensor.dtype for tensor in start.values()} == {torch.float16, torch.float32}
    for name, tensor in load_file(encoder / "model.safetensors").items():  # the heads too
        assert torch.equal(start[name].float(), tensor.half().float() if tensor.ndim > 1 else tensor), name
    count = parts.split([packed], checkout / parts.FOLDER / calls.TRAINING, size=100_001)
    bring = calls.calls(0, count)[:count]
    out = tmp_path / "out"
    out.mkdir()
    environment = {
        "OUT": str(out),
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "TMPDIR": str(tmp_path),  # the machine's lock is there
        "OMP_NUM_THREADS": "1",
    }
    for call in bring:
        subprocess.run(["bash", "-c", call["command"]], cwd=checkout, env=environment, check=True, timeout=60)  # noqa: S607
    started = time.monotonic()
    ended = tmp_path / "there" / "training-ended"
    while not ended.exists():
        assert time.monotonic() - started < SECONDS + calls.ENDING_S
        time.sleep(0.1)
    fetch = calls.fetching()["command"]
    with_bench = {**environment, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", fetch], cwd=checkout, env=with_bench, check=False, timeout=60)  # noqa: S607
    assert done.returncode == 0, (tmp_path / "there" / "training.log").read_text(encoding="utf-8")
    run = tmp_path / "run"
    training.join(out / "trained", run)
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows[-1]["rate"] == 0
    assert rows[-1]["heldout_mlm_loss"] < 5.2  # a fresh model of 200 words: 5.3
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert record["settings"]["start"] == calls.START
    assert record["settings"]["corpus_sha256"] == file_sha256(text_file)
    assert record["progress"]["step"] == rows[-1]["step"]
    result = CliRunner().invoke(
        export_default.main, [str(run), "--output", str(tmp_path / "bundle"), "--training", str(tmp_path / "record")]
    )
    assert result.exit_code == 0, result.output
    assert set(Bundle.open(tmp_path / "bundle").manifest.heads) == {"mlm", "nsp", "pooler"}
