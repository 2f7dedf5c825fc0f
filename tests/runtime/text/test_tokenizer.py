"""Text to ids and back equals transformers' tokenizer on the same files."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bertport.runtime import load
from bertport.runtime.errors import BundleError, InputTextError, UsageError
from bertport.runtime.tasks.poolings import POOLINGS
from bertport.runtime.text.steps import drained
from bertport.runtime.text.tokenizer import TOKENIZER, TOKENIZER_FILES, Tokens
from bertport.runtime.text.windows import Windows
from tests.families import TINY

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
    assert [encoded.ids.tolist() for encoded in ours[False].encode(texts, truncation=True)] == expected


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_ids_and_segments_of_pairs(ours, theirs, a, b):
    expected = theirs[False]([a], [b], truncation=True, max_length=160)
    [encoded] = ours[False].encode([(a, b)], truncation=True)
    assert encoded.ids.tolist() == expected["input_ids"][0]
    assert encoded.type_ids.tolist() == expected["token_type_ids"][0]


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


def test_null_is_no_token_and_silence_is_berts_own(rewritten):
    """The same as transformers, which drops padding from a `sequence` only where there is a padding token."""
    silent = load(rewritten(tokenizer_config_json="{}", special_tokens_map_json="{}"))
    assert (silent.tokens.mask_token, silent.tokens.token(silent.tokens.pad_id)) == ("[MASK]", "[PAD]")
    assert "[PAD]" not in silent.fill_mask("a [PAD] [MASK] , [MASK]")[0][0]["sequence"]
    padless = load(rewritten(tokenizer_config_json='{"pad_token": null}', special_tokens_map_json="{}"))
    assert padless.tokens.pad_id is None
    assert "[PAD]" in padless.fill_mask("a [PAD] [MASK] , [MASK]")[0][0]["sequence"]
    assert padless.features(["a", "a b c"])[0].shape == silent.features("a").shape
    maskless = load(rewritten(tokenizer_config_json='{"mask_token": null}', special_tokens_map_json="{}"))
    assert "fill-mask" not in maskless.describe()["tasks"]
    assert maskless.describe()["tasks"] == ["next-sentence", "features"]
    with pytest.raises(UsageError, match="has no mask token, so nothing can be filled"):
        maskless.fill_mask("a [MASK]")


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
    content["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    tokens = load(rewritten(tokenizer_json=json.dumps(content))).tokens
    assert tokens._pieces is None
    assert tokens.decode([20, 21], skip_special_tokens=False)


@settings(deadline=None)
@given(
    ids=st.lists(st.integers(0, 1500), max_size=30),
    skip=st.booleans(),
    scheme=st.sampled_from(["always", "first", "never"]),
)
def test_decoding_by_pieces_of_sentencepiece(metaspace, ids, skip, scheme):
    tokens = metaspace[scheme]
    assert tokens._pieces is not None
    assert tokens.decode(ids, skip_special_tokens=skip) == tokens._tokenizer.decode(ids, skip_special_tokens=skip)


@pytest.fixture(scope="module")
def metaspace(tmp_path_factory):
    """A tokenizer as XLM-R's, by where its decoder takes a space for one that was put before the text."""
    directory = tmp_path_factory.mktemp("metaspace")
    TINY["xlm-roberta"].write(directory)
    content = json.loads((directory / TOKENIZER).read_text(encoding="utf-8"))
    return {
        scheme: Tokens(json.dumps(content | {"decoder": content["decoder"] | {"prepend_scheme": scheme}}), {}, 160)
        for scheme in ("always", "first", "never")
    }


@pytest.mark.parametrize("text", ["", "\u200b", " \n", "\x00"])
def test_an_input_of_no_tokens_is_refused_in_one_sentence(rewritten, description, text):
    """A tokenizer that `BertWordPieceTokenizer().train().save()` writes adds no special tokens."""
    model = load(rewritten(tokenizer_json=json.dumps(description | {"post_processor": None})))
    for task in ("features", "next-sentence"):
        for parameters in ({}, {"truncation": True}):
            bad = text if task == "features" else (text, text)
            good = "a" if task == "features" else ("a", text)
            outcomes = list(model.outcomes(model.bind(task, **parameters), [good, bad, good]))
            assert isinstance(outcomes[1], InputTextError)
            assert "the input has no tokens" in str(outcomes[1])
            assert not isinstance(outcomes[0], Exception)
            assert not isinstance(outcomes[2], Exception)
    with pytest.raises(InputTextError, match="No mask_token"):
        model.fill_mask(text)
    with pytest.raises(InputTextError, match="has no tokens"):
        model.features(text * 20_000, pooling="mean", truncation=True)


POST = {
    "none": None,
    "roberta": {
        "type": "RobertaProcessing",
        "sep": ["[SEP]", 13],
        "cls": ["[CLS]", 12],
        "trim_offsets": True,
        "add_prefix_space": False,
    },
    "bert": {"type": "BertProcessing", "sep": ["[SEP]", 13], "cls": ["[CLS]", 12]},
    "template without specials": {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {},
    },
}


@settings(max_examples=30)
@given(
    name=st.sampled_from(list(POST)),
    inputs=st.lists(st.one_of(TEXTS, st.tuples(TEXTS, TEXTS), st.sampled_from(["", "\u200b"])), min_size=1, max_size=4),
    truncation=st.booleans(),
)
def test_whatever_the_tokenizer_adds_there_is_an_answer_or_a_sentence(posts, name, inputs, truncation):
    model = posts[name]
    assert len(model.features(model.tokens.sample)) > 0
    for pooling in POOLINGS:
        for outcome in model.outcomes(model.resolve("features", pooling=pooling, truncation=truncation), inputs):
            assert isinstance(outcome, InputTextError) or np.isfinite(outcome).all()


@pytest.fixture(scope="module")
def posts(tiny_bundle, description):
    """The tiny model with other tokenizers, by name."""
    from bertport.runtime.model import Model

    model = load(tiny_bundle)
    return {
        name: Model(
            model.bundle,
            model.variant,
            model.graph,
            Tokens(json.dumps(description | {"post_processor": processor}), {}, 160),
        )
        for name, processor in POST.items()
    }


def without_vocabulary(content):
    return content | {"model": content["model"] | {"vocab": {}}, "added_tokens": []}


BROKEN = {
    "an empty vocabulary": (without_vocabulary, r"tokenizer.json (gives no token|cannot be read)"),
    "another unknown token": (
        lambda content: content | {"model": content["model"] | {"unk_token": "[none]", "vocab": {"[zz]": 0}}},
        "tokenizer.json",
    ),
    "not an object": (lambda _: [], "tokenizer.json cannot be read"),
    "special tokens of another checkpoint": (
        lambda content: (
            content | {"post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 13], "cls": ["[CLS]", 70_000]}}
        ),
        r"adds the token 70000 and the model knows \d+",
    ),
    "a text twice": (
        lambda content: (
            content
            | {
                "post_processor": {
                    "type": "TemplateProcessing",
                    "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 2,
                    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                    "special_tokens": {},
                }
            }
        ),
        "post-processor of tokenizer.json does not put a text between special tokens",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_tokenizer_that_cannot_be_used(rewritten, description, name):
    change, message = BROKEN[name]
    content = json.loads(json.dumps(description))
    with pytest.raises(BundleError, match=message):
        load(rewritten(tokenizer_json=json.dumps(change(content))))


@pytest.mark.parametrize("name", TOKENIZER_FILES)
@pytest.mark.parametrize("content", [b"\xff\xfe{}", b"\x00", b"", b"[" * 100_000, b"null", b"[]", b"3"])
def test_a_file_of_any_bytes(rewritten, name, content):
    with pytest.raises(BundleError, match=name):
        load(rewritten(**{name.replace(".json", "_json"): content}))


@pytest.mark.parametrize("name", TOKENIZER_FILES[1:])
@pytest.mark.parametrize("key", ["mask_token", "pad_token", "truncation_side", "clean_up_tokenization_spaces"])
@pytest.mark.parametrize("value", [5, [], {}, {"content": 5}, {"content": None}, "\ud83d", ["[MASK]"], 1.5])
def test_settings_of_the_wrong_kind(rewritten, name, key, value):
    other = TOKENIZER_FILES[3 - TOKENIZER_FILES.index(name)].replace(".json", "_json")
    with pytest.raises(BundleError, match=rf"{name}: {key} is .* and should be"):
        load(rewritten(**{name.replace(".json", "_json"): json.dumps({key: value}), other: "{}"}))


def test_ids_that_the_model_does_not_know(rewritten, description):
    """A vocabulary larger than the embedding: the word is refused, and the others are answered."""
    content = json.loads(json.dumps(description))
    content["model"]["vocab"] |= {"zzz": 5000, "zzzz": 5001}
    model = load(rewritten(tokenizer_json=json.dumps(content)))
    for text in ("a zzz", "a zzz " + "b " * 5000):
        outcomes = list(model.outcomes(model.bind("features", truncation=True), ["a", text, "b"]))
        assert isinstance(outcomes[1], InputTextError)
        assert "the token 5000 and the model knows" in str(outcomes[1])
        assert not any(isinstance(outcome, Exception) for outcome in (outcomes[0], outcomes[2]))
    with pytest.warns(UserWarning, match="'zzz' is not in the vocabulary: it is left out"):
        assert len(model.fill_mask("a [MASK]", targets=["zzz", "king"])) == 1


@pytest.mark.parametrize("length", [0, -1, -(10**9)])
def test_a_length_that_cannot_be(edited, length):
    with pytest.raises(BundleError, match=f"max_length is {length} tokens"):
        load(edited(lambda manifest: manifest.update(max_length=length)))


@pytest.mark.parametrize("length", [1, 2])
def test_a_length_that_is_used_up_by_special_tokens(edited, length):
    with pytest.raises(BundleError, match=f"the model takes {length} tokens and tokenizer.json adds 2 to every text"):
        load(edited(lambda manifest: manifest.update(max_length=length)))


def test_a_pair_that_has_no_room(edited):
    model = load(edited(lambda manifest: manifest.update(max_length=3)))
    assert model.features("a b c", truncation=True).shape == (3, 32)
    [vectors] = model.predict("features", [("a", "b")], truncation=True)
    assert vectors.shape == (3, 32)


class Interrupted:
    """A tokenizer in whose first batch Ctrl-C is pressed."""

    def __init__(self, tokenizer):
        self.tokenizer, self.batches = tokenizer, 0

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def encode_batch(self, texts, **settings):
        self.batches += 1
        if self.batches == 1:
            raise KeyboardInterrupt
        return self.tokenizer.encode_batch(texts, **settings)


@pytest.mark.parametrize(
    "ask",
    [
        lambda tokens: tokens.encode(["a", "b"], spans=True),
        lambda tokens: drained(tokens.windows(["a", "b"], Windows(length=16, stride=4))),
    ],
)
def test_an_interrupt_is_no_text_that_is_refused(tiny_bundle, ask):
    """Of a batch that is refused each text is tried alone; Ctrl-C must end it."""
    tokens = Tokens((tiny_bundle / TOKENIZER).read_text(encoding="utf-8"), {}, 160)
    tokens._encoder._tokenizer = Interrupted(tokens._encoder._tokenizer)
    with pytest.raises(KeyboardInterrupt):
        ask(tokens)


def test_an_interrupt_in_a_long_text_does_not_wait_for_the_others(tiny_bundle):
    tokens = Tokens((tiny_bundle / TOKENIZER).read_text(encoding="utf-8"), {}, 160)
    interrupted = Interrupted(tokens._encoder._tokenizer)
    tokens._encoder._rules = dataclasses.replace(tokens._encoder._rules, tokenizer=interrupted)
    with pytest.raises(KeyboardInterrupt):
        drained(tokens.windows(["a " * 10_000] * 2, Windows(length=16, stride=4)))
    assert interrupted.batches == 1
