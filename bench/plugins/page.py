"""The tables of docs/research/plugins.md."""

from __future__ import annotations

from typing import Any

__all__ = ["section"]


def section(webgpu: dict[str, Any], engines: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    return "\n".join([*_webgpu(webgpu), "", *_engines(engines)]) + "\n"


def _webgpu(data: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items())
    lines = [
        f"### WebGPU\n\n{versions}; {_where(data)}.\n",
        "| bundle | variant | largest difference from `cpu`, by output |",
        "|---|---|---|",
    ]
    refused: dict[tuple[str, str], list[str]] = {}
    for bundle, variants in data["bundles"].items():
        for variant, result in variants.items():
            if "refused" in result:
                refused.setdefault((variant, result["words"]), []).append(bundle)
                continue
            outputs = ", ".join(
                f"`{output}` {_far(difference)}" for output, difference in result["differences"].items()
            )
            lines.append(f"| {bundle} | `{variant}` | {outputs} |")
    for (variant, words), bundles in refused.items():
        said = f"ONNX Runtime's own error: “{_plain(words)}”" if words else "ONNX Runtime itself runs it"
        more = f" and {len(bundles) - 1} more" if len(bundles) > 1 else ""
        lines.append(f"\nRefused before it is opened: {bundles[0]}{more}, `{variant}`. {said}.")
    return lines


def _far(difference: float | None) -> str:
    return "infinite" if difference is None else f"{difference:.1e}"


def _engines(data: dict[str, Any]) -> list[str]:
    targets = data["targets"]
    lines = [
        f"### TensorRT for RTX\n\nTensorRT for RTX {data['version']}; {_where(data)}.\n",
        f"| bundle | variant | layers | {' | '.join(f'{target}, MB' for target in targets)} |",
        f"|---|---|---:|{'---:|' * len(targets)}",
    ]
    refused = []
    for bundle, variants in data["bundles"].items():
        for variant, result in variants.items():
            if "refused" in result:
                refused.append(f"\nNo engine of {bundle}, `{variant}`: “{_plain(result['refused'])}”.")
                continue
            sizes = " | ".join(f"{result['bytes'][target] / 1e6:.1f}" for target in targets)
            lines.append(f"| {bundle} | `{variant}` | {result['layers']} | {sizes} |")
    return lines + refused


def _where(data: dict[str, Any]) -> str:
    return f"{data['machine']['cpu']}, {data['date'][:10]}, commit {data['commit'][:12]}"


def _plain(text: str) -> str:
    return " ".join(text.split())[:400].replace("|", "\\|")
