"""Text to ids and back equals transformers' tokenizer on the same files."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bertport.runtime import load
from bertport.runtime.errors import BundleError
from bertport.runtime.tokens import TOKENIZER, TOKENIZER_FILES, Tokens

TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    st.text("ab .,!?'nstmre[MASK]#é中😀\x00\t", max_size=400),
)


@pytest.fixture(scope="module")
def theirs(tiny_checkpoint):
    """transformers' tokenizer, by whether it cleans up spaces."""
    from transformers import AutoTokenizer

    return {
        clean_up: AutoTokenizer.from_pretrained(tiny_checkpoint, clean_up_tokenization_spaces=clean_up)
        for clean_up in (False, True)
    }


@pytest.fixture(scope="module")
def ours(tiny_bundle):
    """Ours, by the same."""
    text = (tiny_bundle / TOKENIZER).read_text(encoding="utf-8")
    return {clean_up: Tokens(text, {"clean_up_tokenization_spaces": clean_up}, 160) for clean_up in (False, True)}


@settings(deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_ids_of_texts(ours, theirs, texts):
    expected = theirs[False](texts, truncation=True, max_length=160)["input_ids"]
    assert [each.ids.tolist() for each in ours[False].encode(texts, truncation=True)] == expected


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_ids_and_segments_of_pairs(ours, theirs, a, b):
    expected = theirs[False]([a], [b], truncation=True, max_length=160)
    [found] = ours[False].encode([(a, b)], truncation=True)
    assert found.ids.tolist() == expected["input_ids"][0]
    assert found.type_ids.tolist() == expected["token_type_ids"][0]


@settings(deadline=None)
@given(st.data(), st.booleans(), st.booleans())
def test_decoding(ours, theirs, data, clean_up, skip):
    ids = data.draw(st.lists(st.integers(0, len(theirs[False]) - 1), max_size=12))
    expected = theirs[clean_up].decode(ids, skip_special_tokens=skip)
    assert ours[clean_up].decode(ids, skip_special_tokens=skip) == expected


@settings(deadline=None)
@given(st.lists(st.sampled_from([*"ins.,!?'tmrvae", "##t", "##s", "do", "re", "the", "[SEP]"]), max_size=10))
@example(["do", "n", "'", "t"])
@example(["the", "##s", "'", "s", ",", "!"])
def test_decoding_of_contractions(ours, theirs, tokens):
    ids = [ours[True].token_id(token) or 0 for token in tokens]
    for clean_up in (False, True):
        expected = theirs[clean_up].decode(ids)
        assert ours[clean_up].decode(ids, skip_special_tokens=False) == expected


def test_padding_and_truncation_in_the_file_are_switched_off(model, rewritten, tiny_bundle):
    """sentence-transformers' checkpoints ask for both, at 128 tokens."""
    description = json.loads((tiny_bundle / TOKENIZER).read_text(encoding="utf-8"))
    description["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    description["padding"] = {
        "strategy": {"Fixed": 20},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    asking = load(rewritten(tokenizer_json=json.dumps(description)))
    for text in ("a b", "a b c d e f g h i j k l m"):
        assert asking.features(text).shape == model.features(text).shape


def test_a_mask_token_of_another_name(rewritten, tiny_bundle):
    description = json.loads((tiny_bundle / TOKENIZER).read_text(encoding="utf-8"))
    text = json.dumps(description).replace("[MASK]", "<mask>")
    named = {"mask_token": {"content": "<mask>", "lstrip": False}}
    for files in (
        {"tokenizer_config_json": json.dumps(named), "special_tokens_map_json": "{}"},
        {"tokenizer_config_json": "{}", "special_tokens_map_json": json.dumps(named)},
    ):
        other = load(rewritten(tokenizer_json=text, **files))
        assert len(other.fill_mask("a <mask>")) == 5


@pytest.mark.parametrize("name", TOKENIZER_FILES)
def test_a_file_that_cannot_be_read(rewritten, name):
    with pytest.raises(BundleError, match=rf"{name} (is not JSON|cannot be read)"):
        load(rewritten(**{name.replace(".json", "_json"): "{"}))


def test_a_bundle_without_a_tokenizer(edited):
    with pytest.raises(BundleError, match=r"lists no file 'tokenizer.json'"):
        load(edited(lambda manifest: manifest["files"].pop("tokenizer.json")))


@settings(deadline=None)
@given(ids=st.lists(st.integers(0, 1500), max_size=30), skip=st.booleans())
def test_decoding_by_pieces_is_decoding(ours, ids, skip):
    """Every id, the special ones and those that are in no vocabulary, first and later, `##` in front or not."""
    tokens = ours[False]
    assert tokens._pieces is not None
    assert tokens.decode(ids, skip_special_tokens=skip) == tokens._tokenizer.decode(ids, skip_special_tokens=skip)


def test_a_decoder_of_another_kind_decodes_by_itself(rewritten, tiny_bundle):
    content = json.loads((tiny_bundle / "tokenizer.json").read_text(encoding="utf-8"))
    content["decoder"] = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    tokens = load(rewritten(tokenizer_json=json.dumps(content))).tokens
    assert tokens._pieces is None
    assert tokens.decode([20, 21], skip_special_tokens=False)
