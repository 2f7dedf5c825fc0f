"""A head that is trained for a task in the report: its tables, its plot, its verdict, and what changed between two."""

import copy
import re

import pytest

from bertport.compare.report.assembly import conclude
from bertport.compare.report.formatting import NONE
from bertport.compare.report.markdown import markdown
from bertport.compare.report.plots import plots
from bertport.compare.report.regressions import differences, parse_tolerance
from bertport.compare.report.sections import sections
from bertport.compare.report.tables import headline_columns, overview, quality_tables
from bertport.measure.quality.heads import HEADS
from bertport.measure.quality.task_rows import TASK_ROWS
from tests.compare.conftest import typed
from tests.compare.test_runner import row


@pytest.fixture
def timed(classified, document):
    """The report of the classifier as if its variants had taken what those of another bundle took."""
    changed = copy.deepcopy(classified)
    for name in ("fp32", "noisy"):
        row(changed, name)["speed"] = copy.deepcopy(row(document, name)["speed"])
    return changed


def test_the_table_of_classes_and_that_of_labels(classified):
    tables = {table.title: table for table in quality_tables(typed(classified))}
    figures = row(classified, "noisy")["quality"]["sequence-classification"]
    classes, by_label = tables["Classes of texts"], tables["Classes of texts, label by label"]
    assert classes.head[:2] == ("variant", "agreement")
    assert [cells[0] for cells in classes.rows] == ["noisy"]
    assert classes.rows[0][1].startswith(f"{figures['agreement']['value']:.1%} (")
    assert by_label.head == ("label", "given by fp32", "noisy")
    assert {cells[0] for cells in by_label.rows} == set(figures["by_label"])
    assert sum(int(cells[1]) for cells in by_label.rows) == figures["agreement"]["count"]
    for label, given, share in by_label.rows:
        assert int(given) == figures["by_label"][label]["count"]
        assert share.startswith(f"{figures['by_label'][label]['value']:.1%} (")
    assert not any(title.startswith("Masked") for title in tables)


def test_how_its_answers_move_with_the_batch_is_shown(classified):
    [table] = [table for table in quality_tables(typed(classified)) if table.title.startswith("Hidden states")]
    assert table.head[-4:] == (
        "class agreement alone and in a batch",
        "class probability alone and in a batch",
        "class agreement alone and padded",
        "class probability alone and padded",
    )
    stability = row(classified, "noisy")["quality"]["stability"]
    assert table.rows[0][-3] == f"{stability['batch_mates']['class_largest_change']:.4f}"
    assert table.rows[0][-4].startswith("100.0% (")


def test_a_figure_that_is_no_number_is_a_dash(classified):
    """As of a head that gives all texts one score: no change has a size in deviations of nothing."""
    changed = copy.deepcopy(classified)
    known = {"value": 0.5, "low": 0.4, "high": 0.6, "count": 9, "clusters": 9}
    unknown = dict.fromkeys(("largest_change", "square_change", "correlation"))
    row(changed, "noisy")["quality"]["scores"] = {
        **dict.fromkeys(("change", "rank", "top1_agreement"), known),
        **unknown,
        "largest_difference": 0.1,
    }
    tables = {table.title: table for table in quality_tables(typed(changed))}
    [cells] = tables["Scores of texts"].rows
    assert cells[-2:] == (NONE, NONE)


def test_a_head_of_pretraining_is_shown_as_before(document):
    [table] = [table for table in quality_tables(typed(document)) if table.title.startswith("Hidden states")]
    assert table.head[-2:] == ("KL moved by the batch, nats", "KL moved by padding, nats")
    assert len(table.head) == 5


def test_its_figure_stands_for_the_bundle_and_is_plotted(timed):
    report = typed(timed)
    [(head, column)] = headline_columns(report)
    assert (head.name, column.key) == ("sequence-classification", "agreement")
    assert "class agreement" in overview(report).head
    [pareto] = [plot for plot in plots(report) if "against latency" in plot.title]
    assert pareto.title == "Class agreement with fp32 against latency"
    agreement = row(timed, "noisy")["quality"]["sequence-classification"]["agreement"]["value"]
    assert re.search(rf"noisy \S+ ms and {re.escape(f'{agreement:.2%}')}", pareto.description)


def test_the_budget_judges_it_and_the_summary_says_what_it_costs(timed):
    agreement = row(timed, "noisy")["quality"]["sequence-classification"]["agreement"]
    agreement |= {"value": 0.5, "low": 0.4, "high": 0.6, "count": 400}
    [verdict] = conclude(typed(timed), {"class": 0.98}).verdicts
    assert (verdict.row, verdict.verdict) == ("noisy", "broken")
    assert "at least 98.0% asked: 50.00% of 400 texts" in verdict.breaks[0]
    agreement |= {"value": 0.999, "low": 0.998, "high": 1.0}
    held = conclude(typed(timed), {"class": 0.98})
    assert held.verdicts[0].verdict == "held"
    chosen = {advice.choice for advice in held.recommendations}
    assert "noisy" in chosen
    assert "99.9% (99.8 to 100.0) of texts get the label that fp32 gives" in markdown(held)
    assert "Class agreement is the share of texts" in sections(held)[0].paragraphs[1]


def test_a_later_report_with_less_agreement_is_a_regression(classified):
    worse = copy.deepcopy(classified)
    agreement = row(worse, "noisy")["quality"]["sequence-classification"]["agreement"]
    agreement |= {"value": 0.2, "low": 0.1, "high": 0.3}
    against = differences(typed(classified), typed(worse), parse_tolerance("0.05"))
    [change] = [change for change in against.changes if change.figure == "class agreement"]
    assert change.regression
    assert not differences(typed(classified), typed(classified), parse_tolerance("0.05")).changes


def test_every_row_of_a_task_can_be_drawn():
    """What the report reads of each row is there: a figure in front, its words, and which way is worse."""
    for head in TASK_ROWS:
        assert HEADS[head.name] is head
        fields = head.results.__dataclass_fields__
        assert [column for column in head.reported if column.headline], head.name
        assert all(column.key in fields for column in head.reported), head.name
        assert all(column.more_is_better is not None for column in head.reported if column.headline), head.name
        assert {kind.key for kind in head.moved} <= fields.keys(), head.name
        assert head.meaning
        head.caption.format(positions=1, texts=1)
