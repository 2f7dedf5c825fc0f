"""Loading: what is found, what is refused, and what each mistake says."""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import subprocess
import sys
import weakref

import pytest

from bertport.runtime import load
from bertport.runtime import threads as threads_of
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.errors import (
    BundleError,
    MissingDependencyError,
    PathError,
    ProviderError,
    UnknownNameError,
    UsageError,
)
from bertport.runtime.installation import install_command, pip
from tests.broken import copied
from tests.runtime.parity import assert_same_fillings


def test_describe_says_what_runs_where(model, tiny_bundle):
    said = model.describe()
    assert json.loads(json.dumps(said)) == said
    assert said["bundle"] == str(tiny_bundle)
    assert said["variant"] == "fp32"
    assert said["provider"] == "cpu"
    assert said["tasks"] == ["fill-mask", "next-sentence", "features"]
    assert said["nodes"].keys() == {"CPUExecutionProvider"}
    assert said["nodes"]["CPUExecutionProvider"] > 20


def test_every_variant_gives_the_same_answers(model, tiny_bundle):
    portable = load(tiny_bundle, variant="portable", provider="cpu", threads=1)
    assert portable.describe()["threads"] == 1
    texts = ["a [MASK] b", "[MASK] [MASK]", "x [MASK] y"]
    for ours, theirs in zip(model.fill_mask(texts), portable.fill_mask(texts), strict=True):
        assert_same_fillings(theirs, ours)
    assert portable.next_sentence("a", "b")["probabilities"] == pytest.approx(
        model.next_sentence("a", "b")["probabilities"], abs=1e-6
    )


def test_a_string_or_a_path_will_do(tiny_bundle):
    assert load(str(tiny_bundle)).variant == load(tiny_bundle).variant


@pytest.mark.parametrize("path", [3, ["bundle"], b"bundle"])
def test_what_is_no_path(path):
    with pytest.raises(UsageError, match=f"a directory's path or a Hub id, not {re.escape(repr(path))}: give a text"):
        load(path)


def test_the_default_is_found_in_the_wheel_then_in_the_checkout(tiny_bundle, tmp_path):
    wheel, checkout = tmp_path / "wheel", tmp_path / "checkout"
    with pytest.raises(PathError, match=r"no default bundle is embedded here .*load\(PATH\) or -m BUNDLE"):
        default_bundle((wheel, checkout))
    shutil.copytree(tiny_bundle, checkout)
    assert default_bundle((wheel, checkout)) == checkout
    shutil.copytree(tiny_bundle, wheel)
    assert default_bundle((wheel, checkout)) == wheel


def test_no_such_directory(tmp_path):
    with pytest.raises(PathError, match=r"no bundle at .*nowhere: no such directory"):
        load(tmp_path / "nowhere")


def test_a_file_is_not_a_bundle(tiny_bundle):
    with pytest.raises(PathError, match=r"manifest.json is a file: give the bundle's directory"):
        load(tiny_bundle / "manifest.json")


def test_a_checkpoint_is_not_a_bundle(tiny_checkpoint):
    with pytest.raises(BundleError, match=r"is not a bundle: it has no manifest.json; make one with bertport export"):
        load(tiny_checkpoint)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "has no format_version"),
        ('{"format_version": 99}', "the bundle has format 99 and this version of bertport reads up to 2"),
        ('{"format_version": 1}', "lacks the field 'name'"),
    ],
)
def test_a_manifest_that_cannot_be_read(edited, text, said):
    bundle = edited()
    (bundle / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=said):
        load(bundle)


@pytest.mark.parametrize("meaning", [{"labels": []}, {"labels": ["a", "b", "c"]}, {"positive": 2}])
def test_labels_that_are_not_those_of_two_columns(edited, meaning):
    with pytest.raises(BundleError, match="to the 2 columns of next-sentence"):
        load(edited(lambda manifest: manifest["heads"]["nsp"].update(meaning)))


def test_a_number_that_no_float_holds(edited):
    with pytest.raises(BundleError, match="atol: expected float, found 1000"):
        load(edited(lambda manifest: manifest["variants"]["fp32"]["validation"].update(atol=10**400)))


@pytest.mark.parametrize("outside", ["../secret", "/etc/passwd", "onnx/../../secret", "C:/secret", "a\\b"])
def test_a_path_that_leaves_the_bundle(edited, outside):
    def lead_out(manifest):
        manifest["files"][outside] = manifest["files"]["onnx/model_serving.onnx"]
        manifest["variants"]["fp32"]["file"] = outside

    with pytest.raises(BundleError, match="which is outside the bundle"):
        load(edited(lead_out))


def test_a_link_that_leaves_the_bundle(edited, tmp_path):
    bundle = edited()
    graph = bundle / "onnx" / "model_serving.onnx"
    moved = tmp_path / "elsewhere.onnx"
    graph.rename(moved)
    graph.symlink_to(moved)
    with pytest.raises(BundleError, match="is a link that leaves the bundle"):
        load(bundle)


@pytest.mark.parametrize(
    "name", ["onnx/model_serving.onnx", "onnx/model.onnx", "tokenizer.json", "tokenizer_config.json"]
)
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_file_is_refused_before_any_graph_is_loaded(edited, name, damage, monkeypatch):
    bundle = edited()
    path = bundle / name
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[:-1])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    def never(*_, **__):
        pytest.fail("a graph was loaded")

    monkeypatch.setattr("bertport.runtime.loading.open_graph", never)
    said = {"flip": "its SHA-256 differs", "cut": "bytes, expected", "remove": f"lacks {name}"}[damage]
    with pytest.raises(BundleError, match=said):
        load(bundle)


def test_load_hashes_only_what_it_loads(edited):
    bundle = edited()
    (bundle / "vocab.txt").write_text("changed")
    (bundle / "README.md").write_text("changed")
    (bundle / "onnx" / "model_serving.onnx").write_text("changed")
    assert load(bundle, variant="portable").fill_mask("a [MASK]")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not a graph", r"model_serving.onnx is not an ONNX graph \(the field at byte 0 has the wire type 6\)"),
        (b"", r"ONNX Runtime .* cannot load .*model_serving.onnx"),
    ],
)
def test_a_graph_that_is_none(tiny_bundle, tmp_path, content, said):
    bundle = copied(tiny_bundle, tmp_path / "broken", onnx_model_serving_onnx=lambda _: content)
    with pytest.raises(BundleError, match=said):
        load(bundle)


def test_a_graph_with_an_input_that_is_not_known(tiny_bundle, tmp_path):
    """As a later version may write; without the check, answering would end in a KeyError."""

    def with_positions(content):
        import onnx

        model = onnx.load_from_string(content)
        axes = ["batch_size", "sequence_length"]
        model.graph.input.append(onnx.helper.make_tensor_value_info("position_ids", onnx.TensorProto.INT64, axes))
        return model.SerializeToString()

    bundle = copied(tiny_bundle, tmp_path / "later", onnx_model_serving_onnx=with_positions)
    with pytest.raises(BundleError, match="has the input 'position_ids', which this version of bertport does not know"):
        load(bundle, provider="cpu")


def test_unknown_names(tiny_bundle):
    with pytest.raises(UnknownNameError, match=r"unknown variant 'int3' \(available: .*fp32"):
        load(tiny_bundle, variant="int3")
    with pytest.raises(UnknownNameError, match=r"unknown provider \['cpu', 'cuda'\] .*: name one"):
        load(tiny_bundle, provider=["cpu", "cuda"])
    with pytest.raises(UnknownNameError, match=r"unknown provider 'gpu' \(available: auto, tensorrt, cuda, .*cpu\)"):
        load(tiny_bundle, provider="gpu")


def test_a_provider_that_is_not_there_is_an_error(tiny_bundle):
    with pytest.raises(
        ProviderError,
        match=r"'cuda' is not available here \(available: cpu\): onnxruntime \S+ is built without it; "
        rf"{re.escape(pip())} uninstall onnxruntime, then {re.escape(install_command('gpu'))}, or",
    ):
        load(tiny_bundle, provider="cuda")


@pytest.mark.parametrize("threads", [0, -1, 1.5, True])
def test_threads_out_of_range(tiny_bundle, threads):
    with pytest.raises(UsageError, match="threads is a number from 1 up"):
        load(tiny_bundle, threads=threads)


@pytest.mark.parametrize("streams", [0, 3, 1.5, True])
def test_streams_out_of_range(tiny_bundle, streams):
    with pytest.raises(
        UsageError, match=r"streams is .+ and each takes at least one of 2 threads: give a number from 1"
    ):
        load(tiny_bundle, threads=2, streams=streams)


def test_streams_share_the_threads(tiny_bundle, monkeypatch):
    for threads, streams, shared in ((2, 2, 1), (5, 2, 4), (3, 3, 1), (8, 3, 6), (8, 8, 1), (3, None, 1), (4, None, 1)):
        model = load(tiny_bundle, threads=threads, streams=streams)
        assert model.streams == model.describe()["streams"] == (streams or threads)
        # Each run has its caller's thread besides.
        assert (model.graph.threads, model.concurrent_replica.graph.threads) == (threads, shared)
    assert load(tiny_bundle, threads=5, streams=None).streams == 1
    monkeypatch.setattr(threads_of, "usable_cores", lambda: 0.5)
    assert load(tiny_bundle, streams=None).streams == 1
    one = load(tiny_bundle)
    assert one.streams == 1
    assert one.concurrent_replica is one


@pytest.mark.parametrize("streams", [1, 2])
def test_a_model_that_nobody_uses_is_gone_at_once(tiny_bundle, streams):
    """Its memory is not Python's, so that the garbage collector would not know that it is time."""
    model = load(tiny_bundle, threads=2, streams=streams)
    sessions = [weakref.ref(loaded.graph.session) for loaded in (model, model.concurrent_replica)]
    gc.disable()
    try:
        del model
        assert [session() for session in sessions] == [None, None]
    finally:
        gc.enable()


def test_onnx_runtime_missing(tiny_bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=re.escape(f"not installed: {install_command('cpu')}")):
        load(tiny_bundle)


def test_a_remnant_of_onnx_runtime(tiny_bundle, monkeypatch, tmp_path):
    (tmp_path / "onnxruntime").mkdir()  # what uninstalling one of two wheels can leave: a namespace package
    for name in [module for module in sys.modules if module.partition(".")[0] == "onnxruntime"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *(place for place in sys.path if "site-packages" not in place)])
    with pytest.raises(ProviderError, match="installed in part"):
        load(tiny_bundle)


def test_onnx_runtime_that_cannot_be_imported(tiny_bundle, monkeypatch, tmp_path):
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libgomp.so.1: cannot open\\nshared object file')")
    for name in [module for module in sys.modules if module.partition(".")[0] == "onnxruntime"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    said = r"is installed and cannot be imported \(libgomp\.so\.1: cannot open shared object file\): install what that"
    with pytest.raises(ProviderError, match=said):
        load(tiny_bundle)


def test_threads_follow_what_the_process_may_use(tiny_bundle, monkeypatch):
    """ONNX Runtime's own choice, unless it would be more than the process has."""
    monkeypatch.setattr(threads_of, "_processors", lambda: 8)
    monkeypatch.setattr(threads_of, "usable_cores", lambda: 8.0)
    assert load(tiny_bundle).describe()["threads"] is None
    for cores, threads in ((2.0, 2), (1.5, 2), (0.5, 1)):
        monkeypatch.setattr(threads_of, "usable_cores", lambda cores=cores: cores)
        assert load(tiny_bundle).describe()["threads"] == threads
    assert load(tiny_bundle, threads=3).describe()["threads"] == 3


def test_a_quota_holds_whatever_python_is_told_of_processors(monkeypatch):
    """PYTHON_CPU_COUNT, which containers set to their quota, is what `os.cpu_count` returns from Python 3.13 on."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "sysconf", lambda _: 64, raising=False)
    monkeypatch.setattr(threads_of, "usable_cores", lambda: 2.0)
    assert threads_of.intra_op_threads(None) == 2


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux has it")
def test_usable_cores_follow_the_affinity():
    program = (
        "import os; from bertport.runtime.providers.cpu import usable_cores\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(usable_cores() <= 1)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
