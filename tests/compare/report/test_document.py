"""report.json as a type: reports of every release are read, broken ones refused; the schema is that of the types."""

import ast
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bertport.compare.codec import encode
from bertport.compare.report.assembly import conclude
from bertport.compare.report.document import Report, read_report
from bertport.compare.report.files import as_json
from bertport.compare.report.schema import SCHEMA_FILE, report_schema
from bertport.measure.quality.heads import HEADS
from bertport.runtime.cli import app
from bertport.runtime.errors import PathError, UsageError

ROOT = Path(__file__).parents[3]
GOLDEN = {
    "0.1.0": Path(__file__).parent / "golden" / "report-0.1.0.json",  # the first release: no verdicts, no records
    "default": ROOT / "docs" / "reports" / "default" / "report.json",
    "base": ROOT / "docs" / "reports" / "base" / "report.json",
}
NEW_KEYS = {"recorded", "looks", "id", "shipped", "most_positions", "most_pairs", "patience", "verdicts"}
"""Keys that reports of 0.1 do not have."""
CONCLUSIONS = ("findings", "verdicts", "recommendations")
"""Keys of conclusions, which are drawn anew from the figures of a report that is read."""


def without_new_keys(value):
    if isinstance(value, dict):
        return {key: without_new_keys(item) for key, item in value.items() if key not in NEW_KEYS}
    return [without_new_keys(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", GOLDEN)
def test_a_report_that_was_kept_is_read_whole(name):
    kept = json.loads(GOLDEN[name].read_text(encoding="utf-8"))
    again = json.loads(as_json(read_report(GOLDEN[name])))
    for key in CONCLUSIONS:
        assert len(again.pop(key)) == len(kept.pop(key, ()))
    assert without_new_keys(again) == without_new_keys(kept)


@pytest.mark.parametrize("name", ["default", "base"])
def test_what_a_kept_report_concludes_is_what_it_says(name):
    kept = json.loads(GOLDEN[name].read_text(encoding="utf-8"))
    again = json.loads(as_json(conclude(read_report(GOLDEN[name]))))
    for key in CONCLUSIONS:
        assert without_new_keys(again[key]) == without_new_keys(kept[key])


def test_reports_of_two_releases_are_drawn_and_compared(tmp_path):
    command = ["compare", "--from", str(GOLDEN["0.1.0"]), "--against", str(GOLDEN["default"])]
    done = CliRunner().invoke(app, [*command, "--output", str(tmp_path)])
    assert done.exit_code == 3
    assert "it is not in the new report" in done.stderr
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["against"]


def test_a_report_reads_as_it_was_written(report, document, tmp_path):
    path = tmp_path / "report.json"
    path.write_text(as_json(report), encoding="utf-8")
    assert encode(read_report(path)) == document


def test_keys_of_a_later_version_are_passed_over(document, tmp_path):
    row = {**document["rows"][0], "taste": "sweet"}
    row["quality"] = {**row["quality"], "taste": {"sweet": 1}}
    later = {**document, "rows": [row, *document["rows"][1:]], "weather": {"rain": True}}
    path = tmp_path / "report.json"
    path.write_text(json.dumps(later), encoding="utf-8")
    assert encode(read_report(path)) == document


BROKEN = {
    "a key is missing": (("rows", 1, "quality", "mlm", "kl"), None, "$.rows[1].quality.mlm has no 'kl'"),
    "no number": (
        ("rows", 0, "speed", "single_stream", "p90", "value"),
        "fast",
        "$.rows[0].speed.single_stream.p90.value is 'fast', and a number was expected",
    ),
    "null": (("seconds",), "null", "$.seconds is null, and a number was expected"),
    "no list": (("rows",), {}, "$.rows is an object, and a list was expected"),
    "no object": (("machine",), [], "$.machine is a list, and an object was expected"),
    "no word of the list": (("bundles", 0, "weights"), "good", "$.bundles[0].weights is 'good', and one of 'trained'"),
    "no pair": (("bias_probe", "groups", 0), ["he"], "$.bias_probe.groups[0] is a list, and a list of 2 was expected"),
    "no bundle": (("bundles",), [], "$.bundles is empty"),
    "another bundle": (("rows", 0, "bundle"), "lost", "$.rows[0].bundle is 'lost', and $.bundles has"),
    "no percentile": (
        ("text", "inputs", "percentiles"),
        {"0": 1},
        "$.text.inputs is wrong: percentiles has no 10, 25, 50, 75, 90, 100",
    ),
    "an unknown limit": (("settings", "budget"), {"speed": 1}, "$.settings.budget has 'speed', and budgets bound"),
    "a number without end": (("machine", "memory_bytes"), 10**400, "$.machine.memory_bytes is 1000"),
    "half of a character": (("machine", "cpu"), "x\ud800", "$.machine.cpu is not Unicode text"),
    "a size of nothing": (("settings", "rounds"), 0, "$.settings is wrong: the effort's rounds is a whole number"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_report_is_refused_in_a_sentence_that_names_the_place(document, tmp_path, case):
    path, value, message = BROKEN[case]
    broken = json.loads(json.dumps(document))
    at = broken
    for key in path[:-1]:
        at = at[key]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = None if value == "null" else value
    file = tmp_path / "report.json"
    file.write_text(json.dumps(broken), encoding="utf-8")
    done = CliRunner().invoke(app, ["compare", "--from", str(file), "--output", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert f"{file} is not a whole report ({message}" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_what_is_not_a_report_is_said(tmp_path):
    path = tmp_path / "report.json"
    with pytest.raises(PathError, match="cannot read"):
        read_report(path)
    for content, message in (
        ("{", "not JSON"),
        ("[]", "not a report"),
        ('{"schema": "bertport-comparison", "schema_version": 99}', "version 99"),
        ('{"schema": "bertport-comparison", "schema_version": 1}', "has no 'created'"),
    ):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(UsageError, match=message):
            read_report(path)


def test_no_more_of_a_file_is_read_than_a_report_has(tmp_path, monkeypatch):
    monkeypatch.setattr("bertport.compare.report.document.MOST_BYTES", 100)
    (tmp_path / "report.json").write_text(" " * 101, encoding="utf-8")
    with pytest.raises(UsageError, match="has more than 100 bytes, as no report has"):
        read_report(tmp_path / "report.json")


def test_the_schema_that_is_kept_is_that_of_the_types():
    import jsonschema

    kept = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(kept)
    assert kept == report_schema(), "write it anew: python -m bertport.compare.report.schema"
    assert {*kept["properties"]} == set(Report.__dataclass_fields__)
    assert set(kept["$defs"]["Quality"]["properties"]) >= set(HEADS)
    described = [*kept["properties"].values(), *kept["$defs"]["Estimate"]["properties"].values()]
    assert all(key["description"] for key in described)


@pytest.mark.parametrize("name", GOLDEN)
def test_reports_keep_to_the_schema(name):
    import jsonschema

    schema = jsonschema.Draft202012Validator(report_schema())
    schema.validate(json.loads(GOLDEN[name].read_text(encoding="utf-8")))
    schema.validate(json.loads(as_json(conclude(read_report(GOLDEN[name])))))


MODULES = sorted((ROOT / "compare").rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_nothing_in_a_comparison_is_of_any_type(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name | ast.alias)]
    assert "Any" not in {node.id if isinstance(node, ast.Name) else node.name for node in names}
