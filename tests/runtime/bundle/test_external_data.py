"""External data of a graph: it opens the variant's listed files only, whatever it states and in whatever form."""

from __future__ import annotations

import io
import shutil
from contextlib import suppress

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bertport.runtime import load
from bertport.runtime import onnx_wire as pb
from bertport.runtime import session as runtime_graph
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.external_data import BITS, HostileError, spans
from bertport.runtime.errors import BundleError
from bertport.runtime.onnx_wire import MalformedError
from tests.broken import copied

SERVING, WEIGHTS = "onnx/model_serving.onnx", "onnx/model.onnx"
SECRET = "a secret of the machine, which no graph may read" * 4096


def external(model):
    """The initialisers that lie in another file."""
    return [tensor for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]


def put(tensor, **entries):
    """Set the place of a tensor's data."""
    del tensor.external_data[:]
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))


def edit(change):
    """A function that changes the bytes of a graph by one that changes the model."""

    def edited(content):
        model = onnx.load_from_string(content)
        change(model)
        return model.SerializeToString()

    return edited


@pytest.fixture
def crafted(tiny_bundle, tmp_path, monkeypatch):
    """A function that gives a copy of the tiny bundle with another serving graph, whose hash fits; none is opened."""

    def never(*_, **__):
        pytest.fail("a graph was opened")

    def craft(change, manifest=None):
        monkeypatch.setattr(runtime_graph, "_session", never)
        return copied(tiny_bundle, tmp_path / "crafted", manifest=manifest, onnx_model_serving_onnx=edit(change))

    return craft


def refused(bundle, said):
    """Require that everything that opens graphs refuses a bundle, in one sentence."""
    for action in (lambda: load(bundle), Bundle.open(bundle).verify, lambda: Bundle.open(bundle).check_variant("fp32")):
        with pytest.raises(BundleError, match=said) as raised:
            action()
        assert raised.value.message.isprintable()
        assert len(raised.value.message) < 1000


def located(location):
    """A change that puts the first tensor into a file."""
    return lambda model: put(external(model)[0], location=location)


PLACES = {
    "absolute": ("/etc/passwd", "in '/etc/passwd', an absolute path: do not use a bundle from this source"),
    "absolute on Windows": ("C:/secret", "an absolute path"),
    "a share": ("\\\\host\\share", "an absolute path"),
    "up": ("../secret", "in '../secret', which leaves its directory"),
    "up and back": ("../onnx/model.onnx", "leaves its directory"),
    "up in the middle": ("a/../model.onnx", "leaves its directory"),
    "up by backslashes": ("a\\..\\..\\secret", "leaves its directory"),
    "backslash": ("a\\secret", "not a plain file path"),
    "empty": ("", "in another file and names none"),
    "itself by a dot": ("./model.onnx", "not a plain file path"),
    "a dot": (".", "not a plain file path"),
    "two slashes": ("a//model.onnx", "not a plain file path"),
    "a slash behind": ("model.onnx/", "not a plain file path"),
    "a null": ("model.onnx\0.bin", "not a plain file path"),
    "a line": ("model.onnx\n", "not a plain file path"),
    "a stream of NTFS": ("model.onnx:stream", "not a plain file path"),
    "an address": ("*/_ORT_MEM_ADDR_/*", r"in '\*/_ORT_MEM_ADDR_/\*', which is not a plain file path"),
    "an address of another version": ("*/_ORT_LE_MEM_ADDR_/*", "not a plain file path"),
    "a URL": ("file:///etc/passwd", "not a plain file path"),
    "unlisted": ("unlisted.bin", "in 'onnx/unlisted.bin', which manifest.json does not list as external data"),
    "another case": ("MODEL.ONNX", "does not list as external data"),
    "the graph itself": ("model_serving.onnx", "does not list as external data"),
    "as long as can be": ("a" * 5000, "gives a tensor a location of 5,000 characters"),
}


@pytest.mark.parametrize(("location", "said"), PLACES.values(), ids=PLACES.keys())
def test_weights_elsewhere(crafted, location, said):
    bundle = crafted(located(location))
    (bundle / "onnx" / "unlisted.bin").write_text(SECRET)
    refused(bundle, said)


def test_an_address_that_is_the_name_of_a_listed_file(crafted):
    """Whatever lies there in the bundle, ONNX Runtime would read memory."""
    name = "onnx/*/_ORT_MEM_ADDR_/*"

    def listed(manifest):
        manifest["files"][name] = manifest["files"][WEIGHTS]
        manifest["variants"]["fp32"]["external_data"].append(name)

    bundle = crafted(located(name.removeprefix("onnx/")), listed)
    (bundle / name).parent.mkdir(parents=True)
    shutil.copy(bundle / WEIGHTS, bundle / name)
    refused(bundle, "not a plain file path")


def test_a_manifest_that_says_that_there_is_no_external_data(crafted):
    bundle = crafted(lambda _: None, lambda manifest: manifest["variants"]["fp32"].update(external_data=[]))
    (bundle / WEIGHTS).write_bytes((bundle / WEIGHTS).read_bytes()[::-1])  # which is hashed nowhere
    with pytest.raises(BundleError, match=r"in 'onnx/model.onnx', which manifest.json does not list as external data"):
        load(bundle)


def test_external_data_that_no_graph_names_does_no_harm(tiny_bundle, tmp_path):
    bundle = copied(
        tiny_bundle,
        tmp_path / "more",
        manifest=lambda manifest: manifest["variants"]["fp32"]["external_data"].append("vocab.txt"),
    )
    assert load(bundle).fill_mask("a [MASK]")
    Bundle.open(bundle).verify()


def test_weights_in_a_folder_below(tiny_bundle, tmp_path):
    """Only what leads out of the bundle is refused."""

    def move(manifest):
        manifest["files"]["onnx/deep er/w-é.bin"] = manifest["files"][WEIGHTS]
        manifest["variants"]["fp32"]["external_data"] = ["onnx/deep er/w-é.bin"]

    def change(model):
        for tensor in external(model):
            entries = {entry.key: entry.value for entry in tensor.external_data}
            put(tensor, **entries | {"location": "deep er/w-é.bin", "checksum": "0" * 40})

    bundle = copied(tiny_bundle, tmp_path / "moved", manifest=move, onnx_model_serving_onnx=edit(change))
    (bundle / "onnx" / "deep er").mkdir()
    shutil.copy(bundle / WEIGHTS, bundle / "onnx" / "deep er" / "w-é.bin")
    assert load(bundle).fill_mask("a [MASK]")


SIZES = {
    "beyond the end": ({"offset": 10**9}, "takes bytes 1,000,000,000 to .* of 'onnx/model.onnx', which has"),
    "negative": ({"offset": -8}, "the offset '-8', which is not a number of bytes"),
    "beyond 64 bits": ({"offset": 2**64 - 8}, "which is not a number of bytes"),
    "hexadecimal": ({"offset": "0x10"}, "which is not a number of bytes"),
    "digits of another script": ({"offset": "٣"}, "which is not a number of bytes"),
    "nothing": ({"offset": ""}, "which is not a number of bytes"),
    "too short": ({"length": 4}, "gives the tensor .* 4 bytes, and its shape needs"),
    "too long": ({"length": 10**12}, "1,000,000,000,000 bytes, and its shape needs"),
    "packed weights": ({"prepacked_0": "a|0;10;b"}, "the unknown key 'prepacked_0'"),
    "a folder": ({"basepath": "/etc"}, "the unknown key 'basepath'"),
}


@pytest.mark.parametrize(("entries", "said"), SIZES.values(), ids=SIZES.keys())
def test_spans_that_cannot_be(crafted, entries, said):
    def change(model):
        tensor = external(model)[0]
        put(tensor, **{entry.key: entry.value for entry in tensor.external_data} | entries)

    refused(crafted(change), said)


def test_a_tensor_larger_than_its_file(crafted):
    def change(model):
        tensor = external(model)[0]
        tensor.dims[:] = [2**20, 2**20]
        put(tensor, location="model.onnx")

    refused(crafted(change), "takes bytes 0 to 4,398,046,511,104 of")


@pytest.mark.parametrize("dims", [[-1, 8], [2**40, 2**40], [2**62, 2, 0]])
def test_a_shape_that_no_file_holds(crafted, dims):
    def change(model):
        external(model)[0].dims[:] = dims

    refused(crafted(change), "a shape of more elements than a file can hold")


@pytest.mark.parametrize("kind", [TensorProto.STRING, TensorProto.UNDEFINED, 99])
def test_a_type_that_lies_in_no_file(crafted, kind):
    def change(model):
        external(model)[0].data_type = kind

    refused(crafted(change), f"of the type {kind} in another file")


def test_every_type_of_the_onnx_package_is_known():
    """But those that cannot lie in a file, and floats of 6 bits, which ONNX Runtime has none of."""
    names = {TensorProto.DataType.Name(kind) for kind in BITS}
    assert names == {name for name in TensorProto.DataType.keys() if not name.startswith("FLOAT6")} - {  # noqa: SIM118
        "UNDEFINED",
        "STRING",
    }
    packed = {"UINT2", "INT2", "UINT4", "INT4", "FLOAT4E2M1"}
    for name in names - packed:
        kind = TensorProto.DataType.Value(name)
        assert helper.tensor_dtype_to_np_dtype(kind).itemsize * 8 == BITS[kind]


def test_entries_that_are_not_in_use_are_looked_at_all_the_same(crafted):
    def change(model):
        tensor = next(tensor for tensor in model.graph.initializer if tensor.raw_data)
        tensor.external_data.add(key="location", value="/etc/passwd")

    refused(crafted(change), "an absolute path")


def stolen(name="stolen"):
    """A tensor in a file of the machine."""
    tensor = TensorProto(name=name, data_type=TensorProto.UINT8, dims=[4])
    put(tensor, location="/etc/passwd")
    return tensor


def constant(**attribute):
    """A node that gives what is in its attribute."""
    node = helper.make_node("Constant", [], ["stolen"])
    node.attribute.add(**attribute)
    return node


def nested(node, depth):
    """A node in a branch of a branch of …"""
    for _ in range(depth):
        branch = helper.make_graph([node], "branch", [], [])
        node = helper.make_node("If", ["condition"], ["out"], then_branch=branch, else_branch=branch)
    return node


def sparse():
    values, indices = stolen("values"), numpy_helper.from_array(np.zeros(4, np.int64), "indices")
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[8])


def in_indices():
    values, indices = numpy_helper.from_array(np.zeros(4, np.float32), "values"), stolen("indices")
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[8])


def in_a_function(model):
    node = constant(name="value", type=onnx.AttributeProto.TENSOR, t=stolen())
    function = helper.make_function("own", "f", [], ["stolen"], [node], [helper.make_opsetid("", 17)])
    model.functions.append(function)


def in_a_default(model):
    in_a_function(model)
    del model.functions[0].node[:]
    model.functions[0].attribute_proto.add(name="a", type=onnx.AttributeProto.TENSOR, t=stolen())


HIDDEN = {
    "initializer": lambda model: model.graph.initializer.append(stolen()),
    "sparse initializer": lambda model: model.graph.sparse_initializer.append(sparse()),
    "sparse indices": lambda model: model.graph.sparse_initializer.append(in_indices()),
    "constant": lambda model: model.graph.node.insert(0, constant(name="value", type=4, t=stolen())),
    "sparse constant": lambda model: model.graph.node.insert(
        0, constant(name="sparse_value", type=11, sparse_tensor=sparse())
    ),
    "tensors": lambda model: model.graph.node.insert(0, constant(name="values", type=9, tensors=[stolen()])),
    "sparse tensors": lambda model: model.graph.node.insert(
        0, constant(name="values", type=12, sparse_tensors=[sparse()])
    ),
    "an attribute that says another type": lambda model: model.graph.node.insert(
        0, constant(name="value", type=1, t=stolen())
    ),
    "a branch": lambda model: model.graph.node.append(nested(constant(name="value", type=4, t=stolen()), 3)),
    "graphs": lambda model: model.graph.node[0].attribute.add(
        name="graphs", type=10, graphs=[onnx.GraphProto(initializer=[stolen()])]
    ),
    "a function": in_a_function,
    "a function's default": in_a_default,
    "training": lambda model: model.training_info.add().initialization.initializer.append(stolen()),
    "training's algorithm": lambda model: model.training_info.add().algorithm.initializer.append(stolen()),
}


@pytest.mark.parametrize("change", HIDDEN.values(), ids=HIDDEN.keys())
def test_wherever_a_tensor_can_be(crafted, change):
    refused(crafted(change), "in '/etc/passwd', an absolute path")


FOREIGN = {
    "a context of a file": ("com.microsoft", "EPContext", {"embed_mode": 0, "ep_cache_context": "/etc/passwd"}),
    "a context of code": ("com.microsoft", "EPContext", {"embed_mode": 1, "ep_cache_context": "code"}),
    "Python": ("com.microsoft", "PythonOp", {"func_name": "os.system"}),
    "another library": ("ai.onnx.contrib", "PyOp", {}),
    "a plugin of TensorRT": ("trt.plugins", "Anything", {}),
}


@pytest.mark.parametrize(("domain", "operator", "attributes"), FOREIGN.values(), ids=FOREIGN.keys())
@pytest.mark.parametrize("depth", [0, 2])
def test_operators_that_bring_code_or_files(crafted, domain, operator, attributes, depth):
    node = helper.make_node(operator, [], ["x"], domain=domain, **attributes)
    said = f"has the operator {operator}|the operator '{operator}' of '{domain}', which is not part of ONNX Runtime"
    refused(crafted(lambda model: model.graph.node.append(nested(node, depth))), said)


def spans_of(content):
    return list(spans(io.BytesIO(content), len(content)))


def test_a_function_of_the_graphs_own_is_no_foreign_operator():
    node = helper.make_node("f", ["x"], ["y"], domain="own")
    body = helper.make_function(
        "own", "f", ["x"], ["y"], [helper.make_node("Neg", ["x"], ["y"])], [helper.make_opsetid("", 17)]
    )
    model = helper.make_model(helper.make_graph([node], "g", [], []), functions=[body])
    assert spans_of(model.SerializeToString()) == []
    del model.functions[:]
    with pytest.raises(HostileError, match="'f' of 'own'"):
        spans_of(model.SerializeToString())


def entries(*pairs):
    """The field of a tensor's place, as it is written."""
    return b"".join(pb.field(13, pb.field(1, key) + pb.field(2, value)) for key, value in pairs)


HERE = pb.field(1, 4) + pb.field(2, 2)  # four bytes
OUT = entries(("location", "/etc/passwd")) + pb.field(14, 1)


def as_attribute(*tensors):
    """A model with a node whose attribute has a tensor written in several fields."""
    attribute = pb.field(1, "value") + b"".join(pb.field(5, tensor) for tensor in tensors)
    return pb.model(pb.field(1, pb.field(4, "Constant") + pb.field(5, attribute)))


STRANGE = {
    "two halves of a tensor": as_attribute(HERE + entries(("location", "w")), pb.field(14, 1)),
    "two graphs": pb.model(b"") + pb.field(7, b""),
    "two locations": pb.model(pb.field(5, HERE + entries(("location", "w"), ("location", "/etc/passwd")))),
    "two keys": pb.model(pb.field(5, HERE + pb.field(13, pb.field(1, "location") * 2 + pb.field(2, "w")))),
    "two values": pb.model(pb.field(5, HERE + pb.field(13, pb.field(1, "location") + pb.field(2, "w") * 2))),
    "two types": pb.model(pb.field(5, HERE + pb.field(2, 1))),
    "two data locations": pb.model(pb.field(5, HERE + pb.field(14, 0) + pb.field(14, 1))),
    "a data location beyond 32 bits": pb.model(pb.field(5, HERE + pb.field(14, 2**32 + 1))),
    "a field number beyond 32 bits": b"\xba\x80\x80\x80\x10\x00",
    "a field number of nothing": b"\x02\x00",
    "a number without an end": b"\x08" + b"\xff" * 12,
    "a number beyond 64 bits": b"\x08" + b"\xff" * 9 + b"\x7f",
    "a field beyond the file": b"\x3a\x7f",
    "a field beyond what holds it": pb.field(7, b"\x2a\x05\x00") + b"\x00" * 10,
    "a fixed field beyond the file": b"\x09\x00",
    "a group": b"\x0b\x0c",
    "a graph that is a number": pb.field(7, 1),
    "a node that is a number": pb.model(pb.field(1, 1)),
    "a name that is a number": pb.model(pb.field(1, pb.field(4, 1))),
    "a shape of fixed numbers": pb.model(pb.field(5, b"\x0d\x00\x00\x00\x00")),
}


@pytest.mark.parametrize("content", STRANGE.values(), ids=STRANGE.keys())
def test_what_no_writer_writes(content):
    """Where protobuf's parsers merge, cut or skip, a stricter reader cannot be made to see something else than they."""
    with pytest.raises(MalformedError):
        spans_of(content)


def test_numbers_written_at_length_are_read():
    long = pb.model(pb.field(5, HERE + OUT)).replace(b"\x2a", b"\xaa\x80\x00", 1)
    start = long.index(b"\xaa")
    content = b"\x08\x08" + pb.field(7, long[start : start + 2 + len(HERE + OUT) + 2])
    assert onnx.load_from_string(content).graph.initializer[0].data_location == TensorProto.EXTERNAL
    with pytest.raises(HostileError, match="an absolute path"):
        spans_of(content)


def test_a_shape_may_be_packed():
    packed = pb.field(1, b"\x02\x03") + pb.field(2, 1) + entries(("location", "w")) + pb.field(14, 1)
    [span] = spans_of(pb.model(pb.field(5, packed)))
    assert (span.location, span.offset, span.length) == ("w", 0, 24)


def test_messages_within_each_other_have_an_end():
    content = b""
    for _ in range(200):
        content = pb.field(1, pb.field(5, pb.field(6, content)))
    with pytest.raises(MalformedError, match="its messages are nested more than 100 deep"):
        spans_of(pb.model(content))


def test_a_file_of_fields_alone_is_not_read_for_ever(monkeypatch):
    monkeypatch.setattr(pb, "MOST_FIELDS", 1000)
    with pytest.raises(MalformedError, match="more than 1,000 fields"):
        spans_of(pb.model(b"\x18\x00" * 1001))


class Counted(io.BytesIO):
    """A file that counts the bytes read from it."""

    taken = 0

    def read(self, size=-1):
        part = super().read(size)
        self.taken += len(part)
        return part


def test_weights_are_not_read():
    weights = numpy_helper.from_array(np.zeros((1000, 10_000), np.float32), "w")
    content = helper.make_model(helper.make_graph([], "g", [], [], [weights])).SerializeToString()
    file = Counted(content)
    assert list(spans(file, len(content))) == []
    assert file.taken < len(content) / 100


def test_the_tiny_bundles_graphs_are_seen_as_the_onnx_package_sees_them(tiny_bundle):
    for name in (SERVING, WEIGHTS):
        content = (tiny_bundle / name).read_bytes()
        expected = [
            (tensor.name, *(entry.value for entry in tensor.external_data))
            for tensor in external(onnx.load_from_string(content))
        ]
        spans = [(span.tensor, span.location, str(span.offset), str(span.length)) for span in spans_of(content)]
        assert spans == expected


def protobufs(content):
    """Return the tensors in other files as protobuf itself reads a graph; None where it is no message."""
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception:  # noqa: BLE001 — whatever its implementations raise
        return None
    locations = []

    def walk(message):
        if isinstance(message, TensorProto) and message.data_location == TensorProto.EXTERNAL:
            locations.append({entry.key: entry.value for entry in message.external_data}.get("location", ""))
        for field, value in message.ListFields():
            if field.message_type is not None:
                for item in value if field.is_repeated else [value]:
                    walk(item)

    walk(model)
    return locations


def damaged(content, cuts):
    for at, length, new in cuts:
        content = content[:at] + new + content[at + length :]
    return content


def seen_alike(content):
    """Nothing but our errors; and whatever is not refused is what protobuf sees."""
    locations = None
    with suppress(MalformedError, HostileError):
        locations = [span.location for span in spans_of(content)]
    if locations is None:
        return
    expected = protobufs(content)
    assert expected is None or set(expected) <= set(locations)


@pytest.fixture(scope="module")
def small():
    """A graph with a tensor in another file in every place that can have one."""
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[2, 3])
    put(tensor, location="w", offset=4096, length=24)
    node = constant(name="value", type=4, t=tensor)
    model = helper.make_model(helper.make_graph([node, nested(node, 1)], "g", [], [], [tensor, tensor]))
    model.graph.sparse_initializer.add(values=tensor, dims=[9])
    assert protobufs(model.SerializeToString()) == ["w"] * 6
    return model.SerializeToString()


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_graph_is_seen_as_protobuf_sees_it_or_refused(small, data):
    places = st.tuples(
        st.integers(0, len(small)),
        st.integers(0, 8),
        st.binary(max_size=6) | st.sampled_from([small[20:60], b"\x70\x01"]),
    )
    seen_alike(damaged(small, data.draw(st.lists(places, max_size=3))))


@settings(max_examples=100)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_graph_or_refused(content):
    seen_alike(content)


def test_the_file_is_read_as_onnx_whatever_it_is_called(tiny_bundle, tmp_path):
    """ONNX Runtime reads a file called `.ort` in a format of its own, which names files in places of its own."""

    def rename(manifest):
        manifest["files"]["onnx/graph.ort"] = manifest["files"].pop(SERVING)
        manifest["variants"]["fp32"]["file"] = "onnx/graph.ort"

    bundle = copied(tiny_bundle, tmp_path / "renamed", manifest=rename)
    (bundle / SERVING).rename(bundle / "onnx" / "graph.ort")
    assert load(bundle).fill_mask("a [MASK]")


def test_a_link_out_of_the_bundle_is_not_followed(tiny_bundle, tmp_path):
    bundle = copied(tiny_bundle, tmp_path / "linked")
    (bundle / WEIGHTS).rename(tmp_path / "elsewhere")
    (bundle / WEIGHTS).symlink_to(tmp_path / "elsewhere")
    for action in (lambda: load(bundle), Bundle.open(bundle).verify):
        with pytest.raises(BundleError, match="is a link that leaves the bundle"):
            action()


def test_a_length_beyond_the_rows_of_the_positions(tiny_bundle, tmp_path):
    bundle = Bundle.open(copied(tiny_bundle, tmp_path / "bundle", manifest=lambda known: known.update(max_length=161)))
    for action in (bundle.verify, lambda: load(bundle.path), lambda: load(bundle.path, variant="portable")):
        with pytest.raises(
            BundleError, match=r"onnx knows 160 positions, and manifest.json states inputs of up to 161"
        ):
            action()


@pytest.mark.parametrize("variant", ["fp32", "portable"])
def test_a_length_beyond_positions_that_nothing_tells(tiny_bundle, tmp_path, variant):
    """The table of positions has another name than checkpoints give it."""

    def renamed(content):
        return content.replace(b"position_embeddings.weight", b"position_embeddinxs.weight")

    graphs = {"onnx_model_onnx": renamed, "onnx_model_serving_onnx": renamed}
    longer = copied(tiny_bundle, tmp_path / "bundle", manifest=lambda known: known.update(max_length=1000), **graphs)
    model = load(longer, variant=variant)
    assert model.features("the king " * 70).shape == (142, 32)
    with pytest.raises(BundleError, match=r"fails on inputs of 202 tokens .*fewer positions than the 1,000 .*export"):
        model.features("the king " * 100)
