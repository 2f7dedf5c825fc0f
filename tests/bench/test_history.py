"""The history of speed: its lines, its page, and what CI asks of a change."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import tomllib
from xml.etree import ElementTree as ET

import pytest

from bench.checkout import ROOT
from bench.history import pages, release
from bench.history.collect import entry_of
from bench.history.entries import Entry, Times, about, at_commit, here, read
from bench.history.guard import agreement_complaints, bundle_complaints, speed_complaints
from bench.history.plot import Panel, Point, Series, draw
from bench.performance.classes import CLASSES

RELEASE = release.last_release().name


@pytest.fixture(scope="module")
def last():
    """The last entry of all."""
    return max((each for entries in pages.histories().values() for each in entries), key=lambda each: each.date)


def with_times(entry, low, high):
    """An entry whose ratio to the release has an interval."""
    times = Times(ours="int8-dynamic", than=RELEASE, workload="texts", value=(low + high) / 2, low=low, high=high)
    return dataclasses.replace(entry, times=(times,), same_words=1.0)


def test_the_embedded_bundle_is_no_worse_than_the_last_entry(last):
    assert last.fidelity["int8-dynamic"]["mlm top1_agreement"] > 0.98
    assert bundle_complaints(dataclasses.replace(last, **about(here)), last) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"fidelity": {"int8-dynamic": {"mlm top1_agreement": 0.97}}}, "mlm top1_agreement is 0.97 and was"),
        ({"fidelity": {"int8-dynamic": {"mlm kl": 1.0}}}, "mlm kl is 1.0 and was"),
        ({"fidelity": {"int8-dynamic": {"nsp flips": 0.5}}}, "nsp flips is 0.5 and was"),
        ({"sizes": {"onnx/model.onnx": 10**9}}, "onnx/model.onnx has 1,000,000,000 bytes and had"),
        ({"nodes": {"onnx/model_serving.onnx": 10**4}}, "onnx/model_serving.onnx has 10,000 nodes and had"),
    ],
)
def test_what_is_worse_is_named(last, changed, said):
    now = {name: getattr(last, name) | values for name, values in changed.items() if name != "fidelity"}
    if "fidelity" in changed:
        now["fidelity"] = {"int8-dynamic": last.fidelity["int8-dynamic"] | changed["fidelity"]["int8-dynamic"]}
    [complaint] = bundle_complaints(dataclasses.replace(last, **now), last)
    assert said in complaint
    assert complaint.endswith("python -m bench.history append")


def test_slower_is_what_is_slower_within_its_interval(last):
    assert speed_complaints(with_times(last, 0.7, 0.95), RELEASE) == []
    [complaint] = speed_complaints(with_times(last, 0.7, 0.8), RELEASE)
    assert f"0.75 times as fast as {RELEASE} (0.70 to 0.80)" in complaint
    [other] = speed_complaints(dataclasses.replace(with_times(last, 1.0, 1.1), same_words=0.9), RELEASE)
    assert "for 90% of texts" in other


def test_less_agreement_than_is_recorded_is_what_its_interval_shows():
    assert agreement_complaints(125, 128, 0.981) == []
    assert agreement_complaints(121, 128, 0.981) == []
    [complaint] = agreement_complaints(116, 128, 0.981)
    assert complaint.startswith("the best word is fp32's for 116 of 128 texts, at most 96.")
    assert "the manifest says 98.1%" in complaint


def test_an_entry_is_read_as_it_was_written(last, tmp_path):
    older = dataclasses.replace(last, date="2020-01-01T00:00:00+00:00")
    path = tmp_path / "history.jsonl"
    path.write_text(last.line() + older.line(), encoding="utf-8")
    assert read(path) == [older, last]
    assert Entry.of(last.line()) == last
    for cut in (last.line()[:100], '{"date": "2020"}\n', "[1]\n"):
        path.write_text(last.line() + cut, encoding="utf-8")
        with pytest.raises(SystemExit, match=r"^line 2 of .*history\.jsonl is no entry \("):
            read(path)


def test_the_page_is_what_the_data_say(monkeypatch):
    pages.check_pages()
    monkeypatch.setattr(pages, "PAGE", ROOT / "docs" / "no-such-page.md")
    with pytest.raises(SystemExit, match=r"no-such-page\.md is not what the data say"):
        pages.check_pages()


def test_an_entry_of_the_past_has_the_bundle_of_its_commit():
    data = json.loads((ROOT / "docs" / "data" / "performance-avx2.json").read_text(encoding="utf-8"))
    asked = []

    def reader(commit):
        asked.append(commit)
        return here

    try:
        entry = entry_of(data, "HEAD", "2026-01-01T00:00:00+00:00", reader)
    except subprocess.CalledProcessError:
        pytest.skip("this clone does not hold the commit that was measured")
    assert asked == [entry.commit]
    readme = at_commit(entry.commit)("models/default/config.json")
    assert json.loads(readme)["hidden_size"] == 384
    assert at_commit(entry.commit)("no-such-file") is None
    assert entry.date == data["date"].replace("Z", "+00:00")
    assert entry.machine["instruction_set"] in CLASSES["avx2"].instruction_sets
    assert entry.ratio("int8-dynamic", "transformers").value > 4
    assert entry.sizes["onnx/model.onnx"] == (ROOT / "models" / "default" / "onnx" / "model.onnx").stat().st_size
    assert data["models"].pop("default")
    assert entry_of(data, "HEAD", "2026-01-01T00:00:00+00:00", reader) is None


def test_a_plot_holds_every_series_within_its_ground():
    points = tuple(Point(at=at, value=value, low=value - 1, high=value + 2) for at, value in enumerate((3.0, 8.0)))
    series = (Series(name="a & b", points=points), Series(name="near", points=points[1:]))
    panels = [Panel(title="times", series=series), Panel(title="none", series=(Series(name="x", points=()),))]
    root = ET.fromstring(draw("a <title>", ["11-01 abc", "11-02 def"], panels))  # noqa: S314 — our own
    height = float(root.get("height"))
    texts = [each for each in root.iter() if each.tag.endswith("}text")]
    assert {"times", "a & b 8", "near 8", "11-01", "def"} <= {each.text for each in texts}
    assert "none" not in {each.text for each in texts}
    assert all(0 < float(each.get("y")) < height for each in texts)
    names = [float(each.get("y")) for each in texts if each.text.endswith(" 8")]
    assert abs(names[0] - names[1]) >= 15


def test_what_is_called_a_release_has_its_version():
    """An entry of 29 November took turns with a commit of 0.2.0.dev0, and its column says so."""
    for each in release.RELEASES:
        project = at_commit(each.commit)("pyproject.toml")
        if project is None:
            pytest.skip("this clone does not hold the release")
        assert tomllib.loads(project.decode())["project"]["version"] == each.version
    columns = next(line for line in pages.written()[pages.PAGE].splitlines() if line.startswith("| date |"))
    assert "times b86e1dc" in columns


def test_a_clone_without_the_release_is_told():
    gone = release.Release(version="9.9.9", commit="0" * 40)
    with (
        pytest.raises(release.MissingReleaseError, match=r"release 9\.9\.9 .* is not in this repository"),
        release.unpacked(gone),
    ):
        pass


@pytest.mark.slow
def test_old_and_new_take_turns():
    git = ["git", "cat-file", "-e", release.last_release().commit]
    if subprocess.run(git, cwd=ROOT, check=False).returncode:
        pytest.skip("this clone does not hold the last release")
    done = subprocess.run(
        [sys.executable, "-m", "bench.history", "guard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "one text at a time: 5 rounds" in done.stderr
    assert re.search(r"int8-dynamic has the best word of fp32 for 1[12]\d of 128 texts", done.stderr)
