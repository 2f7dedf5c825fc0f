"""The command: its tables, its exit codes, and that it runs as a program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from bertport.measure.budget import Budget
from bertport.quantize import quantizer, remeasure
from bertport.quantize.evaluation import Speed
from bertport.quantize.isa import saturates
from bertport.quantize.recipes.table import RECIPES
from bertport.quantize.search.sensitivity import Layers
from bertport.runtime import load
from bertport.runtime.bundle.digest import sealed
from bertport.runtime.cli import app
from bertport.runtime.errors import PathError, UsageError
from bertport.runtime.providers.cpu import INSTRUCTION_SETS
from tests.conftest import contents
from tests.quantize.conftest import manifest_of


def run(*arguments):
    return CliRunner().invoke(app, ["quantize", *map(str, arguments)], prog_name="bertport")


def test_the_list_names_every_recipe():
    answer = run("--list")
    assert answer.exit_code == 0
    assert [line.split()[0] for line in answer.stdout.splitlines()[2:]] == list(RECIPES)
    assert [recipe["name"] for recipe in json.loads(run("--list", "--json").stdout)] == list(RECIPES)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "no bundle was given"),
        (["nowhere"], 2, "no bundle at nowhere"),
        (["nowhere", "--accuracy-budget", "top1"], 2, "is not a limit"),
        (["nowhere", "--accuracy-budget", "top1=98"], 2, "write 98% as top1=0.98"),
        (
            ["nowhere", "--accuracy-budget", "f1=1"],
            2,
            "unknown limit 'f1' (available: top1, nsp, sop, rtd, ",
        ),
        (["nowhere", "--recipe", "int3"], 2, "unknown recipe 'int3'"),
        (["nowhere", "--isa", "mmx"], 2, "Invalid value for '--isa'"),
        (["nowhere", "--remeasure"], 2, "no bundle at nowhere"),
        (["nowhere", "--remeasure", "--isa", "avx2"], 2, "makes no variant, so that it has no use for --isa: leave it"),
        (["nowhere", "--remeasure", "--overwrite", "--time-limit", "9m"], 2, "--time-limit and --overwrite: leave"),
        (["nowhere", "--remeasure", "--calibration-samples", "9"], 2, "no use for --calibration-samples: leave it out"),
        (["nowhere", "--explain"], 2, "no bundle at nowhere"),
        (["nowhere", "--explain", "--data", "labelled.csv"], 2, "leave --data out"),
        (["nowhere", "--explain", "--remeasure"], 2, "give one of the two"),
        (["nowhere", "--task", "text-classification"], 2, "given without the data: name the file with --data"),
        (["nowhere", "--remeasure", "--label-map", "a=b"], 2, "given without the data: name the file with --data"),
        (["nowhere", "--truncation"], 2, "given without the data: name the file with --data"),
        (["nowhere", "--accuracy-budget", "accuracy.drop=1%"], 2, "is not a limit"),
    ],
)
def test_mistakes_end_in_one_sentence(arguments, code, message):
    answer = run(*arguments)
    assert answer.exit_code == code
    assert message in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not answer.stdout


def test_a_recipe_for_a_gpu_says_that_there_is_none(bundle_copy):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine's ONNX Runtime has CUDA")
    before = contents(bundle_copy)
    answer = run(bundle_copy, "--recipe", "fp16")
    assert answer.exit_code == 1
    assert "fp16 is for cuda, tensorrt and tensorrt-rtx, which this machine does not have" in answer.stderr
    assert contents(bundle_copy) == before


def test_remeasuring_refreshes_the_figures(quantized, held_out, tmp_path):
    import shutil

    path = shutil.copytree(quantized[0].path, tmp_path / "bundle")
    before = manifest_of(path)
    few = ["--text", held_out, "--positions", 60, "--pairs", 4, "--accuracy-budget", "top1=0.5"]
    answer = run(path, "--remeasure", "--json", *few)
    assert answer.exit_code == 0, answer.stderr
    after = manifest_of(path)
    assert after["files"] == before["files"]
    old, new = (manifest["variants"]["int8-dynamic"]["fidelity"] for manifest in (before, after))
    assert old["text"]["pairs"] != new["text"]["pairs"] == 4
    assert json.loads(answer.stdout)["int8-dynamic"]["fidelity"]["text"] == new["text"]


def test_measuring_again_takes_more_samples_where_noise_breaks_the_default_budget(
    quantized, held_out, tmp_path, monkeypatch
):
    import shutil

    path = shutil.copytree(quantized[0].path, tmp_path / "bundle")
    monkeypatch.setattr(Budget, "undecided", lambda *_: {"mlm": 2.0})
    monkeypatch.setattr(Budget, "broken", lambda *_: ())
    few = ["--text", held_out, "--positions", 60, "--pairs", 4, "--json"]
    for asked, more in (([], True), (["--accuracy-budget", "top1=0.1"], False)):
        answer = run(path, "--remeasure", *few, *asked)
        assert answer.exit_code == 0, answer.stderr
        record = json.loads(answer.stdout)["int8-dynamic"]["fidelity"]
        assert (record["text"]["masked_positions"] >= 120) == more


def test_a_variant_for_a_gpu_is_measured_again_where_there_is_one_or_by_force(quantized, held_out, tmp_path):
    import shutil

    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine's ONNX Runtime has CUDA")
    path = shutil.copytree(quantized[0].path, tmp_path / "bundle")
    manifest = manifest_of(path)
    variant = manifest["variants"]["int8-dynamic"]
    variant |= {"recipe": "fp16", "requires": variant["requires"] | {"precision": "fp16", "isa": None}}
    (path / "manifest.json").write_bytes(sealed(manifest))
    before = contents(path)
    few = ["--text", held_out, "--positions", 60, "--pairs", 4, "--accuracy-budget", "top1=0.1"]
    asked = [path, "--remeasure", "--recipe", "int8-dynamic", "--json", *few]
    answer = run(*asked)
    assert answer.exit_code == 1
    assert "fp16 is for cuda, tensorrt and tensorrt-rtx, which this machine does not have" in answer.stderr
    assert contents(path) == before
    forced = run(*asked, "--force")
    assert forced.exit_code == 0, forced.stderr
    assert json.loads(forced.stdout)["int8-dynamic"]["fidelity"]["provider"] == "cpu"


def test_there_is_nothing_to_remeasure_in_a_plain_bundle(tiny_bundle):
    answer = run(tiny_bundle, "--remeasure")
    assert answer.exit_code == 2
    assert "no quantized variant" in answer.stderr


@pytest.mark.slow
def test_explain_ranks_every_layer_and_saves_the_table(quantized, held_out, tmp_path):
    import shutil

    path = shutil.copytree(quantized[0].path, tmp_path / "bundle")
    first = run(path, "--explain", "--text", held_out, "--calibration-text", held_out, "--positions", 60, "--pairs", 4)
    assert first.exit_code == 0, first.stderr
    assert first.stdout.count("encoder.layer.") == 8
    assert "cls.predictions.decoder" in first.stdout
    assert "quantization/int8-dynamic.json" in manifest_of(path)["files"]
    again = run(path, "--explain", "--json")
    assert len(json.loads(again.stdout)["rows"]) == 11


@pytest.mark.slow
def test_explain_saves_which_layers_a_variant_without_a_table_has_in_higher_precision(quantized, held_out, tmp_path):
    import shutil

    path = shutil.copytree(quantized[0].path, tmp_path / "bundle")
    manifest = manifest_of(path)
    higher = ["cls.predictions.decoder", "encoder.layer.0.output.dense"]
    manifest["variants"]["int8-dynamic"]["fidelity"]["higher_precision"] = higher
    (path / "manifest.json").write_bytes(sealed(manifest))
    few = ["--text", held_out, "--calibration-text", held_out, "--positions", 60, "--pairs", 4]
    said = [json.loads(run(path, "--explain", "--json", *given).stdout) for given in (few, [])]
    assert [table["higher_precision"] for table in said] == [higher, higher]


@pytest.mark.slow
def test_explain_does_not_save_the_table_of_other_weights_as_the_variants(quantized, held_out, tmp_path):
    import shutil

    path = shutil.copytree(quantized[0].path, tmp_path / "bundle")
    manifest = manifest_of(path)
    requires = manifest["variants"]["int8-dynamic"]["requires"]
    requires["isa"] = "avx512_vnni" if saturates(INSTRUCTION_SETS.get(requires.get("isa"))) else "avx2"
    (path / "manifest.json").write_bytes(sealed(manifest))
    few = ["--text", held_out, "--calibration-text", held_out, "--positions", 60, "--pairs", 4]
    answer = run(path, "--explain", *few)
    assert answer.exit_code == 0, answer.stderr
    assert "cls.predictions.decoder" in answer.stdout
    assert "note: the table is not saved: its weights are for " in answer.stderr
    assert f"and those of int8-dynamic here for {requires['isa']}" in answer.stderr
    assert "quantization/int8-dynamic.json" not in manifest_of(path)["files"]


@pytest.mark.slow
def test_explain_shows_a_table_that_cannot_be_saved(quantized, held_out, monkeypatch):
    def refuse(*_):
        raise PathError("cannot write it")

    monkeypatch.setattr(remeasure, "add_files", refuse)
    few = ["--text", held_out, "--calibration-text", held_out, "--positions", 60, "--pairs", 4]
    answer = run(quantized[0].path, "--explain", *few)
    assert answer.exit_code == 0, answer.stderr
    assert "cls.predictions.decoder" in answer.stdout
    assert "note: the table is not saved: cannot write it" in answer.stderr


def test_a_table_of_layers_is_shown_though_the_next_recipe_has_none(bundle_copy, monkeypatch):
    def explain(_, name, *, options):
        if name == "bf16":
            raise UsageError("bf16 has no layers to rank")
        return Layers(kl_increase=0.1, rows=(), text={}, machine=options.isa), []

    monkeypatch.setattr(remeasure, "explain", explain)
    answer = run(bundle_copy, "--explain", "--json", "--recipe", "int8-dynamic", "--recipe", "bf16")
    assert answer.exit_code == 2
    assert "bf16 has no layers to rank" in answer.stderr
    assert json.loads(answer.stdout)["machine"] == "auto"


def test_tables_of_several_recipes_are_one_object_by_name(bundle_copy, monkeypatch):
    made = {name: Layers(kl_increase=0.1, rows=(), text={}, machine=name) for name in ("int8-dynamic", "int8-static")}
    monkeypatch.setattr(remeasure, "explain", lambda _, name, *, options: (made[name], [options.isa]))
    answer = run(bundle_copy, "--explain", "--json", "--recipe", "int8-dynamic", "--recipe", "int8-static")
    assert answer.exit_code == 0, answer.stderr
    tables = {name: table.to_json() | {"higher_precision": ["auto"]} for name, table in made.items()}
    assert json.loads(answer.stdout) == json.loads(json.dumps(tables))


def test_a_lack_of_memory_says_that_what_was_finished_is_there(bundle_copy, monkeypatch):
    def without_memory(*_, **__):
        raise MemoryError

    monkeypatch.setattr(quantizer, "quantize", without_memory)
    answer = run(bundle_copy)
    assert answer.exit_code == 1
    assert f"out of memory: what was finished is in the bundle at {bundle_copy}, and nothing else" in answer.stderr


def test_what_auto_takes_is_said_though_it_is_not_the_default(bundle_copy, held_out, monkeypatch):
    even = Speed(reference_ms=1.0, ms=1.02, speedup=0.98, low=0.9, high=1.1)
    twice = Speed(reference_ms=2.0, ms=1.0, speedup=2.0, low=1.9, high=2.1)
    monkeypatch.setattr(quantizer, "time_against", lambda *_, **__: {"1x16": even, "1x128": twice})
    few = ["--text", held_out, "--positions", 60, "--pairs", 4, "--accuracy-budget", "top1=0.1"]
    answer = run(bundle_copy, "--recipe", "int8-weight-only", *few)
    assert answer.exit_code == 0, answer.stderr
    assert answer.stdout.splitlines()[-1] == "auto takes int8-weight-only on this class of CPU"
    assert manifest_of(bundle_copy)["default_variant"] == "fp32"


@pytest.mark.slow
def test_what_auto_takes_is_said_though_another_is_the_default(bundle_copy, held_out, monkeypatch):
    """The default gains most where it gains least, and the other in the mean: on this machine that is known."""
    speeds = {
        "int8-weight-only": {"1x16": (1.5, 1.45, 1.55), "1x128": (3.0, 2.9, 3.1)},
        "int4-weight-only": {"1x16": (1.6, 1.55, 1.65), "1x128": (1.7, 1.65, 1.75)},
    }
    for recipe, ratios in speeds.items():
        timed = {
            shape: Speed(reference_ms=ratio, ms=1.0, speedup=ratio, low=low, high=high)
            for shape, (ratio, low, high) in ratios.items()
        }
        monkeypatch.setattr(quantizer, "time_against", lambda *_, timed=timed, **__: timed)
        few = ["--text", held_out, "--positions", 60, "--pairs", 4, "--accuracy-budget", "kl=10"]
        answer = run(bundle_copy, "--recipe", recipe, *few)
        assert answer.exit_code == 0, answer.stderr
    assert answer.stdout.splitlines()[-2:] == [
        "int4-weight-only is the bundle's default on the CPU",
        "auto takes int8-weight-only on this class of CPU",
    ]
    assert manifest_of(bundle_copy)["default_variant"] == "int4-weight-only"
    assert "int8-weight-only on cpu is the fastest" in load(bundle_copy).describe()["chosen"]


def start(path, held_out):
    """Quantize in a process of its own."""
    command = ["-m", "bertport.runtime", "quantize", str(path), "--text", str(held_out), "--force"]
    return subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("sent", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_signal_leaves_the_bundle_as_it_was(bundle_copy, held_out, sent):
    before = contents(bundle_copy)
    process = start(bundle_copy, held_out)
    seen = ""
    while "measuring accuracy" not in seen:
        line = process.stderr.readline()
        assert line, seen
        seen += line
    time.sleep(0.2)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted: what was finished is in the bundle" in errors
    assert "Traceback" not in errors
    assert contents(bundle_copy) == before
    assert [path.name for path in bundle_copy.parent.iterdir()] == [bundle_copy.name]
