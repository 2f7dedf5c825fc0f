"""A bundle in transformers.js, as npm installs it, answers as the runtime does."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.node.packages import TRANSFORMERS_JS
from bertport.runtime import load
from bertport.runtime.bundle.default import default_bundle
from tests import npm

# No apostrophes: transformers.js joins "isn ' t" again in a sequence, transformers' own pipeline does not.
TEXTS = (
    "Paris is the [MASK] of France.",
    "The man took off his [MASK] and sat down by the fire.",
    "[MASK] caf\u00e9 na\u00efve \u4e2d\u6587 \U0001f600 is not.",
    "He went to the " + "very " * 100 + "[MASK].",
)
ATOL = 1e-5
"""On a probability: Node's ONNX Runtime is another build, with the portable graph in place of the serving one."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.node,
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def modules():
    """transformers.js from the npm registry; its CPU binaries come inside it."""
    return npm.installed(TRANSFORMERS_JS, "transformers.js")


def test_fill_mask_answers_as_the_runtime_does(modules, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(default_bundle(), bundle)
    program = Path(__file__).with_name("fill_mask.mjs")
    done = subprocess.run(
        [shutil.which("node"), program, modules, bundle, *TEXTS],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert TRANSFORMERS_JS.endswith(said["version"])
    model = load(bundle, variant="fp32", provider="cpu")  # transformers.js takes the portable graph, in float32
    for text, theirs in zip(TEXTS, said["answers"], strict=True):
        ours = model.fill_mask(text, top_k=5)
        assert [each["token"] for each in theirs] == [each["token"] for each in ours], text
        assert [each["token_str"] for each in theirs] == [each["token_str"] for each in ours], text
        assert [each["sequence"] for each in theirs] == [each["sequence"] for each in ours], text
        assert [each["score"] for each in theirs] == pytest.approx([each["score"] for each in ours], abs=ATOL)
