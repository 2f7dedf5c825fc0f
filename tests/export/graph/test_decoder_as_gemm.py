"""The pass that multiplies by the tied matrix as it is stored."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser

from bertport.export.graph.passes.decoder_as_gemm import decoder_as_gemm
from tests.export.passes import apply, unchanged

TABLE = np.arange(15, dtype=np.float32).reshape(5, 3) / 7
MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
bert (float[n, 3] x) => (float[n, 5] logits) {{
    turned = Transpose<perm = [1, 0]>(table)
    product = MatMul(x, turned)
    {last}
}}
"""


def model(last="logits = Add(product, bias)"):
    made = parser.parse_model(MODEL.format(last=last))
    for name, value in (("table", TABLE), ("bias", np.arange(5, dtype=np.float32))):
        made.graph.initializer.append(numpy_helper.from_array(value, name))
    return made


def run(made, x):
    onnx.checker.check_model(made, full_check=True)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"x": x})[0]


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize("last", ["logits = Add(product, bias)", "logits = Add(bias, product)"])
def test_one_gemm_gives_the_same_logits(rows, last):
    x = np.random.default_rng(1).standard_normal((rows, 3), dtype=np.float32)
    before = run(model(last), x)
    after, modified = apply(decoder_as_gemm, model(last), "logits")
    assert modified
    assert [node.op_type for node in after.graph.node] == ["Gemm"]
    np.testing.assert_allclose(run(after, x), before, atol=1e-6)


@pytest.mark.parametrize(
    "last",
    [
        "logits = Sub(product, bias)",
        "logits = Mul(product, bias)",
        "other = Neg(product)\n logits = Add(product, bias)",
        "other = Neg(turned)\n logits = Add(product, bias)",
    ],
)
def test_anything_else_is_left_alone(last):
    before = model(last)
    after, modified = apply(decoder_as_gemm, model(last), "logits")
    assert not modified
    assert after.SerializeToString() == unchanged(before).SerializeToString()
