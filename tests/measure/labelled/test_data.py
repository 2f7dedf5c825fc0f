"""Reading labelled data: formats, labels, and what is refused in one sentence before anything long runs."""

import bz2
import csv
import dataclasses
import gzip
import io
import json
import lzma
import os
import sys
import tracemalloc

import pytest

from bertport.measure.labelled import data as labelled_data
from bertport.measure.labelled import records
from bertport.measure.labelled.data import ChangedDataError, Columns, read_labelled
from bertport.measure.quality.entities import entities
from bertport.runtime.bundle.manifest import Embedding
from bertport.runtime.errors import BertportError

TASK = "text-classification"
LABELS = ("negative", "neutral", "positive")
RECORDS = [{"text": f"text {number}, “é”\n and more", "label": LABELS[number % 3]} for number in range(9)]
EXAMPLES = [(record["text"], number % 3) for number, record in enumerate(RECORDS)]


def examples(data):
    return [(example.inputs, example.truth) for example in data.examples()]


def json_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table(rows, **options):
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]), **options)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


FLAT = [row | {"text": row["text"].replace("\n", " ")} for row in RECORDS]
WRITTEN = {
    "data.jsonl": json_lines(RECORDS),
    "data.ndjson": b"\xef\xbb\xbf\n" + json_lines(RECORDS),
    "data.csv": table(RECORDS),
    "bom.CSV": b"\xef\xbb\xbf" + table(RECORDS, lineterminator="\n", quoting=csv.QUOTE_ALL),
    "data.jsonl.gz": gzip.compress(json_lines(RECORDS)),
    "data.jsonl.xz": lzma.compress(json_lines(RECORDS)),
    "data.csv.bz2": bz2.compress(table(RECORDS)),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_file_is_read_whatever_its_format(name, manifest, tmp_path):
    (tmp_path / name).write_bytes(WRITTEN[name])
    data = read_labelled(tmp_path / name, TASK, manifest)
    assert examples(data) == EXAMPLES
    assert list(data.truths) == [truth for _, truth in EXAMPLES]
    assert (len(data), data.kind, data.labels, data.label_form) == (9, "classification", LABELS, "names")
    assert examples(data) == EXAMPLES  # as often as one likes
    assert not data.notes
    assert data.columns == {"text": "text", "label": "label"}


def test_a_row_of_several_lines_is_named_by_its_first(manifest, tmp_path):
    (tmp_path / "data.csv").write_bytes(table(RECORDS))
    assert list(read_labelled(tmp_path / "data.csv", TASK, manifest).numbers) == list(range(2, 20, 2))
    (tmp_path / "data.csv").write_text('text,label\n"a\nb",neutral\n\n"c\nd",neutral,more\n')
    with pytest.raises(BertportError, match="line 5: 3 fields under 2 columns"):
        read_labelled(tmp_path / "data.csv", TASK, manifest)


def test_a_quotation_mark_is_a_character_of_tsv(manifest, tmp_path):
    (tmp_path / "data.tsv").write_text("label\ttext\r\n" + 'neutral\t"so" he said, "\r\n' * 8, newline="")
    data = read_labelled(tmp_path / "data.tsv", TASK, manifest)
    assert examples(data) == [('"so" he said, "', 1)] * 8
    assert data.notes == ("2 of the bundle's 3 labels never occur in data.tsv: negative, positive",)


def test_parquet_is_read_by_row_groups(manifest, tmp_path):
    pa = pytest.importorskip("pyarrow", exc_type=ImportError)
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(RECORDS), tmp_path / "data.parquet", row_group_size=2)
    data = read_labelled(tmp_path / "data.parquet", TASK, manifest)
    assert examples(data) == EXAMPLES
    assert data.where(4) == f"{tmp_path / 'data.parquet'}, row 5"


def write_parquet(path, columns, **options):
    pa = pytest.importorskip("pyarrow", exc_type=ImportError)
    from pyarrow import parquet

    parquet.write_table(pa.table(columns), path, **options)
    return path


def test_a_column_of_parquet_that_no_task_reads_is_not_read(manifest, tmp_path):
    import pyarrow as pa

    columns = {
        "text": ["a"] * 9,
        "label": list(LABELS) * 3,
        "late": pa.array([400_000_000_000] * 9, pa.timestamp("s")),  # in the year 14645
        "large": ["x" * (records.LONGEST_LINE + 1)] * 9,
    }
    path = write_parquet(tmp_path / "data.parquet", columns)
    assert examples(read_labelled(path, TASK, manifest)) == [("a", number % 3) for number in range(9)]
    with pytest.raises(BertportError, match=r"row 1: a value that cannot be read .*: write it as text"):
        read_labelled(path, TASK, manifest, Columns(text="late"))
    with pytest.raises(BertportError, match="row 1: longer than 4,194,304 bytes: shorten its texts"):
        read_labelled(path, TASK, manifest, Columns(text="large"))


def test_a_row_of_parquet_that_cannot_be_read_is_named(manifest, tmp_path):
    import pyarrow as pa

    late = pa.array([0, 0, 400_000_000_000, *[0] * 6], pa.timestamp("s"))
    path = write_parquet(tmp_path / "data.parquet", {"text": ["a"] * 9, "label": late})
    with pytest.raises(BertportError, match="row 1: label must be the name"):
        read_labelled(path, TASK, manifest)
    path = write_parquet(tmp_path / "data.parquet", {"text": ["a"] * 9, "label": list(LABELS) * 3, "text_pair": late})
    with pytest.raises(BertportError, match="row 1: text_pair must be a text"):
        read_labelled(path, TASK, manifest)
    mixed = [*["a"] * 6, "x" * (records.LONGEST_LINE + 1), "a", "a"]
    path = write_parquet(tmp_path / "data.parquet", {"text": mixed, "label": list(LABELS) * 3})
    with pytest.raises(BertportError, match="row 7: longer than"):
        read_labelled(path, TASK, manifest)


def test_large_rows_of_parquet_are_not_held_together(manifest, tmp_path):
    texts = [f"{number} " + "x" * 200_000 for number in range(300)]
    path = write_parquet(tmp_path / "data.parquet", {"text": texts, "label": list(LABELS) * 100}, row_group_size=300)
    del texts
    tracemalloc.start()
    data = read_labelled(path, TASK, manifest)
    assert sum(1 for _ in data.examples()) == 300
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


def test_a_column_of_categories_is_counted_by_what_a_row_has_of_it(manifest, tmp_path):
    import pyarrow as pa

    texts = pa.array([f"{number}" + "x" * 600_000 for number in range(9)]).dictionary_encode()
    path = write_parquet(tmp_path / "data.parquet", {"text": texts, "label": list(LABELS) * 3})
    assert len(read_labelled(path, TASK, manifest)) == 9


@pytest.mark.parametrize(
    ("pyarrow", "sentence"),
    [(None, "needs the package pyarrow, which is not installed: .*pip install pyarrow"), ("wants", "wants NumPy 9")],
)
def test_parquet_without_a_pyarrow_that_works(pyarrow, sentence, manifest, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    if pyarrow is None:
        monkeypatch.setattr(sys, "path", [place for place in sys.path if "site-packages" not in place])
    else:
        (tmp_path / "pyarrow.py").write_text("raise ImportError('pyarrow wants NumPy 9')")
        monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "data.parquet").write_bytes(b"PAR1")
    with pytest.raises(BertportError, match=sentence):
        read_labelled(tmp_path / "data.parquet", TASK, manifest)


def test_the_fingerprint_is_that_of_the_bytes(manifest, write):
    import hashlib

    path = write(RECORDS)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_labelled(path, TASK, manifest).fingerprint == f"sha256:{digest}"


def test_a_name_that_is_no_unicode_is_kept_with_escapes(manifest, tmp_path):
    path = tmp_path / os.fsdecode(b"no\xff.jsonl")
    path.write_bytes(json_lines(RECORDS))
    data = read_labelled(path, TASK, manifest)
    assert data.name == "no\\udcff.jsonl"
    assert examples(data) == EXAMPLES
    path.write_bytes(json_lines([row | {"label": 1} for row in RECORDS]))
    form, absent = read_labelled(path, TASK, manifest).notes
    assert form.startswith(f"{data.name} writes labels as ids, ")
    assert absent.endswith(f" never occur in {data.name}: negative, positive")


def test_a_second_text_may_come_later(manifest, write):
    rows = [*RECORDS, {"text": "a", "text_pair": "b", "label": "neutral"}]
    rows.append({"text": "a", "text_pair": None, "label": "neutral"})
    data = read_labelled(write(rows), TASK, manifest)
    assert examples(data)[-2:] == [({"text": "a", "text_pair": "b"}, 1), ("a", 1)]
    assert data.columns["text_pair"] == "text_pair"
    with pytest.raises(BertportError, match="line 1: there is no column text_pair"):
        read_labelled(write(rows), TASK, manifest, Columns(text_pair="text_pair"))


def test_columns_are_named(manifest, write):
    rows = [{"a": "one", "b": "two", "c": "neutral", "text": 5} for _ in range(8)]
    data = read_labelled(write(rows), TASK, manifest, Columns(text="a", text_pair="b", label="c"))
    assert examples(data) == [({"text": "one", "text_pair": "two"}, 1)] * 8


FORMS = {
    "names": (["positive", "negative"], [2, 0]),
    "ids": ([2, 0], [2, 0]),
    "names of the form LABEL_0": (["LABEL_2", "LABEL_0"], [2, 0]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["data.jsonl", "data.csv"])
def test_how_labels_are_written_is_decided_once(form, name, manifest, tmp_path):
    written, truths = FORMS[form]
    rows = [{"text": "a", "label": label} for label in written * 4]
    (tmp_path / name).write_bytes(json_lines(rows) if name.endswith("jsonl") else table(rows))
    data = read_labelled(tmp_path / name, TASK, manifest)
    assert (list(data.truths), data.label_form) == (truths * 4, form)
    assert any(form in note for note in data.notes) == (form != "names")


def two_labels(manifest, labels=("no", "yes")):
    entry = dataclasses.replace(manifest.heads["sequence-classification"], labels=labels)
    return dataclasses.replace(manifest, heads=manifest.heads | {"sequence-classification": entry})


@pytest.mark.parametrize(("rows", "form"), [([True, False], "truth values"), ([1, 0], "ids"), (["yes", "no"], "names")])
def test_truth_values_are_the_second_label_and_the_first(rows, form, manifest, write):
    data = read_labelled(write([{"text": "a", "label": label} for label in rows * 4]), TASK, two_labels(manifest))
    assert (list(data.truths), data.label_form) == ([1, 0] * 4, form)


def test_truth_values_beside_numbers_are_not_taken_for_them(manifest, write):
    path = write([{"text": "a", "label": label} for label in [1, True] * 4])
    with pytest.raises(BertportError, match=r"line 1: the label '1' is not one of the bundle's labels \(no, yes\)"):
        read_labelled(path, TASK, two_labels(manifest))


STARS = ("1", "2", "3", "4", "5")
NAMED = {
    "numbers that are names": (STARS, [1, 5, 3], [0, 4, 2]),
    "numbers beside a name": (("1", "2", "n/a"), [1, "n/a"], [0, 2]),
    "numbers that are names and ids of the same": (("0", "1"), [1, 0], [1, 0]),
    "truth values that are names": (("True", "False"), [True, False], [0, 1]),
    "truth values beside a name": (("True", "False", "Unknown"), [False, "Unknown"], [1, 2]),
    "truth values as text, in another case": (("TRUE", "FALSE"), ["true", "False"], [0, 1]),
    "truth values, one of which is the second label": (("other", "true"), [True, False], [1, 0]),
    "text that is a name and an id": (STARS, ["1", "2"], [0, 1]),
    "ids of which one is no name": (STARS, [0, 1], [0, 1]),
}
"""Labels of the bundle, values in the file, and the columns that they are."""


@pytest.mark.parametrize("case", NAMED)
def test_a_value_that_is_the_name_of_a_label_is_that_label(case, manifest, write):
    labels, values, truths = NAMED[case]
    path = write([{"text": "a", "label": value} for value in values * 8])
    assert list(read_labelled(path, TASK, two_labels(manifest, labels)).truths) == truths * 8


def test_numbers_that_are_names_and_the_numbers_of_others_are_refused(manifest, write):
    path, stars = write([{"text": "a", "label": value} for value in [1, 2] * 4]), two_labels(manifest, STARS)
    with pytest.raises(BertportError, match="line 1: the label 1 is the name of a label of the bundle and the number"):
        read_labelled(path, TASK, stars)
    assert list(read_labelled(path, TASK, stars, label_map={"1": "1", "2": "2"}).truths) == [0, 1] * 4


def test_truth_values_are_no_order_of_labels_of_which_one_is_named_so(manifest, write):
    path = write([{"text": "a", "label": value} for value in [True, False] * 4])
    with pytest.raises(BertportError, match=r"line 2: the label 'false' is not one of .*\(true, other\)"):
        read_labelled(path, TASK, two_labels(manifest, ("true", "other")))


@pytest.mark.parametrize("spelling", [str.lower, str])
def test_a_label_map_names_truth_values_as_json_or_python_writes_them(spelling, manifest, write):
    path = write([{"text": "a", "label": label} for label in [True, False] * 4])
    label_map = {spelling("True"): "positive", spelling("False"): "negative"}
    assert list(read_labelled(path, TASK, manifest, label_map=label_map).truths) == [2, 0] * 4
    with pytest.raises(BertportError, match=r"names 'yes', which the data does not have .true, false.: map labels"):
        read_labelled(path, TASK, manifest, label_map={"yes": "positive"})


def test_a_label_map_leads_to_the_bundles_names(manifest, write):
    path = write([{"text": "a", "label": label} for label in ["Good", "bad", "neutral", "fair"] * 2])
    data = read_labelled(path, TASK, manifest, label_map={"Good": "positive", "bad": "negative", "fair": "neutral"})
    assert list(data.truths) == [2, 0, 1, 1] * 2


def rows(**changes):
    return [row | changes for row in RECORDS]


def after(row):
    return [*RECORDS[:2], row, *RECORDS[2:]]


REFUSED = {
    "unknown label": (
        json_lines(after({"text": "a", "label": "Positive"})),
        {},
        r"line 3: the label 'Positive' is not one of the bundle's labels \(negative, neutral, positive\), and .*Pos",
    ),
    "label out of range": (
        json_lines([{"text": "a", "label": number} for number in range(9)]),
        {},
        r"line 4: there is no label 3: the bundle's are 0 \(negative\), 1 \(neutral\), 2 \(positive\)",
    ),
    "float": (
        json_lines(after({"text": "a", "label": 1.5})),
        {},
        "line 3: label must be the name or the number of a label",
    ),
    "a list of labels": (
        json_lines(rows(label=["neutral"])),
        {},
        "line 1: label must be the name or the number of a label",
    ),
    "null": (json_lines(after({"text": "a", "label": None})), {}, "line 3: label is null"),
    "missing": (json_lines(after({"text": "a"})), {}, "line 3: label is missing"),
    "no such column": (json_lines([{"sentence": "a", "label": 1}] * 9), {}, r"no column text \(columns: sentence, lab"),
    "named column": (
        json_lines(RECORDS),
        {"columns": Columns(text="sentence")},
        r"no column sentence \(named for text\) \(columns: text, label\)",
    ),
    "unused column": (json_lines(rows(tags=[])), {"columns": Columns(tags="tags")}, "named for tags, which text-class"),
    "text": (
        json_lines(after({"text": 5, "label": 1})),
        {},
        "line 3: text must be a text, and is 5: correct the line, or name another column$",
    ),
    "surrogate": (
        json_lines(after({"text": "\ud800", "label": 1})),
        {},
        r"line 3: text has an invalid character \(\\ud800\): correct the line$",
    ),
    "empty": (b"", {}, "holds no examples"),
    "blank": (b"\n \n", {}, "holds no examples"),
    "few": (json_lines(RECORDS[:7]), {}, "is too short: 7 examples, at least 8 are needed"),
    "one": (json_lines(RECORDS[:1]), {}, "is too short: 1 example, at least 8"),
    "no JSON": (json_lines(RECORDS) + b"{]\n", {}, "line 10: not JSON"),
    "a key twice": (
        json_lines(RECORDS) + b'{"text": "a", "label": 0, "text": "b"}',
        {},
        "line 10: not JSON .*the key .*text.* is there twice",
    ),
    "deep": (b"[" * 100_000 + b"\n", {}, "line 1: not JSON"),
    "huge number": (b'{"text": "a", "label": ' + b"9" * 5000 + b"}\n", {}, "line 1: not JSON"),
    "list": (b"[1]\n", {}, r"line 1: \[1\] is not an object"),
    "encoding": ("{}\n".encode("utf-16"), {}, r"line 1: not UTF-8 \(byte 0xff\)"),
    "encoding behind a mark": (b'\xef\xbb\xbf{"a": "\xe9"}\n', {}, r"line 1: not UTF-8 \(byte 0xe9\)"),
    "nul": (b'{"text": "a\0"}\n', {}, "line 1: a NUL character"),
    "long line": (b" " * (records.LONGEST_LINE + 1), {}, "line 1: longer than"),
    "map from nothing": (json_lines(RECORDS), {"label_map": {"Good": "neutral"}}, "the label map names 'Good', which"),
    "map to nothing": (json_lines(RECORDS), {"label_map": {"neutral": "fair"}}, "the label map leads to 'fair', which"),
    "limit": (json_lines(RECORDS), {"limit": 3}, "a limit of 3 examples is too small"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_data_is_refused_in_a_sentence(name, manifest, tmp_path):
    content, options, sentence = REFUSED[name]
    (tmp_path / "data.jsonl").write_bytes(content)
    with pytest.raises(BertportError, match=sentence) as caught:
        read_labelled(tmp_path / "data.jsonl", TASK, manifest, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


TABLES = {
    "header alone": (b"text,label\r\n", "holds no examples"),
    "fields": (b"text,label\na,1\nb,c,1\n", "line 3: 3 fields under 2 columns"),
    "twins": (b"text,label,text\na,1,b\n", "2 columns named 'text'"),
    "columns": (b"a," * 20_000 + b"\n", "20,001 columns"),
    "open quotation": (b'text,label\n"a' + b" \n" * 100_000, "not CSV"),
    "open for long": (
        b'text,label\n"a' + (b" " * 999 + b"\n") * 5000,
        "the row is longer than 4,194,304 .*close each quotation",
    ),
    "semicolons": (b"text;label\nWell, no;1\n", "the one column 'text;label': separate the fields of CSV by commas"),
    "tabs": (b"text\tlabel\na\t1\n", r"the one column 'text\\tlabel': separate the fields of CSV by commas"),
    "stray quotation": (b'text,label\n"a"b,1\n', "line 2: not CSV"),
    "a float": (b"text,label\n" + b"a,1.0\n" * 9, r"line 2: the label '1.0' is not one of the bundle's"),
}


@pytest.mark.parametrize("name", TABLES)
def test_bad_tables_are_refused_in_a_sentence(name, manifest, tmp_path):
    content, sentence = TABLES[name]
    (tmp_path / "data.csv").write_bytes(content)
    with pytest.raises(BertportError, match=sentence):
        read_labelled(tmp_path / "data.csv", TASK, manifest)


def test_a_text_may_fill_a_row(manifest, tmp_path):
    rows = [row | {"text": "a, " * 1_000_000} for row in RECORDS[:8]]
    (tmp_path / "data.csv").write_bytes(table(rows))
    assert examples(read_labelled(tmp_path / "data.csv", TASK, manifest))[3][0] == rows[3]["text"]


def test_a_table_with_commas_is_no_tsv(manifest, tmp_path):
    (tmp_path / "data.tsv").write_bytes(table(RECORDS))
    with pytest.raises(BertportError, match=r"the one column 'text,label': separate .* those of TSV by tabs"):
        read_labelled(tmp_path / "data.tsv", TASK, manifest)


def test_files_that_are_none_are_refused(manifest, tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "directory.csv").mkdir()
    (tmp_path / "data.txt").write_bytes(b"a")
    (tmp_path / "torn.jsonl.xz").write_bytes(lzma.compress(json_lines(RECORDS))[:-20])
    (tmp_path / "no.jsonl.gz").write_bytes(b"text")
    (tmp_path / "no.parquet").write_bytes(b"text")
    for name, sentence in {
        "nothing.jsonl": "no such file",
        "pipe.jsonl": "it is not a regular file",
        "directory.csv": "it is not a regular file",
        "data.txt": "cannot tell the format",
        "torn.jsonl.xz": "cannot read the data .*give the whole file",
        "no.jsonl.gz": "cannot read the data .*give the whole file",
        "no.parquet": "cannot read the data",
        "a\0.jsonl": "cannot read the data|no such file",
        "a" * 5000 + ".jsonl": "cannot read the data|no such file",
    }.items():
        with pytest.raises(BertportError, match=sentence):
            read_labelled(tmp_path / name, TASK, manifest)


def test_endings_are_named_for_an_unknown_one_alone(manifest, tmp_path):
    (tmp_path / "data.txt").write_bytes(b"a")
    (tmp_path / "no.parquet").write_bytes(b"text")
    for name, named in {"data.txt": True, "nothing.jsonl": False, "no.parquet": False}.items():
        with pytest.raises(BertportError) as caught:
            read_labelled(tmp_path / name, TASK, manifest)
        assert ("that ends in .jsonl" in str(caught.value)) == named


def test_a_compressed_file_without_end_is_read_to_a_limit(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "MOST_LINES", 1000)
    (tmp_path / "data.jsonl.xz").write_bytes(lzma.compress(b"\n" * 100_000))
    with pytest.raises(BertportError, match="more than 1,000 lines"):
        read_labelled(tmp_path / "data.jsonl.xz", TASK, manifest)


def test_a_column_of_texts_is_no_column_of_labels(manifest, write):
    path = write([{"text": "a", "label": f"text {number}"} for number in range(5000)])
    with pytest.raises(BertportError, match="line 1: the label 'text 0' is not one"):
        read_labelled(path, TASK, manifest)


def test_memory_does_not_grow_with_the_texts(manifest, write):
    path = write({"text": "word " * 2000, "label": 1} for _ in range(2000))
    assert path.stat().st_size > 20_000_000
    tracemalloc.start()
    data = read_labelled(path, TASK, manifest)
    assert sum(1 for _ in data.examples()) == 2000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


def test_a_file_that_changes_is_not_measured(manifest, write):
    data = read_labelled(write(RECORDS), TASK, manifest)
    write(RECORDS[::-1] * 2)
    with pytest.raises(BertportError, match="has changed since it was checked"):
        next(data.examples())


def test_a_file_that_changes_and_keeps_its_size_and_time_is_not_measured(manifest, write):
    path = write(RECORDS)
    data = read_labelled(path, TASK, manifest)
    before = path.stat()
    write([RECORDS[0] | {"text": RECORDS[0]["text"][::-1]}, *RECORDS[1:]])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    with pytest.raises(ChangedDataError):
        list(data.examples())


@pytest.mark.parametrize(
    "change", [lambda path: path.write_text("not JSON", encoding="utf-8"), lambda path: path.unlink()]
)
def test_what_cannot_be_read_any_more_has_changed(change, manifest, write):
    path = write(RECORDS[:1] * 20_000)
    data = read_labelled(path, TASK, manifest)
    reading = data.examples()
    next(reading)
    change(path)
    for later in (reading, data.examples()):
        with pytest.raises(ChangedDataError, match="has changed since it was checked: start again"):
            list(later)


def test_a_file_that_changes_while_it_is_read_is_not_measured(manifest, write):
    data = read_labelled(write(RECORDS[:1] * 20_000), TASK, manifest)  # more than is read ahead
    reading = data.examples()
    next(reading)
    write(RECORDS[3:4] * 20_000)  # lines as long as the others
    with pytest.raises(BertportError, match="has changed since it was checked"):
        list(reading)


def test_the_first_examples_are_taken_and_nothing_behind_them_is_looked_at(manifest, tmp_path):
    (tmp_path / "data.jsonl").write_bytes(json_lines(RECORDS[:8]) + b"{]\n")
    data = read_labelled(tmp_path / "data.jsonl", TASK, manifest, limit=8)
    assert examples(data) == EXAMPLES[:8]


OTHERS = {
    "regression": ("text-classification", "sequence-classification", ("LABEL_0",), "regression"),
    "multi-label": ("text-classification", "sequence-classification", LABELS, "multi_label_classification"),
    "tags": ("token-classification", "token-classification", ("O", "B-PER", "I-PER", "I-LOC"), None),
    "spans": ("question-answering", "question-answering", None, None),
    "choice": ("multiple-choice", "multiple-choice", None, None),
    "ranking": ("text-ranking", "sequence-classification", ("LABEL_0",), None),
    "similarity": ("sentence-similarity", "embedding", None, None),
}


@pytest.fixture
def read(manifest, tmp_path):
    """Read rows as a kind of data, from JSON lines or CSV."""

    def of(kind, rows, name="data.jsonl", **options):
        task, head, labels, problem_type = OTHERS[kind]
        entry = dataclasses.replace(manifest.heads["sequence-classification"], labels=labels, problem_type=problem_type)
        if head == "embedding":
            vectors = Embedding(dimension=8, normalized=True, similarity="cosine", modules=())
            entry = dataclasses.replace(entry, embedding=vectors)
        bundle = dataclasses.replace(manifest, heads={head: entry})
        (tmp_path / name).write_bytes(table(rows) if name.endswith("csv") else json_lines(rows))
        return read_labelled(tmp_path / name, task, bundle, **options)

    return of


TRUTHS = [
    ("regression", [{"text": "a", "label": 1.5}, {"text": "a", "label": 2}], [1.5, 2]),
    ("multi-label", [{"text": "a", "label": ["positive", "negative"]}, {"text": "a", "label": []}], [(0, 2), ()]),
    (
        "tags",
        [{"tokens": ["a", "b"], "tags": ["B-LOC", "I-PER"]}, {"tokens": ["a"], "tags": ["O"]}],
        [("B-LOC", "I-PER"), ("O",)],
    ),
    ("tags", [{"tokens": ["a", "b"], "tags": [3, 1]}, {"tokens": ["a"], "tags": [0]}], [("I-LOC", "B-PER"), ("O",)]),
    (
        "spans",
        [
            {"question": "q", "context": "c", "answers": {"text": ["c", "C"], "answer_start": [0, 0]}},
            {"question": "q", "context": "c", "answers": [{"text": "c", "answer_start": 0}]},
        ],
        [("c", "C"), ("c",)],
    ),
    ("choice", [{"prompt": "p", "choices": ["a", "b"], "label": 1}] * 2, [1, 1]),
    ("ranking", [{"query": "q", "documents": ["a", "b"], "relevance": [0, 2]}] * 2, [(0, 2), (0, 2)]),
    ("similarity", [{"text": "a", "text_pair": "b", "label": number} for number in (4.5, 1)], [4.5, 1]),
]


@pytest.mark.parametrize(("kind", "rows", "truths"), TRUTHS)
@pytest.mark.parametrize("name", ["data.jsonl", "data.csv"])
def test_each_kind_of_truth(kind, rows, truths, name, read):
    """In CSV a list is written as JSON."""
    if name.endswith("csv"):
        rows = [{key: json.dumps(v) if isinstance(v, list | dict) else v for key, v in row.items()} for row in rows]
    data = read(kind, rows * 4, name)
    assert list(data.truths) == truths * 4
    assert data.kind == kind
    assert [example.truth for example in data.examples()] == truths * 4


FROM_ONE, TENS = ["1", "2", "3"], ["10", "20", "30"]
CHOSEN = {
    "numbers, one of which is a text of its choices": ([(FROM_ONE, 1), (TENS, 0)], [1, 0]),
    "texts, one of which is a number": ([(FROM_ONE, "1"), (TENS, "30")], [0, 2]),
    "texts and numbers": ([(["a", "b"], "b"), (["a", "b"], 0)], [1, 0]),
}
"""Choices with the label in CSV, and the numbers of the right choices."""


def choosing(labels):
    return [{"prompt": "p", "choices": json.dumps(choices), "label": label} for choices, label in labels]


@pytest.mark.parametrize("case", CHOSEN)
def test_how_choices_are_written_is_decided_once(case, read):
    labels, truths = CHOSEN[case]
    assert list(read("choice", choosing(labels * 4), "data.csv").truths) == truths * 4


@pytest.mark.parametrize("labels", [[(FROM_ONE, 1)] * 8, [(FROM_ONE, 1), (["a", "b"], "a"), (TENS, 0)] * 3])
def test_a_choice_that_is_one_as_text_and_another_as_a_number_is_refused(labels, read):
    with pytest.raises(BertportError, match=r"line 2: the label is the text of choice 0 and the number of choice 1"):
        read("choice", choosing(labels), "data.csv")
    for typed, truth in ((1, 1), ("1", 0)):
        assert read("choice", [{"prompt": "p", "choices": FROM_ONE, "label": typed}] * 8).truths == [truth] * 8


def test_the_number_of_a_choice_that_is_longer_than_any_is_refused(read):
    with pytest.raises(BertportError, match="line 2: label must be the right choice's number"):
        read("choice", choosing([(["a"], "9" * 5000)] * 8), "data.csv")


REFUSALS = {
    "constant": ("regression", [{"text": "a", "label": 3}] * 8, "every one of the 8 numbers"),
    "a text for a number": ("regression", [{"text": "a", "label": "3"}] * 8, "line 1: label must be a finite number"),
    "nan": (
        "regression",
        [{"text": "a", "label": float("nan")}] * 8,
        "line 1: label must be a finite number, and is nan",
    ),
    "a huge number": ("regression", [{"text": "a", "label": 10**400}] * 8, "line 1: label must be a finite number"),
    "unknown label in a list": ("multi-label", [{"text": "a", "label": ["good"]}] * 8, "the label 'good' is not one"),
    "no list": (
        "multi-label",
        [{"text": "a", "label": "positive"}] * 8,
        "line 1: label must be a list, and is 'positive'",
    ),
    "tags": (
        "tags",
        [{"tokens": ["a", "b"], "tags": ["O"]}] * 8,
        "line 1: tags must be a list of 2 tags, one for each",
    ),
    "unknown type": ("tags", [{"tokens": ["a"], "tags": ["B-ORG"]}] * 8, "line 1: the label 'B-ORG' is not one"),
    "no words": ("tags", [{"tokens": [], "tags": []}] * 8, "line 1: tokens must be a list of 1 or more texts"),
    "answers": (
        "spans",
        [{"question": "q", "context": "c", "answers": []}] * 8,
        "line 1: answers must be a text, a list",
    ),
    "a blank answer": (
        "spans",
        [{"question": "q", "context": "c", "answers": " "}] * 8,
        "line 1: answers must be a text, a list .* of one answer at least, and is ' '",
    ),
    "choice": (
        "choice",
        [{"prompt": "p", "choices": ["a"], "label": 1}] * 8,
        r"line 1: label must be the right choice's",
    ),
    "relevance": (
        "ranking",
        [{"query": "q", "documents": ["a"], "relevance": []}] * 8,
        "line 1: relevance must be a list",
    ),
    "nothing relevant": (
        "ranking",
        [{"query": "q", "documents": ["a"], "relevance": [0]}] * 8,
        "no document of .* is relevant",
    ),
    "no score": ("similarity", [{"text": "a", "text_pair": "b"}] * 8, "there is no column score"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_bad_truths_of_each_kind_are_refused_in_a_sentence(name, read):
    kind, rows, sentence = REFUSALS[name]
    with pytest.raises(BertportError, match=sentence):
        read(kind, rows)


def test_of_the_most_texts_to_find_each_may_be_there_again(read, monkeypatch):
    monkeypatch.setattr(labelled_data, "MOST_TEXTS", 8)
    rows = [{"query": "a", "positives": [f"text {number % 8}"]} for number in range(20)]
    assert read("similarity", rows).truths[8:12] == [(0,), (1,), (2,), (3,)]
    with pytest.raises(BertportError, match="more than 8 texts to find"):
        read("similarity", [*rows, {"query": "a", "positives": ["another"]}])


def test_types_of_entities_are_mapped(read):
    data = read("tags", [{"tokens": ["a"], "tags": ["B-person"]}] * 8, label_map={"person": "PER"})
    assert data.truths[0] == ("B-PER",)
    assert data.notes == ("1 of the bundle's 2 labels never occurs in data.jsonl: LOC",)
    data = read("tags", [{"tokens": ["a", "b"], "tags": ["B-MISC", "B-PER"]}] * 8, label_map={"MISC": "O"})
    assert data.truths[0] == ("O", "B-PER")


def test_tags_of_bilou_are_read_by_a_bundle_of_bio(read):
    data = read("tags", [{"tokens": ["a", "b", "c"], "tags": ["B-PER", "L-PER", "U-LOC"]}] * 8)
    assert [entities(truth) for truth in data.truths] == [[("PER", 0, 2), ("LOC", 2, 3)]] * 8
