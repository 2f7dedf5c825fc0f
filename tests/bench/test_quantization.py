"""The benchmarks of quantization run as programs, on a tiny model: what they write, and the tables made of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.quantization import calibration_memory
from bench.quantization.page import (
    DATA,
    PAGE,
    TABLES,
    accuracy_table,
    operators_table,
    speed_table,
    static_table,
    write_table,
)
from tests.conftest import WORDS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    sentences = [" ".join(WORDS[begin : begin + 9]).capitalize() + "." for begin in range(0, 180, 4)]
    path.write_text("\n".join(" ".join(sentences[begin : begin + 3]) for begin in range(0, 42, 3)), encoding="utf-8")
    return path


def run(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_some_ways_do_not_take_the_place_of_all():
    command = [sys.executable, "-m", "bench.quantization", "speed", "--only", "int8-dynamic avx2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.endswith("add --output FILE\n")


@pytest.mark.slow
def test_accuracy_writes_its_figures_and_they_make_a_table(tiny_bundle, text, tmp_path):
    output = tmp_path / "accuracy.json"
    few = ["--text", text, "--positions", 30, "--pairs", 6, "--output", output]
    names = ["int8-dynamic avx2", "static, minmax", "int8-static-cpu"]
    run("bench.quantization", "accuracy", tiny_bundle, *few, *(f"--only={name}" for name in names))
    result = json.loads(output.read_text(encoding="utf-8"))
    assert [row["name"] for row in result["rows"]] == names
    assert all(row["mlm"]["kl"]["value"] < 0.5 for row in result["rows"])
    table = accuracy_table(result)
    assert "6 pairs of text.txt" in table
    for row in result["rows"]:
        assert f"| {row['name']} | {row['what']} | {row['mlm']['top1_agreement']['value']:.2%} (" in table


@pytest.mark.long
@pytest.mark.slow
def test_the_static_variant_is_made_and_timed_beside_the_plain_one(tiny_bundle, text, tmp_path):
    output = tmp_path / "static.json"
    few = ["--text", text, "--positions", 60, "--pairs", 6, "--rounds", 2, "--work", tmp_path, "--output", output]
    run("bench.quantization.static", "--bundle", tiny_bundle, *few)
    result = json.loads(output.read_text(encoding="utf-8"))
    plain = result["variants"]["plain"]
    assert plain["budget"] == "none"
    assert plain["calibration"]["kept_in_float"] == plain["calibration"]["rotated"] == 0
    table = static_table(result)
    assert table.count("\n| ") == 1 + len(result["variants"]) - sum(
        "refused" in row for row in result["variants"].values()
    )
    refused = static_table(result | {"variants": result["variants"] | {"held": {"refused": "too far"}}})
    assert refused.endswith("\n\nNo combination of layers held the budget: too far.")
    for name, place, said in (
        ("hold", output, "has no variant hold"),
        ("held", tmp_path / "none.json", "is not there: run it without --only"),
        ("held", output, f"{tmp_path / 'gone'} no longer has plain, unrotated, unkept, recipe"),
    ):
        command = [sys.executable, "-m", "bench.quantization.static", "--only", name, "--output", place]
        command += ["--work", tmp_path / "gone"]
        again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
        assert again.returncode == 2
        assert said in again.stderr
    assert "budget" in result["variants"]["held"] or "refused" in result["variants"]["held"]
    assert set(result["times"]) == {"1x16", "1x128", "8x128"}
    assert all(figures["plain"]["over fp32"]["value"] > 0 for figures in result["times"].values())


def test_the_tables_are_what_the_data_say_with_their_version_and_day():
    files = {name: DATA / f"quantization-{name}.json" for name in TABLES}
    made = {name: TABLES[name](json.loads(file.read_text())) for name, file in files.items() if file.exists()}
    assert TABLES.keys() - made.keys() <= {"static"}  # which a machine with VNNI has to measure
    made["calibration-memory"] = calibration_memory.table(json.loads(calibration_memory.DATA.read_text()))
    text = PAGE.read_text(encoding="utf-8")
    for name, table in made.items():
        assert f"<!-- table: {name} -->\n{table}\n<!-- end: {name} -->" in text
        assert re.search(r"bertport \d\S+, 20\d\d-\d\d-\d\d, (recorded by )?commit [0-9a-f]{7}", table)


def test_figures_of_older_recipes_are_told_as_such():
    result = json.loads((DATA / "quantization-speed.json").read_text(encoding="utf-8"))
    since = "**Recipes have changed since**, in int8-dynamic: "
    if result["date"] < "2026-11-29":
        assert since in speed_table(result)
        assert "static, smooth 0.5: `--smooth` does nothing any more" in speed_table(result)
    now = result | {"date": "2026-11-30T00:00:00Z", "rows": result["rows"][:3]}
    assert "have changed since" not in speed_table(now)


def test_the_page_says_how_fast_weights_of_8_bits_alone_are():
    for kind, low, high in (("", 0.65, 0.77), ("-avx2", 0.4, 0.55)):
        rows = json.loads((DATA / f"quantization-speed{kind}.json").read_text(encoding="utf-8"))["rows"]
        times = {row["name"]: row["times"] for row in rows}
        for shape, timed in times["int8-weight-only"].items():
            assert low < timed["speedup"]["value"] / times["int8-dynamic"][shape]["speedup"]["value"] < high
    text = PAGE.read_text(encoding="utf-8").replace("\n ", "")
    assert "at two thirds to three quarters of `int8-dynamic`'s speed; on AVX2 as fast as fp32 at 1x16" in text


def test_the_table_replaces_the_old_one(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table: one -->\nold\n<!-- end: one -->\nafter\n", encoding="utf-8")
    for _ in range(2):
        write_table("one", "new", page)
    assert page.read_text(encoding="utf-8") == "before\n<!-- table: one -->\nnew\n<!-- end: one -->\nafter\n"


def test_operators_of_two_forms_stand_beside_each_other():
    versions = {"bertport": "0.2.0", "onnxruntime": "1.32.0"}
    machine = {"cpu": "A", "instruction_set": "avx2", "usable_cores": 2, "versions": versions}

    def row(form, **ms):
        return {
            "model": "a model",
            "form": form,
            "commit": "0123456789",
            "date": "2026-11-29T02:58:50Z",
            "machine": machine,
            "shapes": {"1x16": {name: {"count": 3, "ms": value} for name, value in ms.items()}},
        }

    lines = operators_table([row("before", Mul=6.0, Div=1.99, Max=0.01), row("now", Mul=4.0)]).splitlines()
    assert lines[2] == "| operator | calls, before / now | 1x16, before | 1x16, now |"
    assert lines[4:] == [
        "| Mul | 3 / 3 | 6.00 (75%) | 4.00 (100%) |",
        "| Div | 3 / 0 | 1.99 (25%) | 0.00 (0%) |",
        "| **all** | | **8.00** | **4.00** |",  # what takes less than a hundredth is in the sum alone
    ]


@pytest.mark.parametrize("given", ["--samples=32", "--bundle=elsewhere"])
def test_the_memory_of_another_calibration_is_not_written_in_the_place_of_the_page(given, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench.quantization.calibration_memory", given])
    monkeypatch.setattr(calibration_memory, "measure", lambda *_: pytest.fail("it was measured"))
    with pytest.raises(SystemExit):
        calibration_memory.main()
    assert "--bundle and --samples measure something else than the page has: add --print" in capsys.readouterr().err


@pytest.mark.slow
def test_the_memory_of_calibration_is_reported(tiny_bundle):
    answer = run(
        "bench.quantization.calibration_memory",
        f"--bundle={tiny_bundle}",
        "--samples=8",
        "--samples=64",
        "--rounds=1",
        "--print",
    )
    rows = [line.split("|")[1:-1] for line in answer.splitlines()[4:]]
    assert [row[0].strip() for row in rows] == ["8", "64"]
    histograms, peaks = ([float(row[index].split()[0].replace(",", "")) for row in rows] for index in (3, 4))
    assert histograms[0] == histograms[1]
    assert abs(peaks[0] - peaks[1]) < 40  # MiB: what the allocators keep differs by a few
