"""Classifier settings in config.json: labels, problem type, and the activation that turns logits into scores."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from bertport.runtime.errors import CheckpointError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.heads import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from bertport.runtime.text.encoder import lone_surrogate

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["labels_in", "terms_of_texts", "terms_of_tokens", "unnamed", "untrusted_activation", "with_activation"]

PROBLEM_TYPES = (SINGLE_LABEL, MULTI_LABEL, REGRESSION)
"""Problem types of transformers."""
ACTIVATIONS = {"Sigmoid": "sigmoid", "Softmax": "softmax", "Identity": "none"}
"""Activations that turn the logits of a cross-encoder of sentence-transformers into scores, by the name of PyTorch's
module."""
CLASSES = {
    "sigmoid": "torch.nn.modules.activation.Sigmoid",
    "softmax": "torch.nn.modules.activation.Softmax",
    "none": "torch.nn.modules.linear.Identity",
}
"""The modules that sentence-transformers names for them, by the name of the activation."""
TORCH = re.compile(r"torch\.nn\.(?:\w+\.)*(\w+)")
"""The full name of one of PyTorch's modules."""
UNNAMED = re.compile(r"LABEL_\d+")
"""The names that transformers gives to labels which have none, also beside others that were named later."""
MOST_UNNAMED = 2**20
"""The largest number of labels that get names here: config.json and the header of a tensor can state any."""
UNSTATED = 2
"""Labels of a classifier whose config.json states none: transformers leaves them out where they are these two."""


def labels_in(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the labels of a classifier in the order of their ids, with transformers' names where config.json has none.

    Raises:
        CheckpointError: when ids or names are missing, of another kind or there twice, or two settings disagree.
    """
    stated, count = config.get("id2label"), config.get("num_labels")
    if count is not None and not (isinstance(count, int) and not isinstance(count, bool) and count > 0):
        raise CheckpointError(f"num_labels in config.json is {excerpt(count)}: a number from 1 up is expected")
    if stated is None:
        return unnamed(UNSTATED if count is None else count)
    if not isinstance(stated, dict):
        raise CheckpointError(f"id2label in config.json is {excerpt(stated)}: an object of ids and labels is expected")
    if not stated:
        raise CheckpointError("id2label in config.json names no label: name one for each row of the classifier")
    names = _by_id(stated)
    labels = tuple(names[index] for index in range(len(names)))
    if count is not None and count != len(labels):
        raise CheckpointError(
            f"config.json names {len(labels)} labels (id2label) and states {count} (num_labels): correct the one that "
            "is wrong"
        )
    _check_agreement(labels, config.get("label2id"))
    return labels


def unnamed(count: int) -> tuple[str, ...]:
    """Return transformers' names for labels that have none.

    Raises:
        CheckpointError: for more labels than any classifier has.
    """
    if count > MOST_UNNAMED:
        raise CheckpointError(
            f"the checkpoint states {count:,} labels without names; up to {MOST_UNNAMED:,} can be exported: correct "
            "num_labels in config.json"
        )
    return tuple(f"LABEL_{index}" for index in range(count))


def _by_id(stated: Mapping[str, Any]) -> dict[int, str]:
    """Return the labels by their ids, which are every number from 0 up.

    Raises:
        CheckpointError: naming the first id or label that cannot be.
    """
    names: dict[int, str] = {}
    for key, label in stated.items():
        if not re.fullmatch(r"\d{1,9}", key, re.ASCII):
            raise CheckpointError(f"id2label in config.json has the id {excerpt(key)}: numbers from 0 up are expected")
        if not isinstance(label, str) or lone_surrogate(label):
            raise CheckpointError(f"id2label in config.json names {excerpt(label)} for id {key}: a text is expected")
        if int(key) in names:
            raise CheckpointError(f"id2label in config.json has the id {int(key)} twice: name each label once")
        names[int(key)] = label
    missing = next((index for index in range(len(names)) if index not in names), None)
    if missing is not None:
        raise CheckpointError(
            f"id2label in config.json has {len(names)} ids and not {missing}: number its labels from 0 without a gap"
        )
    ids: dict[str, int] = {}
    for index in range(len(names)):
        if (first := ids.setdefault(names[index], index)) != index:
            raise CheckpointError(
                f"id2label in config.json has {excerpt(names[index])} for the ids {first} and {index}: name each label "
                "differently"
            )
    return names


def _check_agreement(labels: tuple[str, ...], stated: object) -> None:
    """Refuse a label2id that says otherwise than id2label; one of transformers' own names says nothing.

    Raises:
        CheckpointError: naming the first label of which they disagree.
    """
    if stated is None or (isinstance(stated, dict) and all(map(UNNAMED.fullmatch, stated))):
        return
    if not isinstance(stated, dict):
        raise CheckpointError(f"label2id in config.json is {excerpt(stated)}: an object of labels and ids is expected")
    ids = {label: index for index, label in enumerate(labels)}
    # An id as text is no other id: transformers reads neither.
    other = next((name for name in (*labels, *stated) if str(stated.get(name)) != str(ids.get(name))), None)
    if other is not None:
        raise CheckpointError(
            f"config.json gives {excerpt(other)} the id {_id(ids.get(other))} in id2label and "
            f"{_id(stated.get(other))} in label2id: correct the one that is wrong"
        )


def _id(value: object) -> str:
    return "none" if value is None else excerpt(value)


def terms_of_texts(config: Mapping[str, Any], labels: tuple[str, ...]) -> dict[str, str | None]:
    """Return the problem type and the activation of a classifier of texts, as fields of its entry in a manifest.

    A problem type that config.json does not state is what transformers' pipeline takes it for: many labels of one text
    where there is one alone, whose score is then its sigmoid, and one of several otherwise.

    Raises:
        CheckpointError: for a problem type or an activation that is not known.
    """
    stated = config.get("problem_type")
    if stated is not None and stated not in PROBLEM_TYPES:
        raise CheckpointError(
            f"problem_type in config.json is {excerpt(stated)}; one of {', '.join(PROBLEM_TYPES)} is expected"
        )
    if stated == SINGLE_LABEL and len(labels) == 1:
        raise CheckpointError(
            f"problem_type in config.json is {SINGLE_LABEL}, and there is one label to choose from: state "
            f"{MULTI_LABEL} or {REGRESSION}"
        )
    return {
        "problem_type": stated or (MULTI_LABEL if len(labels) == 1 else SINGLE_LABEL),
        "activation": _activation(config),
    }


def terms_of_tokens(_: Mapping[str, Any], __: tuple[str, ...]) -> dict[str, str | None]:
    """Return the problem type of a classifier of tokens, as a field of its entry in a manifest: one label a token."""
    return {"problem_type": SINGLE_LABEL}


def untrusted_activation(config: Mapping[str, Any]) -> list[str]:
    """Return a note on an activation with code of its own, which is not run; none where there is none."""
    stated = _cross_encoder(config)
    if not isinstance(stated, str) or stated.startswith("torch."):
        return []
    note = (
        f"left out, because it names code to run: the activation {excerpt(stated)}; scores are made as "
        "sentence-transformers makes them without it"
    )
    return [note]


def with_activation(config: Mapping[str, Any], activation: str | None) -> dict[str, Any]:
    """Return config.json with the activation that a bundle records, which the checkpoint may have had in another file.

    Args:
        config: the content of config.json.
        activation: a name of the runtime's; None for none.
    """
    stated = CLASSES.get(activation or "")
    if stated is None or _cross_encoder(config) == stated:
        return dict(config)
    own = config.get("sentence_transformers")
    return {**config, "sentence_transformers": {**(own if isinstance(own, dict) else {}), "activation_fn": stated}}


def _cross_encoder(config: Mapping[str, Any]) -> object:
    """Return the activation that a cross-encoder of sentence-transformers states; None where there is none."""
    own = config.get("sentence_transformers")
    stated = own.get("activation_fn") if isinstance(own, dict) else None
    return config.get("sbert_ce_default_activation_function") if stated is None else stated


def _activation(config: Mapping[str, Any]) -> str | None:
    """Return what makes scores of logits, as a cross-encoder states it; None where none does.

    A setting function_to_apply is not read, as neither transformers' pipeline nor sentence-transformers reads it.

    Raises:
        CheckpointError: for one that is not known.
    """
    stated = _cross_encoder(config)
    if stated is not None and not isinstance(stated, str):
        raise CheckpointError(f"the activation of the checkpoint is {excerpt(stated)}: a class is expected")
    if stated is None or not stated.startswith("torch."):
        return None
    module = TORCH.fullmatch(stated)
    if module is None or module[1] not in ACTIVATIONS:
        raise CheckpointError(
            f"the checkpoint states the activation {excerpt(stated)}; one of {', '.join(ACTIVATIONS)} of torch.nn is "
            "expected: state Identity to have the logits as scores"
        )
    return ACTIVATIONS[module[1]]
