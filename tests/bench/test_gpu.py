"""What the page says of a GPU is what its program writes, measured or not, and what a kit for one is made of."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bench.checkout import ROOT
from bench.gpu import __main__ as gpu
from bench.gpu import calls, measure, parts, training
from bench.gpu.page import NEVER, gathered, page
from bertport.runtime.providers.native import driver

PAGE = ROOT / "docs" / "research" / "gpu.md"
FIGURES = (
    {"tests_passed": True},
    {"model": "default", "row": "peak", "gpu": ["a GPU"]},
    {"model": "default", "row": "peak", "peak_gflops": 100.0},
    {"model": "default", "row": "peak", "done": True},
    {"model": "base", "row": "bertport:fp16:cuda", "failed": "out of memory"},
    {"model": "base", "row": "bertport:fp16:cuda", "shapes": {"1x16": {"ms": 1.0, "gflops": 50.0}}},
    {"model": "base", "row": "bertport:fp16:cuda", "shapes": {"128x128": {"ms": 2.0, "gflops": 75.0}}},
    {"model": "base", "row": "bertport:fp16:cuda", "texts_per_s": 12345.6},
    {
        "model": "base",
        "row": "bertport:fp16:cuda",
        "fidelity": {"top1_agreement": 0.99, "kl": 1e-4, "nsp_flips": 0.0, "most": 0.02},
    },
    {"model": "base", "row": "bertport:fp16:cuda", "done": True},
    {"model": "base", "row": "torch:sdpa", "shapes": {"1x16": {"ms": 3.0, "gflops": 20.0}}},
    {"model": "base", "row": "torch:sdpa", "failed": "it took more than 9 s"},
    {"model": "base", "row": "bertport:fp16:tensorrt", "failed": "no such library"},
)
LINES = [json.dumps(figure) for figure in FIGURES]


def test_the_page_is_what_the_program_writes():
    assert PAGE.read_text(encoding="utf-8") == page(None)


def test_what_has_run_is_no_more_among_what_never_has():
    text = page(gathered([*LINES, LINES[5][:20]]))  # the last one cut
    assert "a GPU. The tests marked `gpu` passed." in text
    row = "| bertport:fp16:cuda | 1.00 (50%) | 2.00 (75%) | 8,176 | 12,346 | 99.0% | 0.0001 | 0.0% | 0.02 |"
    assert row in text
    assert "| torch:sdpa | 3.00 (20%) |  |  |  |  |  |  |  |" in text
    assert "base torch:sdpa ended early: it took more than 9 s" in text
    assert "base bertport:fp16:tensorrt did not run: no such library" in text
    assert "base bertport:fp16:cuda" not in text  # its first try failed, its second did not
    never = {name for name, _ in NEVER if f"\n| {name} | " in text}
    assert never == {"TensorRT", "training", "arm64"}


def test_the_page_says_of_tensorrt_that_it_was_never_run_until_it_was():
    ran = {"model": "default", "row": "bertport:fp16:tensorrt", "shapes": {"1x16": {"ms": 1.0, "gflops": 50.0}}}
    for text, said in ((page(None), True), (page(gathered(LINES)), True), (page(gathered([json.dumps(ran)])), False)):
        assert ("TensorRT was never run." in text) == said
        assert "\n\n\n" not in text


def test_what_ran_emulated_is_not_denied():
    assert (PAGE.parent / "arm64.md").is_file()
    assert "[emulated](arm64.md)" in dict(NEVER)["arm64"]


def test_a_kit_is_made_anew_of_another_default_bundle_and_of_wheels_alone(tmp_path, monkeypatch):
    default, kit = tmp_path / "checkout" / "models" / "default", tmp_path / "kit"
    default.mkdir(parents=True)
    called = []
    monkeypatch.setattr(gpu, "ROOT", tmp_path / "checkout")
    monkeypatch.setattr(gpu, "call", lambda *command: called.append(command))
    monkeypatch.setattr(gpu, "works", lambda *_: False)  # no TensorRT can be had, which ends nothing
    for digest in ("sha256:1", "sha256:2"):
        manifest = {"digest": digest, "variants": dict.fromkeys(gpu.RECIPES)}
        (default / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        gpu.prepare(kit)
        assert json.loads((kit / "bundle" / "manifest.json").read_text(encoding="utf-8")) == manifest
        assert not (kit / "checkpoint").exists()
        (kit / "checkpoint").mkdir()  # as the command would have made it
    assert not [command for command in called if "download" in command]


@pytest.fixture
def kit(tmp_path):
    """A kit that is installed, with everything made that rows need."""
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "installed").touch()
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "base").mkdir()
    for made in ("made", "made-fp16"):
        (tmp_path / "base" / made).touch()
    return tmp_path


def test_what_was_measured_is_kept_where_a_run_is_cut_and_the_next_goes_on(kit, monkeypatch):
    first = gpu.SUBJECTS[0]

    def cut(place, command, *_):
        if "bench.gpu.measure" in command:
            if tuple(command[3:5]) != first:
                raise KeyboardInterrupt
            gpu.note(place, model=first[0], row=first[1], done=True)
        return 0, ""

    monkeypatch.setattr(gpu, "logged", cut)
    with pytest.raises(KeyboardInterrupt):
        gpu.run(kit)
    assert gpu.figures(kit)["tests_passed"]
    measured = []

    def go_on(_, command, *__):
        measured.append(tuple(command[3:5]))
        return (1, "no GPU") if command[4] == "torch:eager" else (0, "")

    monkeypatch.setattr(gpu, "logged", go_on)
    gpu.run(kit)
    assert measured == list(gpu.SUBJECTS[1:])  # neither the tests nor the first row
    failed = [(row["model"], row["row"], row["failed"]) for row in gpu.figures(kit)["rows"] if "failed" in row]
    assert failed == [(model, "torch:eager", "no GPU") for model in ("base", "default")]
    assert "base torch:eager did not run: no GPU" in (kit / "gpu.md").read_text(encoding="utf-8")


def test_a_model_that_cannot_be_made_is_tried_once_and_fails_its_rows_alone(kit, monkeypatch):
    for made in ("made", "made-fp16"):
        (kit / "base" / made).unlink()
    commands = []

    def run(_, command, *__):
        commands.append(command)
        return (2, "no optimum") if "export" in command else (0, "")

    monkeypatch.setattr(gpu, "logged", run)
    gpu.run(kit)
    assert sum("export" in command for command in commands) == 1
    assert not any("quantize" in command for command in commands)
    rows = gpu.figures(kit)["rows"]
    assert {row["model"] for row in rows} == {"base"}
    assert {row["failed"] for row in rows} == {"base/made cannot be made: no optimum"}


def test_where_fp16_cannot_be_made_the_other_rows_of_bert_base_are_measured(kit, monkeypatch):
    for made in ("made", "made-fp16"):
        (kit / "base" / made).unlink()
    measured = []

    def run(_, command, *__):
        if "bench.gpu.measure" in command:
            measured.append(tuple(command[3:5]))
        return (2, "refused") if "quantize" in command else (0, "")

    monkeypatch.setattr(gpu, "logged", run)
    gpu.run(kit)
    assert measured == [(model, row) for model, row in gpu.SUBJECTS if model != "base" or ":fp16:" not in row]
    assert {row["failed"] for row in gpu.figures(kit)["rows"]} == {"base/made-fp16 cannot be made: refused"}
    assert (kit / "base" / "made").exists()


def test_all_that_a_command_says_is_kept_and_one_that_hangs_is_ended_with_what_it_started(tmp_path):
    def said(code, most_s):
        return gpu.logged(tmp_path, [sys.executable, "-c", code], {"PYTHONUNBUFFERED": "1"}, most_s)

    assert said("import sys; print('one'); sys.exit('two')", 60) == (1, "two")
    assert said("pass", 60) == (0, "no message")
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    assert said(child, 0.5) == (124, "it took more than 0.5 s")
    assert "\none\ntwo\n" in (tmp_path / "gpu.log").read_text(encoding="utf-8")


def test_parts_make_the_kit_again_and_are_small_enough_to_travel(tmp_path):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "weights").write_bytes(bytes(range(256)) * 100)
    folder = tmp_path / "parts"
    count = parts.split([bundle], folder, size=10_000)
    assert sorted(path.name for path in folder.iterdir()) == [f"{number:02}" for number in range(1, count + 1)]
    pieces = b""
    for place in sorted(folder.iterdir()):
        piece = (place / f"{place.name}.part").read_bytes()
        assert 0 < len(piece) <= 10_000
        told = (place / f"{place.name}.sha256").read_text(encoding="ascii")
        assert told == f"{hashlib.sha256(piece).hexdigest()}  {place.name}.part\n"
        pieces += piece
    with tarfile.open(fileobj=io.BytesIO(pieces)) as tar:
        assert tar.extractfile("bundle/weights").read() == (bundle / "weights").read_bytes()


def test_parts_that_came_back_are_checked_before_they_are_joined(tmp_path):
    source, folder = tmp_path / "weights", tmp_path / "parts"
    source.write_bytes(bytes(range(256)) * 100)
    count = parts.split([source], folder, size=10_001)
    parts.join(folder, tmp_path / "joined")
    assert (tmp_path / "joined" / "weights").read_bytes() == source.read_bytes()

    def refused(sentence):
        with pytest.raises(SystemExit, match=sentence):
            parts.join(folder, tmp_path / "other")
        assert not (tmp_path / "other").exists()

    second, last = folder / "02" / "02.part", folder / f"{count:02}"
    whole = second.read_bytes()
    second.write_bytes(whole[:-1] + b"x")
    refused(r"02\.part is not what 02\.sha256 says: fetch it again")
    second.unlink()
    refused(r"lacks 02\.part or 02\.sha256: fetch it again")
    second.write_bytes(whole)
    shutil.rmtree(last)
    refused("lacks the last parts of the archive: fetch them too")


@pytest.mark.parametrize(("count", "training"), [(1, 0), (10, 0), (11, 2), (14, 3)])
def test_calls_keep_to_the_limits_of_the_machine(count, training):
    made = calls.calls(count, training)
    assert all(0 < len(call["command"]) <= calls.LONGEST for call in made)
    assert all(20 < call["timeout_s"] <= calls.CALL_S for call in made if not call["carry"])
    assert sum(call["timeout_s"] for call in made) <= calls.STRING_S
    assert all(len(call["carry"]) <= 1 for call in made)
    brought = [f"{parts.FOLDER}/{kind}/{number:02}" for kind, number in numbered(training, count)]
    assert [path for call in made for path in call["carry"]] == brought
    first, *_ = (call for call in made if not call["carry"])
    started = next((index for index, call in enumerate(made) if "setsid nohup" in call["command"]), None)
    assert started == (training - 1 if training else None)
    fetched = [call for call in made if "bench.gpu.training split" in call["command"]]
    assert len(fetched) == bool(training)
    if training:
        # What goes on beside the training is brought and tested; it has ended, and come back, before the last call.
        assert made[-2] == fetched[0]
        assert "--after" in first["command"]
        assert first["timeout_s"] >= calls.TRAIN_S + calls.ENDING_S + 20


def numbered(training, count):
    return [("training", number + 1) for number in range(training)] + [("kit", number + 1) for number in range(count)]


def test_what_comes_back_of_the_training_is_few_small_files(tmp_path):
    """Of the default model: 22,893,116 weights in 16 bits, the vocabulary's two files, a log of some hundred rows."""
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    matrix = np.zeros((22_893_116 // 1000, 1000), dtype=np.float32)
    save_file({"matrix": matrix, "vector": np.ones(1000, dtype=np.float32)}, run / "model" / "model.safetensors")
    (run / "model" / "tokenizer.json").write_bytes(bytes(1_000_000))
    for name in ("run.json", "log.jsonl"):
        (run / name).write_bytes(bytes(100_000))
    training.split_run(run, tmp_path / "out" / "trained")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) + len(["training.log"]) <= 8
    assert all(path.stat().st_size < 16 << 20 for path in files)
    assert all(len(path.relative_to(tmp_path / "out").parts) <= 3 for path in files)
    training.join(tmp_path / "out" / "trained", tmp_path / "joined")
    joined = load_file(tmp_path / "joined" / "model" / "model.safetensors")
    assert {name: tensor.dtype for name, tensor in joined.items()} == {"matrix": np.float16, "vector": np.float32}
    assert (tmp_path / "joined" / "log.jsonl").is_file()
    (run / "log.jsonl").unlink()  # of a run that was ended before it wrote a row
    training.split_run(run, tmp_path / "out" / "trained")
    with pytest.raises(SystemExit, match=r"has no model: see training\.log for what became of the training"):
        training.split_run(tmp_path, tmp_path / "none")


def test_calls_bring_every_part_and_join_them(tmp_path, monkeypatch):
    monkeypatch.setattr(calls, "KIT", str(tmp_path / "kit"))
    folder = tmp_path / parts.FOLDER / calls.MEASURING
    source = tmp_path / "bundle"
    source.mkdir()
    (source / "manifest.json").write_text("{}", encoding="utf-8")
    made = calls.calls(parts.split([source], folder, size=4096))
    for call in made:
        if call["carry"]:
            subprocess.run(["sh", "-c", call["command"]], cwd=tmp_path, check=True)  # noqa: S607 — the machine's own
    # No GPU, and no checkout, here: what joins the parts runs, and what comes behind it fails.
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(
        ["sh", "-c", made[-1]["command"]],  # noqa: S607 — as above
        cwd=tmp_path,
        env={"OUT": str(out), "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert (tmp_path / "kit" / "bundle" / "manifest.json").read_text(encoding="utf-8") == "{}"


def test_rows_are_measured_when_the_training_has_ended_and_tests_run_before(kit, monkeypatch):
    ran = []

    def logged(_, command, *__):
        ran.append("tests" if "pytest" in command else "row")
        return 0, ""

    def sleep(_):
        assert ran == ["tests"]
        (kit / "ended").touch()

    monkeypatch.setattr(gpu, "logged", logged)
    monkeypatch.setattr(gpu.time, "sleep", sleep)
    gpu.run(kit, after=kit / "ended")
    assert ran == ["tests", *["row"] * len(gpu.SUBJECTS)]


def test_a_checkout_beside_which_no_part_can_travel_is_refused():
    with pytest.raises(SystemExit, match=r"and 0 can travel beside a part: remove files"):
        parts.check_size(parts.PART)


@pytest.mark.parametrize("texts", [(), (Path("train.jsonl"), Path("heldout.jsonl"))])
def test_pack_brings_wheels_for_the_python_there_and_the_code_of_the_checkout(tmp_path, monkeypatch, texts):
    called = []
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    checked = []
    monkeypatch.setattr(gpu, "check_size", lambda: checked.append((tmp_path / "kit").exists()))
    monkeypatch.setattr(gpu, "add_bundle", lambda kit: (kit / "bundle").mkdir())

    def add_training(kit, *given):
        assert given == texts
        (kit / "training").mkdir()
        return kit / "training"

    monkeypatch.setattr(gpu, "add_training", add_training)

    def call(*command):
        called.append([str(part) for part in command])
        (tmp_path / "kit" / "brought").mkdir(exist_ok=True)

    monkeypatch.setattr(gpu, "call", call)
    gpu.pack(tmp_path / "kit", texts)
    assert checked == [False, True]  # before it takes minutes, and with the kit
    download, wheel = called
    assert download[(at := download.index("--python-version")) : at + 2] == ["--python-version", gpu.THERE]
    assert gpu.ONNX_RUNTIME in download
    assert "manylinux_2_28_x86_64" in download
    assert wheel[-1] == str(tmp_path)
    assert json.loads((tmp_path / parts.FOLDER / "calls.json").read_text(encoding="utf-8")) == calls.calls(
        1, len(texts) // 2
    )
    carried = [path for call in calls.calls(1, len(texts) // 2) for path in call["carry"]]
    assert all((tmp_path / path).is_dir() for path in carried)


def test_what_a_training_needs_is_made_anew_of_other_texts_and_of_another_bundle(tmp_path, monkeypatch):
    default, texts = tmp_path / "models" / "default", [tmp_path / "train.jsonl", tmp_path / "heldout.jsonl"]
    default.mkdir(parents=True)
    made = []
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    monkeypatch.setattr(gpu, "call", lambda *command: made.append([str(part) for part in command]))
    monkeypatch.setattr(gpu, "thin", lambda _: None)
    for digest, text, times in (("1", "a", 1), ("1", "a", 1), ("1", "b", 2), ("2", "b", 3)):
        (default / "manifest.json").write_text(json.dumps({"digest": digest}), encoding="utf-8")
        for path in texts:
            path.write_text(text, encoding="utf-8")
        gpu.add_training(tmp_path, *texts)
        assert len(made) == 3 * times
    restored, train, heldout = made[:3]
    assert restored[-2:] == [str(default), str(tmp_path / "training" / calls.START)]
    assert train[2:4] == [str(texts[0]), str(tmp_path / "training" / "train.npz")]
    assert heldout[2:4] == [str(texts[1]), str(tmp_path / "training" / "heldout.npz")]


def test_with_what_pack_brings_the_code_is_that_of_the_checkout(kit, monkeypatch):
    monkeypatch.setattr(gpu, "brought", lambda _: kit / "site")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    seen = []

    def run(_, command, environment, *__):
        seen.append((str(command[0]), environment["PYTHONPATH"].split(os.pathsep)))
        return 0, ""

    monkeypatch.setattr(gpu, "logged", run)
    gpu.run(kit, installed=True)
    python, path = seen[0]
    assert python == str(Path(sys.executable))
    assert str(ROOT / "runtime") in path
    assert path[-1] == str(kit / "site")


def test_a_subject_writes_each_figure_as_it_comes(tmp_path, monkeypatch):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    shape = {"hidden_size": 4, "intermediate_size": 8, "layers": 1, "vocab_size": 2000}
    (bundle / "manifest.json").write_text(json.dumps({"architecture": shape}), encoding="utf-8")
    monkeypatch.setattr(measure, "RUNS", 1)
    monkeypatch.setattr(measure, "texts_of", lambda: ["a [MASK]"])
    monkeypatch.setattr(measure, "fidelity", lambda *_: {"kl": 0.0})
    noted = []
    subject = measure.Subject(run=lambda *_: {}, answer=len)
    measure.measure(subject, tmp_path, lambda **figure: noted.append(figure))
    wanted = [[f"{rows}x{length}"] for rows, length in measure.SHAPES]
    assert [list(figure["shapes"]) for figure in noted[:-2]] == wanted
    assert noted[-2]["texts_per_s"] > 0
    assert noted[-1] == {"fidelity": {"kl": 0.0}}


def test_pytorch_is_given_the_batches_that_bertport_makes(tiny_bundle, tmp_path):
    given = []

    def run(feeds, outputs):
        given.append(feeds)
        assert outputs == measure.BEST

    texts = ["Paris is the [MASK] of France.", "[MASK]", "He [MASK] home."]
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    measure.by_plan(run, tmp_path)(texts)
    [feeds] = given
    assert feeds["input_ids"].shape[0] == len(texts)
    assert (feeds["attention_mask"].sum(1) > 0).all()
    assert np.array_equal(feeds["masked_positions"] // feeds["input_ids"].shape[1], np.arange(len(texts)))


@pytest.mark.skipif(bool(driver().devices), reason="there is a GPU")
def test_tests_that_need_a_gpu_do_not_pass_for_a_kit_where_there_is_none():
    environment = {**os.environ, "BERTPORT_GPU_BUNDLE": str(ROOT / "models" / "default")}
    chosen = ["-m", "gpu", "-k", "fp16_by_itself", "tests/runtime/test_gpu.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    assert "provider 'cuda' is not available here" in done.stdout
