import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertport.measure.quality.samples import (
    IN_ORDER,
    IS_NEXT,
    NOT_NEXT,
    ORDERED,
    REPLACED,
    SampleTokenizer,
    Vocabulary,
    mask_ids,
    masked_samples,
    pair_samples,
    replaced_samples,
)
from bertport.measure.text import Text
from bertport.runtime.errors import InputTextError
from tests.families import TINY

VOCABULARY = Vocabulary(mask=4, special=frozenset(range(6)), ordinary=np.arange(6, 1000, dtype=np.int64))


def test_the_vocabulary_of_a_tokenizer(word_tokenizer):
    found = word_tokenizer.vocabulary
    assert found.mask == 4
    assert found.special == {0, 1, 2, 3, 4, 5}  # [unused0] too, which no text contains
    assert found.ordinary.tolist() == list(range(6, 67))


def test_a_tokenizer_without_a_mask_is_refused():
    from tokenizers import Tokenizer, models

    tokenizer = Tokenizer(models.WordPiece({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]"))  # noqa: S106 — a token of text
    with pytest.raises(InputTextError, match=r"no mask token '<mask>', so no masked text"):
        Vocabulary.of(tokenizer, "<mask>")
    with pytest.raises(InputTextError, match=r"no mask token, so"):
        Vocabulary.of(tokenizer, None)


def test_the_shares_are_those_of_the_procedure():
    ids = np.random.default_rng(0).integers(6, 1000, size=200_000)
    masked, positions, labels = mask_ids(ids, VOCABULARY, np.random.default_rng(1))
    assert len(positions) == 30_000
    now = masked[positions]
    np.testing.assert_array_equal(labels, ids[positions])
    # 30,000 draws: the standard error of a share of 0.8 is 0.0023.
    assert (now == 4).mean() == pytest.approx(0.8, abs=0.01)
    assert (now == labels).mean() == pytest.approx(0.1, abs=0.008)
    assert ((now != 4) & (now != labels)).mean() == pytest.approx(0.1, abs=0.008)
    untouched = np.setdiff1d(np.arange(len(ids)), positions)
    np.testing.assert_array_equal(masked[untouched], ids[untouched])


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(0, 2**32))
def test_special_tokens_are_never_chosen_and_never_put_in(ids, seed):
    ids = np.array(ids, dtype=np.int64)
    masked, positions, labels = mask_ids(ids, VOCABULARY, np.random.default_rng(seed))
    candidates = (ids >= 6).sum()
    assert len(positions) == (max(1, round(0.15 * candidates)) if candidates else 0)
    assert (labels >= 6).all()
    assert (np.diff(positions) > 0).all()
    assert np.isin(masked[positions], [4, *range(6, 1000)]).all()


def test_a_random_token_is_another_one():
    vocabulary = Vocabulary(mask=4, special=frozenset(range(6)), ordinary=np.array([6, 7]))
    for label in (6, 7):
        masked, positions, _ = mask_ids(np.full(20_000, label), vocabulary, np.random.default_rng(0))
        # Were the draw to give back the label, more than the 10% would stay as they were.
        assert (masked[positions] == label).mean() == pytest.approx(0.1, abs=0.025)


def test_masks_depend_on_the_seed_and_the_place_alone(word_tokenizer, word_texts):
    def ids(**options):
        return [each.input_ids.tolist() for each in masked_samples(word_texts, word_tokenizer, **options)]

    assert ids(seed=3) == ids(seed=3)
    assert ids(seed=3) != ids(seed=4)
    fewer = ids(seed=3, limit=20)
    everything = ids(seed=3)
    assert all(each in everything for each in fewer)
    assert 2 <= len(fewer) < 15


def test_a_limit_draws_texts_from_everywhere(word_tokenizer, word_texts):
    found = list(masked_samples(word_texts, word_tokenizer, limit=50))
    assert 50 <= sum(len(each.positions) for each in found) < 65
    assert {word_texts[each.text].document for each in found} == {0, 1}
    assert found != sorted(found, key=lambda each: each.text)


def test_masked_samples_are_the_text(word_tokenizer, word_texts):
    samples = list(masked_samples(word_texts, word_tokenizer))
    assert [each.text for each in samples] == list(range(40))
    for each in samples:
        ids = each.input_ids.copy()
        ids[each.positions] = each.labels
        assert ids.tolist() == word_tokenizer.tokenizer.encode(word_texts[each.text].text).ids
        assert not each.token_type_ids.any()
        assert not each.is_pair


def test_a_long_text_becomes_several_samples_of_one_text(word_tokenizer):
    text = Text(text=" ".join(["word1"] * 100), document=0)
    samples = list(masked_samples([text], word_tokenizer, max_tokens=32))
    assert [len(each.input_ids) for each in samples] == [32, 32, 32, 12]
    assert {each.text for each in samples} == {0}
    shorter = list(masked_samples([Text(text="word1 " * 35, document=0)], word_tokenizer, max_tokens=32))
    assert [len(each.input_ids) for each in shorter] == [32]  # five tokens more are no context
    tiny = list(masked_samples([Text(text="word1", document=0), Text(text="", document=0)], word_tokenizer))
    assert [len(each.input_ids) for each in tiny] == [3]  # but a short text is a text


def test_half_of_the_pairs_are_true_and_those_are(word_tokenizer, word_texts):
    pairs = list(pair_samples(word_texts, word_tokenizer, seed=1))
    cuts = sum(each.text.count(". ") for each in word_texts)
    assert len(pairs) == cuts
    assert sum(each.label == IS_NEXT for each in pairs) == (cuts + 1) // 2
    whole = [" ".join(map(str, word_tokenizer.tokenizer.encode(each.text).ids)) for each in word_texts]
    for each in pairs:
        separators = np.flatnonzero(each.input_ids == 3)
        a, b = each.input_ids[1 : separators[0]], each.input_ids[separators[0] + 1 : separators[1]]
        assert each.input_ids[0] == 2
        assert separators[1] == len(each.input_ids) - 1
        assert each.token_type_ids.tolist() == [0] * (len(a) + 2) + [1] * (len(b) + 1)
        joined = " ".join(map(str, [*a, *b]))
        if each.label == IS_NEXT:
            assert joined in whole[each.text]
        else:
            b_text = " ".join(map(str, b))
            sources = [number for number, ids in enumerate(whole) if b_text in ids]
            assert all(word_texts[source].document != word_texts[each.text].document for source in sources)


def test_strangers_in_a_single_document_are_of_another_text(word_tokenizer, word_texts):
    texts = [Text(text=each.text, document=0) for each in word_texts]
    whole = [" ".join(map(str, word_tokenizer.tokenizer.encode(each.text).ids)) for each in texts]
    strangers = [each for each in pair_samples(texts, word_tokenizer) if each.label == NOT_NEXT]
    assert strangers
    for each in strangers:
        separators = np.flatnonzero(each.input_ids == 3)
        assert " ".join(map(str, each.input_ids[separators[0] + 1 : separators[1]])) not in whole[each.text]


def test_strangers_are_of_another_text_where_no_other_document_has_sentence_ends(word_tokenizer, word_texts):
    texts = [Text(text="word1", document=0), *(Text(text=each.text, document=1) for each in word_texts)]
    strangers = [each for each in pair_samples(texts, word_tokenizer) if each.label == NOT_NEXT]
    assert strangers
    assert len(strangers) == len([each for each in pair_samples(texts[1:], word_tokenizer) if each.label == NOT_NEXT])


def test_pairs_are_short_enough_and_limited(word_tokenizer, word_texts):
    pairs = list(pair_samples(word_texts, word_tokenizer, max_tokens=16, limit=31))
    assert len(pairs) == 31
    assert max(len(each.input_ids) for each in pairs) <= 16
    assert abs(sum(each.label for each in pairs) - 15.5) < 1
    for each in pairs:
        if each.label == IS_NEXT:  # what is cut off is the beginning of A and the end of B
            joined = each.input_ids[~np.isin(each.input_ids, [2, 3])]
            assert " ".join(map(str, joined)) in " ".join(
                map(str, word_tokenizer.tokenizer.encode(word_texts[each.text].text).ids)
            )


def test_pairs_of_a_single_text_are_refused(word_tokenizer):
    with pytest.raises(InputTextError, match="single text"):
        list(pair_samples([Text(text="Word1 word2. Word3 word4. Word5.", document=0)], word_tokenizer))


def test_texts_of_one_sentence_give_no_pairs(word_tokenizer):
    assert list(pair_samples([Text(text="word1 word2", document=0)] * 5, word_tokenizer)) == []


def test_pairs_of_a_model_without_segments_have_one(word_texts, word_tokenizer):
    tokenizers = (dataclasses.replace(word_tokenizer, segments=each) for each in (0, None))
    one, two = (list(pair_samples(word_texts, each)) for each in tokenizers)
    assert all(not each.token_type_ids.any() for each in one)
    assert all(each.token_type_ids.any() for each in two)
    assert all(np.array_equal(a.input_ids, b.input_ids) for a, b in zip(one, two, strict=True))


def test_half_of_the_neighbours_are_swapped(word_tokenizer, word_texts):
    pairs = list(pair_samples(word_texts, word_tokenizer, kind=ORDERED, seed=1))
    assert {each.kind for each in pairs} == {ORDERED}
    assert abs(sum(each.label for each in pairs) - len(pairs) / 2) <= 1
    for each in pairs:
        separators = np.flatnonzero(each.input_ids == 3)
        a, b = each.input_ids[1 : separators[0]], each.input_ids[separators[0] + 1 : separators[1]]
        assert each.token_type_ids.tolist() == [0] * (len(a) + 2) + [1] * (len(b) + 1)
        whole = word_tokenizer.tokenizer.encode(word_texts[each.text].text).ids
        joined = [*a, *b] if each.label == IN_ORDER else [*b, *a]
        assert " ".join(map(str, joined)) in " ".join(map(str, whole))


def test_neighbours_are_made_of_a_single_text(word_tokenizer):
    texts = [Text(text="Word1 word2. Word3 word4. Word5.", document=0)]
    assert len(list(pair_samples(texts, word_tokenizer, kind=ORDERED))) == 2


def test_replaced_tokens_are_others_and_known(word_tokenizer, word_texts):
    samples = list(replaced_samples(word_texts, word_tokenizer, seed=2))
    assert {each.kind for each in samples} == {REPLACED}
    replaced = predicted = 0
    for each in samples:
        whole = np.array(word_tokenizer.tokenizer.encode(word_texts[each.text].text).ids)
        assert each.positions.tolist() == list(range(1, len(whole) - 1))
        changed = each.input_ids != whole
        assert changed[each.positions].tolist() == (each.labels == 1).tolist()
        assert (each.input_ids[changed] > 5).all()
        replaced, predicted = replaced + changed.sum(), predicted + len(each.positions)
    assert replaced / predicted == pytest.approx(0.15, abs=0.01)
    few = list(replaced_samples(word_texts, word_tokenizer, seed=2, limit=50))
    assert 50 <= sum(each.chosen for each in few) < 65
    assert [each.text for each in few] == [
        each.text for each in masked_samples(word_texts, word_tokenizer, seed=2, limit=50)
    ]


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "albert", "modernbert"])
def test_samples_are_what_the_tokenizer_gives(family, tmp_path):
    """Whatever its special tokens are, and how many stand between two texts."""
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    TINY[family].write(tmp_path)
    reference = AutoTokenizer.from_pretrained(tmp_path)
    made = SampleTokenizer.of(Tokenizer.from_file(str(tmp_path / "tokenizer.json")), mask=reference.mask_token)
    texts = [Text(text="The king went home. The queen read a book.", document=number) for number in range(4)]
    for each in masked_samples(texts, made):
        ids = each.input_ids.copy()
        ids[each.positions] = each.labels
        assert ids.tolist() == reference(texts[0].text)["input_ids"]
        assert not np.isin(each.labels, reference.all_special_ids).any()
    for each in pair_samples(texts, made):
        given = reference("The king went home.", "The queen read a book.", return_token_type_ids=True)
        assert each.input_ids.tolist() == given["input_ids"]
        assert each.token_type_ids.tolist() == given["token_type_ids"]
