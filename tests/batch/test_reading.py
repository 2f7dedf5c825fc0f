"""Rows: what of files is read as a row's input, and what is carried to the output."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertport.batch import reading, run
from bertport.batch.places import open_place
from bertport.batch.reading import chunks, cut, read_source
from bertport.batch.tasks import TASKS
from bertport.runtime import load
from bertport.runtime.errors import InputTextError, PathError, UnknownNameError


def lines(path, rows):
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def read(path, task="features", *, carry=None, rows=9999, **columns):
    """Return the inputs of all parts, and the rows that are carried."""
    place = open_place(str(path))
    source, counts = read_source(place, place.files(), task, columns=columns, carry=carry)
    found = [chunk for part in cut(place, place.files(), source, rows, counts) for chunk in chunks(part, source)]
    return [value for chunk in found for value in chunk.inputs], [
        row for chunk in found for row in chunk.carried.to_pylist()
    ]


def test_an_optional_column_may_begin_behind_the_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "SAMPLE_ROWS", 2)
    rows = [{"text": "a"}, {"text": "b"}, {"text": "c", "text_pair": "d"}]
    inputs, carried = read(lines(tmp_path / "in.jsonl", rows))
    assert inputs == ["a", "b", rows[2]]
    assert json.loads(carried[2]["other_fields"]) == {"text_pair": "d"}
    rows = [{"text": "a"}, {"text": "b"}, {"text": "c", "candidate_labels": ["x", "y"]}]
    assert read(lines(tmp_path / "in.jsonl", rows), "zero-shot-classification")[0] == ["a", "b", rows[2]]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_column_that_is_named_for_one_input_is_not_another_s(ending, tmp_path):
    """Each text would else be half of a pair with itself."""
    rows = [{"text": "a", "text_pair": "b", "id": 1}]
    path = tmp_path / f"in.{ending}"
    if ending == "jsonl":
        lines(path, rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    assert read(path, text="text_pair")[0] == ["b"]
    assert read(path, text="text_pair", text_pair="text")[0] == [{"text": "b", "text_pair": "a"}]
    assert read(path)[0] == [{"text": "a", "text_pair": "b"}]


def test_columns_of_parquet_are_those_of_all_files(tmp_path):
    """A data set gains columns, and a column of nulls has no type yet."""
    tables = [
        pa.table({"id": [0], "text": ["a"], "left": ["x"], "late": pa.nulls(1)}),
        pa.table({"text": ["b"], "id": [1], "text_pair": ["c"], "late": [1.5]}),
        pa.table({"id": [2], "text": ["d"], "kind": pa.array(["k"]).dictionary_encode(), "late": pa.nulls(1)}),
    ]
    for number, table in enumerate(tables):
        pq.write_table(table, tmp_path / f"{number}.parquet")
    inputs, carried = read(tmp_path)
    assert inputs == ["a", {"text": "b", "text_pair": "c"}, "d"]
    nothing = dict.fromkeys(("left", "late", "text_pair", "kind"))
    assert carried == [
        {**nothing, "id": 0, "text": "a", "left": "x"},
        {**nothing, "id": 1, "text": "b", "text_pair": "c", "late": 1.5},
        {**nothing, "id": 2, "text": "d", "kind": "k"},
    ]
    assert read(tmp_path, carry=["kind"])[1] == [{"kind": None}, {"kind": None}, {"kind": "k"}]


def test_a_column_of_one_kind_of_values_may_have_several_layouts(tmp_path):
    """Writers choose between them by the size of a table, so that the files of a data set differ."""
    words = pa.array(["w"]).dictionary_encode()
    tables = [
        pa.table({"text": ["a"], "kind": words, "tags": [["x"]], "raw": [b"1"], "none": [None]}),
        pa.table(
            {
                "text": pa.array(["b"], pa.large_string()),
                "kind": words.cast(pa.dictionary(pa.int8(), pa.string())),
                "tags": pa.array([[]], pa.list_(pa.null())),
                "raw": pa.array([b"2"], pa.large_binary()),
                "none": ["z"],
            }
        ),
        pa.table(
            {
                "text": pa.array(["c"]).dictionary_encode(),
                "kind": pa.array(["w"], pa.large_string()),
                "tags": pa.array([["y"]], pa.large_list(pa.large_string())),
                "raw": [b"3"],
                "none": pa.array([None], pa.large_string()),
            }
        ),
    ]
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
        for number, table in enumerate(order):
            pq.write_table(tables[table], tmp_path / f"{number}.parquet")
        inputs, carried = read(tmp_path, rows=2)
        rows = [row for table in order for row in tables[table].to_pylist()]
        assert inputs == [row["text"] for row in rows]
        assert carried == rows
        place = open_place(str(tmp_path))
        source, _ = read_source(place, place.files(), "features", columns={}, carry=None)
        types = {name: kind.partition("<")[0] for name, kind in source.carried.items()}
        text = dict.fromkeys(("text", "kind", "none"), "large_string")
        assert types == {**text, "tags": "large_list", "raw": "large_binary"}


def test_each_footer_is_read_once_before_a_run_begins(tmp_path, monkeypatch):
    opened = []

    class Opened(pq.ParquetFile):
        def __init__(self, *given, **named):
            opened.append(given)
            super().__init__(*given, **named)

    for number in range(3):
        pq.write_table(pa.table({"text": [str(number)] * (number + 1)}), tmp_path / f"{number}.parquet")
    monkeypatch.setattr(pq, "ParquetFile", Opened)
    place = open_place(str(tmp_path))
    source, counts = read_source(place, place.files(), "features", columns={}, carry=None)
    parts = cut(place, place.files(), source, 2, counts)
    assert counts == [1, 2, 3]
    assert [part.weight for part in parts] == [1, 2, 2, 1]
    assert len(opened) == 3


def test_columns_of_parquet_that_no_table_could_hold_are_one_sentence(tmp_path):
    pq.write_table(pa.table({"text": ["a"], "x": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["b"], "x": ["y"]}), tmp_path / "b.parquet")
    with pytest.raises(InputTextError, match=r"column x of .*b.parquet is string, and of .*a.parquet int64"):
        read(tmp_path)
    assert read(tmp_path, carry=[])[0] == ["a", "b"]
    pq.write_table(pa.table({"text": [7]}), tmp_path / "b.parquet")
    with pytest.raises(InputTextError, match=r"b.parquet is int64, and of .*a.parquet string: give files in which it"):
        read(tmp_path, carry=[])
    pq.write_table(pa.table({"text": ["b"], "x": [["y"]]}), tmp_path / "b.parquet")
    with pytest.raises(InputTextError, match=r"column x of .*b.parquet is list<.*>, and of .*a.parquet int64"):
        read(tmp_path)
    pq.write_table(pa.table({"x": [2]}), tmp_path / "b.parquet")
    with pytest.raises(InputTextError, match=r"b.parquet has no column text, which other files have"):
        read(tmp_path)
    twice = pa.Table.from_arrays([pa.array(["a"])] * 2, ["text", "text"])
    pq.write_table(twice, tmp_path / "b.parquet")
    with pytest.raises(InputTextError, match=r"b.parquet has two columns of one name"):
        read(tmp_path)


def test_a_field_with_the_name_of_our_own_column_is_kept_in_it(tmp_path):
    data = lines(tmp_path / "in.jsonl", [{"text": "a", "other_fields": {"b": 1}}, {"text": "c"}])
    assert [row["other_fields"] for row in read(data)[1]] == ['{"other_fields": {"b": 1}}', None]
    with pytest.raises(UnknownNameError, match="unknown column to carry 'other_fields'"):
        read(data, carry=["other_fields"])


def test_what_does_not_fit_a_column_named_by_carry_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "SAMPLE_ROWS", 1)
    rows = [{"id": 1, "text": "a", "x": 1}, {"id": "two", "text": "b", "x": 2, "new": 3}]
    data = lines(tmp_path / "in.jsonl", rows)
    assert read(data, carry=["id"])[1] == [
        {"id": 1, "other_fields": None},
        {"id": None, "other_fields": '{"id": "two"}'},
    ]
    assert read(data, carry=[])[1] == [{}, {}]


def test_a_name_that_is_no_text_is_kept_among_the_other_fields(tmp_path):
    data = lines(tmp_path / "in.jsonl", [r'{"text": "a", "\ud800": 1}'])
    assert read(data)[1] == [{"text": "a", "other_fields": r'{"\ud800": 1}'}]


def test_what_python_takes_for_json_and_json_lacks_becomes_null(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "SAMPLE_ROWS", 1)
    rows = ['{"text": "a", "n": [NaN, 1], "x": NaN}', '{"text": "b", "n": [-Infinity], "x": 2.0, "y": {"z": NaN}}']
    carried = read(lines(tmp_path / "in.jsonl", rows))[1]
    assert [row["n"] for row in carried] == ["[null, 1]", "[null]"]
    assert carried[1]["other_fields"] == '{"y": {"z": null}}'
    assert carried[0]["x"] != carried[0]["x"]  # a column of numbers holds NaN itself


def test_a_field_is_carried_however_deep_it_may_be_and_no_deeper(tmp_path):
    """Python's reader of JSON goes a little deeper than its writer, which is called from further within."""
    trees = ["[" * depth + "]" * depth for depth in (1, 399, 400, 900, 930, 960, 970, 980, 990, 5000)]
    inputs, carried = read(lines(tmp_path / "in.jsonl", [f'{{"text": "a", "tree": {tree}}}' for tree in trees]))
    assert inputs[:2] == ["a", "a"]
    assert [row["tree"] for row in carried[:2]] == trees[:2]
    assert all(isinstance(value, InputTextError) for value in inputs[2:])
    assert "a line nested more than 400 levels deep cannot be carried: flatten it" in str(inputs[2])


def test_the_sample_is_of_the_first_file_that_holds_rows(tmp_path):
    lines(tmp_path / "a.jsonl", ["", "{broken"])
    lines(tmp_path / "b.jsonl", [{"text": "a"}])
    broken, text = read(tmp_path)[0]
    assert isinstance(broken, InputTextError)
    assert text == "a"
    lines(tmp_path / "b.jsonl", [" "])
    with pytest.raises(InputTextError, match=r"holds no rows"):
        read(tmp_path)


def test_files_of_parquet_without_rows_make_an_output_without_rows(tiny_bundle, tmp_path):
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "in.parquet")
    summary = run(tiny_bundle, "fill-mask", tmp_path / "in.parquet", tmp_path / "out")
    assert (summary["parts"], summary["rows"]) == (1, 0)
    table = pq.read_table(tmp_path / "out")
    assert (table.num_rows, table.column_names[:2]) == (0, ["text", "mask"])


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_file_that_holds_less_than_when_the_run_began_ends_it(ending, tmp_path):
    path = tmp_path / f"in.{ending}"

    def write(rows):
        if ending == "jsonl":
            lines(path, [{"text": str(row)} for row in range(rows)])
        else:
            pq.write_table(pa.table({"text": [str(row) for row in range(rows)]}), path)

    write(9)
    place = open_place(str(path))
    source, counts = read_source(place, place.files(), "features", columns={}, carry=None)
    parts = cut(place, place.files(), source, 4, counts)
    assert len(parts) == 3
    write(5)
    assert len([value for chunk in chunks(parts[0], source) for value in chunk.inputs]) == 4
    for part in parts[1:]:
        with pytest.raises(PathError, match=rf"in.{ending} holds less than when the run began"):
            list(chunks(part, source))


def test_a_part_of_parquet_reads_no_further_than_its_end(tmp_path, monkeypatch):
    pq.write_table(pa.table({"text": [str(row) for row in range(64)]}), tmp_path / "in.parquet")
    place = open_place(f"{tmp_path}/in.parquet")
    source, counts = read_source(place, place.files(), "features", columns={}, carry=[])
    parts = cut(place, place.files(), source, 4, counts)
    monkeypatch.setattr(reading, "CHUNK_ROWS", 4)
    given, batches = [], pq.ParquetFile.iter_batches

    def counted(self, **how):
        for batch in batches(self, **how):
            given.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    assert [text for chunk in chunks(parts[1], source) for text in chunk.inputs] == ["4", "5", "6", "7"]
    assert sum(given) == 8


def test_an_empty_optional_input_is_given_as_predict_gives_it(tiny_bundle, tmp_path):
    row = {"text": "the old house", "text_pair": ""}
    assert TASKS["features"].forms[0].value(row) == row
    run(tiny_bundle, "features", lines(tmp_path / "in.jsonl", [row]), tmp_path / "out", parameters={"pooling": "mean"})
    [vector] = pq.read_table(tmp_path / "out").column("vector").to_pylist()
    [expected] = load(tiny_bundle).predict("features", [row], pooling="mean")
    assert vector == expected.tolist()
