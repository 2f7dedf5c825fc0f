"""What the pages say of batches and of more machines follows from the data."""

from __future__ import annotations

import copy
import json
import os

import pytest

from bench import scaling
from bench.batch import __main__ as program
from bench.batch import cluster, page
from bench.batch.__main__ import main
from bench.checkout import read_data


def test_the_page_of_batches_is_that_of_the_data():
    main(["page", "--check"])
    found = {"kills": read_data(page.data("kills"), "bench.batch")}
    assert "were bit for bit" in " ".join(page.text(found).split())
    changed = copy.deepcopy(found)
    changed["kills"]["bit_for_bit_equal"] = False
    assert "were not bit for bit" in " ".join(page.text(changed).split())
    assert page.text({}).count("Not measured yet") == len(page.SECTIONS)


def test_the_page_says_whether_the_target_is_met():
    cpu = {"workers": 100.0, "reading": 1.0, "writing": 1.0, "driver": 5.0}
    engines = ("local", "ray 1", "ray 2")
    figures = {
        **{name: read_data(page.data("kills"), "bench.batch")[name] for name in ("commit", "date", "machine", "load")},
        "rows": 10,
        "variant": "fp32",
        "bar": 0.85,
        "predict": {"rows_per_second": 100.0},
        "rows_per_second": dict.fromkeys(engines, 100.0),
        "cpu_seconds": dict.fromkeys(engines, cpu),
        "driver_peak_bytes": dict.fromkeys(engines, 300 << 20),
        "equal_to_predict": {engine: {"furthest_score": 1e-6} for engine in engines},
    }
    assert "target 85%: met" in " ".join(page.text({"rate": figures | {"ray_2_of_local": 0.86}}).split())
    assert "target 85%: missed" in " ".join(page.text({"rate": figures | {"ray_2_of_local": 0.84}}).split())


def test_the_page_says_what_the_driver_held_for_how_many_rows():
    found = {name: read_data(page.data(name), "bench.batch") for name in ("driver", "many")}
    runs = found["driver"]["runs"].values()
    for run, size, rows in zip([*runs, found["many"]], (210, 240, 215, 230), (10, 10, 100, 1000), strict=True):
        run.update(driver_peak_bytes=size << 20, rows=rows, parts=rows if size == 240 else rows // 10)
    said = " ".join(page.text(found).split())
    assert "210 MiB for 10 rows in 1 parts, 240 MiB for 10 rows in 10 parts, 215 MiB for 100 rows in 10 parts" in said
    assert "230 MiB for 1,000 rows in 100 parts. So 1,000 rows take 20 MiB more than 10." in said
    found["many"]["driver_peak_bytes"] = 200 << 20
    assert "So 1,000 rows take 10 MiB less than 10." in " ".join(page.text(found).split())


def test_the_page_says_which_figures_are_of_the_last_of_several_runs():
    found = {"many": read_data(page.data("many"), "bench.batch")}
    said = "1,200 of the parts are of interrupted runs; the minutes and the driver's figures are the last one's."
    assert said not in " ".join(page.text(found).split())
    found["many"]["parts_done_before"] = 1200
    assert said in " ".join(page.text(found).split())


def test_rows_that_were_killed_for_are_all_there():
    kills = read_data(page.data("kills"), "bench.batch")
    assert kills["killed"] == {"worker": 10, "driver": 2}
    assert kills["each_row_once"]
    assert kills["bit_for_bit_equal"]


def test_the_page_of_more_machines_is_that_of_the_data():
    scaling.main(["page", "--check"])
    text = scaling.PAGE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert f"by the default model's `{json.loads(scaling.DATA.read_text())['variant']}`" in text


def test_what_a_row_and_a_part_cost_are_told_apart():
    def ran(parts, rows, seconds, reading=0.0):
        cpu = {"workers": seconds, "reading": reading}
        spent = {"tokens": 20 * rows, "cpu_seconds": cpu, "process_cpu_seconds": seconds + 1.5}
        return {"parts": parts, "rows": rows, "bytes": 90 * rows} | spent

    found = {
        "input_bytes": 1000,
        "alone": [ran(2, 100, 1.02)],
        "beside": [ran(2, 100, 2.02), ran(2, 100, 2.52), ran(2, 100, 1.92)],
        "one part": [ran(1, 50, 0.5), ran(1, 50, 0.5), ran(1, 50, 0.6)],
        "a row a part": [ran(50, 50, 0.99), ran(50, 50, 0.99), ran(50, 50, 0.5)],
    }
    assert scaling.part_seconds(found) == pytest.approx([0.01, 0.01, -0.1 / 49])
    assert scaling.row_seconds(found, "alone") == pytest.approx([0.01])
    assert scaling.cost_of(found) == scaling.Cost(
        tokens=20.0,
        row_seconds=pytest.approx(0.02),
        part_seconds=pytest.approx(0.01),
        start_seconds=pytest.approx(1.5),
        row_bytes=100.0,
    )
    found["one part"] = [ran(1, 50, 0.5, reading=0.4)] * 3  # what is imported to read is of the start
    assert scaling.row_seconds(found, "alone") == pytest.approx([(1.02 - 0.4 - 2 * 0.01) / 100])
    assert scaling.cost_of(found).start_seconds == pytest.approx(1.9)


def cost(**changed):
    given = {"tokens": 20.0, "row_seconds": 1e-3, "part_seconds": 0.0, "start_seconds": 2.0, "row_bytes": 100.0}
    return scaling.Cost(**{**given, **changed})


def test_what_becomes_the_limit():
    parts = 12208  # of 8,192 rows, a hundred million
    idle = scaling.Driver(part_seconds=0.0)
    seconds, limit = cost().seconds(1, scaling.Driver(part_seconds=1e-3))
    assert (seconds, limit) == (pytest.approx(2 + parts / 16 * 8.192, rel=1e-3), "cores")
    seconds, limit = cost().seconds(1000, idle)  # 16,000 cores have less than a part each
    assert (seconds, limit) == (pytest.approx(2 + 8.192), "one part a core")
    busy = scaling.Driver(part_seconds=0.01, share=0.5, start_seconds=3.0)
    assert cost().seconds(1000, busy) == (pytest.approx(2 * (3 + 122.08)), "driver")
    assert cost(row_bytes=1e5).seconds(1000, idle) == (pytest.approx(800.0), "storage")


def test_what_a_driver_spends_is_told_apart():
    def ran(seconds, parts):
        return {"seconds": seconds, "parts": parts, "cpu_seconds": {"driver": 3 + 0.05 * seconds + 0.002 * parts}}

    costs = program.driver_costs({"short": ran(10, 5), "parts": ran(30, 2000), "rows": ran(100, 50)})
    assert scaling.Driver.of(costs) == scaling.Driver(
        start_seconds=pytest.approx(3), share=pytest.approx(0.05), part_seconds=pytest.approx(0.002)
    )


def test_rows_are_those_that_are_asked_for(tmp_path):
    path = cluster.sentences(tmp_path / "in.jsonl", 3, 4)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == [0, 1, 2]
    assert all(len(row["text"].split()) == 5 and row["text"].endswith(" [MASK].") for row in rows)


def test_only_processes_of_this_one_are_killed():
    assert cluster.started_here(os.getpid())
    assert not cluster.started_here(os.getppid())
    assert not cluster.started_here(1)
