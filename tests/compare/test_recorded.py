"""What a manifest records of a variant's accuracy, and where this machine can use it."""

import pytest

from bertport.compare.codec import encode
from bertport.compare.recorded import recorded, same_arithmetic

FLIPS = {"value": 0.003, "low": 0.001, "high": 0.006, "count": 2000, "clusters": 1000}
RECORD = {
    "reference": "fp32",
    "provider": "cpu",
    "measured": "2026-11-23",
    "text": {"name": "rest.jsonl"},
    "machine": {"instruction_set": "avx512_vnni"},
    "accuracy": {"nsp": {"flips": FLIPS}, "mlm": {"kl": "none"}, "hidden": None},
}


@pytest.mark.parametrize(
    ("change", "here", "taken"),
    [
        ({}, "avx512_vnni", True),
        ({}, "amx", True),  # both sum products of 8 bits exactly
        ({}, "avx2", False),
        ({"machine": {"instruction_set": "avx2"}}, "avx2", True),
        ({"machine": {"instruction_set": "avx2"}}, "amx", False),
        ({"reference": "portable"}, "amx", False),
        ({"provider": "cuda"}, "amx", False),
        ({"machine": None}, "amx", False),
        ({"accuracy": []}, "amx", False),
    ],
)
def test_a_record_is_taken_where_it_is_of_the_same_arithmetic(change, here, taken):
    kept = recorded(RECORD | change, reference="fp32", provider="cpu", here=here)
    assert (kept is not None) is taken
    if kept:
        assert encode(kept.figures) == {"nsp": {"flips": FLIPS}}
    assert recorded(None, reference="fp32", provider="cpu", here=here) is None
    assert same_arithmetic("of another planet", "of another planet")
