"""The page: what is in it, and what a browser makes of it."""

import copy
import os
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bertport.compare.report.assembly import conclude
from bertport.compare.report.formatting import NONE
from bertport.compare.report.html import html
from bertport.compare.report.markdown import escape, markdown
from bertport.compare.report.plots import plots
from bertport.compare.report.recommend import GOALS
from bertport.compare.report.sections import sections
from tests import browser
from tests.compare.conftest import typed
from tests.compare.test_runner import row

SCREENSHOTS = os.environ.get("BERTPORT_SCREENSHOTS")
"""Directory for the screenshots: docs/images, to renew those of the page."""
LAYERS = {
    "damage": 0.01,
    "machine": "avx2",
    "text": {},
    "higher_precision": ["layer.1.output"],
    "rows": [
        {"name": f"layer.{number}.output", "inputs": 64, "outputs": 32, "damage": 0.001 * number, "saved_ms": 0.1}
        for number in range(3)
    ],
}


@pytest.fixture(scope="module")
def trained(document):
    """The document as if its weights had been trained and quantization had left a table of layers: every section."""
    changed = copy.deepcopy(document)
    changed["bundles"][0] |= {"weights": "trained", "weights_reason": "", "sensitivity": {"noisy": LAYERS}}
    changed["against"] = {"created": "2026-01-01", "tolerance": {}, "changes": [], "not_compared": ["<b>it</b> & that"]}
    changed["recommendations"] = [{"bundle": "b", "goal": "Lowest latency", "choice": "noisy", "reason": "it is fast"}]
    return changed


def test_every_section_is_in_both_pages(trained):
    page, text = html(typed(trained)), markdown(typed(trained))
    titles = [section.title for section in sections(typed(trained))]
    for key in ("Summary", "Quality", "Differences from fp32", "Speed", "Bias", "Sensitivity of the layers"):
        assert key in titles
    for title in titles:
        assert f"## {title}" in text
        assert f">{title}</h2>" in page
    assert len(plots(typed(trained))) == page.count("<svg") == 5


def test_the_summary_says_nothing_twice(trained):
    changed = copy.deepcopy(trained)
    budget = {"top1": 0.98}
    [noisy] = [row for row in changed["rows"] if row["name"] == "noisy"]
    agreement = noisy["quality"]["mlm"]["top1_agreement"]
    for value, low, words in ((0.99, 0.97, "budget of noisy: undecided"), (0.90, 0.85, "budget of noisy: broken")):
        agreement |= {"value": value, "low": low, "high": value + 0.005}
        changed["settings"] |= {"budget": budget}
        [summary, *_] = sections(conclude(typed(changed)))
        said = [*summary.points, *(choice.reason for choice in summary.choices)]
        assert len(said) == len(set(said))
        assert sum(words in sentence for sentence in said) == 1
        assert [goal.goal for goal in summary.choices] == [goal.name for goal in GOALS]
        assert all(len(choice.reason) < 160 for choice in summary.choices)
        assert markdown(conclude(typed(changed))).count(words) == html(conclude(typed(changed))).count(words) == 1
        if value < budget["top1"]:
            assert {choice.row for choice in summary.choices} == {"fp32"}


def test_memory_that_the_system_does_not_tell_is_no_figure(trained):
    changed = copy.deepcopy(trained)
    for name in ("fp32", "noisy"):
        speed = row(changed, name)["speed"]
        speed["start"]["peak_bytes_of_one_answer"] = speed["single_stream"]["peak_bytes"] = 0
    assert "MiB of memory for one answer" in markdown(typed(trained))
    assert "MiB of memory for one answer" not in markdown(typed(changed))
    tables = {table.title: table for section in sections(typed(changed)) for table in section.tables}
    assert {cells[3] for cells in tables["Start"].rows} == {NONE}


def test_nothing_is_taken_for_markup(trained):
    assert "<b>it</b>" not in html(typed(trained))
    assert "&lt;b&gt;it&lt;/b&gt; &amp; that" in html(typed(trained))
    assert "\\<b\\>it" in markdown(typed(trained))


@pytest.mark.parametrize("name", [r"a\1 \q", "$x^2$", 'q" <b>&lt;</b>', "two\n\n## lines"])
def test_a_name_of_a_bundle_is_a_name_in_text_and_plots(trained, name):
    changed = copy.deepcopy(trained)
    for place in (changed["bundles"][0], *changed["rows"]):
        place |= {key: name for key in ("label", "bundle") if key in place}
    changed["against"]["created"] = name
    changed["bundles"][0]["sensitivity"]["noisy"]["rows"][0]["name"] = name
    [layers] = [plot for plot in plots(typed(changed)) if plot.section == "sensitivity"]
    element = ET.fromstring(layers.svg)  # noqa: S314 — ours
    assert element.get("aria-label").split() == f"{name}: noisy".split()
    assert name.splitlines()[-1] in [text.text for text in element.iter("{http://www.w3.org/2000/svg}text")]
    text = markdown(typed(changed))
    assert "\n## lines" not in text
    assert "&lt;" not in text.replace(r"\&lt;", "")
    assert escape("a\r# b") == r"a \# b"


def test_figures_are_the_same_in_both_formats(trained):
    numbers = re.findall(r"\d+\.\d+ \(\d+\.\d+ to \d+\.\d+\)", markdown(typed(trained)))
    assert len(numbers) > 20
    page = re.sub(r"</?span[^>]*>", "", html(typed(trained)))
    assert all(number in page for number in numbers)


def test_plots_take_the_colour_and_the_names_of_the_page(trained):
    drawn = "".join(plot.svg for plot in plots(typed(trained)))
    assert "#010203" not in drawn
    assert "currentColor" in drawn
    ids = re.findall(r'\bid="([^"]*)"', drawn)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]*)\)", drawn)) <= set(ids)


def test_plots_of_two_bundles_have_no_name_in_common(trained):
    changed = copy.deepcopy(trained)
    changed["bundles"].append({**copy.deepcopy(changed["bundles"][0]), "label": "another"})
    ids = [name for plot in plots(typed(changed)) for name in re.findall(r'\bid="([^"]*)"', plot.svg)]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", [r"a$\frac$", "$x$", "_mine"])
def test_a_name_stands_in_every_plot_as_it_is_written(trained, name):
    changed = copy.deepcopy(trained)
    row(changed, "noisy")["name"] = name
    drawn = {plot.title: plot.svg for plot in plots(typed(changed)) if plot.section != "sensitivity"}
    assert len(drawn) == 4
    assert [title for title, svg in drawn.items() if f">{name}</text>" not in svg] == []


@pytest.mark.slow
@pytest.mark.node
@pytest.mark.timeout(900)
def test_that_of_a_classifier_on_labelled_data_in_a_browser(timed, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(html(typed(timed)), encoding="utf-8")
    seen = browser.drive(Path(__file__).with_name("page.mjs"), path.as_uri(), tmp_path)
    assert {request for request in seen["requests"] if not request.startswith("data:")} == {path.as_uri()}
    assert seen["complaints"] == seen["repeated"] == seen["dangling"] == []
    assert seen["fits"] == {"light": True, "dark": True, "phone": True}
    assert seen["colours"]["light"] == seen["colours"]["phone"] != seen["colours"]["dark"]
    assert sorted(seen["plots"]) == sorted(plot.title for plot in plots(typed(timed)))  # each in its section
    assert seen["plots"][0] == "Accuracy on texts.jsonl against latency"
    assert seen["headings"] == [section.title for section in sections(typed(timed))]
    assert seen["rows"] == seen["rowHeads"]


@pytest.mark.slow
@pytest.mark.node
@pytest.mark.timeout(900)
def test_in_a_browser(trained, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(html(typed(trained)), encoding="utf-8")
    screenshots = Path(SCREENSHOTS).resolve() if SCREENSHOTS else tmp_path
    screenshots.mkdir(parents=True, exist_ok=True)
    seen = browser.drive(Path(__file__).with_name("page.mjs"), path.as_uri(), screenshots)
    assert {request for request in seen["requests"] if not request.startswith("data:")} == {path.as_uri()}
    assert seen["complaints"] == []
    assert seen["fits"] == {"light": True, "dark": True, "phone": True}
    assert seen["colours"]["light"] == seen["colours"]["phone"] != seen["colours"]["dark"]
    assert seen["headings"] == [section.title for section in sections(typed(trained))]
    assert len(seen["plots"]) == 5
    assert all(seen["plots"])
    assert seen["repeated"] == []
    assert seen["dangling"] == []
    assert seen["tables"] == seen["captions"] > 8
    assert seen["rows"] == seen["rowHeads"]
    assert seen["body"] in seen["inks"]
    assert seen["pages"] > 10_000
    for name in ("light", "dark", "phone"):
        assert (screenshots / f"report-{name}.png").stat().st_size > 10_000
