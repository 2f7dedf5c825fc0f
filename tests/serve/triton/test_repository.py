"""A model repository of a bundle: read back with Triton's own schema, and compared with the graph."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from google.protobuf import text_format
from onnx import TensorProto, helper

from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.packing import pack
from bertport.runtime.bundle.writer import write_manifest
from bertport.runtime.cli import app
from bertport.runtime.errors import BundleError, PathError, UnknownNameError, UsageError
from bertport.runtime.session import open_session
from bertport.serve.triton.configuration import TYPES
from bertport.serve.triton.repository import write_repository
from bertport.serve.triton.signature import ELEMENT_TYPES, signature_of

NAME = "bertport-default"


@pytest.fixture(scope="module")
def schema():
    """Triton's model_config.proto as its own client ships it; its package would import grpc."""
    [place] = importlib.util.find_spec("tritonclient").submodule_search_locations
    spec = importlib.util.spec_from_file_location("model_config_pb2", Path(place) / "grpc" / "model_config_pb2.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(schema, written):
    """Read the configuration as Triton does, and the graph beside it: both, and the graph's path."""
    model = written.path / written.configuration.name
    config = text_format.Parse((model / "config.pbtxt").read_text("utf-8"), schema.ModelConfig())
    path = model / "1" / config.default_model_filename
    return config, onnx.load(path, load_external_data=False).graph, path


def stated(schema, side):
    """Return the name, type and shape of a configuration's inputs or outputs."""
    return [(each.name, schema.DataType.Name(each.data_type), list(each.dims)) for each in side]


def in_graph(values, first):
    """The same of a graph, its axes from the first on."""
    dtype = {getattr(TensorProto, name): kind for name, kind in (("INT64", "TYPE_INT64"), ("FLOAT", "TYPE_FP32"))}
    return [
        (
            value.name,
            dtype[value.type.tensor_type.elem_type],
            [size.dim_value if size.HasField("dim_value") else -1 for size in value.type.tensor_type.shape.dim[first:]],
        )
        for value in values
    ]


@pytest.mark.parametrize(
    ("variant", "rows"), [(None, 32), ("portable", 8), ("fp32", 0), ("int8-dynamic", 0), ("classifier", 16)]
)
def test_every_input_and_output_is_that_of_the_graph(schema, head_bundles, tmp_path, variant, rows):
    bundle = head_bundles["classifier"] if variant == "classifier" else default_bundle()
    named = None if variant == "classifier" else variant
    written = write_repository(bundle, tmp_path / "out", variant=named, max_batch_size=rows)
    config, graph, _ = read(schema, written)
    assert config.backend == "onnxruntime"
    assert config.max_batch_size == rows
    first = 1 if rows else 0
    assert stated(schema, config.input) == in_graph(graph.input, first)
    assert stated(schema, config.output) == in_graph(graph.output, first)
    assert config.HasField("dynamic_batching") == bool(rows)
    assert config.name == written.configuration.name
    if rows:
        axes = {value.type.tensor_type.shape.dim[0].dim_param for value in (*graph.input, *graph.output)}
        assert len(axes) == 1, "not every tensor has a row for each text"


def test_each_setting_is_where_the_backend_reads_it(schema, tmp_path):
    written = write_repository(
        default_bundle(),
        tmp_path / "out",
        name="bert.v2",
        variant="fp32",
        max_batch_size=0,
        instances=3,
        threads=2,
        optimization="basic",
    )
    config, _, path = read(schema, written)
    assert path.parts[-3:] == ("bert.v2", "1", "model_serving.onnx")
    [group] = config.instance_group
    assert (group.count, group.kind) == (3, schema.ModelInstanceGroup.KIND_CPU)
    assert {key: value.string_value for key, value in config.parameters.items()} == {
        "intra_op_thread_count": "2",
        "inter_op_thread_count": "1",
    }
    assert config.optimization.graph.level == -1
    batched = write_repository(default_bundle(), tmp_path / "two", device="gpu", max_queue_delay=70)
    config, _, _ = read(schema, batched)
    assert config.instance_group[0].kind == schema.ModelInstanceGroup.KIND_GPU
    assert config.dynamic_batching.max_queue_delay_microseconds == 70
    assert not config.optimization.HasField("graph")


def test_no_name_of_a_bundle_becomes_a_setting(schema, tmp_path):
    """A comment ends with its line, and what comes behind would be read."""
    setting = '\nmodel_repository_agents { agents { name: "a" } }\r\x85\u2028#'
    shutil.copytree(default_bundle(), tmp_path / "bundle")
    manifest = Bundle.open(tmp_path / "bundle").manifest
    head, variants = replace(manifest.heads["nsp"], output=f"nsp{setting}"), dict(manifest.variants)
    variants[f"portable{setting}"] = variants.pop("portable")
    named = replace(manifest, name=f"{NAME}{setting}", variants=variants, heads={**manifest.heads, "nsp": head})
    write_manifest(tmp_path / "bundle", named)
    written = write_repository(tmp_path / "bundle", tmp_path / "out", variant=f"portable{setting}")
    config, _, _ = read(schema, written)
    assert not config.HasField("model_repository_agents")
    assert "agents" in "".join(written.configuration.comments)


@pytest.mark.parametrize("variant", ["fp32", "int8-dynamic"])
def test_the_graph_answers_from_its_new_place(schema, tmp_path, variant):
    """Its weights are found beside it, and what comes out is what the bundle's own graph gives."""
    written = write_repository(default_bundle(), tmp_path / "out", variant=variant, max_batch_size=0)
    config, _, path = read(schema, written)
    ids = np.array([[101, 1996, 103, 102]])
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    feeds["masked_positions"] = np.array([2])
    assert set(feeds) == {each.name for each in config.input}
    bundle = Bundle.open(default_bundle())
    given, expected = (
        open_session(each).run(None, feeds) for each in (path, bundle.file(bundle.manifest.variants[variant].file))
    )
    for name, one, other in zip([each.name for each in config.output], given, expected, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)


def test_without_a_variant_the_first_that_can_be_batched_is_taken_and_that_is_said(tmp_path):
    written = write_repository(default_bundle(), tmp_path / "out")
    assert written.variant == "portable"
    assert "'masked_positions'" in written.note
    alone = write_repository(default_bundle(), tmp_path / "alone", max_batch_size=0)
    assert (alone.variant, alone.note) == (Bundle.open(default_bundle()).manifest.default_variant, None)


def test_where_no_variant_can_be_taken_the_error_names_the_option_with_which_one_can(tmp_path):
    """An installation embeds int8-dynamic alone."""
    bundle = pack(default_bundle(), tmp_path / "bundle", ["int8-dynamic"]).path
    with pytest.raises(UsageError, match=r"'masked_positions'.*: pass --max-batch-size 0, to run each request by its"):
        write_repository(bundle, tmp_path / "out")
    with pytest.raises(UsageError, match=r"computes in int8-dynamic.*: pass --device cpu$"):
        write_repository(bundle, tmp_path / "out", device="gpu", max_batch_size=0)
    assert not (tmp_path / "out").exists()
    written = write_repository(bundle, tmp_path / "out", max_batch_size=0)
    assert written.variant == "int8-dynamic"


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"variant": "int9"}, UnknownNameError, "unknown variant 'int9' (available: portable"),
        ({"variant": "fp32"}, UsageError, "'masked_positions' has no row for each text"),
        ({"variant": "int8-dynamic", "device": "gpu"}, UsageError, "computes in int8-dynamic"),
        ({"device": "tpu"}, UnknownNameError, "unknown device 'tpu'"),
        ({"optimization": "most"}, UnknownNameError, "unknown optimization 'most'"),
        ({"name": "a/b"}, UsageError, "--name is 'a/b'"),
        ({"instances": 0}, UsageError, "instances is 0"),
        ({"instances": 2**31}, UsageError, "instances is 2147483648 and has to be between 1 and 2,147,483,647"),
        ({"digest": "sha256:" + "0" * 64}, BundleError, "was asked for"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_leaves_nothing(tmp_path, settings, error, said):
    with pytest.raises(error) as caught:
        write_repository(default_bundle(), tmp_path / "out", **settings)
    assert said in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_left_as_it_is(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(PathError, match="exists"):
        write_repository(default_bundle(), tmp_path / "out")
    shutil.copytree(default_bundle(), tmp_path / "bundle")
    with pytest.raises(PathError, match="inside the bundle"):
        write_repository(tmp_path / "bundle", tmp_path / "bundle" / "out")


@pytest.mark.parametrize("late", [False, True], ids=["before", "between the check and the copy"])
def test_a_damaged_graph_is_not_written(tmp_path, monkeypatch, late):
    shutil.copytree(default_bundle(), tmp_path / "bundle")
    file = tmp_path / "bundle" / "onnx" / "model.onnx"

    def damage(*_):
        content = bytearray(file.read_bytes())
        content[-1000] ^= 1
        file.write_bytes(content)

    if late:
        monkeypatch.setattr(Bundle, "check_variant", damage)
    else:
        damage()
    with pytest.raises(BundleError, match=r"model\.onnx"):
        write_repository(tmp_path / "bundle", tmp_path / "out")
    assert [each.name for each in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("precision", ["int8-static-symmetric", "fp16", "bf16"])
def test_a_variant_that_the_cpu_does_not_compute_is_not_written_for_it(tmp_path, precision):
    """On a CPU with AVX2 its sums of symmetric int8 overflow, and nothing says so."""
    shutil.copytree(default_bundle(), tmp_path / "bundle")
    manifest = Bundle.open(tmp_path / "bundle").manifest
    portable = manifest.variants["portable"]
    changed = replace(portable, requires=replace(portable.requires, precision=precision))
    write_manifest(tmp_path / "bundle", replace(manifest, variants={**manifest.variants, "portable": changed}))
    elsewhere = "" if precision == "bf16" else ", or --device gpu"
    with pytest.raises(UsageError, match=f"computes in {precision}, which .* on a CPU: choose another{elsewhere}$"):
        write_repository(tmp_path / "bundle", tmp_path / "out", variant="portable")
    assert write_repository(tmp_path / "bundle", tmp_path / "alone", max_batch_size=0).variant != "portable"
    if elsewhere:
        on_gpu = write_repository(tmp_path / "bundle", tmp_path / "gpu", variant="portable", device="gpu")
        assert on_gpu.variant == "portable"


@pytest.mark.parametrize("variant", [None, "portable"])
def test_a_graph_that_is_missing_is_one_sentence(tmp_path, variant):
    """As in the Hub's cache, which has the graphs of the variants that were loaded."""
    shutil.copytree(default_bundle(), tmp_path / "bundle")
    (tmp_path / "bundle" / "onnx" / "model.onnx").unlink()
    with pytest.raises(BundleError, match=r"model\.onnx cannot be read \(No such file or directory\): copy the bundle"):
        write_repository(tmp_path / "bundle", tmp_path / "out", variant=variant)
    assert [each.name for each in tmp_path.iterdir()] == ["bundle"]


def model(path, inputs, outputs):
    """Write a graph of one node with these shapes."""
    node = helper.make_node("Identity", [inputs[0].name], [outputs[0].name])
    path.write_bytes(helper.make_model(helper.make_graph([node], "g", inputs, outputs)).SerializeToString())
    return path


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


@pytest.mark.parametrize(
    ("inputs", "outputs", "ragged"),
    [
        ([("x", ["batch", 3])], [("y", ["batch", "sequence"])], None),
        ([("x", ["batch", 3])], [("y", ["sequence", "batch"])], "y"),
        ([("x", ["batch"]), ("z", ["other"])], [("y", ["batch"])], "z"),
        ([("x", [1, "sequence"])], [("y", [1, "sequence"])], "x"),
        ([("x", [])], [("y", [])], "x"),
        ([("x", ["batch"])], [("y", [])], "y"),
    ],
)
def test_a_graph_is_batched_where_every_first_axis_is_the_batch(tmp_path, inputs, outputs, ragged):
    path = model(tmp_path / "g.onnx", [value(*each) for each in inputs], [value(*each) for each in outputs])
    found = signature_of(path)
    assert [(each.name, list(each.axes)) for each in found.inputs] == inputs
    assert [(each.name, list(each.axes)) for each in found.outputs] == outputs
    assert found.not_batched() == ragged


def test_element_types_have_the_numbers_of_onnx_and_the_names_of_triton(schema):
    for number, name in ELEMENT_TYPES.items():
        assert helper.tensor_dtype_to_np_dtype(number).name == name
        assert TYPES[name] in schema.DataType.keys()  # noqa: SIM118 — protobuf's enum is no dict


def test_what_states_no_shape_is_refused(tmp_path):
    path = model(tmp_path / "g.onnx", [value("x", None)], [value("y", ["batch"])])
    with pytest.raises(BundleError, match=r"'x' has no type and shape.*export again"):
        signature_of(path)
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(BundleError, match="not an ONNX graph"):
        signature_of(tmp_path / "text.onnx")


def test_the_command_says_what_it_wrote(tmp_path):
    done = CliRunner().invoke(app, ["triton", str(default_bundle()), str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["model"], said["variant"], said["max_batch_size"]) == (NAME, "portable", 32)
    assert said["digest"] == Bundle.open(default_bundle()).digest
    assert "note: variant 'portable' is taken" in done.stderr
    again = CliRunner().invoke(app, ["triton", str(default_bundle()), str(tmp_path / "out")])
    assert again.exit_code == 2
    assert "Traceback" not in again.output
