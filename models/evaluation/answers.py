"""Answers of the model to the prompts of prompts.json, through bertport's own interface."""

import json
from pathlib import Path
from typing import Any

from bertport.runtime.model import Model

PROMPTS = Path(__file__).parents[1] / "prompts.json"


def answer_prompts(model: Model, prompts: dict[str, Any]) -> dict[str, Any]:
    """Answer every prompt; nothing is left out."""
    return {
        "fill_mask": [_words(model, text) for text in prompts["fill_mask"]],
        "bias": [_words(model, text, top_k=10) for text in prompts["bias"]],
        "next_sentence": [
            {
                **pair,
                "p_continuation": _follows(model, pair["first"], pair["continuation"]),
                "p_stranger": _follows(model, pair["first"], pair["stranger"]),
            }
            for pair in prompts["next_sentence"]
        ],
    }


def read_prompts() -> dict[str, Any]:
    """Read the prompts, which were fixed before the model could answer."""
    prompts: dict[str, Any] = json.loads(PROMPTS.read_text(encoding="utf-8"))
    return prompts


def _words(model: Model, text: str, *, top_k: int = 5) -> dict[str, Any]:
    answers = model.fill_mask(text, top_k=top_k)
    return {"text": text, "answers": [[answer["token_str"], round(answer["score"], 4)] for answer in answers]}


def _follows(model: Model, first: str, second: str) -> float:
    """Return the probability that the second text follows the first."""
    [answer] = model.predict("next-sentence", [(first, second)])
    return round(float(answer["score"] if answer["follows"] else 1 - answer["score"]), 4)
