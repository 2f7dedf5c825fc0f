"""The speed benchmark: how it counts operations, what it draws from a profile, and what each model is given."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys

import pytest

from bench.performance import environments, figures, models, pages, profiling, sections
from bench.performance.__main__ import QUICK, arguments, record_duration
from bench.performance.bars import bars
from bench.performance.classes import CLASSES, class_of
from bench.performance.inputs import inputs_of, share_of
from bench.performance.models import Prepared
from bench.performance.peers import open_peer
from bench.performance.programs import OPTIMUM
from bench.performance.ratios import compare, exactly
from bench.performance.report import page
from bench.performance.shares import add_like, shares_of
from bench.performance.subjects import BATCHES, subjects_of
from bench.performance.timing import worth_more_rounds
from bertport.measure.speed.workload import to_json
from bertport.runtime import load
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.providers.cpu import INSTRUCTION_SETS


@pytest.fixture(scope="module")
def operators(tiny_bundle):
    """The operators of one profiled run of the tiny bundle's fp32 graph."""
    manifest = Bundle.open(tiny_bundle).manifest
    feeds = profiling.feeds_of(1, 24, manifest.architecture.vocab_size)
    path = tiny_bundle / manifest.variants["fp32"].file
    return profiling.operators(path, feeds, seconds=0.2, threads=1)


@pytest.mark.parametrize("part", [("--models", "default"), ("--tasks", "fill-mask"), ("--without", "shapes,profile")])
def test_figures_of_a_part_do_not_take_the_place_of_all(part, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench.performance", *part])
    with pytest.raises(SystemExit):
        arguments()
    assert "measure a part, and the pages have all: add --output DIRECTORY" in capsys.readouterr().err
    for more in (["--output", str(tmp_path)], ["--quick"], ["--prepare"]):
        monkeypatch.setattr(sys, "argv", ["bench.performance", *part, *more])
        assert arguments().rounds


def test_a_quick_look_takes_less_than_five_minutes_where_it_was_run():
    kept = json.loads(QUICK.read_text(encoding="utf-8"))
    assert kept
    assert kept.keys() <= CLASSES.keys()
    assert all(entry["seconds"] < 300 for entry in kept.values())


def test_how_long_a_quick_look_took_is_kept_by_class_of_cpu(tmp_path):
    path = tmp_path / "quick.json"
    facts = {"command": "--quick", "date": "today", "commit": "0123", "made_in": 1.0}
    for name, seconds in (("avx2", 200.0), ("amx", 100.0), ("avx2", 170.0)):
        record_duration({**facts, "seconds": seconds, "machine": {"instruction_set": name}, "models": {}}, path)
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert {name: entry["seconds"] for name, entry in kept.items()} == {"amx": 100.0, "avx2": 170.0}
    assert "models" not in kept["amx"]


def test_a_duration_is_kept_of_quick_looks_alone(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench.performance", "--record"])
    with pytest.raises(SystemExit):
        arguments()
    assert "--record keeps how long --quick takes: add --quick" in capsys.readouterr().err


def test_a_profile_counts_the_operations_that_the_share_of_the_peak_is_made_of(operators, tiny_bundle):
    architecture = dataclasses.asdict(Bundle.open(tiny_bundle).manifest.architecture)
    hidden = architecture["hidden_size"]
    heads = 2 * hidden**2 + 2 * hidden * 2  # the pooler and next-sentence run too, which `needed` leaves out
    assert sum(operator["flops"] for operator in operators) == figures.needed(architecture, [24], 1) + heads


def test_a_profile_is_shown_with_the_speed_of_each_product(operators):
    shapes = {shape for operator in operators if (shape := sections.product_shape(operator))}
    assert {rows for rows, _, _ in shapes} == {24, 1}
    even = [operator | {"ms": float(operator["flops"] > 0)} for operator in operators]  # none is too short to be listed
    profile = {
        "cost": {"fp32": {"fixed_ms": 1.0, "ms_per_token": 0.05, "overhead_tokens": 20.0}},
        "operators": {"fp32": even},
        "products": [{"shape": list(shape), "gflops": 50.0} for shape in shapes],
    }
    cost, listed = sections.profile_sections({"profile": profile}, peak=100.0)
    assert "| fp32 | 1.00 | 50 | 20 |" in cost
    for rows, inner, columns in shapes:
        lines = [line for line in listed.splitlines() if f" {rows}x{inner}x{columns} |" in line]
        assert {line.rpartition(" | ")[2] for line in lines} == {"50 (50%) |"}
    assert "of the peak of 100 GFLOP/s" in listed


def test_what_a_run_costs_is_given_in_tokens(tiny_bundle):
    cost = profiling.cost(load(tiny_bundle, threads=1), seconds=0.2)
    assert cost["runs"] >= 1
    assert len(cost["ms"]) == len(profiling.COST_SHAPES)
    assert all(ms > 0 for _, _, ms in cost["ms"])
    assert cost["overhead_tokens"] == pytest.approx(cost["fixed_ms"] / cost["ms_per_token"])


def test_every_page_and_the_readme_say_what_the_data_say():
    pages.check_pages()


def test_a_page_that_is_not_what_the_data_say_is_named(monkeypatch):
    monkeypatch.setattr(pages, "written", lambda: {pages.README: "another text"})
    with pytest.raises(SystemExit, match=r"README\.md is not what the data say: run python -m bench\.performance"):
        pages.check_pages()


def test_a_readme_that_quotes_other_figures_is_named(monkeypatch):
    monkeypatch.setattr(pages, "quoted", lambda: "a thousand times as fast")
    with pytest.raises(SystemExit, match=r"README\.md does not quote what the data say"):
        pages.check_pages()


def test_figures_of_an_earlier_version_are_told_as_such():
    """What is measured has changed since: the page names the version, and the README's table does too."""
    vnni = pages.measured(CLASSES["vnni"])
    assert vnni["commit"].startswith("5a0cd56")
    assert "These are figures of bertport 0.1.0 beside transformers 4.57.6" in page(vnni)
    head = pages.quoted().splitlines()[0]
    assert head.count("(bertport 0.1.0, 2026-11-23)") == 1
    del vnni["changed_since"]
    assert "These are figures of" not in page(vnni)


def test_a_page_explains_the_rows_that_it_has():
    """OpenVINO's plugin, optimum-intel and sentence-transformers were measured on AVX2 alone."""
    for name in ("vnni", "avx2"):
        result = pages.measured(CLASSES[name])
        groups = {row["group"] for row in result["figures"]["rows"]}
        for group in ("openvino plugin", "optimum-intel", "sentence-transformers torch"):
            assert (f"*{group.removesuffix(' torch')}*" in page(result)) == (group in groups)


def test_rows_of_one_turn_are_explained_where_there_are_some():
    """The page of VNNI is of before a slow size of batch was left out after its first turn."""
    for name, some in (("vnni", False), ("avx2", True)):
        result = pages.measured(CLASSES[name])
        turns = {row.get("turns") for row in result["figures"]["rows"]}
        assert (1 in turns) is some
        assert ('its row says "1 turn"' in page(result)) is some


def test_an_instruction_set_belongs_to_one_class_or_has_one_of_its_own():
    belongs = [name for row in CLASSES.values() for name in row.instruction_sets]
    assert len(belongs) == len(set(belongs))
    assert set(belongs) < INSTRUCTION_SETS.keys()
    assert class_of("avx_vnni") is CLASSES["vnni"]
    assert class_of("arm64").stem == "performance-arm64"


def test_a_large_model_gets_fewer_of_the_same_texts():
    inputs = inputs_of(10)
    small, large = share_of(inputs, "default"), share_of(inputs, "base")
    assert {task: len(texts) for task, texts in small.items()} == {"fill-mask": 10, "next-sentence": 4, "features": 4}
    assert {task: len(texts) for task, texts in large.items()} == {"fill-mask": 2, "next-sentence": 1, "features": 1}
    for task, texts in large.items():
        assert texts == small[task][: len(texts)]


@pytest.fixture
def prepared(tiny_bundle, tiny_checkpoint, tmp_path):
    """A model's forms, with Optimum's in another environment."""
    return Prepared(
        name="tiny",
        bundle=tiny_bundle,
        checkpoint=tiny_checkpoint,
        variants=("fp32",),
        exports={"optimum": tmp_path / "optimum"},
    )


ELSEWHERE = {"optimum": "another/python"}


def test_optimums_rows_run_in_the_environment_that_has_it_or_not_at_all(prepared):
    rows = {row.peer: row for row in subjects_of(prepared, "fill-mask", ELSEWHERE, batches=(8,))}
    assert rows["optimum"].python == "another/python"
    assert rows["transformers"].python == sys.executable
    assert "optimum" not in {row.peer for row in subjects_of(prepared, "next-sentence", ELSEWHERE)}
    assert {row.peer for row in subjects_of(prepared, "fill-mask", {})} == rows.keys() - {"optimum"}
    never_made = dataclasses.replace(prepared, exports={})
    assert {row.peer for row in subjects_of(never_made, "fill-mask", ELSEWHERE)} == rows.keys() - {"optimum"}


def test_bf16_has_rows_where_the_cpu_multiplies_in_it(prepared):
    groups = {row.group for row in subjects_of(prepared, "fill-mask", {}, flags=("avx2",))}
    more = {row.group for row in subjects_of(prepared, "fill-mask", {}, flags=("avx2", "avx512_bf16"))}
    assert more - groups == {"transformers bf16"}


def test_the_first_8_bit_variant_is_what_bars_call_int8(prepared):
    several = dataclasses.replace(prepared, variants=("fp32", "int8-static-cpu", "int8-dynamic"))
    called = {row.group: row.variant for row in subjects_of(several, "fill-mask", {}) if row.peer == "bertport"}
    assert called["bertport int8"] == "int8-static-cpu"
    assert called["bertport int8-dynamic"] == "int8-dynamic"


def test_rows_that_differ_in_the_size_of_batches_alone_share_a_process(prepared):
    rows = [row for row in subjects_of(prepared, "fill-mask", {}, streams=2) if row.peer == "fused"]
    assert len(rows) == len(BATCHES)
    assert len({json.dumps(to_json(row.spec(0))) for row in rows}) == 1


def test_streams_answer_as_one_stream_does_and_in_order(prepared):
    inputs = [f"{word} tea [MASK]" for word in ("a", "the", "of", "in", "to")]
    rows = subjects_of(prepared, "fill-mask", {}, streams=2)
    ours = {row.name: row for row in rows if row.peer == "bertport"}
    assert len([row for row in ours.values() if row.streams == 2]) == 2
    [one, *others] = [open_peer(row.spec(2)).answer("fill-mask", inputs) for row in ours.values()]
    for other in others:
        assert [row["token"] for row in other] == [row["token"] for row in one]
        assert [row["score"] for row in other] == pytest.approx([row["score"] for row in one], abs=1e-6)


def row_of(group, *seconds, name=None):
    """A row of what was measured, a call in each round."""
    subject = {"name": name or group, "group": group}
    return {"subject": subject, "task": "fill-mask", "rounds": [[took] for took in seconds]}


def test_a_size_of_batch_that_is_much_slower_takes_no_further_turns(prepared):
    rows = [row for row in subjects_of(prepared, "fill-mask", {}) if row.group in {"transformers", "onnxruntime"}]
    took = dict(zip((row.name for row in rows), (1.0, 1.2, 1.3, 9.0, 8.0, 7.0), strict=True))
    kept = worth_more_rounds(rows, took)
    assert kept == [
        "transformers, batches of 1",
        "transformers, batches of 8",
        "onnxruntime, batches of 8",
        "onnxruntime, batches of 32",
    ]


def test_the_best_of_several_groups_is_compared_and_a_single_round_is_no_best():
    rows = [
        row_of("bertport int8", 1.0, 1.0, 1.0),
        row_of("openvino", 3.0, 3.0, 3.0, name="openvino, batches of 8"),
        row_of("openvino", 0.5, name="openvino, batches of 1"),
        row_of("openvino int8", 2.0, 2.0, 2.0),
    ]
    compared = compare(rows, ("bertport int8", "bertport bf16"), ("openvino", "openvino int8"))
    assert (compared.ours, compared.theirs, compared.times.value) == ("bertport int8", "openvino int8", 2.0)
    assert compare(rows, ("bertport int8",), ("optimum int8",)) is None


@pytest.mark.parametrize(
    ("instruction_set", "seconds", "met"),
    [("avx2", 5.1, True), ("avx512_vnni", 4.9, False), ("amx", 4.9, None)],
)
def test_a_bar_is_that_of_its_class_of_cpu(instruction_set, seconds, met):
    rows = [row_of("bertport int8", 1.0, 1.0), row_of("transformers", seconds, seconds)]
    result = {"machine": {"instruction_set": instruction_set}, "models": {"base": {"rows": rows}}}
    verdicts = {bar["bar"]: bar for bar in bars(result, {"ratios": [], "shapes": []})}
    bar = verdicts.pop("BERT-base with seeded random weights: int8 against transformers", None)
    assert (bar and bar["met"]) is met
    assert all(bar["found"] == "not measured" and not bar["met"] for bar in verdicts.values())


def test_on_amx_the_fastest_of_openvinos_set_ups_counts_and_shapes_have_bars_too():
    rows = [
        row_of("bertport int8", 1.0, 1.0),
        row_of("bertport bf16", 0.9, 0.9),
        row_of("openvino int8 streams", 1.17, 1.17),
        row_of("optimum-intel", 2.0, 2.0),
    ]
    shapes = [
        {"model": "default", "shape": [1, 128], "group": group, "ms": ms, "share_of_peak": 0.9}
        for group, ms in (("bertport fp32", 10.0), ("bertport int8", 6.0), ("bertport bf16", 4.0))
    ]
    result = {"machine": {"instruction_set": "amx"}, "models": {"default": {"rows": rows}}}
    verdicts = {bar["bar"]: bar for bar in bars(result, {"ratios": [], "shapes": shapes})}
    against = "Default model: the fastest variant against the fastest of OpenVINO's set-ups"
    assert verdicts[against]["found"].startswith("1.30x")
    assert verdicts[against]["met"]
    alone = "against fp32 on the CPU provider at 1x128"
    assert verdicts[f"Default model: bf16 {alone}"] | {"bar": ""} == {
        "bar": "",
        "wanted": "at least 2.3x",
        "found": "2.50x",
        "met": True,
    }
    assert not verdicts[f"Default model: the fastest of int8, int8-static-cpu and int8-dynamic {alone}"]["met"]


@pytest.mark.parametrize(
    ("value", "bar", "digits", "shown"),
    [(4.99716, 5.0, 2, "4.997"), (5.0, 5.0, 2, "5.00"), (3.924, 5.0, 2, "3.92"), (79.7, 80.0, 0, "79.7")],
)
def test_a_figure_can_be_told_from_the_bar_that_it_misses(value, bar, digits, shown):
    assert exactly(value, bar, digits) == shown


@pytest.mark.parametrize("name", ["vnni", "avx2"])
def test_the_bars_of_a_page_follow_from_its_rounds(name):
    def verdicts(rows):
        return [(row["bar"], row["wanted"], row["found"].partition(" (")[0], row["met"]) for row in rows]

    result = pages.measured(CLASSES[name])
    assert verdicts(result["figures"]["bars"]) == verdicts(bars(result, result["figures"]))


def test_random_weights_get_the_shares_that_held_the_budget_on_another_model(tiny_bundle, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    add_like(bundle, default_bundle(), instruction_set="avx2")
    wanted, made = shares_of(default_bundle()), shares_of(bundle)
    layers = Bundle.open(bundle).manifest.architecture.layers
    of_first = {name: shares for name, shares in wanted.items() if ".layer.0." in name}
    assert len(of_first) == 4
    for name, shares in of_first.items():
        assert made[name].kept_in_float == pytest.approx(shares.kept_in_float, abs=1 / 32)
        assert made[name].divided == pytest.approx(shares.divided, abs=1 / 32)
    assert {name.partition(".layer.")[2][:1] for name in made if ".layer." in name} == {str(n) for n in range(layers)}
    answers = load(bundle, variant="int8-dynamic", provider="cpu", threads=1).fill_mask("a [MASK] of tea", top_k=1)
    assert answers[0]["score"] > 0


def shown(subject, **changes):
    """A row of the figures."""
    row = {"subject": subject, "streams": 1, "texts_per_second": 100.0, "ms_for_an_answer": 10.0, "peak_mib": 200.0}
    return row | changes


def test_two_streams_stand_beside_one():
    rows = [
        shown("bertport int8, one at a time"),
        shown("bertport int8, one at a time, 2 streams", streams=2, texts_per_second=150.0, ms_for_an_answer=13.3),
        shown("openvino, batches of 8, 2 streams", streams=2),
        {"subject": "openvino, batches of 8", "streams": 1, "failed": "no such file"},
    ]
    text = sections.streams_section(rows)
    assert "| bertport int8, one at a time | 100.0 | 10.0 | 200 | 150.0 | 13.3 | 200 |" in text
    assert "| openvino, batches of 8 |  |  |  | 100.0 | 10.0 | 200 |" in text
    assert "this page claims nothing about them" in text


def test_where_a_target_is_missed_its_models_profile_says_where_the_time_goes(operators):
    profile = {"operators": {"fp32": operators}}
    missed = {"bar": "Default model: int8 against transformers", "found": "1.00x", "met": False}
    result = {"figures": {"bars": [missed]}, "models": {"default": {"profile": profile}, "base": {"profile": profile}}}
    text = sections.reasons(result)
    assert "Default model, fp32, a run of 1x128: " in text
    assert "BERT-base" not in text
    met = {"figures": {"bars": [missed | {"met": True}]}, "models": result["models"]}
    assert not sections.reasons(met)


def test_an_interpreter_finds_patched_packages_before_others(tmp_path, monkeypatch):
    patched = tmp_path / "patched"
    (patched / "hidden").mkdir(parents=True)
    (patched / "hidden" / "__init__.py").write_text("", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    script = environments.script(tmp_path / "python", sys.executable, {"PYTHONPATH": str(patched), "TOLD": "yes"})
    program = "import hidden, os, sys; print(hidden.__file__, os.environ['TOLD'], sys.argv[1], sys.path[1:3])"
    done = subprocess.run([script, "-c", program, "a b"], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == f"{patched / 'hidden' / '__init__.py'} yes a b {[str(patched), str(tmp_path)]}"


@pytest.mark.optimum
def test_optimums_rows_answer_as_the_bundle_does(prepared, tiny_bundle, tiny_checkpoint):
    out = prepared.exports["optimum"]
    make = [sys.executable, "-c", OPTIMUM, str(tiny_checkpoint), str(out), "avx2"]
    subprocess.run(make, check=True, capture_output=True)
    inputs = ["the capital of france is [MASK].", "a [MASK] of tea"]
    expected = [rows[0] for rows in load(tiny_bundle).predict("fill-mask", inputs, top_k=1)]
    here = {"optimum": sys.executable}
    rows = [row for row in subjects_of(prepared, "fill-mask", here, batches=(2,)) if row.peer == "optimum"]
    fp32, int8 = (open_peer(row.spec(1)).answer("fill-mask", inputs) for row in rows)
    assert [row["token"] for row in fp32] == [row["token"] for row in expected]
    assert [row["score"] for row in fp32] == pytest.approx([row["score"] for row in expected], abs=1e-5)
    assert len(int8) == len(inputs)
    assert int8 != fp32


def test_variants_of_earlier_recipes_are_made_again(tmp_path, monkeypatch):
    given, bundle = tmp_path / "given", tmp_path / "bundle-avx2"
    given.mkdir()
    (given / "manifest.json").write_text("{}", encoding="utf-8")
    models.fresh_copy(given, bundle)
    (bundle / "variant.onnx").write_text("made", encoding="utf-8")
    models.fresh_copy(given, bundle)
    assert (bundle / "variant.onnx").exists()
    monkeypatch.setattr(models, "CHANGED", [*models.CHANGED, "0123abc"])
    models.fresh_copy(given, bundle)
    assert [path.name for path in bundle.iterdir()] == ["manifest.json"]
    (tmp_path / "bundle-avx2.made-of").unlink()  # as where the copy was interrupted
    (bundle / "manifest.json").unlink()
    models.fresh_copy(given, bundle)
    assert (bundle / "manifest.json").exists()
