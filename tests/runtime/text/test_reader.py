"""Long texts are read no further than their ids depend on, and give the ids of transformers' truncation."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from bertport.runtime import load
from bertport.runtime.errors import InputTextError
from bertport.runtime.text import encoder, reader
from bertport.runtime.text.encoder import Encoded, lengths
from bertport.runtime.text.reader import PIECE, Reader, Rules, encoding_of_part
from bertport.runtime.text.steps import drained
from bertport.runtime.text.tokenizer import TOKENIZER, Tokens
from tests.families import TINY

ATOMS = [
    *("a", "the", "fo", "foo", "ab", "king", "xq", ".", ",", "_", "[", "]", "[MASK]", "[MA", "SK]", "MASK", "[[MASK]]"),
    *("[UNK]", "[E1]", "[/E", "E1]", "<x>", "中", "本", "한", "é", "ß", "İ", "\u017f", "Σ", "≠", "€", "ä", "\u037e"),
    *("e\u0301", "\u0301", "\u0327\u0301", "\u0344", "\u1b44", "\u302e", "\u0f71", "\u1100\u1161\u11a8", "\U0001d15e"),
    *("\u200b", "\u200d", "\u00ad", "\ufffd", "\ue000", "\U000e0041", "\x00", "\x0b", "\x0c", "\x1c", "\x1f", "\x85"),
    *(" ", "\t", "\n", "\r", "\u3000", "\u00a0", "\u2028", "😀", "👩\u200d👧", "\u1fef"),
]
"""Words, added tokens and halves of them, and what normal forms drop, split, reorder, or take for white space."""


def texts(atoms, *counts):
    """Texts of so many atoms, each repeated."""
    repeated = st.builds(lambda atom, count: atom * count, st.sampled_from(ATOMS), st.one_of(st.just(1), *counts))
    return st.lists(repeated, max_size=atoms).map("".join)


TEXTS = texts(30, st.integers(1, 6), st.integers(90, 110), st.just(300))
SHORTER = texts(12, st.integers(1, 6), st.integers(90, 110))  # transformers builds every pair of what is cut off
PIECES = st.sampled_from([1, 3, 10, 12, 16, 25, 40, 64, 100, 200])

VARIANTS = {
    "as it is": {},
    "accents": {"strip_accents": False},
    "no clean text": {"clean_text": False},
    "cased": {"lowercase": False},
    "no Chinese": {"handle_chinese_chars": False},
    "no normalizer": {"normalizer": None},
    "short words": {"max_input_chars_per_word": 5},
    "more tokens": {"added": ["[E1]", "[/E1]", "[M", "<x>", "[[MASK]]"]},
    "tokens of letters": {"added": ["foo", "ab", "abab"]},
    "not of BERT": {"pre_tokenizer": {"type": "Whitespace"}},
    "tokens of normal text": {"added": ["foo"], "normalized": True},
}


@pytest.fixture(scope="module")
def variants(description):
    """Tokenizers whose rules differ, and their rules."""

    def changed(changes):
        content = json.loads(json.dumps(description))
        for key, value in changes.items():
            if key in {"normalizer", "pre_tokenizer"}:
                content[key] = value
            elif key == "max_input_chars_per_word":
                content["model"][key] = value
            elif key in content["normalizer"]:
                content["normalizer"][key] = value
        for token in changes.get("added", ()):
            index = content["model"]["vocab"].setdefault(token, len(content["model"]["vocab"]))
            flags = dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
            more = {"normalized": changes.get("normalized", False), "special": True}
            content["added_tokens"] = [old for old in content["added_tokens"] if old["id"] != index]
            content["added_tokens"].append({"id": index, "content": token} | flags | more)
        content["added_tokens"].sort(key=lambda token: token["id"])
        tokenizer = Tokenizer.from_str(json.dumps(content))
        return tokenizer, Rules.of(tokenizer)

    return {name: changed(changes) for name, changes in VARIANTS.items()}


def read(rules, text, piece):
    reader, tokens = Reader(rules, text, piece), []
    while not reader.done:
        tokens += reader.read()
    return tokens


@settings(max_examples=150)
@given(st.sampled_from(list(VARIANTS)), TEXTS, PIECES)
@example("as it is", "[" + "\u200b" * 40 + "MASK]", 12)
@example("as it is", "a" * 200 + "[MASK]", 12)
@example("as it is", "fo" * 60 + "e\u0301\u302e\u302e[UNK]\u0f71", 1)
def test_pieces_give_the_tokens_of_the_whole(variants, name, text, piece):
    tokenizer, rules = variants[name]
    assert read(rules, text, piece) == tokenizer.encode(text, add_special_tokens=False).ids


SENTENCES = st.lists(texts(8, st.just(2)), max_size=60).map(" ".join)
"""Texts whose words are shorter than a piece of 400 characters."""


@settings(max_examples=100)
@given(st.sampled_from(list(VARIANTS)), SENTENCES)
def test_pieces_give_the_spans_of_the_whole(variants, name, text):
    tokenizer, rules = variants[name]
    reader, spans = Reader(rules, text, 400, spans=True), []
    while not reader.done:
        reader.read()
        spans += reader.spans
    assert spans == tokenizer.encode(text, add_special_tokens=False).offsets


@pytest.mark.parametrize("letters", [300, 9000, 40_000])
def test_a_long_word_begins_where_it_does(variants, letters):
    """However long, it is one token, whose end is where it was read to."""
    _, rules = variants["as it is"]
    reader, spans = Reader(rules, "the  " + "x" * letters + " end", spans=True), []
    while not reader.done:
        reader.read()
        spans += reader.spans
    (first, word, last) = spans
    assert first == (0, 3)
    assert word[0] == 5
    assert word[1] == 5 + letters or letters > PIECE
    assert last == (letters + 6, letters + 9)


KINDS = ("mpnet", "roberta", "deberta", "modernbert", "xlm-roberta", "albert", "deberta-v2")
OF_KINDS = [
    *(*ATOMS, "<mask>", " <mask>", "<mask> ", "<s>", "▁", "Ġ", "'s", " 's", "n't", "1", "12", "  ", " a", "a b c d"),
    *(" ", " the", "the king of spain ", "\u00a0", "\u0301 a", "``", "''", "ﬁ", "½", "ſt"),  # noqa: RUF001 — as they are
]


def of_family(family, directory):
    """The tokenizer of a family as it is, and forms of it by name."""
    TINY[family].write(directory)
    content = json.loads((directory / TOKENIZER).read_text(encoding="utf-8"))
    forms = {"": {}}
    if family == "roberta":
        forms["prefix"] = {"pre_tokenizer": content["pre_tokenizer"] | {"add_prefix_space": True}}
        forms["nfc"] = {"normalizer": {"type": "NFC"}}
    if family == "deberta-v2":  # as transformers 4 and 5 make it of a SentencePiece file
        metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
        strips = {"type": "Strip", "strip_left": True, "strip_right": True}
        punctuation = {"type": "Punctuation", "behavior": "Isolated"}
        spaces = {"type": "Replace", "pattern": {"Regex": r"\s{2,}|[\n\r\t]"}, "content": " "}
        of_5 = {"type": "Sequence", "normalizers": [spaces, {"type": "NFC"}, strips | {"strip_left": False}]}
        forms["strips"] = {"normalizer": {"type": "Sequence", "normalizers": [strips, {"type": "NFKC"}]}}
        forms["punctuation"] = {
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [punctuation, metaspace]},
            "normalizer": of_5,
        }
        forms["first"] = {"pre_tokenizer": metaspace | {"prepend_scheme": "first"}}
        split = {"type": "WhitespaceSplit"}
        forms["words"] = {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, metaspace]}}
    return {f"{family} {name}": Tokenizer.from_str(json.dumps(content | form)) for name, form in forms.items()}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """Tokenizers of other kinds than BERT's with their rules, by name."""
    made = {}
    for family in KINDS:
        made |= of_family(family, tmp_path_factory.mktemp(family))
    return {name: (tokenizer, Rules.of(tokenizer)) for name, tokenizer in made.items()}


@settings(max_examples=400)
@given(st.data(), st.lists(st.sampled_from(OF_KINDS), max_size=40).map("".join), PIECES)
def test_pieces_that_end_at_gaps_give_the_tokens_of_the_whole(kinds, data, text, piece):
    tokenizer, rules = kinds[data.draw(st.sampled_from(sorted(kinds)))]
    assert rules.spaced
    whole = tokenizer.encode(text, add_special_tokens=False)
    assert read(rules, text, piece) == whole.ids
    told, ids, spans = Reader(rules, text, piece, spans=True), [], []
    while not told.done:
        ids += told.read()
        spans += told.spans
    assert ids == whole.ids
    assert spans == whole.offsets


@settings(max_examples=300)
@given(st.data(), st.integers(0, 12))
def test_parts_have_the_first_and_the_last_tokens_of_the_whole(variants, kinds, data, count):
    tokenizers, atoms = data.draw(st.sampled_from([(variants, ATOMS), (kinds, OF_KINDS)]))
    tokenizer, rules = tokenizers[data.draw(st.sampled_from(sorted(tokenizers)))]
    words = data.draw(st.lists(st.sampled_from([*atoms, " a", " the ", ". "]), max_size=80))
    whole = tokenizer.encode("".join(words), add_special_tokens=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "CHARACTERS", 1)  # to cut so short texts
        first = encoding_of_part(rules, "".join(words), count)
        last = encoding_of_part(rules, "".join(words), count, last=True).ids
    assert (first.ids[:count], first.word_ids[:count]) == (whole.ids[:count], whole.word_ids[:count])
    start = max(0, len(whole) - count)
    assert last[max(0, len(last) - count) :] == whole.ids[start:]


@pytest.mark.parametrize("last", [False, True])
def test_of_a_long_text_no_more_is_tokenized_than_is_asked_for(variants, kinds, last):
    for _, rules in (variants["as it is"], *kinds.values()):
        for count in (0, 1, 60):
            part = encoding_of_part(rules, "the king of spain " * 9999, count, last=last)
            assert count <= len(part) < 40 * (count + 1)
        assert encoding_of_part(rules, "the" * 99, 9999, last=last).ids == read(rules, "the" * 99, 9999)


def test_a_gap_behind_an_added_token_is_read_as_within_the_text(kinds):
    """A text between added tokens is normalized by itself: the space that it begins with is stripped, or is not."""
    for tokenizer, rules in kinds.values():
        text = "the king [UNK] the king <s> the"
        for piece in range(10, 20):
            reader, spans = Reader(rules, text, piece, spans=True), []
            while not reader.done:
                reader.read()
                spans += reader.spans
            assert spans == tokenizer.encode(text, add_special_tokens=False).offsets


@pytest.mark.parametrize("words", ["the king of spain ", "a ", "<mask> b 12 's "])
def test_a_text_with_gaps_is_read_in_pieces(kinds, words):
    for tokenizer, rules in kinds.values():
        text = words * 2000
        reader, reads, ids = Reader(rules, text, 500), 0, []
        while not reader.done:
            ids += reader.read()
            reads += 1
            assert reader._size == 500
        assert reads >= len(text) // 500
        assert ids == tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("normalized", [False, True])
def test_a_mask_far_behind_is_lost_whatever_the_kind(kinds, normalized):
    for tokenizer, _ in kinds.values():
        content = json.loads(tokenizer.to_str())
        [mask] = [token for token in content["added_tokens"] if token["content"] in {"[MASK]", "<mask>"}]
        mask["normalized"] = normalized
        tokens = Tokens(json.dumps(content), {"mask_token": mask["content"]}, 16)
        assert tokens._encoder._mask_is_searched is not normalized
        words = "the king " * 2000
        for end, lost in ((mask["content"], True), (mask["content"][:-1], False)):
            [encoded] = tokens.encode([f"{mask['content']} {words}{end}"], truncation=True, masks=True)
            assert encoded.lost_mask is lost
            assert len(encoded.ids) == 16


def test_a_pair_that_special_tokens_alone_fill(kinds):
    content = kinds["roberta "][0].to_str()
    for length, fits in ((3, False), (4, True)):
        [encoded] = Tokens(content, {"mask_token": "<mask>"}, length).encode([("a b", "c d")], truncation=True)
        assert isinstance(encoded, Encoded) is fits
        assert fits or "adds 4 tokens to a pair and the model takes 3: give one text" in str(encoded)


NO_PIECES = {
    "an added token of two words": lambda content: content["added_tokens"][0].update(content="two words"),
    "an added token that takes the space behind it": lambda content: content["added_tokens"][0].update(rstrip=True),
    "spaces stripped before bytes": lambda content: content.update(
        normalizer={"type": "Strip", "strip_left": True, "strip_right": False}
    ),
    "another normalizer": lambda content: content.update(normalizer={"type": "Prepend", "prepend": "▁"}),
    "spaces replaced": lambda content: content.update(
        normalizer={"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    ),
    "any pattern": lambda content: content.update(
        normalizer={"type": "Replace", "pattern": {"Regex": "a b"}, "content": "c"}
    ),
    "words that are not split": lambda content: content["pre_tokenizer"].update(use_regex=False),
    "no pre-tokenizer": lambda content: content.update(pre_tokenizer=None),
    "another pre-tokenizer": lambda content: content.update(
        pre_tokenizer={"type": "Split", "pattern": {"Regex": "a b"}, "behavior": "Isolated", "invert": False}
    ),
    "punctuation alone": lambda content: content.update(pre_tokenizer={"type": "Punctuation", "behavior": "Isolated"}),
}


@pytest.mark.parametrize("change", NO_PIECES.values(), ids=NO_PIECES)
def test_where_a_gap_does_not_end_a_word_the_text_is_read_whole(tmp_path, change):
    TINY["roberta"].write(tmp_path)
    content = json.loads((tmp_path / TOKENIZER).read_text(encoding="utf-8"))
    change(content)
    tokenizer = Tokenizer.from_str(json.dumps(content))
    rules = Rules.of(tokenizer)
    assert not rules.spaced
    text = "a b two words <s> a" * 30
    assert read(rules, text, 20) == tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("cut", range(1, 6))
@pytest.mark.parametrize("before", ["a ", "a", "", " ", "a" * 120, "\u200b" * 30])
def test_a_mask_token_cut_anywhere(variants, cut, before):
    tokenizer, rules = variants["as it is"]
    for length in range(12, 26):
        text = (before + "." * (length - cut - len(before)) + "[MASK] b " * 8)[: 10 * length]
        assert read(rules, text, length) == tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize(
    "text",
    ["a", "\u200b", " ", ".", "中", "한", "😀", "\u0301", "a\u200b", "e\u0301", "€", "\x00", "x\u302e", "a ", "[MASK]"],
)
@pytest.mark.parametrize("first", ["", "b", "[", "."])
def test_no_character_makes_the_pieces_grow(variants, text, first):
    """A word without end, or a run of what the tokenizer drops, is read in pieces as anything else."""
    _, rules = variants["as it is"]
    reader = Reader(rules, (first + text * 20_000)[:20_000], 500)
    reads = 0
    while not reader.done:
        reader.read()
        reads += 1
        assert reader._size == 500
    assert reads >= 40


@pytest.fixture(scope="module")
def theirs(tiny_checkpoint):
    """transformers' tokenizer, by truncation side."""
    from transformers import BertTokenizerFast

    return {
        side: BertTokenizerFast.from_pretrained(tiny_checkpoint, truncation_side=side) for side in ("left", "right")
    }


@pytest.fixture(scope="module")
def ours(tiny_bundle):
    """Ours, by side and length."""
    text = (tiny_bundle / TOKENIZER).read_text(encoding="utf-8")
    return {
        (side, length): Tokens(text, {"truncation_side": side}, length)
        for side in ("left", "right")
        for length in (4, 7, 16, 33)
    }


@settings(max_examples=120)
@given(
    st.data(),
    st.sampled_from(["left", "right"]),
    st.sampled_from([4, 7, 16, 33]),
    st.booleans(),
    SHORTER,
    st.one_of(st.none(), SHORTER),
    st.sampled_from([0, 30, 100_000]),
    PIECES,
)
@pytest.mark.slow
def test_truncation_is_that_of_transformers(  # noqa: PLR0913, PLR0917 — drawn
    ours, theirs, data, side, length, same, a, b, usual, piece
):
    """Single texts and pairs of every length, odd and even room, read whole and in pieces."""
    if b is not None and same:
        b = a + data.draw(st.sampled_from(["", " a", " the", "."]))
    tokens = ours[side, length]
    tokens._encoder._usual = usual
    text = a if b is None else (a, b)
    asked = [[a]] if b is None else [[a], [b]]  # in lists: transformers takes an empty second text for none
    expected = {key: rows[0] for key, rows in theirs[side](*asked, truncation=True, max_length=length).items()}
    [encoded] = drained(tokens.encoding([text], truncation=True, masks=True, piece=piece))
    assert encoded.ids.tolist() == expected["input_ids"]
    if b is not None:
        assert encoded.type_ids.tolist() == expected["token_type_ids"]
    [whole] = theirs[side](*asked, verbose=False)["input_ids"]
    assert encoded.lost_mask == (whole.count(tokens.mask_id) > expected["input_ids"].count(tokens.mask_id))
    [strict] = drained(tokens.encoding([text], piece=piece))
    if len(whole) <= length:
        assert strict.ids.tolist() == whole
    else:
        count = len(whole) if usual == 100_000 else f"({len(whole)}|more than {length})"
        with pytest.raises(InputTextError, match=f"the input has {count} tokens and the model takes {length}"):
            raise strict


@given(st.lists(st.integers(0, 30), min_size=1, max_size=2), st.integers(0, 20))
def test_kept_lengths(counts, room):
    kept = lengths(counts, room)
    assert sum(kept) == min(sum(counts), room)
    assert all(a <= b for a, b in zip(kept, counts, strict=True))


@pytest.mark.parametrize("truncation", [True, False])
@pytest.mark.parametrize("pair", [True, False])
def test_no_more_is_read_than_the_result_can_use(ours, characters, truncation, pair):
    text = "the king of spain " * 100_000
    tokens = ours["right", 33 if not pair else 7]  # an even room: 4 tokens of a pair
    [encoded] = tokens.encode([(text, text) if pair else text], truncation=truncation, masks=True)
    assert isinstance(encoded, Encoded) == truncation
    assert sum(characters) < 20_000


def test_steps_are_bounded(ours):
    """Eight requests that are stepped in turn delay no other: each step is of one piece."""
    tokens = ours["right", 16]
    for text in ["." * 100_000, "a" * 100_000, " " * 100_000, "\u200b" * 100_000, "[MASK]" * 20_000]:
        assert sum(1 for _ in tokens.encoding([(text, text + "a")], truncation=True, piece=1000)) < 500
    assert sum(1 for _ in tokens.encoding(["a b c"] * 1000, piece=1000)) > 50
    assert sum(1 for _ in tokens.encoding([""] * 1000, piece=1000)) > 50


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_lone_surrogate_far_into_a_text(ours, side):
    tokens = ours[side, 16]
    for text in ("a " * 50_000 + "\ud83d", ("a", "b " * 2_000_000 + "\ud83d")):
        encoded = tokens.encode([text, "a"], truncation=True)
        assert isinstance(encoded[0], InputTextError)
        assert "lone surrogate at character" in str(encoded[0])
        assert isinstance(encoded[1], Encoded)


def test_huge_inputs_are_answered_in_bounded_memory(tiny_bundle):
    """In a process of its own: tokenizers' truncation takes gigabytes for these, and ends the process."""
    program = (
        "import resource, sys\n"
        "from bertport.runtime import load\n"
        "model = load(sys.argv[1], threads=1)\n"
        "model.next_sentence('a', 'b')\n"
        "words = 'the king of ' * 20_000\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "model.next_sentence(words, words, truncation=True)\n"
        "list(model.predict('features', [(words, words + 'a')], truncation=True))\n"
        "model.features(words, truncation=True)\n"
        "model.fill_mask('[MASK] ' + words, truncation=True)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tiny_bundle)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100_000


def test_a_mask_far_behind_is_lost(tiny_bundle):
    model = load(tiny_bundle)
    for searched in (True, False):
        model.tokens._encoder._mask_is_searched = searched
        with pytest.raises(InputTextError, match=r"cut off a \[MASK\]"):
            model.fill_mask("[MASK] " + "a " * 100_000 + "[MASK]", truncation=True)
        assert len(model.fill_mask("[MASK] " + "a " * 100_000 + "[MASK", truncation=True)) == 5


def test_usual_lengths_are_bounded_whatever_the_manifest_says(tiny_bundle):
    text = (tiny_bundle / TOKENIZER).read_text(encoding="utf-8")
    assert Tokens(text, {}, 10**12)._encoder._usual == encoder.MOST_USUAL
