"""Comparing fill-mask answers with those of transformers' pipeline."""

from __future__ import annotations

ATOL = 1e-5
"""Tolerance of scores that the project promises; both sides compute in fp32 and differ in the order of sums."""


def assert_same_fillings(reference, candidate):
    """Check structure, tokens in order (ties aside), scores and sequences."""
    assert type(reference) is type(candidate)
    assert len(reference) == len(candidate)
    if reference and isinstance(reference[0], list):
        for theirs, ours in zip(reference, candidate, strict=True):
            assert_same_fillings(theirs, ours)
        return
    by_token = {answer["token"]: answer for answer in reference}
    for theirs, ours in zip(reference, candidate, strict=True):
        assert theirs.keys() == ours.keys()
        assert {name: type(value) for name, value in theirs.items()} == {k: type(v) for k, v in ours.items()}
        assert abs(theirs["score"] - ours["score"]) <= ATOL
        if theirs["token"] != ours["token"]:
            # A tie: the other order is as good, and a token that ties with the last may be missing on one side.
            twin = by_token.get(ours["token"], reference[-1])
            assert abs(twin["score"] - ours["score"]) <= ATOL / 10
        if ours["token"] in by_token:
            twin = by_token[ours["token"]]
            assert (twin["token_str"], twin["sequence"]) == (ours["token_str"], ours["sequence"])
