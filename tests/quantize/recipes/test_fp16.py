"""The fp16 graph, run on the CPU, which computes its operators in float32 between casts: values are rounded alike."""

import copy

import numpy as np
import pytest

from bertport.quantize.graph.fusion import load_plain
from bertport.quantize.recipes.fp16 import LARGEST_MASK, convert_to_fp16, soften
from bertport.quantize.recipes.source import GraphSource
from bertport.quantize.weights.cache import WeightCache
from bertport.runtime.errors import UsageError
from tests.quantize.conftest import feeds, session

OUTPUTS = ["logits", "seq_relationship_logits", "last_hidden_state", "pooler_output"]


@pytest.fixture(scope="module")
def plain(tiny):
    return load_plain(tiny.file(tiny.manifest.variants["fp32"].file))


@pytest.fixture(scope="module")
def model(plain, fused):
    weights = WeightCache(saturating=False)
    return convert_to_fp16(GraphSource(plain=plain, fused=fused, instruction_set=None, weights=weights))


@pytest.fixture(scope="module")
def sessions(plain, model):
    return session(plain), session(model)


def test_every_output_is_near_fp32(sessions):
    given = feeds()
    given["attention_mask"][1, 9:] = 0
    for one, two in zip(*(graph.run(OUTPUTS, given) for graph in sessions), strict=True):
        assert two.dtype == np.float32
        # float16 has 11 bits: values around 4 are rounded by 0.002, and a few such errors add up.
        np.testing.assert_allclose(one, two, atol=0.03)


def test_a_row_that_is_all_masked_gives_numbers(sessions):
    given = feeds(rows=2)
    given["attention_mask"][1] = 0
    assert all(np.isfinite(output).all() for output in sessions[1].run(OUTPUTS, given))


def test_weights_take_half_the_room_and_operators_stay_standard(plain, model):
    sizes = [sum(len(tensor.raw_data) for tensor in graph.graph.initializer) for graph in (plain, model)]
    assert sizes[1] < 0.52 * sizes[0]
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}


def test_constants_beyond_float16_are_softened_and_weights_refused(plain):
    from onnx import numpy_helper

    changed = copy.deepcopy(plain)
    changed.graph.initializer.append(numpy_helper.from_array(np.float32(-3.4e38), "mask"))
    soften(changed)
    assert numpy_helper.to_array(changed.graph.initializer[-1]) == -LARGEST_MASK
    changed.graph.initializer.append(numpy_helper.from_array(np.full((2, 2), 1e6, np.float32), "large"))
    with pytest.raises(UsageError, match="fp16 cannot hold the weights large"):
        soften(changed)


def test_positions_are_computed_in_float32():
    """As rotary embeddings and relative positions compute them: 16 bits would round position 5001 to 5000."""
    from onnx import numpy_helper, parser

    model = parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 17]>
        positions (int64[length] at, float[length, 16] x) => (float[length, 16] y, float[length, 16] z)
        {
          far = Cast <to = 1> (at)
          angles = Mul (far, frequency)
          angle = Unsqueeze (angles, last)
          turned = Cos (angle)
          y = Mul (x, turned)
          shared = Div (far, distance)
          bucket = Cast <to = 7> (shared)
          row = Gather (table, bucket)
          z = Add (x, row)
        }
        """
    )
    for number, node in enumerate(model.graph.node):
        node.name = f"node.{number}"
    table = np.linspace(0, 1, 10_000 * 16, dtype=np.float32).reshape(10_000, 16)
    constants = {"frequency": np.float32(0.01), "distance": np.float32(1), "last": np.array([1]), "table": table}
    for name, values in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
    at = np.arange(4998, 5010)
    source = GraphSource(plain=model, fused=model, instruction_set=None, weights=WeightCache(saturating=False))
    given = {"at": at, "x": np.ones((len(at), 16), dtype=np.float32)}
    for one, two in zip(
        session(model).run(None, given), session(convert_to_fp16(source)).run(None, given), strict=True
    ):
        np.testing.assert_allclose(one, two, atol=2e-3)


def test_types_are_inferred_without_the_weights(plain, fused, monkeypatch):
    """As protobuf writes no message of more than 2 GB, and the inference is given one."""
    from onnx import shape_inference

    infer, sizes = shape_inference.infer_shapes, []

    def measured(given, *arguments, **settings):
        sizes.append(given.ByteSize())
        return infer(given, *arguments, **settings)

    for module in ("onnx.shape_inference", "onnxruntime.transformers.float16"):
        monkeypatch.setattr(f"{module}.infer_shapes", measured)
    convert_to_fp16(GraphSource(plain=plain, fused=fused, instruction_set=None, weights=WeightCache(saturating=False)))
    matrices = sum(len(tensor.raw_data) for tensor in plain.graph.initializer if len(tensor.dims) > 1)
    assert sizes
    assert max(sizes) < plain.ByteSize() - matrices / 2
