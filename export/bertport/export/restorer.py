"""Restore: the weights of a bundle become a transformers checkpoint again, compared with the graph that holds them."""

from __future__ import annotations

import json
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertport.export.card import restored_card
from bertport.export.checkpoint.config import names_code
from bertport.export.checkpoint.families import BERT, FAMILIES, classes, family_of, promises
from bertport.export.checkpoint.labels import with_activation
from bertport.export.checkpoint.memory import parameters_of
from bertport.export.checkpoint.read import read_checkpoint
from bertport.export.checkpoint.sentence_transformers import encoder_of, write_modules
from bertport.export.checkpoint.source import Located
from bertport.export.checkpoint.tokenizer import SAVED, VOCABULARY, read_tokenizer
from bertport.export.checkpoint.tokenizer_loading import quiet
from bertport.export.checkpoint.weights import SINGLE
from bertport.export.dependencies import check_dependencies
from bertport.export.exporter import WEIGHTS, log_notes, vocabulary
from bertport.export.graph.stored_weights import stored_weights
from bertport.export.progress import Event, Stages
from bertport.runtime.bundle.directory import MANIFEST, Bundle
from bertport.runtime.bundle.writer import new_bundle
from bertport.runtime.errors import BundleError, CheckpointError, PathError
from bertport.runtime.excerpts import one_line
from bertport.runtime.heads import SEQUENCE_CLASSIFICATION

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["restore"]

CONFIG = "config.json"
LEADING = frozenset({"configuration_files", "name_or_path"})
"""Settings by which transformers would take a configuration from elsewhere."""
ATOL = 1e-4
"""Tolerance for bundles that state none: an export's default."""
LONGEST = 128
"""Tokens of the longest input that is compared. The graph was compared on longer ones when it was exported; here it is
the names and the layout of its weights that could be wrong, which any input shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    """The tensors of a class of transformers, as far as a graph has them."""

    model_class: str
    """Name of the class."""
    bare: bool
    """Whether it is the encoder without heads, whose names have no prefix."""
    prefix: str
    """Prefix of the encoder's names in a class with heads."""
    tensors: dict[str, NDArray[np.float32]]
    """Tensors that the graph has, by their names in a class with heads; of tied ones only the first."""
    missing: tuple[str, ...]
    """Names of those that it does not have."""


def restore(
    bundle: str | os.PathLike[str] | Bundle,
    output: str | os.PathLike[str],
    *,
    progress: Callable[[Event], None] | None = None,
) -> Path:
    """Write the checkpoint that a bundle's float32 graph computes: model.safetensors, config.json and the tokenizer.

    transformers opens it by `from_pretrained` of the class that its config.json names. Weights are written as float32,
    the type that the graph computes in; those that the bundle stores in 16 bits stay rounded.

    Args:
        bundle: a bundle or its directory.
        output: the checkpoint's directory, which must not be there, or be empty.
        progress: told of each stage, its time, and of what the checkpoint lacks; notes are logged when not given.

    Returns:
        The checkpoint's directory.

    Raises:
        MissingDependencyError: when a package is not installed, before anything else is done.
        PathError: when there is no such bundle, or the output exists or cannot be written.
        BundleError: when a file of the bundle is missing or changed, no graph of it has float32 weights, or its graph
            is not that of its config.json.
        ValidationError: when the checkpoint differs from the graph by more than the bundle's tolerance; nothing is
            left behind.
    """
    check_dependencies("restore")
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    target = Path(output)
    if (target / MANIFEST).exists():
        raise PathError(f"{target} is a bundle, which a checkpoint does not replace: choose another output")
    stages = Stages(progress or log_notes)
    variants = _float_variants(opened)
    with new_bundle(target, overwrite=False) as building:
        with stages.stage("reading the graph"), opened.opening(variants[0]) as path:
            config = _config(opened)
            weights = stored_weights(path)
            fits = _fits(config, weights, opened)
            # Of those that lack as little and have as much, the first: the class that the checkpoint had.
            best = min(fits, key=lambda fit: (len(fit.missing), -len(fit.tensors)))
        with stages.stage("writing the checkpoint"):
            # Beside them, tensors that only another class has: the pooler of a bundle without next-sentence head.
            beside = [fit.tensors for fit in fits if not fit.missing]
            head = opened.manifest.heads.get(SEQUENCE_CLASSIFICATION)
            stated = with_activation(config, head.activation if head and not head.source else None)
            _write(opened, building, best, stated | {"architectures": [best.model_class]}, beside)
            _write_modules(opened, building, weights)
            del weights, fits, beside
        with stages.stage("comparing with the graph"):
            for note in _compare(opened, building, variants, stages):
                stages.note(note)
    return target


def _float_variants(bundle: Bundle) -> list[str]:
    """Return the variants whose weights are those of the checkpoint, or those in 16 bits.

    Raises:
        BundleError: when there is none.
    """
    recipes = set(WEIGHTS.values())
    variants = [name for name, variant in bundle.manifest.variants.items() if variant.recipe in recipes]
    if not variants:
        held = ", ".join(bundle.manifest.variants)
        raise BundleError(
            f"the bundle at {bundle.path} has no float32 graph (its variants: {held}), and quantized weights are not "
            "those of a checkpoint: take the bundle that they were made from"
        )
    return variants


def _config(bundle: Bundle) -> dict[str, Any]:
    """Return config.json as the manifest lists it, without what would lead transformers elsewhere.

    Raises:
        BundleError: when it is not listed, was changed, or is not a configuration of a family that is known.
    """
    place = bundle.path / CONFIG
    try:
        value = json.loads(bundle.read(CONFIG))
    except (ValueError, RecursionError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{place} cannot be read as JSON ({error}): export again") from error
    if not isinstance(value, dict) or family_of(value) is None:
        raise BundleError(f"{place} is not a configuration of an encoder that is known here: export again")
    return {
        name: setting
        for name, setting in value.items()
        if not (names_code(name) or name in LEADING or name.startswith("_"))
    }


def _fits(config: Mapping[str, Any], weights: Mapping[str, NDArray[np.float32]], bundle: Bundle) -> list[_Fit]:
    """Return what the graph has of each class of the family whose heads the bundle has, the checkpoint's own first.

    Raises:
        BundleError: when config.json is none that a class takes, or gives a tensor another shape.
    """
    family = family_of(config) or FAMILIES[BERT]
    names = [kind for kind in classes(family) if promises(family, kind) <= _own_heads(bundle)]
    own = [kind for kind in (bundle.manifest.architecture.model_class,) if kind in names]
    return [_fit(kind, config, weights, bundle) for kind in dict.fromkeys((*own, *names))]


def _fit(
    model_class: str, config: Mapping[str, Any], weights: Mapping[str, NDArray[np.float32]], bundle: Bundle
) -> _Fit:
    import torch
    import transformers

    kind: Any = getattr(transformers, model_class)
    try:
        settings = kind.config_class.from_dict(dict(config))
        settings._attn_implementation = "eager"  # noqa: SLF001 — transformers' own way to set it on a config
        with torch.device("meta"):
            model = kind(settings)
        model.tie_weights()
    except Exception as error:  # whatever a setting makes it raise
        reason = one_line(error)
        raise BundleError(
            f"{bundle.path / CONFIG} is not a configuration of a {model_class} ({reason}): export again"
        ) from error
    bare, prefix = model.base_model is model, f"{model.base_model_prefix}."
    tensors, missing = {}, []
    for name, parameter in parameters_of(model).items():
        array = next((weights[stored] for stored in _names(name, parameter, model) if stored in weights), None)
        if array is None:
            missing.append(name)
            continue
        if array.shape != parameter.shape:
            raise BundleError(
                f"the graph of {bundle.path} holds {name} of the shape {list(array.shape)} and its config.json says "
                f"{list(parameter.shape)}: export again"
            )
        tensors[prefix + name if bare else name] = array
    return _Fit(model_class=model_class, bare=bare, prefix=prefix, tensors=tensors, missing=tuple(missing))


def _names(name: str, parameter: Any, model: Any) -> Iterator[str]:  # noqa: ANN401 — transformers is partly typed
    """Return the names that a parameter may have in a graph: its own, with or without the encoder's prefix.

    And those of the word embedding for a decoder: a graph stores the two once where they are equal, tied or not.
    """
    prefix = f"{model.base_model_prefix}."
    yield from (name, prefix + name, name.removeprefix(prefix))
    decoder, words = model.get_output_embeddings(), model.get_input_embeddings()
    if decoder is not None and parameter is decoder.weight:
        yield from (table for table, parameter in parameters_of(model).items() if parameter is words.weight)


def _write(
    bundle: Bundle,
    directory: Path,
    fit: _Fit,
    config: Mapping[str, Any],
    beside: Iterable[Mapping[str, NDArray[np.float32]]],
) -> None:
    """Write the files of a checkpoint."""
    import numpy as np
    from safetensors.numpy import save_file

    tensors = {name: array for arrays in (*beside, fit.tensors) for name, array in arrays.items()}
    if fit.bare:
        tensors = {name.removeprefix(fit.prefix): array for name, array in tensors.items()}
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    save_file(contiguous, directory / SINGLE, metadata={"format": "pt"})  # transformers 4 insists on it
    # BERT's first checkpoints have no model_type; without it no tool of today knows what they are.
    stated = {"model_type": BERT} | dict(config) | {"dtype": "float32"}
    (directory / CONFIG).write_text(json.dumps(stated, indent=2) + "\n", encoding="utf-8")
    # safetensors lets nobody else read what it writes.
    (directory / SINGLE).chmod(stat.S_IMODE((directory / CONFIG).stat().st_mode))
    for name in (*SAVED, VOCABULARY):  # no other file of a bundle is part of a checkpoint
        if name in bundle.manifest.files:
            (directory / name).write_bytes(bundle.read(name))
    (directory / "README.md").write_text(restored_card(bundle.manifest, fit.model_class), encoding="utf-8")


def _write_modules(bundle: Bundle, directory: Path, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Write the modules of sentence-transformers that a bundle has behind its encoder, if any.

    Raises:
        BundleError: when the graph does not hold a tensor of theirs.
    """
    manifest = bundle.manifest
    facts = next((entry.embedding for entry in manifest.heads.values() if entry.embedding and not entry.source), None)
    if facts is None:
        return
    try:
        write_modules(
            directory,
            facts,
            weights,
            hidden_size=manifest.architecture.hidden_size,
            max_length=manifest.max_length,
        )
    except (KeyError, ValueError) as error:
        raise _lacking(bundle, f"of the modules behind the encoder: {error}") from error


def _compare(bundle: Bundle, directory: Path, variants: list[str], stages: Stages) -> list[str]:
    """Compare a checkpoint with the graphs of a bundle, and see that transformers opens it.

    Returns:
        Sentences about what it lacks.

    Raises:
        ValidationError: when an output differs by more than the bundle's tolerance.
    """
    from bertport.export.graph.wrapper import build
    from bertport.export.validation.cases import grid
    from bertport.export.validation.check import validate

    try:
        located = Located(directory=directory, name=bundle.manifest.name, revision=None)
        checkpoint = read_checkpoint(encoder_of(located))
    except CheckpointError as error:
        raise _lacking(bundle, str(error)) from error
    if lost := [head for head in _own_heads(bundle) if head not in checkpoint.heads]:
        raise _lacking(bundle, f"the {lost[0]} head is missing")
    notes = _opened(directory, checkpoint.model_class)
    words = checkpoint.config.vocab_size
    tokenizer = read_tokenizer(directory, vocab_size=words, max_positions=checkpoint.max_positions)
    longest = min(bundle.manifest.max_length, LONGEST)
    model = build(checkpoint)
    batches = grid(vocabulary(tokenizer), max_length=longest, segments=model.segments)
    padded = [case for case in batches if not case.inputs["attention_mask"].all()]
    with ExitStack() as stack:
        graphs = {name: stack.enter_context(bundle.opening(name)) for name in variants}
        stated = [validation.atol for name in variants if (validation := bundle.manifest.variants[name].validation)]
        heads = bundle.manifest.heads.items()
        added = {name: entry for name, entry in heads if entry.source and name not in checkpoint.plan.heads}
        atol = max(stated, default=ATOL)
        unknown = [entry.output for entry in added.values()]
        unknown += [alias for _, entry in heads for alias in entry.aliases or ()]
        validate(model, graphs, padded, atol=atol, step=stages.step, without=unknown)
    left = [f"left out: the {name} head, which was added from another checkpoint" for name in added]
    return [*notes, *left]


def _own_heads(bundle: Bundle) -> set[str]:
    """Return the heads of the checkpoint that the encoder is from."""
    return {name for name, entry in bundle.manifest.heads.items() if entry.source is None}


def _lacking(bundle: Bundle, what: str) -> BundleError:
    """Return the error for a graph in which weights are merged or changed, or which is of another config.json."""
    return BundleError(
        f"the graph of {bundle.path} does not hold the weights of its config.json as a checkpoint does ({what}): get "
        "the checkpoint that it was exported from"
    )


def _opened(directory: Path, model_class: str) -> list[str]:
    """Open a checkpoint as its users will, and return a sentence about tensors that it lacks or has no use for."""
    import transformers

    kind: Any = getattr(transformers, model_class)
    with quiet():
        _, loading = kind.from_pretrained(
            str(directory), local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    lacks = {
        "lacks": ("missing_keys", "which transformers fills with random numbers"),
        "has": ("unexpected_keys", "which only other classes of transformers read"),
    }
    return [
        f"for a {model_class}, the checkpoint {verb} {', '.join(sorted(loading[key])[:5])}, {why}"
        for verb, (key, why) in lacks.items()
        if loading[key]
    ]
