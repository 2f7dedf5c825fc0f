"""Of variants that were measured within a budget on this class of CPU the fastest is taken, and it is said why."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from click.testing import CliRunner

from bertport.runtime import load
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.select import choices, fastest_here, preferred, reason
from bertport.runtime.commands.bundles import inspect
from bertport.runtime.errors import ProviderError
from bertport.runtime.providers import cpu
from bertport.runtime.providers.table import PROVIDERS

CPU, CUDA, OPENVINO = (PROVIDERS[name] for name in ("cpu", "cuda", "openvino"))
VNNI = ("avx2", "avx512f", "avx512_vnni")
HERE = {"instruction_set": "avx512_vnni", "flags": [*VNNI, "avx512_bf16"]}


def record(*ratios, provider="cpu", budget="top1=0.98", machine=HERE, noise=0.05):
    """Return a variant's entry in a manifest: a ratio for each shape, and intervals of the same width."""
    shapes = ("1x16", "1x128", "8x128")
    speed = {
        shape: {"speedup": ratio, "low": ratio * (1 - noise), "high": ratio * (1 + noise)}
        for shape, ratio in zip(shapes, ratios, strict=False)
    }
    return {"provider": provider, "reference_provider": "cpu", "budget": budget, "machine": machine, "speed": speed}


@pytest.fixture
def here(monkeypatch):
    """This CPU has VNNI and multiplies bfloat16, whichever it is."""
    flags = cpu.INSTRUCTION_SETS["avx512_vnni"].needs | {"avx512_bf16"}
    monkeypatch.setattr(cpu, "cpu", lambda: cpu.Cpu(model="a test's CPU", flags=flags, physical_cores=2))


@pytest.fixture
def bundle_of(edited):
    """A function that gives the tiny bundle with measured variants: copies of fp32 in name."""

    def made(default, **records):
        def change(manifest):
            fp32 = manifest["variants"]["fp32"]
            for name, fidelity in records.items():
                precision = "bf16" if name == "bf16" else "int8-dynamic"
                requires = fp32["requires"] | {"precision": precision}
                manifest["variants"][name] = fp32 | {"recipe": name, "requires": requires, "fidelity": fidelity}
            manifest["default_variant"] = default

        return edited(change)

    return made


@pytest.fixture
def chosen_of(bundle_of):
    """A function that gives the pairs of variant and provider to try, in order."""

    def made(default, *, provider="auto", candidates=(CPU,), **records):
        manifest = Bundle.open(bundle_of(default, **records)).manifest
        return [(name, row.name) for name, row in choices(manifest, None, provider, candidates)]

    return made


@pytest.mark.usefixtures("here")
def test_the_fastest_of_what_was_measured_here_goes_first(chosen_of):
    records = {"int8": record(1.8, 1.8), "bf16": record(1.2, 2.5, provider="openvino", noise=0.01), "old": None}
    assert chosen_of("int8", **records) == [("int8", "cpu")]  # 1.8 against the mean of 1.2 and 2.5, which is 1.73
    records["bf16"] = record(1.5, 2.5, provider="openvino")
    assert chosen_of("int8", **records) == [("bf16", "openvino"), ("int8", "cpu")]
    # Those of a GPU are not compared with it, and go before as they did.
    order = [("fp32", "cuda"), ("bf16", "openvino"), ("int8", "cpu")]
    assert chosen_of("int8", candidates=(CUDA, CPU), **records) == order
    assert chosen_of("int8", provider="cpu", **records) == [("int8", "cpu")]
    assert chosen_of("int8", provider="openvino", candidates=(OPENVINO,), **records) == [("bf16", "openvino")]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "record_of_bf16",
    [
        record(3, 3, provider="openvino", budget="none"),
        record(3, 3, provider="openvino", budget=None),
        record(3, 3, provider="openvino", machine=HERE | {"flags": list(VNNI)}),
        record(3, 3, provider="openvino", machine=HERE | {"instruction_set": "amx"}),
        record(3, 3, provider="openvino", machine=None),
        record(3, 3, provider="openvino") | {"reference_provider": "cuda"},
        record(3, 3, provider="a provider of the future"),
        record(9, 0.8, provider="openvino"),  # slower than fp32 at one of the shapes
        record(1.85, 1.85, provider="openvino"),  # within the noise of the default's
        record(provider="openvino"),
        record(3, 3, provider="openvino") | {"speed": {"1x16": {"speedup": 3}}},
        record(3, 3, provider="openvino") | {"speed": {"1x16": {"speedup": "3x", "low": 3, "high": 3}}},
        record(3, 3, provider="openvino") | {"speed": {"1x16": {"speedup": float("1e400"), "low": 3, "high": 3}}},
        record(3, 3, provider="openvino") | {"speed": {"1x16": {"speedup": 3, "low": 0, "high": 3}}},
        record(3, 3, provider="openvino") | {"speed": {"1x16": {"speedup": 1e300, "low": 1e300, "high": 1e300}}},
        record(3, 3, provider="openvino") | {"speed": [3]},
        record(3, 3, provider="openvino", budget=["top1=0.98"]),
        record(3, 3, provider="openvino", budget={}),
        record(3, 3, provider="openvino")
        | {"speed": {"64x512": {"speedup": 3, "low": 3, "high": 3}}},  # no shape of both
    ],
)
def test_what_was_not_measured_within_a_budget_here_or_is_not_faster_changes_nothing(tiny_bundle, record_of_bf16):
    manifest = Bundle.open(tiny_bundle).manifest
    fp32 = manifest.variants["fp32"]
    variants = {
        name: dataclasses.replace(
            fp32, requires=dataclasses.replace(fp32.requires, precision=precision), fidelity=fidelity
        )
        for name, precision, fidelity in (
            ("int8", "int8-dynamic", record(1.8, 1.8)),
            ("bf16", "bf16", record_of_bf16),
        )
    }
    changed = dataclasses.replace(manifest, variants=variants, default_variant="int8")
    assert choices(changed, None, "auto", (CPU,))[0] == ("int8", CPU)


@pytest.mark.usefixtures("here")
def test_shapes_that_all_were_timed_at_are_compared(chosen_of):
    records = {"int8": record(1.8, 1.8), "bf16": record(1.2, 2.2, 9, provider="openvino")}
    assert chosen_of("int8", **records)[0] == ("int8", "cpu")
    records["int8"] = record(1.8, 1.8, 1.8)
    assert chosen_of("int8", **records)[0] == ("bf16", "openvino")


def test_a_cpu_that_does_not_multiply_bf16_is_given_none(monkeypatch, bundle_of):
    flags = cpu.INSTRUCTION_SETS["avx2"].needs
    monkeypatch.setattr(cpu, "cpu", lambda: cpu.Cpu(model="a test's CPU", flags=flags, physical_cores=2))
    machine = {"instruction_set": "avx2", "flags": ["avx2"]}
    path = bundle_of("int8", int8=record(1.5, machine=machine), bf16=record(3, provider="openvino", machine=machine))
    manifest = Bundle.open(path).manifest
    assert [speed.variant for speed in fastest_here(manifest)] == ["int8"]
    assert preferred(manifest, "openvino") == "fp32"


def test_bf16_that_is_asked_for_on_a_cpu_without_it_asks_nobody_to_install_anything(monkeypatch, bundle_of):
    flags = cpu.INSTRUCTION_SETS["avx2"].needs
    monkeypatch.setattr(cpu, "cpu", lambda: cpu.Cpu(model="a test's CPU", flags=flags, physical_cores=2))
    with pytest.raises(ProviderError) as raised:
        load(bundle_of("fp32", bf16=record(2, 3, provider="openvino")), variant="bf16")
    assert raised.value.message == (
        "provider 'openvino' does not start here: a test's CPU does not multiply in bf16: choose a variant in fp32, or "
        "another provider"
    )


@pytest.mark.usefixtures("here")
def test_a_provider_that_is_not_here_is_passed_over_and_it_is_said(bundle_of):
    path = bundle_of("fp32", bf16=record(2, 3, provider="openvino"), int8=record(1.5, 1.5))
    said = load(path).describe()
    assert (said["variant"], said["provider"], said["fallback"]) == ("int8", "cpu", None)
    assert said["chosen"].startswith(
        "int8 on cpu is taken by what was measured on this class of CPU (avx512_vnni, with bf16): bf16 on openvino "
        "2.45x, int8 on cpu 1.50x as fast as fp32 on cpu; passed over: provider 'openvino' "
    )
    assert load(path, memory="2G").describe()["variant"] == "int8"
    assert load(path, variant="fp32").describe()["chosen"].startswith("variant 'fp32' was asked for, and cpu is the")
    # What was asked for by name is run, or refused.
    with pytest.raises(ProviderError, match="provider 'openvino'"):
        load(path, variant="bf16")
    with pytest.raises(ProviderError, match="'bf16' is made for openvino, not for cpu"):
        load(path, variant="bf16", provider="cpu")


@pytest.mark.usefixtures("here")
def test_inspect_says_what_was_measured_here_and_what_it_needs(bundle_of):
    path = bundle_of("int8", int8=record(1.8, 1.8), bf16=record(2, 3, provider="openvino"))
    done = CliRunner().invoke(inspect, [str(path)])
    said = re.search(r"  measured on this class of CPU \(avx512_vnni, with bf16\): (.*)", done.output)
    assert re.fullmatch(r"bf16 on openvino 2\.45x( \(.*\))?, int8 on cpu 1\.80x as fast as fp32 on cpu", said[1])
    if OPENVINO.plugin.library is None:
        assert f"({OPENVINO.install})" in said[1]
    told = json.loads(CliRunner().invoke(inspect, [str(path), "--json"]).output)["measured_here"]
    assert [(entry["variant"], entry["provider"], round(entry["speedup"], 2)) for entry in told] == [
        ("bf16", "openvino", 2.45),
        ("int8", "cpu", 1.8),
    ]
    alone = CliRunner().invoke(inspect, [str(bundle_of("int8", int8=record(1.8, 1.8)))])
    assert "measured on this class" not in alone.output  # the default alone: the table marks it


@pytest.mark.usefixtures("here")
def test_the_reason_says_what_chose(bundle_of):
    manifest = Bundle.open(
        bundle_of("int8", int8=record(1.8, 1.8), bf16=record(1.9, 1.8, provider="openvino"))
    ).manifest
    said = reason(manifest, (None, "auto"), ("int8", CPU), [])
    assert said == (
        "int8 is the bundle's default, and nothing measured on this class of CPU (avx512_vnni, with bf16) is faster "
        "beyond the noise: int8 on cpu 1.80x, bf16 on openvino 1.85x as fast as fp32 on cpu"
    )
    assert reason(manifest, ("int8", "cpu"), ("int8", CPU), []) == "variant 'int8' was asked for"
    assert reason(manifest, (None, "cuda"), ("fp32", CUDA), []).startswith("fp32 is what cuda takes of this bundle")
    plain = dataclasses.replace(manifest, variants={"fp32": manifest.variants["fp32"]}, default_variant="fp32")
    assert reason(plain, (None, "auto"), ("fp32", CPU), ["why not"]) == (
        "fp32 is the bundle's default, and nothing else was measured to be faster on this class of CPU (avx512_vnni, "
        "with bf16); passed over: why not"
    )


@pytest.mark.usefixtures("here")
def test_the_reason_does_not_deny_what_was_measured_and_not_taken(bundle_of):
    """A GPU goes before it, or its provider does not start here."""
    manifest = Bundle.open(bundle_of("fp32", int8=record(1.8, 1.8))).manifest
    assert reason(manifest, (None, "auto"), ("fp32", CUDA), []) == (
        "fp32 on cuda is the bundle's default, and a GPU goes before what was measured on this class of CPU "
        "(avx512_vnni, with bf16)"
    )
    manifest = Bundle.open(bundle_of("fp32", bf16=record(2, 3, provider="openvino"))).manifest
    assert reason(manifest, (None, "auto"), ("fp32", CPU), ["why not"]) == (
        "fp32 is the bundle's default, and nothing that was measured on this class of CPU (avx512_vnni, with bf16) "
        "starts here: bf16 on openvino 2.45x as fast as fp32 on cpu; passed over: why not"
    )
