"""A tiny vocabulary, texts in it, and models whose answers are known in advance."""

import numpy as np
import pytest

from bertport.measure.quality.model import open_onnx
from bertport.measure.quality.samples import SampleTokenizer, masked_samples, pair_samples
from bertport.measure.text import Text

WORDS = [f"word{number}" for number in range(60)]
ENTRIES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]", ".", *WORDS]


@pytest.fixture(scope="session")
def word_tokenizer():
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordPiece({entry: index for index, entry in enumerate(ENTRIES)}, unk_token="[UNK]"))  # noqa: S106 — a token of text, not of access
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return SampleTokenizer.of(tokenizer, mask="[MASK]")


@pytest.fixture(scope="session")
def word_texts():
    """Forty texts of two documents, of two to five sentences each."""
    rng = np.random.default_rng(5)

    def text():
        return " ".join(
            " ".join(rng.choice(WORDS, size=rng.integers(6, 14))).capitalize() + "." for _ in range(rng.integers(2, 6))
        )

    return tuple(Text(text=text(), document=number // 20) for number in range(40))


@pytest.fixture(scope="session")
def samples(word_tokenizer, word_texts):
    return [*masked_samples(word_texts, word_tokenizer), *pair_samples(word_texts, word_tokenizer)]


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
        noisy = [weight + noise * rng.normal(size=weight.shape) for weight in weights]
        return open_onnx(bag_graph(*noisy, **variation), threads=1)

    return make
