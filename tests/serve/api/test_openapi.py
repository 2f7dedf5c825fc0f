"""The OpenAPI document: complete, and kept to, as schemathesis finds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bertport.serve.api.openapi import document
from bertport.serve.api.payload import BY_FIELD
from bertport.serve.api.tasks import WIRE_TASKS
from tests.serve.running import Running

WITHOUT_HEAD = (
    "token-classification",
    "question-answering",
    "zero-shot-classification",
    "multiple-choice",
    "text-ranking",
    "sentence-order",
    "replaced-tokens",
    "embeddings",
)
"""Tasks whose heads the bundle that is served has not."""
REFUSED = [WIRE_TASKS[name].example for name in WITHOUT_HEAD]


def test_every_example_in_it_is_answered(server):
    made = json.loads(server.get("/openapi.json")[1])
    asked = 0
    for path, methods in made["paths"].items():
        content = methods.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json")
        for example in (content or {"examples": {}})["examples"].values():
            for task in WIRE_TASKS if "{task}" in path else [""]:
                if task and WIRE_TASKS[task].example != example["value"]:
                    continue
                place = path.replace("{name}", "tiny").replace("{version}", "fp32").replace("{task}", task)
                status, answer = server.post(place, example["value"])
                if (status == 424 and path == "/rerank") or (status == 422 and example["value"] in REFUSED):
                    assert "which the checkpoint of tiny-bert does not hold" in answer["error"]
                    continue
                assert status == 200, (place, answer)
                asked += 1
    assert asked > 15


def test_every_task_is_in_it_and_on_the_page(server):
    text = server.get("/docs")[1]
    for name in WIRE_TASKS:
        assert f"/tasks/{name}" in document()["paths"]
        assert f"/tasks/{name}" in text


def test_it_says_what_decides_the_task_of_a_body():
    said = document()["paths"]["/"]["post"]["description"]
    assert [field for field in BY_FIELD if field not in said] == []
    assert "fine-tuned" in said


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_schemathesis_finds_nothing(tiny_bundle, tmp_path):
    checks = (
        "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
        "response_headers_conformance"
    )
    with Running(f"tiny={tiny_bundle}", "--variant", "fp32", "--no-warm-up") as server:
        program = Path(sys.executable).with_name("schemathesis")
        command = [program, "run", f"{server.url}/openapi.json", "--checks", checks, "--max-examples", "40"]
        done = subprocess.run(
            [*command, "--seed", "1", "--generation-database", "none"],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            timeout=800,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert server.get("/ready")[0] == 200
        assert not [line for line in server.lines if line["level"] == "error"]
        assert server.stop() == 0
