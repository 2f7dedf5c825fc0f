"""The graph passes, on small models written out as text."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import numpy_helper, parser

from bertport.export.graph.onnx_files import save, to_proto
from bertport.export.graph.passes.drop_identities import drop_identities
from bertport.export.graph.passes.fill_weights import fill_weights
from bertport.export.graph.passes.gather_positions import gather_positions
from bertport.export.graph.passes.half_weights import half_weights
from bertport.export.graph.passes.name_weights import name_weights
from bertport.export.graph.passes.set_ir_version import set_ir_version
from bertport.export.graph.passes.share_weights import Location, share_weights
from bertport.export.graph.passes.tie_decoder import tie_decoder
from tests.export.passes import apply, unchanged

HEADER = '<ir_version: 8, opset_import: ["" : 17]>'
DECODER = (
    HEADER
    + """
    bert (int64[batch, sequence] input_ids) => (
        float[batch, sequence, 5] logits, float[batch, sequence, 3] last_hidden_state)
    {
        last_hidden_state = Gather(table, input_ids)
        x = MatMul(last_hidden_state, onnx__dense)
        logits = MatMul(x, decoder)
    }
    """
)
TABLE = np.arange(15, dtype=np.float32).reshape(5, 3) / 7
DENSE = np.array([[1, 2, 0], [0, 1, 0], [3, 0, 1]], dtype=np.float32)
IDS = np.array([[0, 4, 2], [1, 1, 3]])


def decoder_model(decoder=TABLE.T):
    model = parser.parse_model(DECODER)
    for name, value in (("table", TABLE), ("onnx__dense", DENSE), ("decoder", np.ascontiguousarray(decoder))):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    return model


def run(model, **feeds):
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def names(model):
    return {tensor.name for tensor in model.graph.initializer}


def test_a_tied_decoder_is_stored_once():
    before = run(decoder_model(), input_ids=IDS)
    model, modified = apply(tie_decoder, decoder_model())
    assert modified
    assert names(model) == {"table", "onnx__dense"}
    for expected, actual in zip(before, run(model, input_ids=IDS), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_tying_happens_once():
    model, _ = apply(tie_decoder, decoder_model())
    before = model.SerializeToString()
    model, modified = apply(tie_decoder, model)
    assert not modified
    assert model.SerializeToString() == before


@pytest.mark.parametrize("decoder", [TABLE.T + np.float32(1e-6), TABLE[::-1].T])
def test_a_decoder_of_its_own_stays(decoder):
    model, modified = apply(tie_decoder, decoder_model(decoder))
    assert not modified
    assert names(model) == {"table", "onnx__dense", "decoder"}


def test_minus_zero_is_not_zero():
    """Bit for bit: a decoder that differs in the sign of a zero is not the table."""
    decoder = TABLE.T.copy()
    decoder[0, 0] = -0.0
    assert not apply(tie_decoder, decoder_model(decoder))[1]


@pytest.mark.parametrize("positions", [[], [0], [5], [0, 1, 2, 3, 4, 5], [2, 2, 1]])
def test_only_the_positions_asked_for_are_decoded(positions):
    logits, hidden = run(decoder_model(), input_ids=IDS)
    model, modified = apply(gather_positions, decoder_model(), "logits")
    assert modified
    positions = np.array(positions, dtype=np.int64)
    found_logits, found_hidden = run(model, input_ids=IDS, masked_positions=positions)
    np.testing.assert_array_equal(found_hidden, hidden)
    np.testing.assert_allclose(found_logits, logits.reshape(-1, 5)[positions], rtol=1e-6)
    assert [dim.dim_param or dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim] == ["masked", 5]


def test_nothing_to_gather_without_logits():
    model = decoder_model()
    del model.graph.output[0]
    before = unchanged(model).SerializeToString()
    model, modified = apply(gather_positions, model, "logits")
    assert not modified
    assert model.SerializeToString() == before


def test_another_head_on_the_hidden_state_is_left_alone():
    model = parser.parse_model(
        HEADER
        + """
        bert (int64[batch, sequence] input_ids) => (float[batch, sequence, 5] logits, float[b, c, 3] last_hidden_state,
            float[batch, sequence, 3] other)
        {
            last_hidden_state = Gather(table, input_ids)
            logits = MatMul(last_hidden_state, decoder)
            other = Neg(last_hidden_state)
        }
        """
    )
    for name, value in (("table", TABLE), ("decoder", np.ascontiguousarray(TABLE.T))):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    model, _ = apply(gather_positions, model, "logits")
    logits, hidden, other = run(model, input_ids=IDS, masked_positions=np.array([1]))
    assert logits.shape == (1, 5)
    np.testing.assert_array_equal(other, -hidden)


def test_weights_are_named_after_their_nodes():
    model = decoder_model()
    model.graph.node[1].name = "/bert/encoder/layer.0/output/dense/MatMul"
    model.graph.node[2].name = "/cls/predictions/decoder/MatMul"
    for tensor in model.graph.initializer:
        tensor.name = {"onnx__dense": "onnx::MatMul_7", "decoder": "onnx::MatMul_8"}.get(tensor.name, tensor.name)
    model.graph.node[1].input[1] = "onnx::MatMul_7"
    model.graph.node[2].input[1] = "onnx::MatMul_8"
    expected = run(model, input_ids=IDS)
    model, modified = apply(name_weights, model)
    assert modified
    assert names(model) == {"table", "bert.encoder.layer.0.output.dense.weight", "cls.predictions.decoder.weight"}
    np.testing.assert_array_equal(run(model, input_ids=IDS)[0], expected[0])
    assert apply(name_weights, model)[1] is False


def test_a_weight_that_a_module_reads_twice_has_its_name():
    """As of an encoder whose layers are one: the exporter numbers the calls, and puts an Identity before a reader."""
    model = decoder_model()
    model.graph.node[1].name = "/albert/layers.0/query/MatMul"
    model.graph.node[2].name = "/albert/layers.0_1/query_1/MatMul"
    model.graph.node[1].input[1] = model.graph.initializer[1].name = "onnx::MatMul_7"
    model.graph.node[2].input[1] = "onnx::MatMul_9"
    model.graph.node.insert(0, onnx.helper.make_node("Identity", ["onnx::MatMul_7"], ["onnx::MatMul_9"]))
    model, modified = apply(name_weights, model)
    assert not modified
    model, modified = apply(drop_identities, model)
    assert modified
    assert "Identity" not in {node.op_type for node in model.graph.node}
    assert apply(drop_identities, model)[1] is False
    model, modified = apply(name_weights, model)
    assert modified
    assert "albert.layers.0.query.weight" in names(model)


def test_a_copy_that_has_a_parameters_name_stays():
    """Biases of 0 are equal: the checkpoint has both."""
    model = decoder_model()
    model.graph.node[1].input[1] = "other.weight"
    model.graph.node.insert(0, onnx.helper.make_node("Identity", [model.graph.initializer[1].name], ["other.weight"]))
    assert apply(drop_identities, model)[1] is False


def test_a_copy_that_is_an_output_stays():
    model = decoder_model()
    model.graph.node.append(onnx.helper.make_node("Identity", ["table"], ["onnx::shown"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("onnx::shown", 1, list(TABLE.shape)))
    assert apply(drop_identities, model)[1] is False


def test_a_taken_name_is_not_given_twice():
    model = decoder_model()
    model.graph.node[1].name = "/bert/dense/MatMul"
    model.graph.node[1].input[1] = model.graph.initializer[1].name = "onnx::MatMul_7"
    model.graph.initializer[2].name = model.graph.node[2].input[1] = "bert.dense.weight"
    model, modified = apply(name_weights, model)
    assert not modified
    assert names(model) == {"table", "onnx::MatMul_7", "bert.dense.weight"}


def test_half_weights_round_matrices_and_nothing_else():
    model = decoder_model()
    model.graph.initializer.append(numpy_helper.from_array(np.float32([0.1, 0.2]), "vector"))
    model, modified = apply(half_weights, model)
    assert modified
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert stored["vector"].dtype == np.float32
    np.testing.assert_array_equal(stored["table.float16"], TABLE.astype(np.float16))
    rounded = decoder_model(TABLE.T.astype(np.float16).astype(np.float32))
    rounded.graph.initializer[0].CopyFrom(numpy_helper.from_array(TABLE.astype(np.float16).astype(np.float32), "table"))
    for expected, actual in zip(run(rounded, input_ids=IDS), run(model, input_ids=IDS), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_half_weights_happen_once():
    model, _ = apply(half_weights, decoder_model())
    assert apply(half_weights, model)[1] is False


def test_the_ir_version_is_set():
    model, modified = apply(set_ir_version, decoder_model(), 9)
    assert (model.ir_version, modified) == (9, True)
    assert apply(set_ir_version, model, 9)[1] is False


def large_model(seed=3):
    """Return a model whose matrices are large enough to be shared, and a vector that is not."""
    model = parser.parse_model(
        HEADER + "g (float[n, 64] x) => (float[n, 16] y) { h = MatMul(x, w)  z = MatMul(h, v)  y = Add(z, b) }"
    )
    random = np.random.default_rng(seed)
    for name, shape in (("w", (64, 32)), ("v", (32, 16)), ("b", (16,))):
        value = random.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    return model


@pytest.mark.parametrize("external_above", [0, 2**31])
def test_a_second_graph_reads_the_first_ones_bytes(tmp_path, external_above):
    x = np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)
    expected = run(large_model(), x=x)[0]
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    model = ir.from_proto(large_model())
    written = save(model, first, external_above=external_above)
    assert written.beside == (("first.onnx_data",) if external_above == 0 else ())
    model, modified = share_weights(model, written.locations)
    assert modified
    save(model, second)
    onnx.checker.check_model(str(second))
    assert second.stat().st_size < 700
    for path in (first, second):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], expected)
    shared = onnx.load(second, load_external_data=False)
    assert [tensor.name for tensor in shared.graph.initializer if tensor.external_data] == ["w", "v"]
    holder = written.beside[0] if written.beside else first.name
    assert {entry.value for tensor in shared.graph.initializer for entry in tensor.external_data[:1]} == {holder}


def test_a_file_is_what_protobuf_writes_of_the_whole_model(tmp_path):
    model = large_model()
    model.metadata_props.add(key="k", value="v")
    model.graph.doc_string = "after the weights"
    path = tmp_path / "model.onnx"
    written = save(ir.from_proto(model), path)
    assert path.read_bytes() == to_proto(ir.from_proto(model)).SerializeToString()
    assert written.locations.keys() == {"w", "v"}
    for tensor in model.graph.initializer[:2]:
        place = written.locations[tensor.name]
        assert place.file == "model.onnx"
        assert path.read_bytes()[place.offset : place.offset + place.length] == tensor.raw_data
    referring = tmp_path / "referring.onnx"
    referring.write_bytes(written.graph.SerializeToString())
    for one, other in zip(onnx.load(referring).graph.initializer, model.graph.initializer, strict=True):
        assert (one.name, one.dims, one.raw_data) == (other.name, other.dims, other.raw_data)


def test_tensors_stored_as_numbers_are_shared_too(tmp_path):
    model = large_model()
    values = numpy_helper.to_array(model.graph.initializer[0])
    model.graph.initializer[0].CopyFrom(onnx.helper.make_tensor("w", 1, values.shape, values.ravel().tolist()))
    written = save(ir.from_proto(model), tmp_path / "model.onnx")
    assert written.locations.keys() == {"w", "v"}
    np.testing.assert_array_equal(
        numpy_helper.to_array(onnx.load(tmp_path / "model.onnx").graph.initializer[0]), values
    )


WITHOUT_VALUES = (
    HEADER
    + """
    g (float[n, 3] x, float[3, 4] onnx__turned, float[4] "dense.bias") => (float[n, 4] y)
    {
        h = MatMul(x, onnx__turned)
        y = Add(h, "dense.bias")
    }
    """
)


def traced_without_weights(node="/dense/MatMul"):
    model = parser.parse_model(WITHOUT_VALUES)
    model.graph.node[0].name = node
    return ir.from_proto(model)


def test_weights_are_filled_in_by_their_names_and_their_modules():
    weight, bias = torch.arange(12.0).reshape(4, 3), torch.ones(4)
    model, modified = fill_weights(traced_without_weights(), ["x"], {"dense.weight": weight, "dense.bias": bias})
    assert modified
    assert [value.name for value in model.graph.inputs] == ["x"]
    x = np.eye(3, dtype=np.float32)
    np.testing.assert_array_equal(run(to_proto(model), x=x)[0], weight.numpy().T + 1)


def test_a_weight_that_a_module_reads_again_behind_an_identity_is_filled_in():
    model = parser.parse_model(WITHOUT_VALUES)
    model.graph.node[0].name = "/dense/MatMul"
    copied = onnx.helper.make_node("Identity", ["onnx__turned"], ["onnx__copied"], name="Identity_9")
    again = onnx.helper.make_node("MatMul", ["x", "onnx__copied"], ["z"], name="/dense_1/MatMul")
    model.graph.node.extend([copied, again])
    weight = torch.arange(12.0).reshape(4, 3)
    model, modified = fill_weights(ir.from_proto(model), ["x"], {"dense.weight": weight, "dense.bias": torch.ones(4)})
    assert modified
    x = np.eye(3, dtype=np.float32)
    np.testing.assert_array_equal(run(to_proto(model), x=x)[0], weight.numpy().T + 1)


@pytest.mark.parametrize(
    ("node", "rows"),
    [("/other/MatMul", 4), ("/dense/MatMul", 5)],
    ids=["of no module", "of another shape"],
)
def test_weights_that_are_not_known_are_not_filled_in(node, rows):
    held = {"dense.weight": torch.zeros(rows, 3), "dense.bias": torch.zeros(4)}
    model, modified = fill_weights(traced_without_weights(node), ["x"], held)
    assert not modified
    assert len(model.graph.inputs) == 3


def test_nothing_to_share():
    model = large_model()
    assert apply(share_weights, model, {"b": Location(file="f", offset=0, length=64)})[1] is False
