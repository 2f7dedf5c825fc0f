"""The requests of Text Embeddings Inference by its own OpenAPI document (docs/openapi.json of version 1.9.3)."""

from __future__ import annotations

from typing import Any

_TRUNCATION: dict[str, Any] = {
    "truncate": {"type": "boolean", "nullable": True, "example": False},
    "truncation_direction": {"type": "string", "enum": ["Left", "Right"]},
}
_RAW: dict[str, Any] = {"raw_scores": {"type": "boolean", "example": False}}
REQUESTS: dict[str, dict[str, Any]] = {
    "/embed": {
        "required": ["inputs"],
        "properties": {
            "inputs": {"example": "What is Deep Learning?"},
            "dimensions": {"type": "integer", "nullable": True},
            "normalize": {"type": "boolean", "example": True},
            "prompt_name": {"type": "string", "nullable": True},
            **_TRUNCATION,
        },
    },
    "/predict": {
        "required": ["inputs"],
        "properties": {"inputs": {"example": "What is Deep Learning?"}, **_RAW, **_TRUNCATION},
    },
    "/rerank": {
        "required": ["query", "texts"],
        "properties": {
            "query": {"type": "string", "example": "What is Deep Learning?"},
            "texts": {"type": "array", "example": ["Deep Learning is ..."]},
            "return_text": {"type": "boolean", "example": False},
            **_RAW,
            **_TRUNCATION,
        },
    },
}
"""By address, the schema of its body: the fields that it must have, and of each field the type and an example."""
KINDS = {"Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"}
"""Values of `error_type`."""
