"""The tokenizer in the bundle is the checkpoint's, whichever files it came in."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from bertport.export.tokenizer import read_tokenizer
from bertport.runtime.errors import CheckpointError

TEXTS = st.text() | st.text(alphabet="abcXYZ éÉñ中愛. 😀\n\t[]MASK##-'")


def vocab_size(directory):
    return len((directory / "vocab.txt").read_text(encoding="utf-8").splitlines())


def read(directory, **changes):
    size = changes.get("vocab_size")
    return read_tokenizer(directory, vocab_size=vocab_size(directory) if size is None else size, max_positions=160)


def edit(path, **entries):
    value = json.loads(path.read_text()) if path.exists() else {}
    value.update(entries)
    path.write_text(json.dumps({key: each for key, each in value.items() if each is not None}))


def vocabulary_only(directory):
    (directory / "tokenizer.json").unlink()
    (directory / "special_tokens_map.json").unlink()


def no_settings(directory):
    vocabulary_only(directory)
    (directory / "tokenizer_config.json").unlink()


def strips_accents(directory):
    vocabulary_only(directory)
    edit(directory / "tokenizer_config.json", strip_accents=True, tokenize_chinese_chars=False)


def settings_disagree(directory):
    edit(directory / "tokenizer_config.json", do_lower_case=False)


def json_alone(directory):
    for name in ("vocab.txt", "tokenizer_config.json", "special_tokens_map.json"):
        (directory / name).unlink()


def unsaid(directory):
    edit(directory / "tokenizer_config.json", do_lower_case=None, strip_accents=None, tokenizer_class=None)


def complete(_):
    pass


FORMS = [complete, vocabulary_only, strips_accents, settings_disagree, no_settings, json_alone, unsaid]


class Forms(tuple):
    """What a test needs of one form, and no page-long repr."""

    __slots__ = ()

    def __new__(cls, *items):
        return super().__new__(cls, items)

    def __repr__(self):
        return "Forms"


# Where nothing says that a cased tokenizer keeps its case, transformers lower-cases; the bundle does not follow.
TRANSFORMERS_GUESSES = {(True, "no_settings"), (True, "json_alone"), (True, "unsaid")}


@pytest.fixture(
    scope="module",
    params=[(cased, form) for cased in (False, True) for form in FORMS],
    ids=lambda param: f"{'cased' if param[0] else 'uncased'} {param[1].__name__}",
)
def forms(request, make_tokenizer, tmp_path_factory):
    """Give what transformers makes of a checkpoint's files, what it makes of the bundle's, and the bundle's own."""
    from transformers import AutoTokenizer

    cased, form = request.param
    source = tmp_path_factory.mktemp("source")
    make_tokenizer(source, cased=cased)
    size = vocab_size(source)
    form(source)
    files = read(source, vocab_size=size)
    written = tmp_path_factory.mktemp("written")
    for directory in (source, written):
        (directory / "config.json").write_text('{"model_type": "bert"}')
    for name, text in files.texts.items():
        (written / name).write_text(text, encoding="utf-8")
    source_tokenizer = AutoTokenizer.from_pretrained(source)
    if (cased, form.__name__) in TRANSFORMERS_GUESSES:
        assert source_tokenizer("Paris").input_ids == source_tokenizer("paris").input_ids
        source_tokenizer = AutoTokenizer.from_pretrained(source, do_lower_case=False)
    return Forms(source_tokenizer, AutoTokenizer.from_pretrained(written), files, written)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(text=TEXTS, other=st.none() | TEXTS.filter(bool))  # transformers takes an empty second text for none
def test_it_agrees_with_transformers_on_the_source(forms, text, other):
    source, written, files, _ = forms
    expected = source(text, other)
    found = files.tokenizer.encode(text, other)
    for name, ids in (("input_ids", found.ids), ("token_type_ids", found.type_ids)):
        assert ids == expected[name]
        assert written(text, other)[name] == expected[name]


def test_the_files_are_complete(forms):
    _, _, files, written = forms
    assert {"tokenizer.json", "tokenizer_config.json", "vocab.txt"} <= files.texts.keys()
    assert Tokenizer.from_file(str(written / "tokenizer.json")).get_vocab() == files.tokenizer.get_vocab()
    assert json.loads(files.texts["tokenizer_config.json"])["do_lower_case"] is files.lowercase


def test_files_that_are_complete_stay_as_they_are(make_tokenizer, tmp_path):
    make_tokenizer(tmp_path)
    files = read(tmp_path)
    assert files.texts == {
        path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir() if path.name != "config.json"
    }
    assert files.notes == ()


@pytest.mark.parametrize("cased", [False, True])
def test_case_is_read(make_tokenizer, tmp_path, cased):
    make_tokenizer(tmp_path, cased=cased)
    assert read(tmp_path).lowercase is not cased
    no_settings(tmp_path)
    files = read(tmp_path)
    assert files.lowercase is not cased
    assert "vocab.txt holds" in files.notes[0]


def test_a_disagreement_is_settled_aloud(make_tokenizer, tmp_path):
    make_tokenizer(tmp_path)
    settings_disagree(tmp_path)
    files = read(tmp_path)
    assert files.lowercase is False
    assert "tokenizer.json disagreed" in files.notes[0]


def test_the_limit_is_read(make_tokenizer, tmp_path):
    make_tokenizer(tmp_path)
    assert read(tmp_path).model_max_length == 160
    edit(tmp_path / "tokenizer_config.json", model_max_length=1000000000000000019884624838656)
    assert read(tmp_path).model_max_length > 10**20
    edit(tmp_path / "tokenizer_config.json", model_max_length=None)
    assert read(tmp_path).model_max_length is None


@pytest.mark.parametrize("difference", [-1, 1, 100])
def test_a_vocabulary_of_another_size(make_tokenizer, tmp_path, difference):
    make_tokenizer(tmp_path)
    size = vocab_size(tmp_path)
    with pytest.raises(
        CheckpointError, match=f"has {size:,} entries and the word embedding {size + difference:,} rows"
    ):
        read(tmp_path, vocab_size=size + difference)


def test_no_tokenizer(tmp_path):
    with pytest.raises(CheckpointError, match=r"neither tokenizer\.json nor vocab\.txt is there"):
        read(tmp_path, vocab_size=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"auto_map": {"AutoTokenizer": ["own.py", None]}}, "code of its own"),
        ({"tokenizer_class": "BertJapaneseTokenizer"}, "the tokenizer BertJapaneseTokenizer, which cannot be used"),
    ],
)
def test_a_tokenizer_of_another_kind(make_tokenizer, tmp_path, settings, message):
    make_tokenizer(tmp_path)
    edit(tmp_path / "tokenizer_config.json", **settings)
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path)


def test_damaged_files(make_tokenizer, tmp_path):
    make_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "WordPiece"}}')
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be read"):
        read(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match=r"vocab\.txt cannot be read"):
        read(tmp_path, vocab_size=3)
    (tmp_path / "vocab.txt").write_text("[PAD]\nhello\n")
    with pytest.raises(CheckpointError, match=r"lacks the special token \[UNK\]"):
        read(tmp_path, vocab_size=2)
