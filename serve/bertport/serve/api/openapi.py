"""The OpenAPI document, made of the tables of tasks and limits, and the page that shows it without any other host."""

from __future__ import annotations

import json
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any

from bertport.serve.api import openai, tei
from bertport.serve.api.dialects import OPENAI
from bertport.serve.api.payload import BY_FIELD
from bertport.serve.api.tasks import MASK, WIRE_TASKS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["document", "page"]

JSON = "application/json"
TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "datatype": {"type": "string"},
        "data": {"type": "array", "items": {}},
        "parameters": {"type": "object"},
    },
}
ERROR = {
    "type": "object",
    "required": ["error", "error_type"],
    "properties": {
        "error": {"type": "string", "description": "what was asked, what was found, what to do"},
        "error_type": {"type": "string", "description": "the reason, as in the metric bertport_failures_total"},
        "estimated_time": {"type": "number", "description": "of 503: seconds until it is worth asking again"},
    },
}

OPENAI_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {"message": {"type": "string"}, "type": {"type": "string"}, "code": {"type": "string"}},
        }
    },
}


@cache
def document() -> dict[str, Any]:
    """Return the document."""
    from importlib.metadata import version

    paths: dict[str, dict[str, Any]] = {}
    for path, method, operation in _operations():
        paths.setdefault(path, {})[method] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "bertport serve",
            "version": version("bertport"),
            "description": "Encoders with their heads: the Hub's inference format, the Open Inference Protocol v2, "
            "OpenAI's embeddings, and addresses of Text Embeddings Inference. Examples write a mask as "
            f"{MASK}: GET /models lists each bundle's own, such as <mask>. Every error is JSON with the field error. "
            "Bodies may be packed by gzip or deflate.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Error": ERROR, "Tensor": TENSOR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "with --api-key"}},
        },
        "security": [{}, {"key": []}],
    }


def _operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    anything = {"description": "the task's answer; of a list of inputs a list", **_json({})}
    every = {
        "oneOf": [{"type": "string"}, {"type": "array"}, {"type": "object", "required": ["inputs"]}],
        "description": "an object with inputs, or the inputs themselves",
    }
    name, task = _parameter("name", "path", "a bundle"), _parameter("task", "path", "a task")
    version = _parameter("version", "path", "a variant")
    examples = {
        wire_task.name: {"summary": wire_task.summary, "value": wire_task.example} for wire_task in WIRE_TASKS.values()
    }
    ask = _operation(
        "Ask, in the Hub's format",
        "Without a task in the address, the query or the header x-bertport-task, the body decides. A pair of texts is "
        f"text-classification. A field of an input that only one task has ({', '.join(BY_FIELD)}) names that task, "
        "and so does such a parameter. A text alone goes to the head of a fine-tuned model, unless the text has a mask "
        "and the bundle fills masks. In other bundles a text with a mask, or with the field parameters beside it, is "
        "fill-mask, and any other text feature-extraction.",
        anything,
        body=every,
        examples=examples,
        parameters=[_variant(), _parameter("task", "query", "a task", values=list(WIRE_TASKS))],
    )
    yield "/", "post", ask
    for wire_task in WIRE_TASKS.values():
        operation = _operation(
            f"{wire_task.name}: {wire_task.summary}",
            "",
            anything,
            body=_body(wire_task.inputs, wire_task.parameters),
            examples={wire_task.name: {"value": wire_task.example}},
            parameters=[_variant()],
        )
        yield f"/tasks/{wire_task.name}", "post", operation
    yield "/models/{name}", "post", ask | {"parameters": [name, *ask["parameters"]]}
    asked = _operation(
        "Ask a bundle a task", "", anything, body=every, examples=examples, parameters=[name, task, _variant()]
    )
    yield "/models/{name}/tasks/{task}", "post", asked
    yield from _other_dialects()
    objects = {"description": "a list", **_json({"type": "array", "items": {"type": "object"}})}
    an_object = {"description": "an object", **_json({"type": "object"})}
    text = {"description": "text", "content": {"text/plain": {"schema": {"type": "string"}}}}
    yield "/models", "get", _operation("The bundles and their variants, the default ones first", "", objects)
    yield "/health", "get", _operation("Whether the process answers; needs no key", "", an_object)
    yield "/ready", "get", _operation("Whether every variant has made real predictions; needs no key", "", an_object)
    yield "/info", "get", _operation("Versions, limits, bundles", "", an_object)
    yield "/metrics", "get", _operation("The counters, for Prometheus", "", text)
    yield (
        "/reload",
        "post",
        _operation("Load the bundles anew without losing a request", "Only on a server with an API key.", objects),
    )
    yield "/v2", "get", _operation("Open Inference Protocol: the server", "", an_object)
    yield "/v2/health/live", "get", _operation("Open Inference Protocol: as /health", "", an_object)
    yield "/v2/health/ready", "get", _operation("Open Inference Protocol: as /ready", "", an_object)
    tensors = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "inputs": {"type": "array", "items": {"$ref": "#/components/schemas/Tensor"}},
            "outputs": {"type": "array", "items": {"type": "object"}},
        },
    }
    outputs = {
        "description": "JSON, and after it the outputs that were asked for as bytes",
        "content": {JSON: {"schema": {"type": "object"}}, "application/octet-stream": {"schema": {}}},
    }
    example = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [f"a cup of {MASK}"]}]}
    for middle, parameters in (("", [name, _variant()]), ("/versions/{version}", [name, version])):
        base = f"/v2/models/{{name}}{middle}"
        yield base, "get", _operation("Its inputs and outputs", "", an_object, parameters=parameters)
        yield f"{base}/ready", "get", _operation("Whether it is there", "", an_object, parameters=parameters)
        yield (
            f"{base}/infer",
            "post",
            _operation(
                "Open Inference Protocol: infer",
                "Raw tensors (input_ids, and of attention_mask, token_type_ids and masked_positions what the model "
                "has), or text and text_pair. "
                "The parameter task chooses the task of text; without it, the outputs that are asked for do.",
                outputs,
                body=tensors,
                examples={"text": {"value": example}},
                parameters=parameters,
            ),
        )


def _other_dialects() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the addresses that other servers' clients ask."""
    labels = {"type": "array", "items": _scored("label", "string")}
    for path, summary, description, fields, needed, example, answer in (
        (
            "/v1/embeddings",
            "OpenAI's embeddings: a vector of length 1 for each text",
            "Errors have OpenAI's form: an object with message, type and code in the field error.",
            openai.FIELDS,
            ("input",),
            {"input": ["A cup of tea.", "A mug of coffee."], "encoding_format": "float"},
            {"type": "object", "required": ["object", "data", "model", "usage"]},
        ),
        (
            "/embed",
            "Text Embeddings Inference: a list of vectors",
            "",
            tei.EMBED,
            ("inputs",),
            {"inputs": "What is deep learning?"},
            {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
        ),
        (
            "/predict",
            "Text Embeddings Inference: the labels of a text or of a pair",
            "Two texts in a list are a pair here, and a batch in the Hub's format.",
            tei.PREDICT,
            ("inputs",),
            {"inputs": ["He went to the store.", "He bought milk."]},
            {"oneOf": [labels, {"type": "array", "items": labels, "description": "of a batch"}]},
        ),
        (
            "/rerank",
            "Text Embeddings Inference: texts by how well they fit a query, the best first",
            "A score is the sigmoid of the logit, or the logit itself with raw_scores.",
            tei.RERANK,
            ("query", "texts"),
            {"query": "What is deep learning?", "texts": ["Deep learning is a part of it.", "Tea is a drink."]},
            {"type": "array", "items": _scored("index", "integer")},
        ),
    ):
        body = {"type": "object", "required": list(needed), "properties": fields, "additionalProperties": False}
        operation = _operation(
            summary,
            description,
            {"description": "the answer", **_json(answer)},
            body=body,
            examples={"example": {"value": example}},
            parameters=[_variant()],
        )
        if path in OPENAI.paths:
            operation["responses"] |= {"default": {"description": "an error", **_json(OPENAI_ERROR)}}
            operation["responses"]["429"] |= _json(OPENAI_ERROR)
        else:
            lacking = {"description": "no bundle has a head for it, or the model failed"}
            operation["responses"]["424"] = operation["responses"]["default"] | lacking
        yield path, "post", operation


def _operation(  # noqa: PLR0913 — the parts of an operation
    summary: str,
    description: str,
    answer: Mapping[str, Any],
    *,
    body: Mapping[str, Any] | None = None,
    examples: Mapping[str, Any] | None = None,
    parameters: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    error = {"description": "an error", **_json({"$ref": "#/components/schemas/Error"})}
    busy = error | {
        "description": "too much to do: try again",
        "headers": {"retry-after": {"schema": {"type": "integer"}, "description": "seconds"}},
    }
    operation: dict[str, Any] = {
        "summary": summary,
        "description": description,
        "parameters": parameters or [],
        "responses": {"200": dict(answer), "429": busy, "default": error},
    }
    if body is not None:
        content = {JSON: {"schema": body, "examples": dict(examples or {})}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _scored(name: str, kind: str) -> dict[str, Any]:
    """Return the schema of an object with a score and what has it."""
    fields = {name: {"type": kind}, "score": {"type": "number"}}
    return {"type": "object", "required": list(fields), "properties": fields}


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"content": {JSON: {"schema": schema}}}


def _parameter(name: str, place: str, text: str, values: list[str] | None = None) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"} if values is None else {"type": "string", "enum": values}
    return {"name": name, "in": place, "required": place == "path", "description": text, "schema": schema}


def _variant() -> dict[str, Any]:
    return _parameter("variant", "query", "a variant of the bundle; the header x-bertport-variant says the same")


def _body(inputs: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "inputs": {"oneOf": [inputs, {"type": "array", "items": inputs, "minItems": 1}]},
            "parameters": {"type": "object", "properties": dict(parameters), "additionalProperties": False},
        },
    }


@cache
def page() -> str:
    """Return the document as a page without scripts."""
    made = document()
    parts = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>bertport: API</title>',
        '<link rel="stylesheet" href="page/page.css"><link rel="icon" href="data:,"></head><body><header>',
        '<h1>bertport: API</h1><nav><a href="./">page</a><a href="openapi.json">openapi.json</a></nav></header><main>',
        f"<p>{escape(made['info']['description'])}</p>",
    ]
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            parts.append(_section(path, method, operation))
    parts.append("</main></body></html>")
    return "".join(parts)


def _section(path: str, method: str, operation: Mapping[str, Any]) -> str:
    parts = [
        f'<section class="operation"><h2><span class="method">{method.upper()}</span> <code>{escape(path)}</code></h2>',
        f"<p>{escape(operation['summary'])}</p>",
    ]
    if operation["description"]:
        parts.append(f"<p>{escape(operation['description'])}</p>")
    for parameter in operation["parameters"]:
        kind = f"{parameter['in']}, {'needed' if parameter['required'] else 'optional'}"
        parts.append(f"<p><code>{escape(parameter['name'])}</code> ({kind}): {escape(parameter['description'])}</p>")
    content = operation.get("requestBody", {}).get("content", {}).get(JSON)
    if content:
        for name, example in content["examples"].items():
            body = json.dumps(example["value"], ensure_ascii=False).replace("'", "'\\''")
            curl = f"curl http://127.0.0.1:8080{path} -d '{body}'"
            parts.append(f"<p>{escape(name)}:</p><pre>{escape(curl)}</pre>")
        schema = json.dumps(content["schema"], indent=2, ensure_ascii=False)
        parts.append(f"<details><summary>Schema of the body</summary><pre>{escape(schema)}</pre></details>")
    parts.append("</section>")
    return "".join(parts)
