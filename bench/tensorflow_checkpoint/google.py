"""A checkpoint as Google's BERT code wrote it, by TensorFlow, and what that model computes, in TensorFlow's operators.

Written from the paper and the names in the released checkpoints, and not from transformers: it is what the export of
such a checkpoint is compared with. TensorFlow is imported inside the functions.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["SMALL", "TINY", "Sizes", "erf_gelu", "forward", "tanh_gelu", "values", "write"]

EPSILON = 1e-12
"""Epsilon of LayerNorm, as in the released code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The settings of bert_config.json."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    initializer_range: float = 0.02


SMALL = Sizes(
    vocab_size=30522,
    hidden_size=256,
    num_hidden_layers=4,
    num_attention_heads=4,
    intermediate_size=1024,
    max_position_embeddings=512,
)
"""BERT-mini, with the vocabulary of the embedded model."""
TINY = Sizes(
    vocab_size=32,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=40,
)
"""A few kilobytes."""


def shapes(sizes: Sizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name and shape of every weight; kernels are [in, out]."""
    width, inner = sizes.hidden_size, sizes.intermediate_size

    def dense(name: str, rows: int, columns: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}/kernel", (rows, columns)
        yield f"{name}/bias", (columns,)

    def norm(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from ((f"{name}/LayerNorm/{part}", (width,)) for part in ("beta", "gamma"))

    yield "bert/embeddings/word_embeddings", (sizes.vocab_size, width)
    yield "bert/embeddings/token_type_embeddings", (sizes.type_vocab_size, width)
    yield "bert/embeddings/position_embeddings", (sizes.max_position_embeddings, width)
    yield from norm("bert/embeddings")
    for number in range(sizes.num_hidden_layers):
        layer = f"bert/encoder/layer_{number}"
        for projection in ("query", "key", "value"):
            yield from dense(f"{layer}/attention/self/{projection}", width, width)
        yield from dense(f"{layer}/attention/output/dense", width, width)
        yield from norm(f"{layer}/attention/output")
        yield from dense(f"{layer}/intermediate/dense", width, inner)
        yield from dense(f"{layer}/output/dense", inner, width)
        yield from norm(f"{layer}/output")
    yield from dense("bert/pooler/dense", width, width)
    yield from dense("cls/predictions/transform/dense", width, width)
    yield from norm("cls/predictions/transform")
    yield "cls/predictions/output_bias", (sizes.vocab_size,)
    yield "cls/seq_relationship/output_weights", (2, width)
    yield "cls/seq_relationship/output_bias", (2,)


def values(sizes: Sizes) -> dict[str, NDArray[np.float32]]:
    """Return seeded values of every weight, biases and LayerNorm too: a lost or swapped one must show."""
    weights = {}
    for name, shape in shapes(sizes):
        noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
        weights[name] = (0.1 * noise + name.endswith("gamma")).astype(np.float32)
    return weights


def write(directory: Path, sizes: Sizes) -> None:
    """Write bert_config.json and bert_model.ckpt, with the step and Adam's slots beside the weights."""
    import tensorflow as tf

    one = tf.compat.v1
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "bert_config.json").write_text(json.dumps(asdict(sizes), indent=2) + "\n", encoding="utf-8")
    with tf.Graph().as_default(), one.Session() as session:
        for name, value in values(sizes).items():
            one.get_variable(name, initializer=value)
        # For one weight alone: the released code keeps both slots of every weight.
        for slot in ("adam_m", "adam_v"):
            one.get_variable(f"bert/pooler/dense/bias/{slot}", initializer=np.ones(sizes.hidden_size, np.float32))
        one.train.create_global_step()
        session.run(one.global_variables_initializer())
        one.train.Saver().save(session, str(directory / "bert_model.ckpt"), write_meta_graph=False)
    (directory / "checkpoint").unlink()  # names a path of this machine


def erf_gelu(tensor: Any) -> Any:  # noqa: ANN401 — TensorFlow's
    """Return the Gaussian error linear unit, as the paper of that name defines it and transformers computes "gelu"."""
    import tensorflow as tf

    return 0.5 * tensor * (1 + tf.math.erf(tensor / np.sqrt(2).astype(np.float32)))


def tanh_gelu(tensor: Any) -> Any:  # noqa: ANN401 — as above
    """Return its approximation by tanh, which the released code came to compute under the same name."""
    import tensorflow as tf

    factor = np.sqrt(2 / np.pi).astype(np.float32)
    return 0.5 * tensor * (1 + tf.tanh(factor * (tensor + 0.044715 * tensor**3)))


def forward(
    prefix: Path, sizes: Sizes, batch: Mapping[str, NDArray[np.int64]], gelu: Callable[[Any], Any]
) -> dict[str, NDArray[np.float32]]:
    """Run a checkpoint in TensorFlow.

    Args:
        prefix: the checkpoint.
        sizes: its settings.
        batch: `input_ids`, `attention_mask` and `token_type_ids`, [batch, sequence].
        gelu: the activation.

    Returns:
        `logits` [batch, sequence, vocab], `seq_relationship_logits` [batch, 2], `last_hidden_state` [batch, sequence,
        hidden] and `pooler_output` [batch, hidden].
    """
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(prefix))
    get = reader.get_tensor

    def dense(name: str, tensor: Any) -> Any:  # noqa: ANN401 — TensorFlow's
        return tf.einsum("...i,io->...o", tensor, get(f"{name}/kernel")) + get(f"{name}/bias")

    def norm(name: str, tensor: Any) -> Any:  # noqa: ANN401 — as above
        mean, variance = tf.nn.moments(tensor, axes=[-1], keepdims=True)
        scaled = (tensor - mean) * tf.math.rsqrt(variance + EPSILON)
        return scaled * get(f"{name}/LayerNorm/gamma") + get(f"{name}/LayerNorm/beta")

    ids, mask, types = (batch[name] for name in ("input_ids", "attention_mask", "token_type_ids"))
    rows, length = ids.shape
    heads = sizes.num_attention_heads
    head_width = sizes.hidden_size // heads

    def split(tensor: Any) -> Any:  # noqa: ANN401 — as above
        return tf.reshape(tensor, (rows, length, heads, head_width))

    words = get("bert/embeddings/word_embeddings")
    hidden = tf.gather(words, ids) + tf.gather(get("bert/embeddings/token_type_embeddings"), types)
    hidden = norm("bert/embeddings", hidden + get("bert/embeddings/position_embeddings")[:length])
    hide = (1.0 - tf.cast(mask, tf.float32))[:, None, None, :] * -10000.0
    for number in range(sizes.num_hidden_layers):
        layer = f"bert/encoder/layer_{number}"
        query, key, value = (
            split(dense(f"{layer}/attention/self/{name}", hidden)) for name in ("query", "key", "value")
        )
        scores = tf.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(head_width).astype(np.float32)
        weights = tf.nn.softmax(scores + hide)
        context = tf.reshape(tf.einsum("bhqk,bkhd->bqhd", weights, value), (rows, length, sizes.hidden_size))
        hidden = norm(f"{layer}/attention/output", hidden + dense(f"{layer}/attention/output/dense", context))
        inner = gelu(dense(f"{layer}/intermediate/dense", hidden))
        hidden = norm(f"{layer}/output", hidden + dense(f"{layer}/output/dense", inner))
    pooled = tf.tanh(dense("bert/pooler/dense", hidden[:, 0]))
    turned = norm("cls/predictions/transform", gelu(dense("cls/predictions/transform/dense", hidden)))
    logits = tf.einsum("bsh,vh->bsv", turned, words) + get("cls/predictions/output_bias")
    pairs = tf.matmul(pooled, get("cls/seq_relationship/output_weights"), transpose_b=True)
    return {
        "logits": logits.numpy(),
        "seq_relationship_logits": (pairs + get("cls/seq_relationship/output_bias")).numpy(),
        "last_hidden_state": hidden.numpy(),
        "pooler_output": pooled.numpy(),
    }
