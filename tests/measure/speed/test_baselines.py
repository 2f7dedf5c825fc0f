"""What peers are measured on is made from the bundle: its checkpoint, and an export of that."""

import json
import subprocess
import sys

import pytest

from bertport.measure.speed import baselines
from bertport.measure.speed.baselines import (
    BASELINES,
    BaselineError,
    check_baseline,
    check_task,
    open_pipeline,
    prepare_baseline,
)
from bertport.measure.speed.tasks import TIMED
from bertport.measure.speed.workload import SINGLE_STREAM, Shape, Texts, WorkerSpec
from bertport.runtime import load
from bertport.runtime.bundle.digest import sealed
from bertport.runtime.bundle.directory import MANIFEST, Bundle
from bertport.runtime.errors import MissingDependencyError, UsageError
from bertport.runtime.heads import MULTIPLE_CHOICE, SEQUENCE_CLASSIFICATION
from tests.broken import copied
from tests.heads import head_bundle


def test_a_bundle_that_fills_no_masks_is_no_baseline(tiny_bundle, tmp_path):
    bundle = copied(tiny_bundle, tmp_path / "bundle")
    manifest = json.loads((bundle / MANIFEST).read_text())
    del manifest["heads"]["mlm"]
    (bundle / MANIFEST).write_bytes(sealed(manifest))
    with pytest.raises(BaselineError, match=r"^the baseline transformers cannot be made from \S+: .* has no mlm head$"):
        prepare_baseline("transformers", Bundle.open(bundle), tmp_path)


def test_what_restoring_says_is_the_reason(tiny_bundle, tmp_path):
    bundle = Bundle.open(copied(tiny_bundle, tmp_path / "bundle"))
    (bundle.path / "config.json").unlink()
    reason = r"the bundle at \S+ lacks config.json \(No such file or directory\): copy it whole, or export again"
    with pytest.raises(BaselineError, match=rf"^the baseline transformers cannot be made from \S+: {reason}$"):
        prepare_baseline("transformers", bundle, tmp_path / "made")
    assert not (tmp_path / "made" / "transformers").exists()


def test_the_program_says_how_it_is_called(tmp_path):
    command = [sys.executable, "-m", "bertport.measure.speed.baselines", "transformers"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "usage: python -m bertport.measure.speed.baselines TASK CHECKPOINT OUT\n"


def test_a_package_that_no_extra_installs_is_named(monkeypatch):
    monkeypatch.setattr(baselines, "first_missing", lambda packages: packages[-1])
    with pytest.raises(MissingDependencyError, match=r"sentence_transformers, .*: pip install sentence-transformers$"):
        check_baseline("sentence-transformers")
    monkeypatch.setattr(baselines, "first_missing", lambda packages: packages[0])
    with pytest.raises(MissingDependencyError, match=r"torch, which is not installed: .*pip install .*export\]"):
        check_baseline("sentence-transformers")


@pytest.mark.parametrize(("name", "task"), [("transformers", "embeddings"), ("sentence-transformers", "fill-mask")])
def test_a_task_that_a_baseline_does_not_answer_is_refused(name, task):
    with pytest.raises(
        UsageError, match=rf"^the baseline {name} answers .*timed by {task}: leave --baseline {name} out"
    ):
        check_task(name, task)


def test_optimum_elsewhere_is_one_sentence(tmp_path):
    """In a process where optimum-onnx cannot be found, which it is not beside today's transformers."""
    program = (
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'optimum.onnxruntime':\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "from bertport.runtime.cli import main\n"
        "main(['compare', '--baseline', 'optimum', '--output', 'out'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(
        "bertport: error: --baseline optimum needs the package optimum.onnxruntime, which is not installed and needs "
        "an environment of its own; there: pip install "
    )
    assert "[cpu,compare,export-optimum]" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


ASKED = {
    "multiple-choice": (
        MULTIPLE_CHOICE,
        (),
        {"text": "the man went home", "choices": ["and he slept", "a day of the year", "the world was"]},
    ),
    "text-ranking": (
        SEQUENCE_CLASSIFICATION,
        ("LABEL_0",),
        {"query": "the man went", "documents": ["home to the world", "a day", "the man of the year went home"]},
    ),
}
"""By task: its head, the labels of that, and an input."""


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("transformers", "multiple-choice"),
        pytest.param("sentence-transformers", "text-ranking", marks=pytest.mark.slow),  # its import
        pytest.param("optimum", "multiple-choice", marks=pytest.mark.optimum),
    ],
)
def test_tasks_without_a_pipeline_are_answered_as_the_bundle_answers(tmp_path_factory, tmp_path, name, task):
    head, labels, asked = ASKED[task]
    checkpoint, bundle = head_bundle(tmp_path_factory, "bert", head, labels=labels)
    if BASELINES[name].converted:
        checkpoint = prepare_baseline(name, Bundle.open(bundle), tmp_path, task)
    peer = open_pipeline(WorkerSpec(name=name, baseline=name, file=str(checkpoint), task=task, threads=1))
    texts = Texts(task=task, inputs=(asked, asked), parameters={}, scenario=SINGLE_STREAM)
    answers, own = peer.answers(texts), list(load(bundle).predict(task, [asked, asked]))
    assert TIMED[task].best(answers) == TIMED[task].best(own)
    assert _numbers(answers) == pytest.approx(_numbers(own), abs=1e-4)
    assert json.dumps(answers)
    assert peer.answering(texts)([asked])
    assert peer.forward(Shape(rows=2, length=8, vocabulary=30))() is not None


def _numbers(answers):
    """The probabilities of choices, or the scores of documents in the order of the documents."""
    return [
        number
        for answer in answers
        for number in (
            answer["probabilities"]
            if isinstance(answer, dict)
            else [document["score"] for document in sorted(answer, key=lambda document: document["corpus_id"])]
        )
    ]
