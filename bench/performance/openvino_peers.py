"""OpenVINO as people set it up: itself, through optimum-intel's pipelines, and as ONNX Runtime's plugin.

Its interpreters are those of `bench.performance.environments`. Unless it is told otherwise, it computes in bf16 on a
CPU that has it.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.performance.peers import PIPELINES, Opening, Padded, Peer, Pipelines
from bertport.runtime.providers.table import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["OpenVino", "OptimumIntel", "Plugin"]

LIBRARY = "libonnxruntime_providers_openvino_plugin.so"
"""File name of the plugin in its package."""


class OpenVino(Padded):
    """OpenVINO itself: on the portable graph, or on what optimum-intel has made in 8 bits.

    One stream is told to be fast for one caller, several are told their number.
    """

    def __init__(self, opening: Opening, compiled: Any = None) -> None:  # noqa: ANN401 — of a package in another place
        super().__init__(opening)
        self._opening = opening
        self._compiled = compiled or _compile(opening)
        self._request = self._compiled.create_infer_request()
        self._names = [given.any_name for given in self._compiled.inputs]

    def another(self) -> Peer:
        """Return another request of the same model."""
        return OpenVino(self._opening, self._compiled)

    def run(self, feeds: dict[str, Any], names: Sequence[str]) -> list[Any]:
        """Run one batch; all outputs are computed, as its graphs always do."""
        values = self._request.infer({name: feeds[name] for name in self._names})
        return [values[name] for name in names if name in self._outputs] or [values[0]]

    @property
    def _outputs(self) -> set[str]:
        return {name for output in self._compiled.outputs for name in output.names}


def _compile(opening: Opening) -> Any:  # noqa: ANN401 — of a package in another place
    import openvino  # type: ignore[import-not-found]

    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if opening.streams > 1:
        config = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": str(opening.streams)}
    if opening.precision:
        config["INFERENCE_PRECISION_HINT"] = opening.precision
    if opening.threads and opening.streams == 1:
        config["INFERENCE_NUM_THREADS"] = opening.threads
    path = opening.path / "onnx" / "model.onnx"
    if not path.is_file():
        path = opening.path / "fill-mask" / "openvino_model.xml"
    return openvino.Core().compile_model(str(path), "CPU", config)


class Plugin(Padded):
    """ONNX Runtime with OpenVINO's plugin as it comes, on the portable graph."""

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        ort = onnxruntime()
        spec = importlib.util.find_spec("onnxruntime_ep_openvino")
        if spec is None or not spec.submodule_search_locations:
            raise ImportError("onnxruntime-ep-openvino is not installed here")
        library = Path(spec.submodule_search_locations[0]) / LIBRARY
        ort.register_execution_provider_library("openvino", str(library))
        devices = [device for device in ort.get_ep_devices() if device.ep_metadata.get("ov_device") == "CPU"]
        if not devices:
            raise RuntimeError("OpenVINO's plugin offers no CPU here")
        options, session = {}, ort.SessionOptions()
        if opening.threads:
            options["load_config"] = f'{{"CPU": {{"INFERENCE_NUM_THREADS": {opening.threads}}}}}'
        session.add_provider_for_devices(devices[:1], options)
        self.session = ort.InferenceSession(str(opening.path / "onnx" / "model.onnx"), session)

    def run(self, feeds: dict[str, Any], names: Sequence[str]) -> list[Any]:
        """Run one batch."""
        values: list[Any] = self.session.run(list(names), feeds)
        return values


class OptimumIntel(Pipelines):
    """optimum-intel's OpenVINO models in transformers' pipelines, as they come or in 8 bits by NNCF."""

    def made(self, task: str) -> Any:  # noqa: ANN401 — a pipeline
        """Make the pipeline of a task."""
        import transformers
        from optimum.intel import (  # type: ignore[import-untyped, import-not-found, unused-ignore]
            OVModelForFeatureExtraction,
            OVModelForMaskedLM,
        )

        kind = {"fill-mask": OVModelForMaskedLM, "features": OVModelForFeatureExtraction}[task]
        config = {"INFERENCE_NUM_THREADS": self.opening.threads} if self.opening.threads else {}
        model = kind.from_pretrained(self.opening.path / task, device="CPU", ov_config=config)
        make: Any = transformers.pipeline  # its overloads know only literal names
        return make(
            PIPELINES[task], model=model, tokenizer=transformers.AutoTokenizer.from_pretrained(self.opening.path)
        )
