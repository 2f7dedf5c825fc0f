import json
import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertport.measure import text
from bertport.measure.text import LEAST_TEXTS, LONGEST_LINE, SAMPLES, Text, fingerprint, read_texts, sample_path
from bertport.runtime.errors import InputTextError, PathError, UnknownNameError

LINES = [f"This is line number {number}." for number in range(LEAST_TEXTS)]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def texts(path, **options):
    return [text.text for text in read_texts(path, **options)]


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(LINES),
        "\n".join(LINES) + "\n\n",
        "\r\n".join(LINES),
        "\n\n".join(LINES),
        "\n\n\n".join(line.replace("line ", "line\n") for line in LINES),
        "\ufeff" + "\n".join(LINES),
        "\n  \n".join(LINES),
    ],
)
def test_lines_and_paragraphs(tmp_path, content):
    assert texts(write(tmp_path / "a.txt", content)) == LINES


def test_a_plain_file_is_one_document(tmp_path):
    assert {text.document for text in read_texts(write(tmp_path / "a.txt", "\n".join(LINES)))} == {0}


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.jsonl.xz"])
def test_json_lines(tmp_path, name):
    content = "\n".join([json.dumps({"text": LINES[0]}), "", json.dumps({"id": 1, "paragraphs": LINES[1:]})]).encode()
    path = write(tmp_path / name, lzma.compress(content) if name.endswith("xz") else content)
    texts_read = read_texts(path)
    assert [text.text for text in texts_read] == LINES
    assert [text.document for text in texts_read] == [0] + [1] * (LEAST_TEXTS - 1)


def test_lines_of_two_texts_are_pairs(tmp_path):
    lines = [
        {"text": "One  of\ntwo.", "text_pair": "The other."},
        {"question": "Who?", "context": "She did.", "answers": {"text": ["She"]}},
        {"text": "Alone.", "text_pair": None},
        {"text": "No other.", "text_pair": " "},
    ]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines)))
    assert [(text.text, text.pair) for text in read_texts(path, least=1)] == [
        ("One of two. The other.", ("One of two.", "The other.")),
        ("Who? She did.", ("Who?", "She did.")),
        ("Alone.", None),
        ("No other.", None),
    ]
    cut = (Text(text="a b c", document=0, pair=("a", "b c")), Text(text="a b c", document=0, pair=("a b", "c")))
    assert fingerprint(cut[:1]) != fingerprint(cut[1:])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no text"),
        (b"\n \n\t\n", "holds no text"),
        ("\n".join(LINES[:-1]), f"too short: {LEAST_TEXTS - 1} texts, at least {LEAST_TEXTS}"),
        ("one", "too short: 1 text,"),
        ("\n".join(LINES).encode() + b"\ncaf\xe9", f"line {LEAST_TEXTS + 1}: not UTF-8 (byte 0xe9)"),
        ("\n".join(LINES).encode("utf-16"), "line 1: not UTF-8"),
        ("\n".join(LINES).encode("utf-16-le"), "line 1: a NUL character"),
        ("good\n" + "x" * (LONGEST_LINE + 1), "line 2: longer than 100,000 characters"),
        ("good\n" + "é" * (5 * LONGEST_LINE), "line 2: longer than 100,000 characters"),
        ("good\n\n" + ("x" * 90 + "\n") * 1200, "a paragraph of more than 100,000 characters"),
    ],
)
def test_bad_plain_text(tmp_path, content, words):
    with pytest.raises(InputTextError) as error:
        read_texts(write(tmp_path / "a.txt", content))
    assert words in str(error.value)
    assert "a.txt" in str(error.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: not JSON"),
        ("[" * 100_000, "line 2: not JSON"),
        ("[]", "line 2: found '[]': expected an object with"),
        ('{"text": "a", "text": "b"}', "line 2: not JSON (the key 'text' is there twice)"),
        ('{"texts": "a"}', 'expected an object with "text"'),
        ('{"text": 3}', 'expected an object with "text"'),
        ('{"text": "a", "text_pair": 3}', 'expected an object with "text"'),
        ('{"question": "a"}', 'expected an object with "text"'),
        ('{"paragraphs": "a"}', 'expected an object with "text"'),
        ('{"paragraphs": ["a", 1]}', 'expected an object with "text"'),
        ('{"text": "\\ud800"}', "line 2: half of a surrogate pair"),
    ],
)
def test_bad_json_lines(tmp_path, line, words):
    with pytest.raises(InputTextError) as error:
        read_texts(write(tmp_path / "a.jsonl", '{"text": "a"}\n' + line))
    assert words in str(error.value)


def test_missing_files_and_damaged_ones(tmp_path):
    with pytest.raises(PathError, match=r"cannot read the text file .*none\.txt \(No such file"):
        read_texts(tmp_path / "none.txt")
    with pytest.raises(PathError, match="Is a directory"):
        read_texts(tmp_path)
    with pytest.raises(PathError, match="cannot read"):
        read_texts(write(tmp_path / "a.txt.xz", b"not compressed"))
    with pytest.raises(PathError, match="cannot read"):
        read_texts(write(tmp_path / "b.txt.xz", lzma.compress("\n".join(LINES).encode())[:-20]))


def test_lines_without_end_are_refused_however_small_they_are_packed(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "MOST_LINES", 1000)
    with pytest.raises(InputTextError, match=r"a\.txt\.xz has more than 1,000 lines"):
        read_texts(write(tmp_path / "a.txt.xz", lzma.compress(b"\n" * 1001)))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1), min_size=1))
def test_any_lines_come_back_as_they_are(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("texts") / "a.jsonl"
    write(path, "\n".join(json.dumps({"text": line}) for line in lines))
    assert texts(path, least=1) == lines


def test_the_fingerprint_is_of_the_texts(tmp_path):
    plain = read_texts(write(tmp_path / "a.txt", "\n".join(LINES)))
    as_json = read_texts(write(tmp_path / "a.jsonl", json.dumps({"paragraphs": LINES})))
    assert fingerprint(plain) == fingerprint(as_json)
    assert fingerprint(plain) != fingerprint((*plain[:-1], Text(text="another", document=0)))


@pytest.mark.parametrize("name", SAMPLES)
def test_the_samples_that_ship_are_enough_to_measure_on(name):
    samples = read_texts(sample_path(name))
    assert len(samples) >= 200
    assert sample_path(name).stat().st_size <= 200_000
    assert not any("\n" in text.text for text in samples)


def test_the_samples_share_no_text():
    one, two = ({text.text for text in read_texts(sample_path(name))} for name in SAMPLES)
    assert not one & two


def test_an_installation_without_the_samples_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(text, "__file__", str(tmp_path / "a" / "b" / "c" / "text.py"))
    with pytest.raises(PathError, match=r"calibration\.txt is not part of this installation"):
        sample_path("calibration")
    beside = tmp_path / "a" / "b" / "c" / "data"
    beside.mkdir(parents=True)
    assert sample_path_of(beside, "calibration") == beside / "calibration.txt"


def sample_path_of(directory, name):
    (directory / f"{name}.txt").write_text("text")
    return sample_path(name)


def test_unknown_samples_are_refused():
    with pytest.raises(UnknownNameError, match="unknown sample text 'test'"):
        sample_path("test")
