"""The server names no row of the embedding that has no token, in either of its forms of a word's answer."""

from __future__ import annotations

import json

import pytest

from tests.export import tokenizer_forms as forms
from tests.serve.running import Running


@pytest.mark.slow
def test_no_answer_names_them(make_checkpoint, tmp_path):
    from safetensors.torch import load_file, save_file

    from bertport.export import export

    checkpoint = make_checkpoint(tmp_path / "checkpoint", vocab_size=forms.ROWS)
    forms.duplicate_lines(checkpoint)  # [unused3], id 4, is no token any more
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["cls.predictions.bias"][[4, *range(672, forms.ROWS)]] += 9
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    bundle = export(checkpoint, tmp_path / "bundle").path
    body = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a [MASK]"]}]}
    with Running(f"padded={bundle}") as server:
        status, rows = server.post("/models/padded", {"inputs": "a [MASK]", "parameters": {"top_k": 50}})
        assert status == 200, rows
        status, result = server.post("/v2/models/padded/infer", body | {"parameters": {"top_k": 50}})
        assert status == 200, result
        [answer] = [output for output in result["outputs"] if output["name"] == "answer"]
        for words in (rows, json.loads(answer["data"][0])):
            assert len(words) == 50
            assert not {word["token"] for word in words} & {4, *range(672, forms.ROWS)}
            assert all(word["token_str"] for word in words)
        # The raw logits have every row, which nobody names there.
        assert sum(word["score"] for word in rows) < 0.01
