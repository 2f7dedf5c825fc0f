"""TensorRT without a GPU: the options that are made, where engines are kept, and what is said of a cold build."""

from __future__ import annotations

import logging
import time

import pytest

from bertport.runtime.batching import buckets, plan
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.errors import PathError, UsageError
from bertport.runtime.providers import native, tensorrt_engines
from bertport.runtime.providers.table import PROVIDERS

ROW = PROVIDERS["tensorrt"]
INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids", "masked_positions"})


def shapes(text):
    return {name: tuple(map(int, sizes.split("x"))) for name, sizes in (shape.split(":") for shape in text.split(","))}


@pytest.mark.parametrize("max_length", [16, 40, 128, 512])
def test_the_profile_covers_every_batch_that_is_planned(max_length):
    profile = tensorrt_engines.profile(INPUTS, max_length=max_length, batch_tokens=16384, batch_rows=256)
    least, best, most = (shapes(profile[f"trt_profile_{name}_shapes"]) for name in ("min", "opt", "max"))
    assert least.keys() == best.keys() == most.keys() == INPUTS
    for name in INPUTS:
        assert all(a <= b <= c for a, b, c in zip(least[name], best[name], most[name], strict=True))
        assert all(size >= 1 for size in least[name])
    assert most["input_ids"][1] == max_length
    lengths = [1 + index * 7 % max_length for index in range(3000)] + [16] * 3000
    assert (ROW.batch_tokens, ROW.batch_rows) == (16384, 256)
    for batch in plan(lengths, budget=16384, overhead=ROW.overhead_tokens, most_rows=256):
        width = max(lengths[index] for index in batch)
        assert width <= most["input_ids"][1]
        assert len(batch) * width <= most["masked_positions"][0]
        assert len(batch) <= most["input_ids"][0]


def test_buckets_are_powers_of_two_up_to_the_longest_input():
    assert buckets(512) == (16, 32, 64, 128, 256, 512)
    assert buckets(160) == (16, 32, 64, 128, 160)
    assert buckets(8) == (8,)


def engine(bundle, monkeypatch, tmp_path, given=None, **changes):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    facts = {"gpu": "NVIDIA X 9.0", "versions": {"tensorrt": "10.14.1", "onnxruntime": "1.32.0"}} | changes
    manifest = Bundle.open(bundle).manifest
    return tensorrt_engines.engine_for(
        ROW,
        precision=manifest.variants["fp32"].requires.precision,
        hashes=manifest.hashes_of("fp32"),
        max_length=manifest.max_length,
        inputs=INPUTS,
        given=given or {},
        **facts,
    )


def test_an_engine_is_kept_by_everything_that_it_depends_on(tiny_bundle, edited, monkeypatch, tmp_path):
    first = engine(tiny_bundle, monkeypatch, tmp_path)
    assert first.directory.parent == tmp_path / "bertport" / "tensorrt"
    assert engine(tiny_bundle, monkeypatch, tmp_path) == first
    assert set(first.options) <= ROW.allowed

    def other_graph(manifest):
        manifest["files"]["onnx/model_serving.onnx"]["sha256"] = "0" * 64

    def other_weights(manifest):
        manifest["files"]["onnx/model.onnx"]["sha256"] = "0" * 64

    def shorter(manifest):
        manifest["max_length"] = 64

    def other_types(manifest):
        manifest["variants"]["fp32"]["requires"]["precision"] = "fp16"

    others = [
        engine(edited(change), monkeypatch, tmp_path) for change in (other_graph, other_weights, shorter, other_types)
    ]
    others += [
        engine(tiny_bundle, monkeypatch, tmp_path, gpu="NVIDIA Y 9.0"),
        engine(tiny_bundle, monkeypatch, tmp_path, versions={"tensorrt": "10.15.0", "onnxruntime": "1.32.0"}),
        engine(tiny_bundle, monkeypatch, tmp_path, given={"trt_builder_optimization_level": 5}),
    ]
    assert len({first.directory, *(cache.directory for cache in others)}) == 1 + len(others)
    timing = {cache.options["trt_timing_cache_path"] for cache in (first, *others)}
    assert len(timing) == 3  # by GPU and versions alone


def test_a_directory_that_is_given_is_used(tiny_bundle, monkeypatch, tmp_path):
    given = {"trt_engine_cache_path": str(tmp_path)}
    assert engine(tiny_bundle, monkeypatch, tmp_path, given=given).directory == tmp_path


def test_a_precision_that_the_variant_is_not_for_is_refused_before_an_engine_is_built(
    tiny_bundle, monkeypatch, tmp_path
):
    assert engine(tiny_bundle, monkeypatch, tmp_path, given={"trt_fp16_enable": False})
    with pytest.raises(UsageError, match="trt_fp16_enable=1 keeps 'tensorrt' from computing in fp32"):
        engine(tiny_bundle, monkeypatch, tmp_path, given={"trt_fp16_enable": True})


def test_a_cold_build_is_announced_with_its_progress_and_a_warm_start_says_nothing(
    tiny_bundle, monkeypatch, tmp_path, caplog
):
    monkeypatch.setattr(tensorrt_engines, "EVERY", 0.01)
    made = engine(tiny_bundle, monkeypatch, tmp_path)
    assert made.cold
    with caplog.at_level(logging.WARNING), tensorrt_engines.announced(made, "fp32"):
        time.sleep(0.2)
        (made.directory / "graph_0_sm90.engine").write_bytes(b"built")
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith("bertport: building a TensorRT engine for variant 'fp32'")
    assert str(made.directory) in said[0]
    assert said[1].startswith("bertport: still building, ")
    assert said[-1].startswith("bertport: the engine was built in ")
    caplog.clear()
    assert not made.cold
    with caplog.at_level(logging.WARNING), tensorrt_engines.announced(made, "fp32"):
        pass
    assert not caplog.records


def test_a_directory_that_cannot_be_made_is_one_sentence(tiny_bundle, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no directory")
    made = engine(tiny_bundle, monkeypatch, tmp_path / "file")
    said = r"the TensorRT engine of variant 'fp32' cannot be kept in .* \(Not a directory\): set XDG_CACHE_HOME to a"
    with pytest.raises(PathError, match=said), tensorrt_engines.announced(made, "fp32"):
        pytest.fail("it went on")


@pytest.mark.parametrize(
    ("given", "gpu"), [({}, 0), ({"device_id": True}, 1), ({"device_id": "first"}, None), ({"device_id": -1}, None)]
)
def test_the_device_that_is_asked_for_is_part_of_the_key(monkeypatch, given, gpu):
    devices = tuple(native.Device(name=f"NVIDIA {number}", capability="9.0") for number in range(2))
    monkeypatch.setattr(native, "driver", lambda: native.Driver(problem=None, devices=devices))
    known = []
    monkeypatch.setattr(tensorrt_engines, "engine_for", lambda *_, gpu, **__: known.append(gpu))
    settings = {"precision": "fp32", "hashes": {}, "max_length": 16, "inputs": [], "serving": True}
    tensorrt_engines.engine_here(ROW, given=given, **settings)
    assert known == ["unknown" if gpu is None else f"NVIDIA {gpu} 9.0"]


def test_the_gpu_of_this_machine_is_part_of_the_key(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    directories = set()
    for name in ("NVIDIA X", "NVIDIA Y"):
        devices = (native.Device(name="first", capability="8.0"), native.Device(name=name, capability="9.0"))
        monkeypatch.setattr(native, "driver", lambda devices=devices: native.Driver(problem=None, devices=devices))
        made = tensorrt_engines.engine_here(
            ROW,
            precision="fp32",
            hashes={},
            max_length=16,
            inputs=["input_ids", "attention_mask"],
            serving=True,
            given={"device_id": "1"},
        )
        directories.add(made.directory)
        shapes = str(made.options["trt_profile_min_shapes"]).split(",")
        assert sorted(shape.partition(":")[0] for shape in shapes) == [
            "attention_mask",
            "input_ids",
            "masked_positions",
        ]
    assert len(directories) == 2


def test_a_user_without_a_home_directory_is_told_what_to_set(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(tensorrt_engines.Path, "home", homeless)
    with pytest.raises(PathError, match="this user has no home directory: set XDG_CACHE_HOME to a directory"):
        tensorrt_engines.cache_directory()
