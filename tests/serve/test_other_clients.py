"""Clients that are not installed here: the Hub's of other major versions, since transformers goes with one or two of
them, and OpenAI's."""

from __future__ import annotations

import json
import subprocess
import venv
from importlib import metadata

import numpy as np
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


OPENAI = """
import json, sys
import openai
client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)
texts = ["a cup of tea", "the king"]
said = {}
for name, more in (("usual", {}), ("float", {"encoding_format": "float"})):
    answer = client.embeddings.create(model="tiny", input=texts, **more)
    said[name] = [row.embedding for row in answer.data]
said["model"], said["tokens"] = answer.model, answer.usage.total_tokens
said["one"] = client.embeddings.create(model="tiny", input=texts[0]).data[0].embedding
for name, ask in (
    ("ids", {"model": "tiny", "input": [[1, 2]]}),
    ("unknown", {"model": "gpt", "input": "a"}),
    ("cut", {"model": "tiny", "input": "a", "dimensions": 4}),
    ("long", {"model": "tiny", "input": "word " * 300}),
):
    try:
        client.embeddings.create(**ask)
    except openai.APIStatusError as error:
        said[name] = [type(error).__name__, error.code, str(error)]
print(json.dumps(said))
"""


def ran(place, requirements, program, url):
    """Run a program with packages of its own, and return the JSON that it prints; skip where they cannot be had."""
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    done = subprocess.run(install, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode != 0:
        pytest.skip(f"{requirements[0]} could not be installed: {done.stderr.strip().splitlines()[-1]}")
    command = [python, "-c", program, url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, env=ONLINE)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_openai(server, model, tmp_path):
    said = ran(tmp_path / "venv", ["openai>=2"], OPENAI, server.url)
    wanted = model.features(["a cup of tea", "the king"], pooling="mean", normalize=True)
    for name in ("usual", "float"):  # the client asks for base64 where nothing is said
        np.testing.assert_allclose(said[name], wanted, atol=1e-5)
    np.testing.assert_allclose(said["one"], wanted[0], atol=1e-5)
    assert said["model"] == "tiny"
    assert said["tokens"] == sum(len(states) for states in model.features(["a cup of tea", "the king"]))
    for name, error, code, part in (
        ("ids", "BadRequestError", "unprocessable", "token ids"),
        ("unknown", "NotFoundError", "model_not_found", "available: tiny"),
        ("cut", "BadRequestError", "unprocessable", "dimensions"),
        ("long", "BadRequestError", "unprocessable", "the model takes 160"),
    ):
        assert said[name][:2] == [error, code]
        assert part in said[name][2]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("major", MAJORS)
def test_another_client(server, model, tmp_path, major):
    said = ran(tmp_path / "venv", [f"huggingface_hub>={major},<{major + 1}", "numpy"], PROGRAM, server.url)
    assert said["version"].startswith(f"{major}.")
    assert said["words"] == [word["token_str"] for word in model.fill_mask("The king of [MASK] is old.", top_k=3)]
    assert said["vector"] == pytest.approx(model.features("a cup of tea", pooling="mean", normalize=True), abs=1e-5)
    assert said["similarity"][0] == pytest.approx(1, abs=1e-5)
    assert sorted(said["labels"]) == ["is_next", "not_next"]
    assert "No mask_token" in said["error"]
