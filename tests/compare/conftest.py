"""A small vocabulary, texts in its words, and a real ONNX graph whose every figure can be worked out by hand."""

import copy
import dataclasses
import json
import shutil

import numpy as np
import pytest

from bertport.compare.codec import decode
from bertport.compare.presets import QUICK
from bertport.compare.report.document import Report
from bertport.runtime.commands.progress import Progress
from bertport.runtime.heads import SEQUENCE_CLASSIFICATION
from tests.conftest import built_once
from tests.heads import head_bundle


def with_variants(source, path, *names):
    """Copy a bundle and add variants: `noisy`, which answers a little otherwise, and `broken`, no graph."""
    import onnx
    from onnx import numpy_helper

    from bertport.runtime.bundle.changes import add_variant
    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.bundle.workspace import Workspace

    shutil.copytree(source, path)
    bundle = Bundle.open(path)
    entry = bundle.manifest.variants["fp32"]
    model = onnx.load(bundle.file(entry.file))
    rng = np.random.default_rng(1)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor)
            noise = (0.02 * rng.normal(size=values.shape)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values * (1 + noise), tensor.name))
    made = {"noisy": model.SerializeToString(), "broken": b"not a graph"}
    for name in names:
        file = path.with_name(f"{name}.onnx")
        file.write_bytes(made[name])
        requires = dataclasses.replace(entry.requires, precision="int8-dynamic")  # for the CPU alone
        variant = dataclasses.replace(
            entry, file=f"onnx/{name}.onnx", recipe=name, external_data=(), validation=None, requires=requires
        )
        with Workspace.beside(bundle) as work:
            bundle = add_variant(work, name, variant, {f"onnx/{name}.onnx": file})
    return path


@pytest.fixture(scope="session")
def compared_bundle(tiny_bundle, tmp_path_factory):
    """The tiny bundle with the variants `noisy` and `broken`."""
    return with_variants(tiny_bundle, tmp_path_factory.mktemp("compared") / "bundle", "noisy", "broken")


TINY_PRESET = dataclasses.replace(
    QUICK,
    positions=80,
    pairs=16,
    stability=2,
    inputs=4,
    rounds=2,
    requests=6,
    starts=1,
    shapes=((1, 8), (2, 16)),
)
"""So little that it takes seconds; whatever it says of a model is noise."""


class Interrupting(Progress):
    """Presses Ctrl-C when a step begins."""

    def __init__(self, step):
        super().__init__(None)
        self.step, self.begun = step, []

    def begin(self, step, label):
        self.begun.append(step)
        if step == self.step:
            raise KeyboardInterrupt
        super().begin(step, label)


@pytest.fixture(scope="session")
def make_options(compared_bundle, held_out):
    """Return the options of a comparison of `compared_bundle` that takes seconds."""
    from bertport.compare.options import Options

    def make(output, **changes):
        return Options(
            **{
                "bundles": (str(compared_bundle),),
                "output": output,
                "effort": TINY_PRESET,
                "text": str(held_out),
                "threads": 1,
                "budget": "top1=0.5",
                "command": "bertport compare bundle",
                **changes,
            }
        )

    return make


@pytest.fixture(scope="session")
def document(make_options, tmp_path_factory):
    """The report of `compared_bundle` as JSON values; copy it before changing anything, and read it with `typed`."""
    from bertport.compare.report.assembly import assemble
    from bertport.compare.report.files import as_json
    from bertport.compare.runner import Comparison

    def build(path):
        report = assemble(Comparison(make_options(tmp_path_factory.mktemp("report"))).run())
        path.write_text(as_json(report), encoding="utf-8")

    return json.loads(built_once(tmp_path_factory, "document.json", build).read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def classified(make_options, tmp_path_factory):
    """The report of a classifier and its variant `noisy` as JSON values, interrupted before anything is timed."""
    from bertport.compare.report.assembly import assemble
    from bertport.compare.report.files import as_json
    from bertport.compare.runner import PEAK, Comparison

    _, source = head_bundle(tmp_path_factory, "bert", SEQUENCE_CLASSIFICATION)

    def build(path):
        bundle = with_variants(source, tmp_path_factory.mktemp("classifier") / "bundle", "noisy")
        options = make_options(path.with_suffix(""), bundles=(str(bundle),), budget="cosine=0.5")
        path.write_text(as_json(assemble(Comparison(options, Interrupting(PEAK)).run())), encoding="utf-8")

    return json.loads(built_once(tmp_path_factory, "classified.json", build).read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def report(document):
    """The same as a report."""
    return typed(document)


def typed(document):
    """Read a report out of JSON values."""
    return decode(Report, document)


WORDS = "the good bad book old new music word play game city water see love hate this is a not very".split()  # noqa: SIM905 — words read better so


def labelled_file(bundle, path, count=60):
    """Write texts of which fp32 gives three of four the label that is called right."""
    from bertport.runtime import load

    rng = np.random.default_rng(5)
    model = load(bundle, variant="fp32", threads=1)
    labels = model.bundle.manifest.heads[SEQUENCE_CLASSIFICATION].labels
    texts = [" ".join(rng.choice(WORDS, size=rng.integers(3, 12)).tolist()) for _ in range(count)]
    records = []
    for number, (text, answer) in enumerate(zip(texts, model.predict("text-classification", texts), strict=True)):
        best = answer[0]["label"] if isinstance(answer, list) else answer["label"]
        wrong = labels[(labels.index(best) + 1) % len(labels)]
        records.append({"text": text, "label": wrong if number % 4 == 0 else best})
    return written(path, records)


def written(path, records):
    """Write records as JSON lines and return the path."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def choice(path, **changes):
    """Return the options that say which labelled data to measure on."""
    from bertport.measure.labelled.options import DataChoice

    settings = {"task": None, "columns": {}, "label_map": {}, "positive": None, **changes}
    return DataChoice(data=str(path), **settings)


@pytest.fixture(scope="session")
def labelled_bundle(tmp_path_factory):
    """A classifier with the variant `noisy`, and a file of labelled texts beside it."""
    _, source = head_bundle(tmp_path_factory, "bert", SEQUENCE_CLASSIFICATION)

    def build(path):
        path.mkdir()
        bundle = with_variants(source, path / "bundle", "noisy")
        labelled_file(bundle, path / "texts.jsonl")

    return built_once(tmp_path_factory, "labelled", build)


@pytest.fixture(scope="session")
def labelled(make_options, labelled_bundle, tmp_path_factory):
    """The report of a classifier on labelled data as JSON values, interrupted before anything is timed."""
    from bertport.compare.report.assembly import assemble
    from bertport.compare.report.files import as_json
    from bertport.compare.runner import PEAK, Comparison

    def build(path):
        options = make_options(
            path.with_suffix(""),
            bundles=(str(labelled_bundle / "bundle"),),
            budget="cosine=0.5",
            labelled=choice(labelled_bundle / "texts.jsonl"),
        )
        path.write_text(as_json(assemble(Comparison(options, Interrupting(PEAK)).run())), encoding="utf-8")

    return json.loads(built_once(tmp_path_factory, "labelled.json", build).read_text(encoding="utf-8"))


@pytest.fixture
def timed(labelled, document):
    """The report on labelled data as if variants had taken what those of another bundle took, `noisy` half of that."""
    from tests.compare.test_runner import row

    changed = copy.deepcopy(labelled)
    for name in ("fp32", "noisy"):
        row(changed, name)["speed"] = copy.deepcopy(row(document, name)["speed"])
    p90, of_fp32 = (row(changed, name)["speed"]["single_stream"]["p90"] for name in ("noisy", "fp32"))
    p90 |= {key: 0.5 * of_fp32[key] for key in ("value", "low", "high")}
    return changed
