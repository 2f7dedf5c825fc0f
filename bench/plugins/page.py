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
        "| bundle | variant | output | largest difference from `cpu` |",
        "|---|---|---|---:|",
    ]
    refused: dict[str, str] = {}
    for bundle, variants in data["bundles"].items():
        for variant, result in variants.items():
            if "refused" in result:
                refused.setdefault(result["words"], f"{bundle}, `{variant}`")
                continue
            for output, difference in result["differences"].items():
                lines.append(f"| {bundle} | `{variant}` | `{output}` | {difference:.1e} |")
    for words, where in refused.items():
        lines.append(f"\nRefused before it is opened: {where}. ONNX Runtime, asked all the same: “{_plain(words)}”.")
    return lines


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
