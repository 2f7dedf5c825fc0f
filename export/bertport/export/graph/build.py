"""Graph building: trace the model, apply the passes, write two graphs that share one set of weights."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from bertport.export.graph.onnx_files import save
from bertport.export.graph.passes.decoder_as_gemm import decoder_as_gemm
from bertport.export.graph.passes.drop_identities import drop_identities
from bertport.export.graph.passes.fill_weights import fill_weights
from bertport.export.graph.passes.gather_positions import gather_positions
from bertport.export.graph.passes.half_weights import half_weights
from bertport.export.graph.passes.name_for_others import drop_names, name_for_others
from bertport.export.graph.passes.name_weights import name_weights
from bertport.export.graph.passes.set_ir_version import set_ir_version
from bertport.export.graph.passes.share_weights import share_weights
from bertport.export.graph.passes.tie_decoder import tie_decoder
from bertport.export.graph.tracing import OPSETS, trace
from bertport.runtime.bundle.requirements import requires_of
from bertport.runtime.errors import ValidationError
from bertport.runtime.heads import decoded_outputs

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    import onnx
    import onnx_ir as ir

    from bertport.export.graph.tracing import Tracing
    from bertport.export.graph.wrapper import EncoderWithHeads
    from bertport.export.progress import Stages
    from bertport.runtime.bundle.manifest import Requires

__all__ = ["FILES", "GraphFiles", "make_graphs"]

FILES = {"portable": "onnx/model.onnx", "fp32": "onnx/model_serving.onnx"}
"""The graph of each variant, inside the bundle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFiles:
    """A graph as it was written."""

    outputs: tuple[str, ...]
    """Names of its outputs, in order."""
    external_data: tuple[str, ...]
    """Files inside the bundle that hold its weights, beside the graph itself."""
    requires: Requires
    """Requirements on a provider."""


def make_graphs(  # noqa: PLR0913 — all but the first three by name
    model: EncoderWithHeads,
    building: Path,
    tracing: Tracing,
    *,
    half: bool,
    external_above: int,
    stages: Stages,
    aliases: Mapping[str, Collection[str]] | None = None,
) -> dict[str, GraphFiles]:
    """Write the portable and the serving graph.

    Args:
        model: the model to trace.
        building: the bundle's directory.
        tracing: how it is traced.
        half: whether matrices are stored as float16.
        external_above: bytes of weights above which they are stored beside the portable graph.
        stages: told what is being done.
        aliases: further names of outputs in the portable graph, as `name_for_others` takes them; none when not given.

    Returns:
        What was written, by variant.

    Raises:
        ValidationError: when a graph is not one of standard operators.
    """
    portable, serving = (building / file for file in FILES.values())
    portable.parent.mkdir()
    with stages.stage("tracing" if tracing.tracer == "torch" else "tracing through Optimum"):
        # On the bundle's own disk, so that a full one is found out here and cleaned up with the rest.
        graph = _traced(model, tracing, building / ".traced")
    with stages.stage("making the graphs"):
        graph, _ = drop_identities(graph)
        graph, _ = tie_decoder(graph)
        graph, _ = name_weights(graph)
        if half:
            graph, _ = half_weights(graph)
        graph, _ = set_ir_version(graph, OPSETS[tracing.opset])
        outputs = tuple(value.name or "" for value in graph.graph.outputs)
        graph, _ = name_for_others(graph, aliases or {})
        written = save(graph, portable, external_above=external_above)
        _check(written.graph, portable)
        graph, _ = drop_names(graph, aliases or {})
        made = {"portable": replace(_describe(written.graph, written.beside), outputs=outputs)}
        for output in decoded_outputs(outputs):
            graph, _ = gather_positions(graph, output)
            graph, _ = decoder_as_gemm(graph, output)
        graph, _ = share_weights(graph, written.locations)
        served = save(graph, serving)
        _check(served.graph, serving)
        made["fp32"] = _describe(served.graph, written.beside or (portable.name,))
    return made


def _traced(model: EncoderWithHeads, tracing: Tracing, place: Path) -> ir.Model:
    """Return the graph of a model; its weights are the model's own where it is known which is which."""
    import onnx
    import onnx_ir as ir

    held = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    for weights in (False, True):
        place.mkdir()
        folded = trace(model, tracing, place / "model.onnx", weights=weights)
        graph = ir.from_proto(onnx.load(place / "model.onnx"))
        shutil.rmtree(place)
        graph, _ = fill_weights(graph, model.inputs, held, folded)
        if len(graph.graph.inputs) == len(model.inputs):
            break
    return graph


def _describe(graph: onnx.ModelProto, beside: tuple[str, ...]) -> GraphFiles:
    folder = PurePosixPath(FILES["portable"]).parent
    return GraphFiles(
        outputs=tuple(output.name for output in graph.graph.output),
        external_data=tuple(str(folder / file) for file in beside),
        requires=requires_of(graph, precision="fp32"),
    )


def _check(graph: onnx.ModelProto, path: Path) -> None:
    """Refuse a graph that is not well formed or has operators beyond the standard ones.

    Args:
        graph: the graph, which refers to its weights.
        path: where it was written.
    """
    import onnx

    referring = path.with_name(".checked")  # to have its weights checked without reading them
    referring.write_bytes(graph.SerializeToString())
    try:
        onnx.checker.check_model(str(referring))
    except onnx.checker.ValidationError as error:
        raise ValidationError(
            f"the exporter made a graph that is not valid ONNX ({error}): nothing was written; choose another --opset"
        ) from error
    referring.unlink()
    foreign = {operators.domain for operators in graph.opset_import} - {"", "ai.onnx"}
    if foreign:
        raise ValidationError(
            f"the exporter made a graph with operators of {', '.join(sorted(foreign))}: nothing was written; "
            "choose another --opset"
        )
