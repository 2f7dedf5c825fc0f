"""Golden vectors of quantized variants: added with each, passed by it, and failed by arithmetic that is wrong."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
from onnx import numpy_helper

from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.golden import read_golden
from bertport.runtime.golden import verify_golden
from bertport.runtime.golden_making import golden_of
from tests.broken import copied


def test_quantizing_adds_those_of_the_variant(quantized, tiny):
    bundle, outcome = quantized
    before, after = read_golden(tiny), read_golden(bundle)
    assert {name: after.variants[name] for name in before.variants} == before.variants
    assert (before.texts, before.batches) == (after.texts, after.batches)
    assert set(after.variants) == {*before.variants, outcome.name}
    assert verify_golden(bundle.path).failures == ()
    assert bundle.verify() == ()


def test_the_tolerance_is_the_distance_from_fp32(quantized):
    bundle, outcome = quantized
    golden = read_golden(bundle)
    made, _ = golden_of(bundle)  # by the runtime alone, without what quantizing had open
    for name, output in golden.variants[outcome.name].outputs.items():
        rows = zip(output.rows, golden.variants["fp32"].outputs[name].rows, strict=True)
        seen = max(abs(a - b) for row, right in rows for a, b in zip(row.values, right.values, strict=False)) * 2
        assert output.tolerance > 1e-4
        assert made.variants[outcome.name].outputs[name].tolerance == output.tolerance
        if name != "logits":  # of which other columns are listed
            assert seen <= output.tolerance * 1.1


def edited(bundle, target, change):
    """Return a copy of a bundle with a change to the INT8 graph's initialisers that have two axes."""
    variant = bundle.manifest.variants["int8-dynamic"]

    def edit(content):
        model = onnx.load_from_string(content, format="protobuf")
        onnx.external_data_helper.load_external_data_for_model(model, str((bundle.path / variant.file).parent))
        change(model.graph)
        onnx.external_data_helper.convert_model_from_external_data(model)
        return model.SerializeToString()

    def unlist(manifest):
        manifest["variants"]["int8-dynamic"]["external_data"] = []

    return copied(bundle.path, target, manifest=unlist, onnx_model_int8_dynamic_onnx=edit)


def eight_bits(graph):
    names = {name for node in graph.node for name in node.input}
    return [
        tensor
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2 and tensor.name in names
    ]


def test_a_layer_of_zeros_is_seen(quantized, tmp_path):
    bundle, _ = quantized

    def zero(graph):
        tensor = eight_bits(graph)[2]
        zeros = np.zeros_like(numpy_helper.to_array(tensor))
        tensor.CopyFrom(numpy_helper.from_array(zeros, tensor.name))

    report = verify_golden(edited(bundle, tmp_path / "wrong", zero), variants=["int8-dynamic"])
    assert any(" is up to " in sentence for sentence in report.failures)


def test_sums_that_saturate_are_seen(quantized, tmp_path):
    """Products of pairs are summed in 16 bits on AVX2 without VNNI: what is beyond them is cut off."""
    bundle, _ = quantized
    assert verify_golden(edited(bundle, tmp_path / "same", lambda _: None), variants=["int8-dynamic"]).failures == ()

    def clip(graph):
        for tensor in eight_bits(graph):
            values = numpy_helper.to_array(tensor)
            clipped = np.clip(values, -24, 24)  # as if the largest products were cut off
            tensor.CopyFrom(numpy_helper.from_array(clipped, tensor.name))

    report = verify_golden(edited(bundle, tmp_path / "wrong", clip), variants=["int8-dynamic"])
    assert report.failures


def test_a_variant_that_is_made_again_gets_new_ones(quantized, held_out, tmp_path):
    from bertport.measure.budget import Budget
    from bertport.quantize.job import Options
    from bertport.quantize.quantizer import quantize

    bundle, _ = quantized
    path = shutil.copytree(bundle.path, tmp_path / "again")
    options = Options(text=held_out, budget=Budget.parse("top1=0.5"), positions=60, pairs=5, force=True, overwrite=True)
    quantize(path, options=options)
    again = Bundle.open(path)
    assert again.manifest.golden_vectors.file != bundle.manifest.golden_vectors.file
    assert read_golden(again).variants.keys() == read_golden(bundle).variants.keys()
    assert verify_golden(path).failures == ()
    assert again.verify() == ()
