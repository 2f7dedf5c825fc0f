"""`bertport doctor`."""

from __future__ import annotations

from typing import Any

import click

from bertport.runtime.commands import completion
from bertport.runtime.commands.options import as_json
from bertport.runtime.commands.output import show, show_json

__all__ = ["doctor"]

TOLD = ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")
"""Keys of a device's metadata that the table shows; JSON has all of it."""


@click.command(name="doctor")
@click.argument("path", metavar="[BUNDLE]", required=False, shell_complete=completion.directories)
@as_json
@click.pass_context
def doctor(context: click.Context, *, path: str | None, as_json: bool) -> None:
    """Report what works here, and why the rest does not.

    ONNX Runtime and its build, the providers and what keeps each from working, its plugins with their devices or what
    installing one would bring, the CPU, CUDA and TensorRT, the health of a bundle (the embedded default without
    BUNDLE), and a speed check of a second. The exit code is 0 when texts can be answered.
    """
    from bertport.runtime.doctor import examine

    report = examine(path)
    if as_json:
        show_json(report, indent=2)
    else:
        show(_text(report))
    if not report["ok"]:
        context.exit(1)


def _text(report: dict[str, Any]) -> str:
    from bertport.runtime.commands import render

    machine, ort, nvidia, bundle = (report[name] for name in ("machine", "onnxruntime", "nvidia", "bundle"))
    memory = machine["memory_bytes"]
    facts = [
        ("ONNX Runtime", ort["wheel"] or "missing"),
        ("its build", ort.get("build") or "not stated"),
        ("telemetry", _telemetry(report["telemetry"])),
        ("system", f"{machine['system']}, Python {machine['python']}"),
        ("packages", ", ".join(f"{name} {version}" for name, version in machine["versions"].items())),
        ("CPU", f"{machine['cpu']}, instruction set {machine['instruction_set']}"),
        ("cores", f"{machine['usable_cores']:g} usable, {machine['physical_cores']} physical"),
        ("memory", f"{memory / 2**30:.1f} GiB" if memory else "not stated"),
        ("NVIDIA driver", nvidia["driver"]),
        ("GPUs", ", ".join(nvidia["devices"]) or "none"),
        ("built for CUDA", nvidia["built_for_cuda"] or "no"),
        ("libraries", ", ".join(f"{name} {version}" for name, version in nvidia["libraries"].items()) or "none found"),
    ]
    if ort["problem"]:
        facts.append(("problem", ort["problem"]))
    rows = [
        (name, "works" if trial["works"] else "no", trial.get("reason", ""))
        for name, trial in report["providers"].items()
    ]
    parts = [render.table(facts), "\nproviders", render.table(rows) if rows else "  not tried"]
    parts += ["\nplugins", render.table([_plugin(name, known) for name, known in report["plugins"].items()])]
    if bundle.get("problem"):
        parts.append(f"\nbundle\n  {render.printable(bundle['problem'])}")
    else:
        nodes = ", ".join(f"{count} nodes on {name}" for name, count in bundle["nodes"].items())
        health = [
            ("bundle", f"{bundle['name']}, every file as it was exported"),
            ("path", bundle["path"]),
            ("loads", f"variant {bundle['variant']} on {bundle['provider']} ({nodes})"),
        ]
        parts += ["", render.table(health), *render.notes(bundle["measured_elsewhere"])]
    if report["speed"]:
        speed = report["speed"]
        parts.append(
            render.table(
                [
                    ("speed", f"{speed['texts_per_second']:.0f} texts a second, {speed['task']}, one after the other"),
                    (
                        "",
                        f"{speed['median_ms']:.2f} ms for one; fp32 product {speed['matmul_gflops']:.0f} GFLOP/s",
                    ),
                ]
            )
        )
    parts.append("\nready" if report["ok"] else "\nnot ready: see above")
    return "\n".join(parts)


def _plugin(name: str, known: dict[str, Any]) -> tuple[str, str, str]:
    """Return the line of a plugin: its version with its devices, or what it would bring."""
    if "brings" in known:
        would = (
            f"would bring {known['brings']}: {known['install']}" if known["brings"] else f"it takes {known['takes']}"
        )
        return name, "not installed", would
    devices = dict.fromkeys(
        ", ".join([device["kind"], *(device["metadata"][key] for key in TOLD if device["metadata"].get(key))])
        for device in known["devices"]
    )
    return (
        name,
        f"{known['package']} {known['version'] or '(no record)'}",
        "; ".join(devices) or f"no device: it takes {known['takes']}",
    )


def _telemetry(state: dict[str, str]) -> str:
    return ": ".join(state.values())
