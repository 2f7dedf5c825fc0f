"""A small vocabulary, texts in its words, and a real ONNX graph whose every figure can be worked out by hand."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from bertport.compare.effort import QUICK
from bertport.compare.graph import open_onnx
from bertport.compare.text import Text
from tests.conftest import WORDS as VOCABULARY

WORDS = [f"word{number}" for number in range(60)]
ENTRIES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]", ".", *WORDS]


@pytest.fixture(scope="session")
def word_tokenizer():
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordPiece({entry: index for index, entry in enumerate(ENTRIES)}, unk_token="[UNK]"))  # noqa: S106 — a token of text, not of access
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return tokenizer


@pytest.fixture(scope="session")
def word_texts():
    """Forty texts of two documents, of two to five sentences each."""
    rng = np.random.default_rng(5)

    def text():
        return " ".join(
            " ".join(rng.choice(WORDS, size=rng.integers(6, 14))).capitalize() + "." for _ in range(rng.integers(2, 6))
        )

    return tuple(Text(text=text(), document=number // 20) for number in range(40))


def bag_graph(embedding, pull, *, crosstalk=0.0, mask_aware=True):
    """A graph with BERT's inputs and outputs that is small enough to compute by hand.

    The hidden state of a token is its embedding plus the mean embedding of its row, and, like a dynamic
    quantization scale, `crosstalk` times the largest embedding value anywhere in the batch. A row's mean leaves out
    padding unless `mask_aware` is false. MLM logits are hidden @ embedding^T, NSP logits the row's mean @ pull.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    types = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), TensorProto.INT64)
    inputs = [helper.make_tensor_value_info(name, kind, ["batch", "sequence"]) for name, kind in types.items()]
    inputs.append(helper.make_tensor_value_info("masked_positions", TensorProto.INT64, ["masked"]))
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["masked", None]),
        helper.make_tensor_value_info("seq_relationship_logits", TensorProto.FLOAT, ["batch", 2]),
        helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "sequence", None]),
    ]
    hidden = embedding.shape[1]
    constants = {
        "embedding": embedding.astype(np.float32),
        "pull": pull.astype(np.float32),
        "crosstalk": np.float32(crosstalk).reshape(()),
        "axis1": np.array([1]),
        "axis2": np.array([2]),
        "flat": np.array([-1, hidden]),
        "nothing": np.float32(0).reshape(()),
    }
    node = helper.make_node
    nodes = [
        node("Gather", ["embedding", "input_ids"], ["words"]),
        node("Cast", ["attention_mask"], ["mask_f"], to=TensorProto.FLOAT),
        node("Cast", ["token_type_ids"], ["types_f"], to=TensorProto.FLOAT),
        node("Mul", ["types_f", "nothing"], ["no_types"]),
        node("Unsqueeze", ["no_types", "axis2"], ["no_types_3"]),
        node("Unsqueeze", ["mask_f", "axis2"], ["mask_3"]),
    ]
    if not mask_aware:
        nodes += [node("Mul", ["mask_3", "nothing"], ["zeros"]), node("Exp", ["zeros"], ["weights"])]
    else:
        nodes += [node("Identity", ["mask_3"], ["weights"])]
    nodes += [
        node("Mul", ["words", "weights"], ["kept"]),
        node("ReduceSum", ["kept", "axis1"], ["sums"], keepdims=1),
        node("ReduceSum", ["weights", "axis1"], ["counts"], keepdims=1),
        node("Div", ["sums", "counts"], ["mean"]),
        node("ReduceMax", ["words"], ["largest"], keepdims=0),
        node("Mul", ["largest", "crosstalk"], ["noise"]),
        node("Add", ["words", "mean"], ["mixed"]),
        node("Add", ["mixed", "no_types_3"], ["typed"]),
        node("Add", ["typed", "noise"], ["last_hidden_state"]),
        node("Reshape", ["last_hidden_state", "flat"], ["tokens"]),
        node("Gather", ["tokens", "masked_positions"], ["masked"]),
        node("Transpose", ["embedding"], ["decoder"], perm=[1, 0]),
        node("MatMul", ["masked", "decoder"], ["logits"]),
        node("Squeeze", ["mean", "axis1"], ["pooled"]),
        node("Add", ["pooled", "noise"], ["pooled_noisy"]),
        node("MatMul", ["pooled_noisy", "pull"], ["seq_relationship_logits"]),
    ]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "bag", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    return model.SerializeToString()


@pytest.fixture(scope="session")
def weights():
    rng = np.random.default_rng(11)
    return rng.normal(size=(len(ENTRIES), 16)), rng.normal(size=(16, 2))


@pytest.fixture(scope="session")
def bag_bytes(weights):
    return bag_graph(*weights)


@pytest.fixture(scope="session")
def bag(bag_bytes):
    return open_onnx(bag_bytes, threads=1)


@pytest.fixture(scope="session")
def make_bag(weights):
    """Make a variation of `bag`: noise on its weights, crosstalk between rows, or blindness to padding."""

    def make(*, noise=0.0, **variation):
        rng = np.random.default_rng(12)
        noisy = [each + noise * rng.normal(size=each.shape) for each in weights]
        return open_onnx(bag_graph(*noisy, **variation), threads=1)

    return make


@pytest.fixture(scope="session")
def held_out(tmp_path_factory):
    """A file of forty paragraphs of three sentences in the tiny model's words."""
    rng = np.random.default_rng(3)

    def sentence():
        return " ".join(rng.choice(VOCABULARY, size=rng.integers(5, 12))).capitalize() + "."

    path = tmp_path_factory.mktemp("text") / "held-out.txt"
    path.write_text("\n".join(" ".join(sentence() for _ in range(3)) for _ in range(40)) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def compared_bundle(tiny_bundle, tmp_path_factory):
    """The tiny bundle with two more variants: `noisy`, which answers a little otherwise, and `broken`, no graph."""
    import onnx
    from onnx import numpy_helper

    from bertport.runtime.bundle import Bundle
    from bertport.runtime.changes import Workspace, add_variant

    path = tmp_path_factory.mktemp("compared") / "bundle"
    shutil.copytree(tiny_bundle, path)
    bundle = Bundle.open(path)
    entry = bundle.manifest.variants["fp32"]
    model = onnx.load(bundle.file(entry.file))
    rng = np.random.default_rng(1)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor)
            noise = (0.02 * rng.normal(size=values.shape)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values * (1 + noise), tensor.name))
    made = {"noisy": model.SerializeToString(), "broken": b"not a graph"}
    for name, content in made.items():
        file = path.with_name(f"{name}.onnx")
        file.write_bytes(content)
        requires = dataclasses.replace(entry.requires, precision="int8-dynamic")  # for the CPU alone
        variant = dataclasses.replace(
            entry, file=f"onnx/{name}.onnx", recipe=name, external_data=(), validation=None, requires=requires
        )
        with Workspace.beside(bundle) as work:
            bundle = add_variant(work, name, variant, {f"onnx/{name}.onnx": file})
    return path


TINY_EFFORT = dataclasses.replace(
    QUICK,
    positions=80,
    pairs=16,
    stability=2,
    inputs=4,
    rounds=2,
    requests=6,
    starts=1,
    shapes=((1, 8), (2, 16)),
)
"""So little that it takes seconds; whatever it says of a model is noise."""


@pytest.fixture(scope="session")
def make_options(compared_bundle, held_out):
    """Give the options of a comparison of `compared_bundle` that takes seconds."""
    from bertport.compare.comparison import Options

    def make(output, **changes):
        return Options(
            **{
                "bundles": (str(compared_bundle),),
                "output": output,
                "effort": TINY_EFFORT,
                "text": str(held_out),
                "threads": 1,
                "budget": "top1=0.5",
                "command": "bertport compare bundle",
                **changes,
            }
        )

    return make


@pytest.fixture(scope="session")
def document(make_options, tmp_path_factory):
    """The report's document of `compared_bundle`, through JSON; copy it before changing anything."""
    from bertport.compare import machine
    from bertport.compare.comparison import Comparison

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "MACHINE_LOCK", tmp_path_factory.mktemp("lock") / "machine.lock")
        found = Comparison(make_options(tmp_path_factory.mktemp("report"))).run()
    return json.loads(json.dumps({**found, "against": None}, allow_nan=False))
