"""The tokenizer in the bundle is the one that AutoTokenizer makes of the checkpoint, whichever files it came in."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from bertport.export.checkpoint.tokenizer import TokenizerFiles, read_tokenizer
from bertport.export.checkpoint.tokenizer_loading import quiet
from bertport.export.validation.tokenizer import check_tokenizer
from bertport.export.validation.tokenizer_texts import long_texts, pairs_of, texts_for
from bertport.runtime.cli import app
from bertport.runtime.errors import CheckpointError, ValidationError
from bertport.runtime.text.tokenizer import SETTINGS, TOKENIZER_FILES, Tokens, read_settings
from tests.export import tokenizer_forms as forms_of
from tests.export.tokenizer_forms import ELSEWHERE, FORMS, ROWS, edit, remove

CASED = ("complete", "no_settings", "json_alone", "unsaid", "settings_disagree", "strips_accents", "token_flags")
CASED_ROWS = 1200
LENGTH = 1 << 16


def read(directory, *, rows=ROWS):
    return read_tokenizer(directory, vocab_size=rows, max_positions=160)


def of_transformers(directory, form):
    """Return transformers' own tokenizer of a directory, without anything of ours."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if form in ELSEWHERE:
        # The default of transformers 5's class gives no segments; BERT's does.
        segments = ["token_type_ids"] if form is not forms_of.of_transformers_5 else []
        inputs = ["input_ids", *segments, "attention_mask"]
        return PreTrainedTokenizerFast(tokenizer_file=str(directory / "tokenizer.json"), model_input_names=inputs)
    with quiet():
        return AutoTokenizer.from_pretrained(directory)


@dataclass(frozen=True, kw_only=True, repr=False)
class Made:
    """Tokenizers and files made of one form."""

    expected: Any
    """transformers' tokenizer, of the checkpoint."""
    bundle: Any
    """transformers' tokenizer, of what was saved."""
    tokens: Tokens
    """Ours, of what was saved."""
    files: TokenizerFiles
    """Tokenizer files as they were read."""
    written: Any
    """Directory that they were saved to."""

    def compare(self, text, pair=None):
        encoded = self.expected(text, pair, verbose=False)
        wanted = (encoded.input_ids, encoded.get("token_type_ids", [0] * len(encoded.input_ids)))
        again = self.bundle(text, pair, verbose=False)
        assert (again.input_ids, again.get("token_type_ids", [0] * len(again.input_ids))) == wanted
        [ours] = self.tokens.encode([text if pair is None else (text, pair)])
        assert (ours.ids.tolist(), ours.type_ids.tolist()) == wanted


@pytest.fixture(
    scope="module",
    params=[(form, False) for form in (*FORMS, *ELSEWHERE)]
    + [(form, True) for form in FORMS if form.__name__ in CASED],
    ids=lambda param: f"{'cased ' if param[1] else ''}{param[0].__name__}",
)
def made(request, make_tokenizer, tmp_path_factory):
    from transformers import AutoTokenizer

    form, cased = request.param
    source, written = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("written")
    make_tokenizer(source, cased=cased)
    (source / "config.json").write_text('{"model_type": "bert"}')
    form(source)
    rows = CASED_ROWS if cased else ROWS
    files = read(source, rows=rows)
    files.save(written)
    with quiet():
        bundle = AutoTokenizer.from_pretrained(written)
    content = (written / "tokenizer.json").read_text(encoding="utf-8")
    config = read_settings((path, path.read_bytes()) for name in SETTINGS if (path := written / name).is_file())
    tokens = Tokens(content, config, LENGTH, vocab_size=rows, segments=files.segments)
    expected = of_transformers(source, form)
    return Made(expected=expected, bundle=bundle, tokens=tokens, files=files, written=written)


def test_it_reads_every_kind_of_text_as_transformers_does(made):
    added = list(made.expected.added_tokens_decoder.values())
    texts = texts_for(made.expected.get_vocab(), added)[::2]
    for text in [*texts, *long_texts(made.expected.get_vocab(), added)[:2]]:
        made.compare(text)
    for text, pair in pairs_of(texts)[::3]:
        made.compare(text, pair)


PIECES = st.sampled_from(
    ["[E1]", "[/E1]", "<new>", "Königin", "<l>", "<r>", "art", "Wörd", "[MASK]", "<mask>", " ", "é"]
)
TEXTS = st.text() | st.lists(PIECES | st.text(max_size=3), max_size=8).map("".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=12)
@given(text=TEXTS, other=st.none() | TEXTS.filter(bool))  # transformers takes an empty second text for none
def test_it_reads_any_text_as_transformers_does(made, text, other):
    made.compare(text, other)


def test_special_tokens_and_answers_are_transformers_own(made):
    assert made.bundle.special_tokens_map == made.expected.special_tokens_map or made.files.reference.special_tokens_map
    assert made.bundle.get_vocab() == made.expected.get_vocab()
    assert made.tokens.mask_id == made.expected.convert_tokens_to_ids(made.tokens.mask_token)
    assert made.tokens.mask_token == (made.expected.mask_token or "[MASK]")
    for index in made.expected.get_vocab().values():
        assert made.tokens.decode([index], skip_special_tokens=False) == made.expected.decode([index])


def test_the_files_are_complete(made):
    names = {path.name for path in made.written.iterdir()}
    assert {"tokenizer.json", "tokenizer_config.json"} <= names
    assert names <= {*TOKENIZER_FILES, "added_tokens.json", "vocab.txt"}
    tokenizer = Tokenizer.from_file(str(made.written / "tokenizer.json"))
    assert tokenizer.truncation is None
    assert tokenizer.padding is None
    if type(tokenizer.model).__name__ == "WordPiece":
        lines = (made.written / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
        assert {token: lines[index] for token, index in tokenizer.get_vocab(with_added_tokens=False).items()} == {
            token: token for token in tokenizer.get_vocab(with_added_tokens=False)
        }
    stated = json.loads((made.written / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert "/root" not in json.dumps(stated)
    if "do_lower_case" in stated:
        assert stated["do_lower_case"] is made.files.lowercase


@pytest.fixture
def source(make_tokenizer, tmp_path):
    """A directory as BertTokenizerFast saves it."""
    directory = tmp_path / "source"
    directory.mkdir()
    make_tokenizer(directory)
    (directory / "config.json").write_text('{"model_type": "bert"}')
    return directory


@pytest.fixture
def written(tmp_path):
    directory = tmp_path / "written"
    directory.mkdir()
    return directory


class TestTheComparison:
    """Export compares what was saved with transformers, and a difference fails."""

    def test_it_passes_and_counts(self, source, written):
        files = read(source)
        files.save(written)
        assert check_tokenizer(files, written, max_length=160, vocab_size=ROWS) > 400

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda value: value["normalizer"].update(lowercase=False), r"'.*token \d+ is .* in place of "),
            (
                lambda value: value["added_tokens"].pop(),
                r"'.*\[MASK\].*token \d+ is '\[' \(\d+\) in place of '\[MASK\]'",
            ),
            (lambda value: value["post_processor"]["single"].pop(), r"''.*token 1 is nothing in place of '\[SEP\]' "),
            (
                lambda value: value["post_processor"]["pair"][3]["Sequence"].update(type_id=0),
                r"segment \d+ is 0 in place",
            ),
            (lambda value: value.update(decoder=None), r"\('.*reads|writes the tokens"),
        ],
    )
    def test_a_difference_names_the_text_and_the_token(self, source, written, change, message):
        files = read(source)
        files.save(written)
        value = json.loads((written / "tokenizer.json").read_text(encoding="utf-8"))
        change(value)
        (written / "tokenizer.json").write_text(json.dumps(value), encoding="utf-8")
        with pytest.raises(ValidationError, match=message):
            check_tokenizer(files, written, max_length=160, vocab_size=ROWS)

    def test_a_tokenizer_that_the_runtime_cannot_use(self, tiny_checkpoint, tmp_path):
        import shutil

        checkpoint = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
        value = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
        value["post_processor"]["single"].append({"Sequence": {"id": "A", "type_id": 0}})
        (checkpoint / "tokenizer.json").write_text(json.dumps(value), encoding="utf-8")
        # Of this class, transformers 5 takes the file as it is; of BERT's it makes its own form of the vocabulary.
        edit(checkpoint / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
        result = CliRunner().invoke(app, ["export", str(checkpoint), str(tmp_path / "out")])
        assert result.exit_code == 1
        assert "the runtime cannot use the checkpoint's tokenizer" in result.stderr.splitlines()[-1]
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("cased", [False, True])
def test_case_is_transformers_own(make_tokenizer, tmp_path, cased):
    """What a model was trained with nobody says here; transformers lower-cases, and a note tells what that loses."""
    make_tokenizer(tmp_path, cased=cased)
    assert read(tmp_path, rows=CASED_ROWS).lowercase is not cased
    forms_of.no_settings(tmp_path)
    files = read(tmp_path, rows=CASED_ROWS)
    assert files.lowercase is True
    assert any("entries with capitals, such as" in note for note in files.notes) is cased


def test_a_disagreement_is_settled_aloud(source):
    forms_of.settings_disagree(source)
    files = read(source)
    assert files.lowercase is False
    assert "tokenizer.json disagreed" in files.notes[0]


def test_ids_that_the_fast_tokenizer_does_not_give_are_noted(source):
    """The slow form gives <far> the id that added_tokens.json states; the fast one counts on from the vocabulary."""
    forms_of.added_tokens_with_gaps(source)
    notes = read(source).notes
    assert any("give '<far>' the id 690 and transformers' fast tokenizer gives it 673" in note for note in notes)


def test_a_class_that_the_file_is_not_of(source):
    forms_of.byte_level(source)
    edit(source / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    reason = "(can be read: where it is of another kind|transformers makes WordPiece of it)"
    with pytest.raises(CheckpointError, match=rf'{reason}.* "tokenizer_class": "PreTrainedTokenizerFast"'):
        read(source)


@pytest.mark.parametrize(
    ("stated", "limit"),
    [
        (160, 160),
        (1e30, 10**30),
        (1000000000000000019884624838656, 10**30),
        (None, 10**30),
        (float("inf"), 10**30),
        (512.0, 512),
        (0, None),
        (-1, None),
    ],
)
def test_the_limit_is_read(source, written, stated, limit):
    edit(source / "tokenizer_config.json", model_max_length=stated)
    files = read(source)
    assert files.model_max_length == limit or files.model_max_length > 10**29
    files.save(written)
    longest = json.loads((written / "tokenizer_config.json").read_text(encoding="utf-8"))["model_max_length"]
    assert longest == (limit if limit and limit < 1000 else 160)


@pytest.mark.parametrize("rows", [1, 300, 671])
def test_tokens_without_a_row(source, rows):
    message = rf"has 672 tokens and the word embedding {rows} rows, none for '.*' \({rows}\)"
    with pytest.raises(CheckpointError, match=message):
        read(source, rows=rows)


@pytest.mark.parametrize("rows", [673, 680, 30528])
def test_rows_without_a_token(source, rows):
    assert read(source, rows=672).notes == ()
    [note] = read(source, rows=rows).notes
    assert f"{rows - 672:,} of {rows:,} rows of the word embedding have no token" in note


def test_no_tokenizer(tmp_path):
    with pytest.raises(CheckpointError, match=r"neither tokenizer\.json nor vocab\.txt is there"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("file", "entries", "message"),
    [
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["own.py", None]}}, "code of its own"),
        (
            "tokenizer_config.json",
            {"tokenizer_class": "BertJapaneseTokenizer"},
            "BertJapaneseTokenizer .* no fast form",
        ),
        ("tokenizer_config.json", {"tokenizer_class": "TapasTokenizer"}, "has no fast form; only fast tokenizers"),
        ("tokenizer_config.json", {"tokenizer_class": "OwnTokenizer"}, "does not know .* give it a tokenizer.json"),
        ("tokenizer_config.json", {"tokenizer_class": "os.system"}, "should be the name of a class"),
        ("tokenizer_config.json", {"split_special_tokens": True}, "split_special_tokens is set"),
        ("tokenizer_config.json", {"do_lower_case": "null"}, r"tokenizer_config\.json: do_lower_case is None"),
        ("tokenizer_config.json", {"strip_accents": "yes"}, r"tokenizer_config\.json: strip_accents is 'yes'"),
        ("tokenizer_config.json", {"tokenize_chinese_chars": "null"}, "tokenize_chinese_chars is None"),
        ("tokenizer_config.json", {"model_max_length": "512"}, "model_max_length is '512' and should be a number"),
        ("tokenizer_config.json", {"model_max_length": True}, "model_max_length is True and should be a number"),
        ("tokenizer_config.json", {"model_max_length": float("nan")}, "model_max_length is nan and should be a number"),
        ("tokenizer_config.json", {"model_input_names": "input_ids"}, "model_input_names is 'input_ids' and should be"),
        ("tokenizer_config.json", {"mask_token": 5}, r"tokenizer_config\.json: mask_token is 5"),
        (
            "tokenizer_config.json",
            {"mask_token": {"lstrip": True}},
            r"tokenizer_config\.json: mask_token is \{'lstrip'",
        ),
        ("tokenizer_config.json", {"padding_side": "up"}, r"tokenizer_config\.json: padding_side is 'up'"),
        ("tokenizer_config.json", {"added_tokens_decoder": ["a"]}, r"tokenizer_config\.json: added_tokens_decoder is"),
        ("tokenizer_config.json", {"additional_special_tokens": "[E1]"}, "additional_special_tokens is"),
        ("tokenizer_config.json", {"save_pretrained": "x"}, r"tokenizer_config\.json: save_pretrained is 'x'"),
    ],
)
def test_settings_that_cannot_be(source, file, entries, message):
    """One sentence that names the file, the field and what to do, whatever transformers makes of it."""
    nulls = {key: None for key, value in entries.items() if value == "null"}
    path = source / file
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | entries | nulls))
    with pytest.raises(CheckpointError, match=message) as caught:
        read(source)
    assert "\n" not in caught.value.message


def test_a_class_that_config_json_alone_states(source):
    """As cl-tohoku's checkpoints have it."""
    forms_of.vocabulary_only(source)
    edit(source / "tokenizer_config.json", tokenizer_class=None)
    edit(source / "config.json", tokenizer_class="BertJapaneseTokenizer")
    with pytest.raises(CheckpointError, match=r"BertJapaneseTokenizer \(config\.json\), which has no fast form; only"):
        read(source)


@pytest.mark.parametrize(
    "file", ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.json"]
)
@pytest.mark.parametrize(
    "content", [b"", b"[]", b'\xef\xbb\xbf{"a": 1}', b"\xff\xfe{\x00}\x00", b"{", b"null", b"[" * 9999]
)
def test_files_that_are_damaged(source, file, content):
    (source / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{file} (cannot be read|holds a)") as caught:
        read(source)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"model": {"type": "WordPiece"}}', r"tokenizer\.json cannot be read"),
        ('{"version": "1.0", "added_tokens": [], "model": {"type": "None"}}', r"tokenizer\.json cannot be read"),
        ("{}", r"tokenizer\.json cannot be read"),
    ],
)
def test_a_tokenizer_that_says_nothing(source, content, message):
    (source / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        read(source)


def test_a_vocabulary_that_is_not_text(source):
    remove(source, "tokenizer.json")
    (source / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match=r"vocab\.txt cannot be read \('utf-8' codec"):
        read(source)


def test_a_vocabulary_that_lacks_special_tokens(source):
    """transformers adds them behind it, where no row is."""
    forms_of.vocabulary_only(source)
    (source / "vocab.txt").write_text("[PAD]\nhello\n")
    with pytest.raises(CheckpointError, match=r"has 6 tokens and the word embedding 2 rows, none for '\[UNK\]' \(2\)"):
        read(source, rows=2)


def test_files_beside_the_checkpoint_are_not_read(source, tmp_path):
    """tokenizer_config.json may name any path of this machine."""
    (tmp_path / "private.json").write_text("{}")
    edit(source / "tokenizer_config.json", tokenizer_file=str(tmp_path / "private.json"), vocab_file="/etc/passwd")
    assert read(source).tokenizer.get_vocab_size() == 672


@pytest.mark.parametrize("form", [forms_of.duplicate_lines, forms_of.cuts_the_beginning, forms_of.of_transformers_5])
def test_nothing_is_printed(source, written, form, capfd):
    """Neither warnings of transformers nor what the tokenizers package prints to stdout of a vocabulary with gaps."""
    form(source)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        files = read(source)
        files.save(written)
        check_tokenizer(files, written, max_length=40, vocab_size=ROWS)
    assert caught == []
    assert capfd.readouterr() == ("", "")


def test_names_of_chat_templates_lead_nowhere(tiny_checkpoint, tmp_path):
    """CVE-2026-9856: transformers before 5.10 makes paths of them."""
    source = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, source)
    templates = [{"name": "default", "template": "x"}, {"name": "../../../found", "template": "x"}]
    edit(source / "tokenizer_config.json", chat_template=templates)
    config = json.loads((source / "config.json").read_text())
    written = tmp_path / "one" / "two" / "written"
    written.mkdir(parents=True)
    files = read_tokenizer(source, vocab_size=config["vocab_size"], max_positions=config["max_position_embeddings"])
    files.save(written)
    assert not list(tmp_path.rglob("*.jinja"))
    assert json.loads((written / "tokenizer_config.json").read_text()).get("chat_template") is None


def test_a_tokenizer_of_transformers_5_gives_no_segments_where_its_settings_are_silent(source, written):
    """The default of its TokenizersBackend; that of transformers 4's PreTrainedTokenizerFast is to give them."""
    import transformers

    of_4 = None if transformers.__version__.startswith("4.") else 0
    for kind, segments in (("TokenizersBackend", 0), ("PreTrainedTokenizerFast", of_4)):
        edit(source / "tokenizer_config.json", tokenizer_class=kind)
        assert read(source).segments == segments
        edit(source / "tokenizer_config.json", model_input_names=["input_ids", "token_type_ids", "attention_mask"])
        assert read(source).segments is None
        edit(source / "tokenizer_config.json", model_input_names=None)
    edit(source / "tokenizer_config.json", tokenizer_class="TokenizersBackend")
    files = read(source)
    files.save(written)
    assert check_tokenizer(files, written, max_length=160, vocab_size=ROWS) > 400


@pytest.mark.parametrize("role", ["mask_token", "pad_token"])
@pytest.mark.parametrize("kind", ["BertTokenizer", "PreTrainedTokenizerFast"])
def test_a_special_token_that_the_settings_do_without(source, written, role, kind):
    """As null to BERT's class, whose default is another, and as nothing at all to the one that has no defaults."""
    path = source / "tokenizer_config.json"
    edit(path, tokenizer_class=kind)
    remove(source, "special_tokens_map.json")
    settings = json.loads(path.read_text(encoding="utf-8"))
    del settings[role]
    path.write_text(json.dumps(settings | ({role: None} if kind == "BertTokenizer" else {})), encoding="utf-8")
    files = read(source)
    assert getattr(files.reference, role) is None
    assert any("has no mask token" in note for note in files.notes) is (role == "mask_token")
    files.save(written)
    assert json.loads((written / "tokenizer_config.json").read_text(encoding="utf-8"))[role] is None
    assert check_tokenizer(files, written, max_length=160, vocab_size=ROWS) > 400


def test_the_comparison_finds_a_special_token_that_another_stands_for(source, written):
    files = read(source)
    files.save(written)
    for role in ("mask_token", "pad_token"):
        edit(written / "tokenizer_config.json", **{role: "[SEP]"})
        with pytest.raises(ValidationError, match=rf"the runtime takes \d+ for the id of {role} and transformers \d+"):
            check_tokenizer(files, written, max_length=160, vocab_size=ROWS)
        files.save(written)
