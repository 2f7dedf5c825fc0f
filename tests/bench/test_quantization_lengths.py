"""What the page says of bf16 and 8 bits by length follows from the data."""

from __future__ import annotations

import copy

import pytest

from bench.checkout import check_section, read_data
from bench.quantization import lengths
from bench.quantization.lengths import DATA, MARK, PAGE, PROGRAM, main, section


def test_the_table_is_that_of_the_data():
    main(["--check"])
    changed = copy.deepcopy(read_data(DATA, PROGRAM))
    changed["models"]["the default model"]["1x16"]["bf16"] /= 2
    with pytest.raises(SystemExit, match="is not what the data say"):
        check_section(PAGE, section(changed), PROGRAM, MARK)


def test_no_model_of_the_page_is_lost(monkeypatch, capsys):
    monkeypatch.setattr(lengths, "measure", lambda _: pytest.fail("it was measured"))
    with pytest.raises(SystemExit):
        main([])
    assert "the page has a BERT-base too: add --bundle NAME=PATH of each" in capsys.readouterr().err


def test_a_second_way_gains_as_little_as_the_page_says():
    """A tenth for many long texts and nothing elsewhere: the reason why texts do not go two ways."""
    times = read_data(DATA, PROGRAM)["models"]["the default model"]
    gains = {shape: spent["int8"] / spent["bf16"] - 1 for shape, spent in times.items()}
    assert max(gains, key=gains.get) == "8x128"
    assert 0 < gains.pop("8x128") < 0.15
    assert max(gains.values()) < 0
