"""What plugins were seen to do: the page follows from the data, and the data hold."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from bench.checkout import check_section
from bench.plugins.page import section
from bench.plugins.webgpu import distance, judged
from bertport.runtime.providers.table import PROVIDERS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "research" / "plugins.md"
WEBGPU, ENGINES = (
    json.loads((ROOT / "docs" / "data" / f"{name}.json").read_text(encoding="utf-8"))
    for name in ("webgpu", "tensorrt-rtx")
)
BOUND = 1e-4
"""Tolerance of fp32 beside the CPU provider: the export's own tolerance of PyTorch."""


def results(data):
    return [
        pytest.param(variant, result, id=f"{bundle}, {variant}")
        for bundle, variants in data["bundles"].items()
        for variant, result in variants.items()
    ]


def test_the_page_is_what_the_data_say():
    check_section(PAGE, section(WEBGPU, ENGINES), "bench.plugins")


def test_every_bundle_of_which_a_variant_is_refused_is_counted():
    told = {"int8-static": {"refused": "no", "words": ""}, "fp16": {"refused": "no", "words": ""}}
    text = section({**WEBGPU, "bundles": dict.fromkeys(("one", "two", "three"), told)}, ENGINES)
    said = [line for line in text.splitlines() if line.startswith("Refused")]
    assert said == [
        f"Refused before it is opened: one and 2 more, `{variant}`. ONNX Runtime itself runs it." for variant in told
    ]


def test_the_page_has_a_row_of_every_plugin():
    text = PAGE.read_text(encoding="utf-8")
    for name, row in PROVIDERS.items():
        if row.plugin:
            assert f"| `{name}` | {row.plugin.package} " in text


@pytest.mark.parametrize(("variant", "result"), results(WEBGPU))
def test_webgpu_computes_fp32_as_the_cpu_and_other_variants_are_refused(variant, result):
    if variant in {"portable", "fp32"}:
        assert 0 < max(result["differences"].values()) <= BOUND
    else:
        assert variant in result["refused"]
        assert "choose" in result["refused"]


@pytest.mark.parametrize(("variant", "result"), results(ENGINES))
def test_engines_are_made_of_what_the_row_takes(variant, result):
    if variant == "int8-dynamic":
        assert "zero point is not supported" in result["refused"]
        return
    assert set(result["bytes"]) == {"SM86", "SM89", "SM120"}
    assert any("Disabling TF32" in words for words in result["said"])


def test_a_value_that_is_not_finite_is_as_far_as_can_be():
    ones = np.ones(3, np.float32)
    assert distance(ones, ones + np.float32(0.5)) == 0.5
    for wrong in (np.nan, np.inf):
        assert max(0.0, distance(np.array([1, wrong, 1], np.float32), ones)) == math.inf


def test_what_cannot_be_judged_is_said_and_infinity_is_null():
    refused = {"refused": "no", "words": ""}
    assert judged({"b": {"fp32": {"differences": {"logits": BOUND}}, "fp16": refused}}) is None
    assert "was refused, so nothing was compared" in judged({"b": {"fp32": refused}, "c": {}})
    assert "was refused, so nothing was compared" in judged({})
    for far, words in ((0.5, "by 0.5, more than 0.0001"), (None, "by inf, more than 0.0001")):
        data = {"b": {"fp32": {"differences": {"logits": 0.0, "pooler_output": far}}}}
        assert words in judged(data)
    text = section({**WEBGPU, "bundles": data}, ENGINES)
    assert "| b | `fp32` | `logits` 0.0e+00, `pooler_output` infinite |" in text
