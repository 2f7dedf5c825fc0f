"""Run plugins for test_real_plugins.py, in a process that sees their packages, and print what came of it as JSON.

    python plugin_program.py BUNDLE LINKED

BUNDLE is a bundle, LINKED the same one as the Hub's cache keeps it: links into another directory.
"""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bertport.runtime import load
from bertport.runtime import onnx_wire as pb
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.errors import BertportError
from bertport.runtime.providers import cpu
from bertport.runtime.providers.checks import obstacle
from bertport.runtime.providers.table import PROVIDERS, onnxruntime
from bertport.runtime.session import open_graph

BUNDLE, LINKED = sys.argv[1:] if __name__ == "__main__" else ("", "")  # collected for examples, it does nothing
NAMES = ["last_hidden_state", "logits", "seq_relationship_logits"]
TEXTS = ["the [MASK] of paris", "a dog and a cat " * 20 + "[MASK]", "[MASK]"]


def feeds(rows: int, width: int, positions: list[int]) -> dict[str, Any]:
    """Return a batch of random ids, its last row half padding."""
    ids = np.random.default_rng(rows * width).integers(20, 200, (rows, width))
    mask = np.ones_like(ids)
    mask[-1, width // 2 + 1 :] = 0
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": (ids % 2) * mask,
        "masked_positions": np.array(positions, dtype=np.int64),
    }


BATCHES = [feeds(1, 1, [0]), feeds(1, 16, [3, 4]), feeds(3, 40, list(range(0, 120, 7))), feeds(8, 128, [0, 1000])]


def graph(provider: str, variant: str = "fp32", **settings: Any) -> Any:
    """Return a variant's graph on a provider."""
    bundle = Bundle.open(BUNDLE)
    path = bundle.file(bundle.manifest.variants[variant].file)
    return open_graph(path, PROVIDERS[provider], **settings)


def distances(provider: str, variant: str = "fp32", **settings: Any) -> float:
    """Return the largest difference of any output of a provider from the CPU's."""
    there, here = graph(provider, variant, **settings), graph("cpu", variant)
    largest = 0.0
    for batch in BATCHES:
        ours, right = there.run(batch, NAMES), here.run(batch, NAMES)
        largest = max(largest, *(float(np.abs(ours[name] - right[name]).max()) for name in NAMES))
    return largest


def said(**wanted: Any) -> str:
    """Return the sentence with which loading is refused."""
    try:
        return "loaded: " + load(BUNDLE, **wanted).describe()["provider"]
    except BertportError as error:
        return f"{type(error).__name__}: {error}"


def scores(**wanted: Any) -> list[float]:
    """Return the score of each text's best word."""
    model = load(**wanted)
    return [model.fill_mask(text)[0]["score"] for text in TEXTS]


def together(provider: str) -> bool:
    """Return whether several threads that use one session get the answers that each gets alone."""
    opened = graph(provider)
    alone = [opened.run(batch, NAMES)["logits"] for batch in BATCHES]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(20):
            same = np.allclose(opened.run(BATCHES[number], NAMES)["logits"], alone[number], atol=1e-5)
            wrong.extend([] if same else [number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(BATCHES))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return not wrong


def left_over() -> str:
    """Return how a graph is refused that has an operator which OpenVINO does not take: GELU by its tanh."""
    weights = pb.tensor("w", pb.FLOAT, [4, 4], np.eye(4, dtype=np.float32).tobytes())
    nodes = [pb.node("MatMul", ["a", "w"], ["m"]), pb.node("FastGelu", ["m"], ["y"], domain="com.microsoft")]
    ends = [pb.value(name, pb.FLOAT, ["rows", 4]) for name in ("a", "y")]
    content = pb.graph(nodes=nodes, initializers=[weights], inputs=ends[:1], outputs=ends[1:])
    domain = pb.field(8, pb.field(1, "com.microsoft") + pb.field(2, 1))
    with TemporaryDirectory() as place:
        path = Path(place) / "model.onnx"
        path.write_bytes(pb.model(content) + domain)
        try:
            return str(open_graph(path, PROVIDERS["openvino"]).placement)
        except BertportError as error:
            return f"{type(error).__name__}: {error}"


def main() -> None:
    """Print what came of everything."""
    told: dict[str, Any] = {"obstacles": {}, "fp32": {}}
    library = str(plugins_library("openvino"))
    onnxruntime().register_execution_provider_library("mine", library)  # as a program may have done
    for name, row in PROVIDERS.items():
        if row.plugin is None or row.plugin.library is None:
            continue
        told["obstacles"][name] = obstacle(row)
        if told["obstacles"][name] is None:
            told["fp32"][name] = [distances(name), distances(name, "portable")]
    told["registered"] = sum(device.ep_name == "OpenVINOExecutionProvider" for device in onnxruntime().get_ep_devices())
    told["threads"] = distances("openvino", threads=1)
    told["bf16"] = distances("openvino", precision="bf16") if obstacle(PROVIDERS["openvino"], "bf16") is None else None
    model = load(BUNDLE, provider="openvino", threads=1)
    told["described"] = model.describe()
    empty = model.graph.run({**BATCHES[1], "masked_positions": np.empty(0, np.int64)}, NAMES)
    told["empty"] = [list(empty["logits"].shape), bool(np.isfinite(empty["last_hidden_state"]).all())]
    told["scores"] = {
        "cpu": scores(path=BUNDLE, provider="cpu", variant="fp32"),
        "openvino": scores(path=BUNDLE, provider="openvino"),
        "linked": scores(path=LINKED, provider="openvino"),
        "named": scores(path=BUNDLE, provider_library=library),
    }
    told["together"] = together("openvino")
    other = '{"CPU": {"INFERENCE_PRECISION_HINT": "bf16"}}'
    told["refused"] = {
        "precision": said(provider="openvino", provider_options={"load_config": other}),
        "old option": said(provider="openvino", provider_options={"precision": "FP32"}),
        "property": said(provider="openvino", provider_options={"load_config": '{"CPU": {"NO_SUCH": 1}}'}),
        "device": said(provider="openvino", provider_options={"load_config": '{"GPU": {}}'}),
        "another's option": said(provider="openvino", provider_options={"use_tf32": 0}),
        "memory": said(provider="openvino", memory="1G"),
        "two": said(provider="openvino,cpu"),
        "not in it": said(provider="webgpu", provider_library=library),
        "left over": left_over(),
        "built in": said(provider="cpu", provider_library=library),
    }
    plain = replace(cpu.cpu(), flags=cpu.cpu().flags - cpu.BF16)
    cpu.cpu = lambda: plain  # as a CPU that would emulate what OpenVINO says that it can
    told["refused"]["bf16"] = str(obstacle(PROVIDERS["openvino"], "bf16"))
    PROVIDERS.pop("openvino")  # of what the table does not know, no option makes it compute fp32
    name = "OpenVINOExecutionProvider"
    told["unknown"] = [
        said(provider_library=library, provider=name),
        said(
            provider_library=library,
            provider=name,
            provider_options={"load_config": other.replace("bf16", "f32")},
        ),
        said(provider_library=library),
    ]
    json.dump(told, sys.stdout)


def plugins_library(name: str) -> object:
    """Return the path of a plugin's library, whose package must not have been imported."""
    plugin = PROVIDERS[name].plugin
    if plugin is None or plugin.module in sys.modules:
        raise AssertionError(name)
    return plugin.library


if __name__ == "__main__":
    main()
