"""Old report against new: what counts as a change, and what as a regression."""

import copy

import pytest
from click.testing import CliRunner

from bertport.compare.report.regressions import differences, figures, parse_tolerance
from bertport.runtime.cli import app
from bertport.runtime.errors import UnknownNameError, UsageError
from tests.compare.conftest import typed

TOLERANCE = parse_tolerance("0.05")


def estimate(value, width=0.01):
    return {"value": value, "low": value * (1 - width), "high": value * (1 + width), "count": 100, "clusters": 10}


def changed(document, change):
    """The document with its second row changed: figures with narrow intervals of their own."""
    old, new = copy.deepcopy(document), copy.deepcopy(document)
    for report in (old, new):
        [row] = [row for row in report["rows"] if row["name"] == "noisy"]
        row["speed"]["single_stream"]["p90"] = estimate(0.01)
        row["speed"]["offline"]["texts_per_second"] = estimate(100.0)
        row["quality"]["mlm"]["top1_agreement"] = estimate(0.99, 0.001)
        row["size_bytes"] = 1000
        change(row) if report is new else None
    return differences(typed(old), typed(new), TOLERANCE)


def test_a_report_against_itself_shows_nothing(document):
    assert differences(typed(document), typed(document), TOLERANCE).changes == ()


@pytest.mark.parametrize(
    ("path", "value", "worse", "regression"),
    [
        (("speed", "single_stream", "p90"), estimate(0.012), True, True),
        (("speed", "single_stream", "p90"), estimate(0.008), False, False),
        (("speed", "single_stream", "p90"), estimate(0.0103), True, False),  # beyond noise, within the tolerance
        (("speed", "single_stream", "p90"), estimate(0.012, 0.3), None, None),  # within noise
        (("speed", "offline", "texts_per_second"), estimate(80.0), True, True),
        (("speed", "offline", "texts_per_second"), estimate(120.0), False, False),
        (("quality", "mlm", "top1_agreement"), estimate(0.9, 0.001), True, True),
        (("size_bytes",), 1100, True, True),
        (("size_bytes",), 1001, True, False),
    ],
)
def test_a_change_must_leave_the_noise_and_the_tolerance(document, path, value, worse, regression):
    def change(row):
        for key in path[:-1]:
            row = row[key]
        row[path[-1]] = value

    changes = changed(document, change).changes
    if worse is None:
        assert changes == ()
        return
    [one] = changes
    assert (one.row, one.worse, one.regression) == ("noisy", worse, regression)


def test_a_variant_that_no_longer_works_is_a_regression(document):
    [one] = changed(document, lambda row: row.update(failed="it fell")).changes
    assert one.regression
    assert "it fell" in one.sentence


def test_another_machine_and_another_text_are_not_compared(document):
    new = copy.deepcopy(document)
    new["machine"]["cpu"] = "another"
    new["text"]["sha256"] = "another"
    for row in new["rows"]:
        if row["speed"]["single_stream"]:
            row["speed"]["single_stream"]["p90"] = estimate(99.0)
            row["quality"]["mlm"]["kl"] = estimate(99.0)
    compared = differences(typed(document), typed(new), TOLERANCE)
    assert compared.changes == ()
    assert len(compared.not_compared) == 2


def with_memory(document, size):
    report = copy.deepcopy(document)
    for row in report["rows"]:
        if row["speed"]["single_stream"]:
            row["speed"]["single_stream"]["peak_bytes"] = size
    return report


def test_memory_is_compared_where_speed_is(document):
    """A longer text, and another number of threads, take more of it."""
    old, new = with_memory(document, 2**27), with_memory(document, 2**28)
    changes = differences(typed(old), typed(new), TOLERANCE).changes
    assert {(change.figure, change.regression) for change in changes} == {("peak memory", True)}
    elsewhere, longer = copy.deepcopy(new), copy.deepcopy(new)
    elsewhere["settings"]["threads"] = 64
    longer["text"]["inputs"]["lengths"][0] += 100
    for report, why in (
        (elsewhere, "the machine or the threads differ"),
        (longer, "the texts that were timed have other lengths"),
    ):
        compared = differences(typed(old), typed(report), TOLERANCE)
        assert compared.changes == ()
        assert compared.not_compared == (f"speed and peak memory: {why}",)


def test_memory_that_was_not_told_is_no_figure(document):
    for sizes in ((0, 2**28), (2**28, 0)):
        old, new = (with_memory(document, size) for size in sizes)
        assert differences(typed(old), typed(new), TOLERANCE).changes == ()


def test_a_change_from_nothing_has_no_share(document):
    old = copy.deepcopy(document)
    [row] = [row for row in old["rows"] if row["name"] == "noisy"]
    row["quality"]["mlm"]["accuracy_candidate"] = estimate(0.0)
    new = copy.deepcopy(old)
    [row] = [row for row in new["rows"] if row["name"] == "noisy"]
    row["quality"]["mlm"]["accuracy_candidate"] = estimate(0.5)
    [change] = differences(typed(old), typed(new), TOLERANCE).changes
    assert change.change is None
    assert change.sentence == "noisy: MLM top-1 accuracy went from 0% to 50%: better"


def test_the_command_ends_with_3(document, tmp_path):
    import json

    old, new = copy.deepcopy(document), copy.deepcopy(document)
    for report, value in ((old, 0.01), (new, 0.02)):
        for row in report["rows"]:
            if row["speed"]["single_stream"]:
                row["speed"]["single_stream"]["p90"] = estimate(value)
    for name, report in (("old", old), ("new", new)):
        (tmp_path / f"{name}.json").write_text(json.dumps(report), encoding="utf-8")
    command = ["compare", "--from", str(tmp_path / "new.json"), "--against", str(tmp_path / "old.json")]
    done = CliRunner().invoke(app, [*command, "--output", str(tmp_path / "out")])
    assert done.exit_code == 3
    assert "2 regressions beyond the tolerance" in done.stderr
    done = CliRunner().invoke(app, [*command, "--output", str(tmp_path / "out"), "--tolerance", "speed=1.5"])
    assert done.exit_code == 0, done.output


def test_tolerances():
    assert parse_tolerance("0.1") == dict.fromkeys(("speed", "quality", "size", "memory"), 0.1) | {"labelled": 0.0}
    assert parse_tolerance("speed=0.2, quality=0")["quality"] == 0
    for text in ("0.2,speed=0.1", "speed=0.1,0.2"):
        tolerance = parse_tolerance(text)
        assert (tolerance["speed"], tolerance["quality"]) == (0.1, 0.2)
    assert {figure.kind for figure in figures()} | {"labelled"} == set(parse_tolerance("0"))
    for bad in ("", "fast", "-1", "nan", "speed="):
        with pytest.raises(UsageError, match="not a tolerance"):
            parse_tolerance(bad)
    for twice in ("speed=0.1,speed=0.2", "0.1,0.2"):
        with pytest.raises(UsageError, match="gives a tolerance twice"):
            parse_tolerance(twice)
    with pytest.raises(UnknownNameError, match="colour"):
        parse_tolerance("colour=1")
