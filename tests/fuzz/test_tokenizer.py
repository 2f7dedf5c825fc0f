"""The tokenizer wrapper under any text: ids or one sentence, within every bound, and those of the whole text."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from bertport.runtime.errors import InputTextError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.text.encoder import Encoded
from bertport.runtime.text.steps import drained
from bertport.runtime.text.tokenizer import TOKENIZER, Tokens
from tests.families import TINY
from tests.fuzz.budget import explore

ANY = st.text(st.characters(), max_size=80)  # lone surrogates too
STRANGE = st.lists(
    st.builds(
        lambda text, number: text * number,
        st.one_of(
            st.characters(),
            st.sampled_from(["[MASK]", "<mask>", "[MA", "SK]", "[SEP]", "a", " a", " ", "\u200b", "\u0301", "中", "ﬁ"]),
        ),
        st.one_of(st.just(1), st.integers(1, 400)),
    ),
    max_size=20,
).map("".join)
TEXT = st.one_of(ANY, STRANGE)
INPUT = st.one_of(TEXT, st.tuples(TEXT, TEXT))
LENGTHS = (3, 8, 33, 160)


@pytest.mark.slow
def test_any_text(tiny_bundle, tmp_path):
    contents = {"bert": ((tiny_bundle / TOKENIZER).read_text(encoding="utf-8"), "[MASK]")}
    for family, mask in (("roberta", "<mask>"), ("xlm-roberta", "<mask>"), ("mpnet", "<mask>")):
        (tmp_path / family).mkdir()
        TINY[family].write(tmp_path / family)
        contents[family] = ((tmp_path / family / TOKENIZER).read_text(encoding="utf-8"), mask)
    every = {
        (family, length, side): Tokens(content, {"truncation_side": side, "mask_token": mask}, length)
        for family, (content, mask) in contents.items()
        for length in LENGTHS
        for side in ("left", "right")
    }
    wholes = {family: Tokens(content, {"mask_token": mask}, 10**9) for family, (content, mask) in contents.items()}

    def check(family, inputs, length, side, truncation, piece, usual):  # noqa: PLR0913, PLR0917 — drawn
        tokens, whole = every[family, length, side], wholes[family]
        size = whole._tokenizer.get_vocab_size()
        tokens._encoder._usual = usual
        steps = tokens.encoding(inputs, truncation=truncation, masks=True, piece=piece)
        outcomes = drained(steps)
        assert len(outcomes) == len(inputs)
        for text, outcome, all_of_it in zip(inputs, outcomes, whole.encode(inputs), strict=True):
            if isinstance(outcome, InputTextError):
                no_room = f"adds 4 tokens to a pair and the model takes {length}" in str(outcome)
                too_long = isinstance(all_of_it, Encoded) and len(all_of_it.ids) > length and not truncation
                assert too_long or no_room or isinstance(all_of_it, InputTextError), excerpt(text)
                assert len(str(outcome)) < 400
                str(outcome).encode("utf-8")
                continue
            assert len(outcome.ids) == len(outcome.type_ids) <= length
            assert outcome.ids.min() >= 0
            assert outcome.ids.max() < size
            assert set(outcome.type_ids.tolist()) <= ({0} if isinstance(text, str) else {0, 1})
            if len(all_of_it.ids) <= length:
                assert outcome.ids.tolist() == all_of_it.ids.tolist()
                assert outcome.type_ids.tolist() == all_of_it.type_ids.tolist()
                assert not outcome.lost_mask
            else:
                assert len(outcome.ids) == length
                gone = (all_of_it.ids == tokens.mask_id).sum() - (outcome.ids == tokens.mask_id).sum()
                assert outcome.lost_mask == (gone > 0)

    explore(
        check,
        st.sampled_from(sorted(contents)),
        st.lists(INPUT, max_size=4),
        st.sampled_from(LENGTHS),
        st.sampled_from(["left", "right"]),
        st.booleans(),
        st.sampled_from([1, 13, 50, 300, 10_000]),
        st.sampled_from([0, 40, 10_000]),
    )
