"""The Hub's client of the major versions that are not installed here: transformers goes with one or two of them."""

from __future__ import annotations

import json
import subprocess
import venv
from importlib import metadata

import pytest

from tests.local_clients import ONLINE

MAJORS = sorted({0, 1, 2} - {int(metadata.version("huggingface_hub").partition(".")[0])})
PROGRAM = """
import json, sys
import huggingface_hub
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
client = InferenceClient(model=sys.argv[1])
said = {"version": huggingface_hub.__version__}
said["words"] = [row.token_str for row in client.fill_mask("The king of [MASK] is old.", top_k=3)]
said["vector"] = client.feature_extraction("a cup of tea", normalize=True).tolist()
said["similarity"] = client.sentence_similarity("a cup", ["a cup", "the king"])
said["labels"] = [row.label for row in client.text_classification({"text": "a", "text_pair": "b"})]
try:
    client.fill_mask("none")
except HfHubHTTPError as error:
    said["error"] = str(error)
print(json.dumps(said))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("major", MAJORS)
def test_another_client(server, model, tmp_path, major):
    requirement = f"huggingface_hub>={major},<{major + 1}"
    place = tmp_path / "venv"
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement, "numpy"]
    done = subprocess.run(install, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode != 0:
        pytest.skip(f"{requirement} could not be installed: {done.stderr.strip().splitlines()[-1]}")
    ran = subprocess.run(
        [python, "-c", PROGRAM, server.url], capture_output=True, text=True, check=False, timeout=200, env=ONLINE
    )
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert said["version"].startswith(f"{major}.")
    assert said["words"] == [word["token_str"] for word in model.fill_mask("The king of [MASK] is old.", top_k=3)]
    assert said["vector"] == pytest.approx(model.features("a cup of tea", pooling="mean", normalize=True), abs=1e-5)
    assert said["similarity"][0] == pytest.approx(1, abs=1e-5)
    assert sorted(said["labels"]) == ["is_next", "not_next"]
    assert "No mask_token" in said["error"]
