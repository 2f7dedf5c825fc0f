"""A batch on one machine: what it reads and writes, how it goes on, and what it refuses."""

from __future__ import annotations

import errno
import gzip
import io
import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from bertport.batch import reading, run, worker
from bertport.batch.cli import FirstLines, batch
from bertport.batch.engines import ENGINES, Engine
from bertport.batch.job import Part, Span
from bertport.batch.places import open_place
from bertport.batch.reading import chunks, cut, read_source
from bertport.batch.tasks import TASKS
from bertport.batch.worker import Counts, open_model
from bertport.runtime import load
from bertport.runtime.commands.progress import Progress
from bertport.runtime.errors import BundleError, InputTextError, MissingDependencyError, PathError, UsageError
from tests.conftest import contents
from tests.hub_cache import COMMIT, in_hub_cache

TEXTS = [f"the [MASK] of {word}" for word in "france germany england italy rome spain madrid the of and".split()]  # noqa: SIM905
GOOD = [{"id": number, "text": text} for number, text in enumerate(TEXTS)]
BAD = [*GOOD[:3], {"id": 3, "text": "no mask"}, *GOOD[4:]]


def lines(path, rows):
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def ask(bundle, data, out, **chosen):
    return run(bundle, "fill-mask", data, out, **{"parameters": {"top_k": 1}, **chosen})


def words(out):
    return [word and word[0] for word in pq.read_table(out).column("token_str").to_pylist()]


@pytest.fixture(scope="module")
def expected(tiny_bundle):
    return [answer[0]["token_str"] for answer in load(tiny_bundle).predict("fill-mask", TEXTS, top_k=1)]


def test_json_lines_and_parquet_of_folders_globs_and_urls(tiny_bundle, expected, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    lines(folder / "a.jsonl", GOOD[:4])
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in GOOD[4:]).encode()))
    lines(folder / "_left.jsonl", BAD)  # passed over
    pq.write_table(pa.Table.from_pylist(GOOD), tmp_path / "all.parquet", row_group_size=3)
    for number, data in enumerate((folder, f"{folder}/[ab].jsonl*", tmp_path / "all.parquet", f"file://{folder}")):
        summary = ask(tiny_bundle, data, tmp_path / f"out{number}", part_rows=4)
        assert words(tmp_path / f"out{number}") == expected
        assert pq.read_table(tmp_path / f"out{number}").column("id").to_pylist() == list(range(len(GOOD)))
        assert summary["rows"] == len(GOOD)
        assert summary["parts"] >= 2
        assert summary["tokens"] > len(GOOD)
        assert json.loads((tmp_path / f"out{number}" / "_bertport" / "summary.json").read_text()) == summary


def test_the_embedded_bundle_by_name_and_the_column_that_is_missing(tmp_path):
    data = lines(tmp_path / "in.jsonl", GOOD[:1])
    assert run("default", "fill-mask", data, tmp_path / "out")["rows"] == 1
    with pytest.raises(
        InputTextError, match=r"no column text_pair .*reads text and text_pair.*--column text_pair=NAME"
    ):
        run(None, "next-sentence", data, tmp_path / "pairs")


@pytest.mark.parametrize(
    ("there", "columns", "sentence"),
    [
        (
            ["document", "documents"],
            {},
            "no column query (text-ranking reads query and documents, or query and document;",
        ),
        (["query"], {}, "no column documents, or document ("),
        (
            ["query", "d"],
            {"document": "d", "documents": "d"},
            "--column names document and documents, and text-ranking",
        ),
    ],
)
def test_which_column_of_several_forms_is_missing(there, columns, sentence):
    place = open_place("in.jsonl")
    with pytest.raises((InputTextError, UsageError), match=re.escape(sentence)):
        reading._chosen(place, "text-ranking", TASKS["text-ranking"].forms, there, columns)  # noqa: SLF001 — no bundle has such a head here


@settings(max_examples=25)
@given(
    rows=st.lists(
        st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=12), min_size=1
    ),
    step=st.integers(1, 40),
)
def test_every_line_is_in_exactly_one_part(rows, step, tmp_path_factory):
    path = tmp_path_factory.mktemp("cut") / "in.jsonl"
    path.write_text("\n\n".join(json.dumps({"text": row}, ensure_ascii=False) for row in rows), encoding="utf-8")
    place, size = open_place(str(path)), path.stat().st_size
    source, _ = read_source(place, place.files(), "fill-mask", columns={}, carry=None)
    parts = [
        Part(number=first, spans=(Span(str(path), first, min(size, first + step)),), weight=1)
        for first in range(0, size, step)
    ]
    assert [text for part in parts for chunk in chunks(part, source) for text in chunk.inputs] == rows


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_small_files_share_a_part_and_its_batches(ending, tiny_bundle, expected, tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    for number, row in enumerate(BAD):
        if ending == "parquet":
            pq.write_table(pa.Table.from_pylist([row]), folder / f"{number}.parquet")
        else:
            lines(folder / f"{number}.jsonl", [row])
    widths = []
    observe = Counts.observe
    monkeypatch.setattr(Counts, "observe", lambda self, lengths: (widths.append(len(lengths)), observe(self, lengths)))
    summary = ask(tiny_bundle, folder, tmp_path / "out")
    assert summary["parts"] == 1
    assert max(widths) > 1  # a text of each of several files in one batch of the model
    table = pq.read_table(tmp_path / "out")
    assert table.column("id").to_pylist() == list(range(len(BAD)))
    assert words(tmp_path / "out") == [*expected[:3], None, *expected[4:]]
    monkeypatch.setattr("bertport.batch.reading.MOST_FILES", 4)
    assert ask(tiny_bundle, folder, tmp_path / "four")["parts"] == -(-len(BAD) // 4)
    assert pq.read_table(tmp_path / "four").column("id").to_pylist() == list(range(len(BAD)))
    where = "row 1" if ending == "parquet" else "the line at byte 0"
    with pytest.raises(UsageError, match=f"{where} of {folder}/3.{ending} has no answer"):
        ask(tiny_bundle, folder, tmp_path / "fail", on_error="fail")


def test_files_of_one_part_may_differ_in_which_columns_are_never_null(tiny_bundle, tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(3):
        fields = [pa.field("id", pa.int64(), nullable=number > 0), pa.field("text", pa.string(), nullable=number != 1)]
        row = {"id": None if number == 2 else number, "text": "a [MASK]"}
        pq.write_table(pa.Table.from_pylist([row], schema=pa.schema(fields)), tmp_path / "in" / f"{number}.parquet")
    assert ask(tiny_bundle, tmp_path / "in", tmp_path / "out")["parts"] == 1
    assert pq.read_table(tmp_path / "out").column("id").to_pylist() == [0, 1, None]


def test_large_rows_of_parquet_are_read_few_at_once(tmp_path):
    path = tmp_path / "in.parquet"
    texts = [f"{number} " * (1 << 17) for number in range(12)]
    pq.write_table(pa.table({"text": texts}), path, use_dictionary=False)
    place = open_place(str(path))
    source, counts = read_source(place, place.files(), "fill-mask", columns={}, carry=[])
    [part] = cut(place, place.files(), source, 100, counts)
    read = list(chunks(part, source))
    assert [text for chunk in read for text in chunk.inputs] == texts
    assert max(sum(map(len, chunk.inputs)) for chunk in read) <= 1 << 20


@pytest.mark.parametrize(("groups", "rows"), [(3, 4), (100, 1), (2, 100)])
def test_parts_of_parquet_are_rows_wherever_groups_end(groups, rows, tmp_path):
    path = tmp_path / "in.parquet"
    pq.write_table(pa.Table.from_pylist(GOOD), path, row_group_size=groups)
    place = open_place(str(path))
    source, counts = read_source(place, place.files(), "fill-mask", columns={}, carry=["id"])
    parts = cut(place, place.files(), source, rows, counts)
    read = [chunk for part in parts for chunk in chunks(part, source)]
    assert [number for chunk in read for number in chunk.carried.column("id").to_pylist()] == list(range(len(GOOD)))
    assert [number for chunk in read for _, number in chunk.places] == list(range(1, len(GOOD) + 1))
    assert len(parts) == -(-len(GOOD) // rows)


def test_errors_are_kept_dropped_or_end_the_run(tiny_bundle, expected, tmp_path):
    data = lines(tmp_path / "in.jsonl", [*BAD, "{broken", {"id": 11, "text": None}])
    summary = ask(tiny_bundle, data, tmp_path / "keep")
    table = pq.read_table(tmp_path / "keep").to_pylist()
    assert [row["id"] for row in table] == [*range(10), None, 11]
    assert "No mask_token" in table[3]["error"]
    assert "not a line of JSON" in table[10]["error"]
    assert "text is null" in table[11]["error"]
    assert [row["error"] for row in table[:3]] == [None] * 3
    assert summary["errors"] == sum(summary["errors_by_reason"].values()) == 3
    dropped = ask(tiny_bundle, data, tmp_path / "drop", on_error="drop")
    assert words(tmp_path / "drop") == [*expected[:3], *expected[4:]]
    assert (dropped["rows"], dropped["rows_written"], dropped["errors"]) == (12, 9, 3)
    with pytest.raises(UsageError, match=r"the line at byte \d+ of .*in.jsonl has no answer \(.*No mask_token"):
        ask(tiny_bundle, data, tmp_path / "fail", on_error="fail")


def test_what_fits_no_column_is_kept_as_json(tiny_bundle, tmp_path):
    rows = [*GOOD, {"id": "ten", "text": "a [MASK]", "list": [1, {"a": None}]}, {"id": 2.5, "text": "a [MASK]", "é": 1}]
    sampled = [{**row, "list": [row["id"]]} for row in GOOD] * 101
    ask(tiny_bundle, lines(tmp_path / "in.jsonl", [*sampled, *rows]), tmp_path / "out", carry=None, part_rows=2000)
    table = pq.read_table(tmp_path / "out").to_pylist()
    assert [row["id"] for row in table[-2:]] == [None, None]
    assert [json.loads(row["other_fields"]) for row in table[-2:]] == [{"id": "ten"}, {"id": 2.5, "é": 1}]
    assert table[-2]["list"] == '[1, {"a": null}]'
    assert {row["other_fields"] for row in table[:-2]} == {None}


def test_a_number_that_is_not_a_double_keeps_its_digits(tiny_bundle, tmp_path):
    numbers = [1.5, 7, 2**53 + 1, 10**30 + 1, 10**400]
    data = lines(tmp_path / "in.jsonl", [{"text": "a [MASK]", "x": number} for number in numbers])
    ask(tiny_bundle, data, tmp_path / "out", carry=None)
    table = pq.read_table(tmp_path / "out").to_pylist()
    assert [row["x"] for row in table] == [1.5, 7.0, None, None, None]
    assert [json.loads(row["other_fields"])["x"] for row in table[2:]] == numbers[2:]


def test_an_output_may_have_the_signs_of_a_glob_in_its_name(tiny_bundle, tmp_path):
    data, out = lines(tmp_path / "in.jsonl", GOOD[:2]), tmp_path / "out[1]?"
    ask(tiny_bundle, data, out)
    assert ask(tiny_bundle, data, out)["parts_done_before"] == 1
    assert not (out / "_bertport" / "tmp").exists()
    with pytest.raises(UsageError, match=r"the output memory://out\[1\] has a glob character"):
        ask(tiny_bundle, data, "memory://out[1]")


def test_an_output_may_be_beside_the_files_of_a_glob(tiny_bundle, tmp_path):
    lines(tmp_path / "in.jsonl", GOOD[:2])
    for number in range(2):
        assert ask(tiny_bundle, f"{tmp_path}/*", tmp_path / "out")["parts_done_before"] == number


class Killed(Exception):  # noqa: N818 — stands for a death, not an error
    pass


def test_a_run_goes_on_where_it_was_interrupted(tiny_bundle, expected, tmp_path, monkeypatch):
    data, out = lines(tmp_path / "in.jsonl", GOOD), tmp_path / "out"
    made = []

    def interrupted(job, parts, carriers, model):
        for number, stats in enumerate(ENGINES["local"].make(job, parts, carriers, model)):
            made.append(stats["part"])
            if number == 1 and len(made) == 2:  # this part is there, and nothing says so
                raise Killed
            yield stats

    monkeypatch.setitem(ENGINES, "dying", Engine(name="dying", make=interrupted))
    with pytest.raises(Killed):
        ask(tiny_bundle, data, out, engine="dying", part_rows=2)
    (out / "_bertport" / "tmp").mkdir(exist_ok=True)
    (out / "_bertport" / "tmp" / "part-0000002.parquet.half").write_bytes(b"PAR1")
    done = contents(out)
    assert sum(name.startswith("part") for name in done) == 2
    summary = ask(tiny_bundle, data, out, engine="dying", part_rows=2)
    assert sorted(made) == list(range(summary["parts"]))  # none twice
    assert summary["parts_done_before"] == 2
    assert words(out) == expected
    assert summary["rows"] == len(GOOD)
    after = contents(out)
    assert all(after[name] == content for name, content in done.items() if name.startswith("part"))
    assert not [name for name in after if "tmp" in name]
    again = ask(tiny_bundle, data, out, part_rows=2)  # all of it is done: nothing is loaded
    assert (again["parts_done_before"], again["rows"]) == (again["parts"], len(GOOD))


def test_all_parts_are_of_the_variant_that_the_first_worker_chose(bundle, tmp_path, monkeypatch):
    """Machines of several kinds would choose several: also where a run goes on."""
    data, out = lines(tmp_path / "in.jsonl", GOOD), tmp_path / "out"
    here = load(bundle).variant
    there = next(name for name in ("fp32", "int8-dynamic") if name != here)

    def interrupted(job, parts, carriers, model):
        yield next(iter(ENGINES["local"].make(job, parts, carriers, model)))
        raise Killed

    def elsewhere(runs, *bundles):
        return open_model(replace(runs, variant=runs.variant or there), *bundles)

    monkeypatch.setitem(ENGINES, "dying", Engine(name="dying", make=interrupted))
    monkeypatch.setattr(worker, "open_model", elsewhere)
    with pytest.raises(Killed):
        ask(bundle, data, out, engine="dying", part_rows=4)
    monkeypatch.setattr(worker, "open_model", open_model)
    summary = ask(bundle, data, out, part_rows=4)
    assert summary["variants"] == {there: len(GOOD)}
    made = [json.loads(pq.read_metadata(path).metadata[b"bertport"]) for path in out.glob("part-*")]
    assert {stats["variant"] for stats in made} == {there}
    # On a machine that has no such variant:
    (out / "part-0000001.parquet").unlink()
    (out / "_bertport" / "done.json").unlink()
    (out / "_bertport" / "variant.json").write_text('{"variant": "fp17"}')
    with pytest.raises(UsageError, match=r"answered by the variant .fp17., which another worker chose.*--variant that"):
        ask(bundle, data, out, part_rows=4)
    for broken in ('{"variant": []}', "{}", "[]", ""):
        (out / "_bertport" / "variant.json").write_text(broken)
        with pytest.raises(UsageError, match=r"variant\.json does not hold the variant that the first worker chose"):
            ask(bundle, data, out, part_rows=4)
    # One that was asked for needs no choice.
    assert ask(bundle, data, tmp_path / "named", variant=here)["variants"] == {here: len(GOOD)}
    assert not (tmp_path / "named" / "_bertport" / "variant.json").exists()


def test_a_worker_finds_a_library_wherever_it_was_started(tiny_bundle, tmp_path, monkeypatch):
    """Ray's are where it was, and a path from the command's own folder leads nowhere there."""
    given = []

    def kept(job, *_):
        given.append(job.runs)
        raise Killed

    monkeypatch.setitem(ENGINES, "kept", Engine(name="kept", make=kept))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Killed):
        ask(tiny_bundle, lines(tmp_path / "in.jsonl", GOOD), "out", engine="kept", provider_library="ep.so")
    assert given[0].provider_library == str(tmp_path / "ep.so")


def test_a_run_keeps_to_the_commit_that_its_branch_had(tiny_bundle, tmp_path, monkeypatch):
    """A worker that begins later, when the branch has gone on, would find another bundle."""
    from huggingface_hub import constants

    given = []

    def kept(job, *_):
        given.append(job.runs)
        raise Killed

    in_hub_cache(tiny_bundle, tmp_path / "hub")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setitem(ENGINES, "kept", Engine(name="kept", make=kept))
    data = lines(tmp_path / "in.jsonl", GOOD)
    for number, asked in enumerate(("hf://acme/tiny", "hf://acme/tiny@main", f"hf://acme/tiny@{COMMIT}")):
        with pytest.raises(Killed):
            ask(asked, data, tmp_path / f"out{number}", engine="kept")
        assert given.pop().bundle == f"hf://acme/tiny@{COMMIT}"


def test_an_empty_revision_is_not_the_main_branch(tmp_path):
    """As a variable of a shell gives it that is not set."""
    data = lines(tmp_path / "in.jsonl", GOOD)
    with pytest.raises(UsageError, match="the revision is empty: name a branch, tag or commit"):
        ask("hf://acme/tiny@", data, tmp_path / "out")


def test_runs_that_begin_in_one_folder_at_one_moment_go_on_together(tiny_bundle, expected, tmp_path, monkeypatch):
    """Each finds an empty folder and makes parts for it before the other's record is there."""
    data, out = lines(tmp_path / "in.jsonl", GOOD), tmp_path / "out"
    both = Barrier(2, timeout=60)
    # Between the look into the folder and the record.
    monkeypatch.setattr(reading, "cut", lambda *asked: (both.wait(), cut(*asked))[1])
    with ThreadPoolExecutor(2) as pool:
        begun = [pool.submit(ask, tiny_bundle, data, out, part_rows=5, threads=1, streams=1) for _ in range(2)]
        summaries = [each.result() for each in begun]
    assert both.n_waiting == 0
    assert len({summary["run"] for summary in summaries}) == 1
    assert [summary["rows"] for summary in summaries] == [len(GOOD)] * 2
    assert words(out) == expected
    assert not (out / "_bertport" / "tmp").exists()
    again = ask(tiny_bundle, data, out, part_rows=5)
    assert (again["parts_done_before"], again["rows"]) == (again["parts"], len(GOOD))


def test_requests_that_begin_in_one_folder_at_one_moment_are_told_apart(tiny_bundle, expected, tmp_path, monkeypatch):
    data, out = lines(tmp_path / "in.jsonl", GOOD), tmp_path / "out"

    def overtaken(*asked):
        monkeypatch.setattr(reading, "cut", cut)
        ask(tiny_bundle, data, out)
        return cut(*asked)

    monkeypatch.setattr(reading, "cut", overtaken)
    with pytest.raises(UsageError, match=r'another run: `parameters` was {"top_k": 1} there, and is {"top_k": 2} now'):
        ask(tiny_bundle, data, out, parameters={"top_k": 2})
    assert words(out) == expected


def no_link(source, target):
    raise OSError(errno.EPERM, "Operation not permitted", source, None, target)


@pytest.mark.parametrize("kind", ["links", "no links", "memory"])
def test_a_record_that_is_there_is_not_replaced(kind, tmp_path, monkeypatch):
    """On disks with hard links and without, and behind a URL of a kind that knows no condition."""
    if kind == "no links":
        monkeypatch.setattr("os.link", no_link)
    place = open_place(f"memory://{tmp_path.name}" if kind == "memory" else str(tmp_path))
    for content in (b"first", b"second"):
        place.child("run.json").create(content, place.child("tmp"))
        assert place.child("run.json").read() == b"first"
    assert [path.rpartition("/")[2] for path in place.fs.find(place.path)] == ["run.json"]


def test_a_part_of_another_run_is_not_taken_for_one_s_own(tiny_bundle, tmp_path, monkeypatch):
    data, out, other = lines(tmp_path / "in.jsonl", GOOD[:2]), tmp_path / "out", tmp_path / "other"
    ask(tiny_bundle, data, other)

    def late(job, parts, carriers, model):
        shutil.copy(other / "part-0000000.parquet", out)
        return ENGINES["local"].make(job, parts, carriers, model)

    monkeypatch.setitem(ENGINES, "late", Engine(name="late", make=late))
    with pytest.raises(PathError, match=r"out/part-0000000.parquet is a part of another run"):
        ask(tiny_bundle, data, out, engine="late")


def test_another_request_or_input_is_refused(tiny_bundle, bundle, tmp_path):
    data, out = lines(tmp_path / "in.jsonl", GOOD), tmp_path / "out"
    ask(tiny_bundle, data, out)
    before = contents(out)
    for asked, name in (
        ({"bundle": bundle}, "bundle"),
        ({"parameters": {"top_k": 2}}, "parameters"),
        ({"task": "features", "parameters": {}}, "task"),
        ({"variant": "fp32"}, "variant"),
        ({"on_error": "drop"}, "on_error"),
        ({"carry": ["text"]}, "schema"),
        ({"carry": ["id", "text"]}, "carry"),
        ({"part_rows": 3}, "part_rows"),
    ):
        wanted = {"bundle": tiny_bundle, "task": "fill-mask", "parameters": {"top_k": 1}, **asked}
        with pytest.raises(
            UsageError, match=f"holds another run: `{name}` was .* there, and is .* now: give another folder"
        ):
            run(wanted.pop("bundle"), wanted.pop("task"), data, out, **wanted)
    lines(data, [*GOOD, GOOD[0]])
    with pytest.raises(UsageError, match="holds a run over other files: those of the input have changed since"):
        ask(tiny_bundle, data, out)
    assert contents(out) == before


def other_column(row):
    return {"body": row["text"]}


def test_what_cannot_be_is_one_sentence(tiny_bundle, tmp_path):
    data, out = lines(tmp_path / "in.jsonl", GOOD), tmp_path / "out"
    bodies = lines(tmp_path / "body.jsonl", map(other_column, GOOD))
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "numbers.parquet")
    (tmp_path / "two").mkdir()
    pq.write_table(pa.table({"text": ["a"], "x": [1]}), tmp_path / "two" / "a.parquet")
    pq.write_table(pa.table({"text": ["a"], "x": ["b"]}), tmp_path / "two" / "b.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("mine")
    scored = lines(tmp_path / "scored.jsonl", [{**row, "score": 1} for row in GOOD])
    for error, sentence, asked, chosen in (
        (InputTextError, "has no column text .fill-mask reads text; columns: body.*--column text=NAME", bodies, {}),
        (InputTextError, "has no column 'gone' .named for text", data, {"columns": {"text": "gone"}}),
        (InputTextError, "column id of .* is int64, and fill-mask reads a text", data, {"columns": {"text": "id"}}),
        (InputTextError, "column text of .* is int64", tmp_path / "numbers.parquet", {}),
        (InputTextError, "column x of .*b.parquet is string, and of .*a.parquet int64", tmp_path / "two", {}),
        (
            PathError,
            "broken.parquet .*: the file is damaged, or no such file as its name says",
            tmp_path / "broken.parquet",
            {},
        ),
        (PathError, "none is not there, or is in .*: give a file", tmp_path / "none", {}),
        (UsageError, "has a column score, and the answer of fill-mask too.*--prefix", scored, {}),
        (UsageError, "unknown engine 'spark' .available: local, ray", data, {"engine": "spark"}),
        (UsageError, "unknown choice for errors", data, {"on_error": "ignore"}),
        (UsageError, "local is one process", data, {"workers": 2}),
        (UsageError, "unknown variant 'int4'", data, {"variant": "int4"}),
        (UsageError, "cannot open nowhere://x", "nowhere://x", {}),
        (MissingDependencyError, "opening s3://b/x needs the package s3", "s3://b/x", {}),
        (BundleError, "digest", data, {"digest": "0" * 64}),
        (UsageError, "the digest .. is not a SHA-256", data, {"digest": ""}),
    ):
        if error is MissingDependencyError and shutil.which("moto_server"):
            continue
        with pytest.raises(error, match=sentence):
            ask(tiny_bundle, asked, out, **chosen)
        assert not out.exists()
    for where in (tmp_path / "two" / "out", tmp_path / "two" / "." / "out", tmp_path / "two"):
        for place in (tmp_path / "two", f"{tmp_path}/two/**", f"{tmp_path}/two/**/*.parquet"):
            with pytest.raises(UsageError, match=r"is inside the input .*two.*give a folder beside it"):
                ask(tiny_bundle, place, where)
    with pytest.raises(UsageError, match="is an empty path"):
        ask(tiny_bundle, data, "")
    with pytest.raises(UsageError, match="'id' is to be carried 2 times"):
        ask(tiny_bundle, data, out, carry=["id", "id"])
    with pytest.raises(PathError, match=r"cannot use zip://a.jsonl::.*none.zip \(No such file"):
        ask(tiny_bundle, f"zip://a.jsonl::{tmp_path}/none.zip", out)
    with pytest.raises(PathError, match=r"is not empty \('notes.txt'\), and holds no run"):
        ask(tiny_bundle, data, tmp_path / "foreign")
    with pytest.raises(UsageError, match="unknown parameter of fill-mask 'pooling'"):
        run(tiny_bundle, "fill-mask", data, out, parameters={"pooling": "mean"})
    with pytest.raises(UsageError, match="needs the head"):
        run(tiny_bundle, "embeddings", data, out)


def test_columns_that_only_folders_name_are_told(tiny_bundle, tmp_path):
    (tmp_path / "in" / "lang=en").mkdir(parents=True)
    data = lines(tmp_path / "in" / "lang=en" / "rows.jsonl", GOOD[:1])

    def said(number, **chosen):
        stream = io.StringIO()
        with Progress(stream) as progress:
            ask(tiny_bundle, tmp_path / "in", tmp_path / f"out{number}", progress=progress, **chosen)
        return stream.getvalue()

    assert "note: lang: columns that only folders name are not read; write them into the files\n" in said(0)
    assert "note" not in said(1, carry=["id"])
    lines(data, [{**GOOD[0], "lang": "en"}])
    assert "note" not in said(2)


def test_names_and_prefixes(tiny_bundle, expected, tmp_path):
    bodies = lines(tmp_path / "body.jsonl", [{**other_column(row), "score": 1, "error": "x"} for row in GOOD])
    ask(tiny_bundle, bodies, tmp_path / "out", columns={"text": "body"}, prefix="bert_", carry=["score", "error"])
    table = pq.read_table(tmp_path / "out")
    assert table.column_names[:4] == ["score", "error", "other_fields", "bert_mask"]
    assert [word for [word] in table.column("bert_token_str").to_pylist()] == expected


def test_the_command(tiny_bundle, expected, tmp_path):
    data, out = lines(tmp_path / "in.jsonl", BAD), tmp_path / "out"
    arguments = [str(tiny_bundle), "fill-mask", str(data), "--output", str(out), "-p", "top_k=1", "--carry-none"]
    refused = CliRunner().invoke(batch, [*arguments, "--provider", "cpu", "--provider", "openvino"])
    assert "--provider is given 2 times" in str(refused.exception)
    done = CliRunner().invoke(batch, arguments)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"10 rows in 1 part in {out} (10 written, 1 without an answer)\n"
    assert "bertport: 1 row: No mask_token" in done.stderr
    assert words(out) == [*expected[:3], None, *expected[4:]]
    assert json.loads(CliRunner().invoke(batch, [*arguments, "--json"]).stdout)["parts_done_before"] == 1


def test_of_what_ray_prints_the_first_line_of_each_message_is_shown():
    shown = io.StringIO()
    for text in ("(raylet) It failed. Error: Traceback (most recent call last):\n  File", "one\ntwo\n", "three"):
        print(text, file=FirstLines(shown))
    assert shown.getvalue() == "(raylet) It failed.\none\n\nthree\n"


def test_without_ray_the_engine_says_what_installs_it(tiny_bundle, tmp_path):
    program = (
        "import sys; sys.modules['ray'] = None\n"
        "from bertport.batch import run\n"
        f"run({str(tiny_bundle)!r}, 'fill-mask', {str(tmp_path)!r}, {str(tmp_path / 'out')!r}, engine='ray')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert "batch --engine ray needs the package ray, which is not installed: " in last
    assert "[ray]" in last
