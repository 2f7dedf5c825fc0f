"""The export pipeline: one stage after another, in a directory that appears only when all is well."""

from __future__ import annotations

import json
import logging
import os
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, overload

from bertport.export.card import model_card
from bertport.export.checkpoint.added import with_heads
from bertport.export.checkpoint.config import names_code, normalized
from bertport.export.checkpoint.embedding import lowers_text
from bertport.export.checkpoint.heads import with_aliases
from bertport.export.checkpoint.read import Checkpoint, read_checkpoint
from bertport.export.checkpoint.sentence_transformers import encoder_of
from bertport.export.checkpoint.source import Located, locate, read_whole
from bertport.export.checkpoint.tensors import ALONE, require_heads
from bertport.export.checkpoint.tokenizer import TokenizerFiles, as_sentence_transformers, has_tokenizer, read_tokenizer
from bertport.export.dependencies import THROUGH_OPTIMUM, check_dependencies
from bertport.export.graph import onnx_files
from bertport.export.graph.build import FILES, GraphFiles, make_graphs
from bertport.export.graph.tracing import TRACERS, Tracing, check_opset
from bertport.export.metadata import architecture, read_datasets, read_front_matter, tool_versions
from bertport.export.progress import Event, Stages
from bertport.export.sources import opened
from bertport.export.validation.tokenizer import check_same, check_saved, check_tokenizer
from bertport.runtime.bundle.changes import tidy
from bertport.runtime.bundle.directory import Bundle, file_sha256
from bertport.runtime.bundle.manifest import Manifest, Source, Validation, Variant, encoder_inputs
from bertport.runtime.bundle.writer import (
    describe_files,
    new_bundle,
    refuse_existing,
    refuse_replacing,
    write_manifest,
)
from bertport.runtime.commands.render import printable
from bertport.runtime.errors import UnknownNameError, UsageError
from bertport.runtime.excerpts import as_unicode
from bertport.runtime.golden_making import write_first
from bertport.runtime.heads import POOLER

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from bertport.export.graph.wrapper import EncoderWithHeads
    from bertport.export.validation.cases import Attention, Vocabulary
    from bertport.runtime.bundle.manifest import HeadEntry

__all__ = ["WEIGHTS", "Options", "export", "log_notes", "vocabulary"]

WEIGHTS = {"float32": "fp32", "float16": "fp32-weights16"}
"""Storage types of weights, and the recipe's name for each; arithmetic is float32 either way."""


class Options(TypedDict, total=False):
    """Keyword arguments of `export`, whatever the source; its docstring says what each does."""

    opset: int | None
    tracer: Literal["torch", "optimum"]
    atol: float
    weights: Literal["float32", "float16"]
    heads: Collection[str]
    as_features: bool
    add_heads: Collection[str | os.PathLike[str]]
    overwrite: bool
    name: str | None
    progress: Callable[[Event], None] | None
    external_above: int


@overload
def export(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    revision: str | None = None,
    adapter: str | os.PathLike[str] | None = None,
    **options: Unpack[Options],
) -> Bundle: ...
@overload
def export(
    source: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    output: str | os.PathLike[str],
    **options: Unpack[Options],
) -> Bundle: ...
def export(
    source: str | os.PathLike[str] | PreTrainedModel,
    *given: Any,
    tokenizer: Any = None,
    output: Any = None,
    revision: str | None = None,
    adapter: str | os.PathLike[str] | None = None,
    **options: Unpack[Options],
) -> Bundle:
    """Turn a trained encoder into a verified bundle: `export(source, output)` or `export(model, tokenizer, output)`.

    Args:
        source: a checkpoint directory in Hugging Face's layout, a Hub id, or a model in memory: one of transformers'
            own classes, on any device, in any type of floating point and in any mode. It is not changed.
        given: the output; before it, for a model in memory, its tokenizer.
        tokenizer: the tokenizer of a model in memory, one of transformers'.
        output: the bundle's directory; it appears when everything has been verified, and not before.
        revision: branch, tag or commit of a Hub repository.
        adapter: directory of a LoRA adapter of PEFT, which is merged into the source; needs the extra peft.
        opset: version of ONNX's standard operator set; 17 when not given.
        tracer: what traces the model: "torch", PyTorch's exporter, or "optimum", Optimum's, which needs the extra
            export-optimum.
        atol: largest absolute difference from PyTorch float32 allowed in any output.
        weights: how matrices are stored; "float16" halves the bundle, and rounds them.
        heads: heads that the bundle must have, by their names in `bertport.runtime.heads`; it has all that the
            checkpoint holds in any case.
        as_features: whether the encoder is exported alone, with its pooler where it has one and without any head, so
            that the source may be of a class that cannot be exported whole.
        add_heads: checkpoints, as directories or Hub ids, whose heads were trained on the same frozen encoder and go
            into the same graphs; their encoders and tokenizers must be the source's.
        overwrite: whether a bundle at `output` may be replaced.
        name: the name shown to people; when not given that of the source, of the adapter, or of the output for a model
            in memory.
        progress: told of each stage, its time, and of what was left out; notes are logged when not given.
        external_above: bytes of weights above which they are stored beside the graph.

    Returns:
        The bundle.

    Raises:
        MissingDependencyError: when a package is not installed, before anything else is done.
        UsageError: for an opset, tracer, tolerance, head or way of storing weights that cannot be, and for a model
            without tokenizer or one that is not transformers'.
        PathError: when the source is not there, or the output exists, holds the source or cannot be written.
        CheckpointError: when the source is no checkpoint of a family that can be exported, or cannot be read.
        ValidationError: when a graph differs from PyTorch by more than `atol`, or the tokenizer that was saved gives
            other ids than transformers'; nothing is left behind.
    """
    tracer = options.get("tracer", "torch")
    if tracer not in TRACERS:
        raise UnknownNameError("tracer", str(tracer), TRACERS)
    check_dependencies(*(("export --tracer optimum", THROUGH_OPTIMUM) if tracer == "optimum" else ()))
    tokenizer, output = _places(given, tokenizer, output)
    with ExitStack() as stack:
        overwrite = options.get("overwrite", False)
        checkpoint = opened(source, tokenizer, Path(output), revision=revision, adapter=adapter, overwrite=overwrite)
        return _export(lambda: stack.enter_context(checkpoint), Path(output), **options)


def _places(given: Sequence[Any], tokenizer: Any, output: Any) -> tuple[Any, Any]:  # noqa: ANN401 — what a caller gives
    """Return the tokenizer, or None, and the output of a call: by position, the output is the last.

    Raises:
        UsageError: when there is no output, or more than the two.
    """
    places = list(given)
    if output is None and places:
        output = places.pop()
    if tokenizer is None and places:
        tokenizer = places.pop()
    if output is None or places:
        raise UsageError("give a source and an output, or a model, its tokenizer and an output")
    return tokenizer, output


def _export(  # noqa: PLR0913 — the command's options, each with its default
    source: Callable[[], Located],
    target: Path,
    *,
    opset: int | None = None,
    tracer: Literal["torch", "optimum"] = "torch",
    atol: float = 1e-4,
    weights: Literal["float32", "float16"] = "float32",
    heads: Collection[str] = (),
    as_features: bool = False,
    add_heads: Collection[str | os.PathLike[str]] = (),
    overwrite: bool = False,
    name: str | None = None,
    progress: Callable[[Event], None] | None = None,
    external_above: int = onnx_files.EXTERNAL_ABOVE,
) -> Bundle:
    _check_options(weights, atol, heads, add_heads, as_features=as_features)
    opset = check_opset(opset)
    tidy(target, write=False)  # what a process left that was stopped may be what is asked for
    refuse_existing(target, overwrite=overwrite)
    stages = Stages(progress or log_notes)

    with stages.stage("reading the checkpoint"):
        located = source()
        others = [encoder_of(locate(os.fspath(directory))) for directory in add_heads]
        refuse_replacing(target, located.directory, *located.origins, *(other.directory for other in others))
        checkpoint = with_heads(read_checkpoint(located, as_features=as_features), located.name, others)
        require_heads(checkpoint.heads, heads, located.name)
        tokenizer, beside = _read_tokenizer(located, checkpoint, others)
        said = (*located.notes, *checkpoint.notes, *checkpoint.decoder_notes(), *tokenizer.notes, *beside)
        for note in dict.fromkeys(said):  # some of a checkpoint hold once an adapter is merged into it, too
            stages.note(note)
        model = _build(checkpoint, weights)
    max_length = min(checkpoint.max_positions, tokenizer.model_max_length or checkpoint.max_positions)

    from bertport.export.validation.cases import cases
    from bertport.export.validation.check import check_aliases, notes, validate

    with new_bundle(target, overwrite=overwrite) as building:
        with stages.stage("comparing the tokenizer"):
            tokenizer.save(building)
            check_tokenizer(tokenizer, building, max_length=max_length, vocab_size=checkpoint.config.vocab_size)
        tracing = Tracing(opset=opset, tracer=tracer)
        entries = _entries(checkpoint)
        aliases = {entry.output: entry.aliases for entry in entries.values() if entry.aliases}
        graphs = make_graphs(
            model,
            building,
            tracing,
            half=weights == "float16",
            external_above=external_above,
            stages=stages,
            aliases=aliases,
        )
        with stages.stage("comparing with PyTorch"):
            attention = _attention(model)
            if (longest := attention.longest(max_length)) < max_length:
                stages.note(
                    f"inputs of more than {longest:,} tokens were not compared with PyTorch, whose attention to "
                    f"{max_length:,} takes more memory than this process may use"
                )
            words = vocabulary(tokenizer)
            batches = list(cases(words, max_length=max_length, segments=model.segments, attention=attention))
            paths = {variant: building / file for variant, file in FILES.items()}
            validations = validate(
                model, paths, batches, atol=atol, step=stages.step, without=[*chain.from_iterable(aliases.values())]
            )
            check_aliases(paths["portable"], aliases, batches[0])
            for note in notes(validations):
                stages.note(note)
        with stages.stage("writing the bundle"):
            _write_config(building, checkpoint)
            stating = located.card or located.directory
            (languages, licence), datasets = read_front_matter(stating), read_datasets(stating)
            known = encoder_inputs(segments=tokenizer.segments)
            manifest = Manifest(
                name=as_unicode(name or located.title or located.name),
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                source=_source(located, checkpoint),
                architecture=architecture(model, checkpoint.model_class),
                inputs={name: known[name] for name in checkpoint.inputs},
                heads=entries,
                max_length=max_length,
                lowercase=tokenizer.lowercase,
                languages=languages,
                licence=licence,
                variants=_variants(graphs, validations, recipe=WEIGHTS[weights]),
                default_variant="fp32",
                tools=tool_versions(),
                files=describe_files(building),
            )
            card = model_card(
                manifest,
                _tokens(tokenizer),
                alone=checkpoint.as_features,
                licences=_licences_of_added(checkpoint),
                datasets=datasets,
            )
            (building / "README.md").write_text(card, encoding="utf-8")
            write_manifest(building, manifest)
            write_first(building)
    return Bundle.open(target)


def _check_options(
    weights: str,
    atol: float,
    heads: Collection[str],
    add_heads: Collection[str | os.PathLike[str]],
    *,
    as_features: bool,
) -> None:
    """Refuse what is asked for wrongly, before anything is read.

    Raises:
        UsageError, UnknownNameError: naming what is wrong.
    """
    if weights not in WEIGHTS:
        raise UnknownNameError("way of storing weights", str(weights), WEIGHTS)
    for name, value in (("heads", heads), ("add_heads", add_heads)):
        if isinstance(value, str | os.PathLike):  # whose characters would be taken for its items
            given = os.fspath(value)
            raise UsageError(f"{name} is {given!r} and should be a list: give [{given!r}]")
    if not 0 < atol < float("inf"):
        raise UsageError(f"the tolerance {atol:g} is not a positive number: give one such as 1e-4")
    if as_features and not add_heads and (asked := sorted({*heads} - {POOLER})):
        raise UsageError(
            f"the head {asked[0]!r} and features alone were asked for, which have no head: leave one of them out"
        )


def log_notes(event: Event) -> None:
    """Log the notes among events, where no listener takes them, each in its line."""
    if event.kind == "note":
        logging.getLogger(__name__).warning(printable(event.text))


def _build(checkpoint: Checkpoint, weights: str) -> EncoderWithHeads:
    from bertport.export.graph.wrapper import build, round_matrices

    model = build(checkpoint)
    if weights == "float16":
        try:
            round_matrices(model)
        except OverflowError as error:
            raise UsageError(
                f"the weights cannot be stored in 16 bits ({error}): export with float32 weights"
            ) from error
    return model


def _attention(model: EncoderWithHeads) -> Attention:
    from bertport.export.validation.cases import Attention

    window = getattr(model.config, model.family.window) if model.family.window else 0
    return Attention(heads=normalized(model.family, model.config).num_attention_heads, window=window)


def vocabulary(files: TokenizerFiles) -> Vocabulary:
    """Return the ids that batches are made of: roles that a tokenizer has no token for are given an ordinary one."""
    from bertport.export.validation.cases import Vocabulary

    entries = files.tokenizer.get_vocab(with_added_tokens=True)
    ordinary = sorted(index for token, index in entries.items() if token not in files.special.values())
    ordinary = ordinary or sorted(entries.values())
    ids: dict[str, int] = {
        role: index if (index := entries.get(files.special.get(f"{role}_token", ""))) is not None else ordinary[0]
        for role in ("cls", "sep", "pad", "mask")
    }
    return Vocabulary(ordinary=ordinary, **ids)


def _tokens(files: TokenizerFiles) -> dict[str, str]:
    """Return the tokenizer's special tokens that a card names, by BERT's."""
    bert = {"mask_token": "[MASK]", "cls_token": "[CLS]"}
    return {token: files.special[role] for role, token in bert.items() if role in files.special}


def _write_config(building: Path, checkpoint: Checkpoint) -> None:
    kept = {name: value for name, value in checkpoint.raw_config.items() if not names_code(name)}
    if checkpoint.as_features:
        kept |= {"architectures": [checkpoint.model_class]}
    if "model_type" in kept and kept == checkpoint.raw_config:
        content = read_whole(checkpoint.directory / "config.json")
    else:
        # BERT's first checkpoints have no model_type; without it no tool of today knows what they are.
        content = (json.dumps({"model_type": checkpoint.family.name} | kept, indent=2) + "\n").encode()
    (building / "config.json").write_bytes(content)


def _read_tokenizer(
    located: Located, checkpoint: Checkpoint, others: Collection[Located]
) -> tuple[TokenizerFiles, list[str]]:
    """Return the tokenizer of a checkpoint, and notes on those of others whose heads are added to it.

    Raises:
        CheckpointError: when it cannot be read, or another one reads a text otherwise.
        ValidationError: when a tokenizer in memory is another one once it is saved.
    """
    sizes = {"vocab_size": checkpoint.config.vocab_size, "max_positions": checkpoint.max_positions}
    tokenizer = read_tokenizer(located.directory, **sizes)
    if located.parts and not checkpoint.as_features:  # a cross-encoder's, too
        tokenizer = as_sentence_transformers(tokenizer, located.directory)
    if located.tokenizer is not None:
        check_saved(located.tokenizer, tokenizer)
    notes = []
    if located.parts and checkpoint.as_features and lowers_text(located.directory) and not tokenizer.lowercase:
        notes.append(f"left out, {ALONE}: do_lower_case of sentence-transformers; give the encoder texts in lower case")
    for other in others:
        if has_tokenizer(other.directory):
            check_same(read_tokenizer(other.directory, **sizes), tokenizer, (located.name, other.name))
        else:
            notes.append(
                f"{other.name} has no tokenizer: its heads are assumed to be trained with that of {located.name}"
            )
    return tokenizer, notes


def _entries(checkpoint: Checkpoint) -> dict[str, HeadEntry]:
    """Return what the manifest says of each head, and where those that were added are from."""
    entries = checkpoint.entries
    for addition in checkpoint.additions:
        source = _source(addition.located, addition.checkpoint)
        entries |= {head: replace(entries[head], source=source) for head in addition.checkpoint.plan.heads}
    return with_aliases(entries)


def _licences_of_added(checkpoint: Checkpoint) -> dict[str, str | None]:
    """Return the licence that the card of each added head's checkpoint states, by head; None where it states none."""
    licences: dict[str, str | None] = {}
    for addition in checkpoint.additions:
        _, licence = read_front_matter(addition.located.card or addition.located.directory)
        licences |= dict.fromkeys(addition.checkpoint.plan.heads, licence)
    return licences


def _source(located: Located, checkpoint: Checkpoint) -> Source:
    hashes = {path.name: file_sha256(path) for path in located.origins or checkpoint.weights.paths}
    if checkpoint.modules is not None:
        hashes |= {f"{path.parent.name}/{path.name}": file_sha256(path) for path in checkpoint.modules.paths}
    return Source(name=as_unicode(located.name), revision=located.revision, weights_sha256=hashes)


def _variants(graphs: dict[str, GraphFiles], validations: dict[str, Validation], *, recipe: str) -> dict[str, Variant]:
    return {
        name: Variant(
            file=FILES[name],
            kind="portable" if name == "portable" else "serving",
            recipe=recipe,
            requires=graph.requires,
            outputs=graph.outputs,
            external_data=graph.external_data,
            validation=validations[name],
        )
        for name, graph in graphs.items()
    }
