"""A variant that was measured on another instruction set: inspect and doctor say so; what may be wrong warns."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

from bertport.runtime import cli, doctor, load
from bertport.runtime.bundle import measured_elsewhere
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.digest import sealed
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.errors import ProviderError
from bertport.runtime.providers import cpu as machine
from bertport.runtime.providers.cpu import INSTRUCTION_SETS, cpu
from tests.conftest import contents

TWICE = """
import sys
from bertport.runtime import load
for _ in range(2):
    load(sys.argv[1], variant="int8-dynamic", provider="cpu")
print("loaded")
"""
SATURATING = ("avx2", "avx512", "generic")


@pytest.fixture
def remade(quantized, tmp_path):
    """Return a copy of the quantized bundle whose variant says another machine, target or recipe."""

    def copy(measured=None, **changes):
        path = shutil.copytree(quantized[0].path, tmp_path / f"bundle-{len(list(tmp_path.iterdir()))}")
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        variant = manifest["variants"]["int8-dynamic"]
        if measured:
            variant["fidelity"]["machine"]["instruction_set"] = measured
        if "isa" in changes:
            variant["requires"]["isa"] = changes.pop("isa")
        variant |= changes
        (path / "manifest.json").write_bytes(sealed(manifest))
        return path

    return copy


@pytest.fixture
def on(monkeypatch):
    """Make this machine one of another instruction set, for what asks in this process."""

    def become(name):
        flags = INSTRUCTION_SETS[name].needs if name in INSTRUCTION_SETS else frozenset()
        machine_cpu = dataclasses.replace(cpu(), flags=flags)
        monkeypatch.setattr(machine, "cpu", lambda: machine_cpu)
        monkeypatch.setattr(measured_elsewhere, "cpu", lambda: machine_cpu)
        monkeypatch.setattr(measured_elsewhere, "_warned", set())
        assert machine_cpu.instruction_set == name

    return become


def said_by(*arguments):
    done = CliRunner().invoke(cli.app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done


@pytest.mark.parametrize("measured", ["another", None])
def test_loading_says_nothing(remade, measured):
    program = [sys.executable, "-W", "error", "-c", TWICE, str(remade(measured))]
    answer = subprocess.run(program, capture_output=True, text=True, check=True)
    assert answer.stdout == "loaded\n"
    assert not answer.stderr


@pytest.mark.parametrize("here", [*INSTRUCTION_SETS, "generic"])
def test_the_first_answer_comes_without_a_warning_on_every_cpu(on, here, caplog):
    """The embedded variant is right on all of them: its weights are made for CPUs that overflow."""
    on(here)
    done = said_by("fill-mask", "He poured her a cup of [MASK].")
    assert done.stderr == ""
    assert not caplog.records


HERE = ("amx", "avx2")
"""Instruction set of the measurement, and one that differs; the others differ as that one does."""


@pytest.mark.parametrize(
    "here",
    [
        *HERE,
        *(pytest.param(each, marks=pytest.mark.slow) for each in (*INSTRUCTION_SETS, "generic") if each not in HERE),
    ],
)
def test_inspect_and_doctor_tell(on, here, remade, monkeypatch):
    monkeypatch.setattr(doctor, "SIZE", 64)
    path = remade("amx")
    on(here)
    sentence = f"measured on amx; this machine has {here}, where speed and accuracy may differ"
    for command in ("inspect", "doctor"):
        said = json.loads(said_by(command, path, "--json").stdout)
        told = said.get("measured_elsewhere", {}) if command == "inspect" else said["bundle"]["measured_elsewhere"]
        text = said_by(command, path).stdout
        if here == "amx":
            assert not told
            assert "where speed and accuracy may differ" not in text
        else:
            assert told == {"int8-dynamic": f"{sentence}: bertport quantize --remeasure {path}"}
            assert f"int8-dynamic was {sentence}: bertport quantize --remeasure {path}" in text


def test_nobody_is_asked_to_measure_the_embedded_bundle_again(on):
    [measured] = {
        variant.fidelity["machine"]["instruction_set"]
        for variant in Bundle.open(default_bundle()).manifest.variants.values()
        if variant.fidelity
    }
    on("arm64")
    for place in ((), (default_bundle(),)):
        text = said_by("inspect", *place).stdout
        assert f"int8-dynamic was measured on {measured}; this machine has arm64" in text
        assert "remeasure" not in text


@pytest.mark.parametrize("here", [*INSTRUCTION_SETS, "generic"])
@pytest.mark.parametrize(
    "variant",
    [
        ("amx", "int8-dynamic"),
        ("of the future", "int8-static"),
        ("avx2", "int8-dynamic"),
        ("generic", "int8-dynamic"),
        ("amx", "int8-weight-only"),
        ("amx", "fp16"),
    ],
)
def test_what_may_be_wrong_warns_and_nothing_else(on, remade, caplog, here, variant):
    """A variant of another origin that does not say what it is made for."""
    measured, recipe = variant
    path = remade(measured, isa=None, recipe=recipe)
    on(here)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            load(path, variant="int8-dynamic", provider="cpu")
    wrong = here in SATURATING and variant in {("amx", "int8-dynamic"), ("of the future", "int8-static")}
    assert len(caplog.records) == wrong
    if wrong:
        assert f"was measured on {measured} and does not say which CPUs" in caplog.text
        assert "remeasure" not in caplog.text


@pytest.mark.parametrize("here", [*INSTRUCTION_SETS, "generic"])
@pytest.mark.parametrize("isa", [*INSTRUCTION_SETS, "of the future"])
def test_one_that_says_it_is_refused_or_right(on, remade, caplog, here, isa):
    path = remade("amx", isa=isa)
    on(here)
    if here in SATURATING and isa not in SATURATING:
        with pytest.raises(ProviderError, match="its 8-bit products overflow"):
            load(path, variant="int8-dynamic", provider="cpu")
        assert load(path, provider="cpu").variant != "int8-dynamic"
    else:
        assert load(path, variant="int8-dynamic", provider="cpu").variant == "int8-dynamic"
    assert not caplog.records


def test_one_that_overflows_here_is_not_measured_again(on, remade):
    """Its figures would be those of wrong products, and take the place of those that are right."""
    path = remade("amx", isa="amx")
    on("avx2")
    before = contents(path)
    done = CliRunner().invoke(cli.app, ["quantize", str(path), "--remeasure"])
    assert done.exit_code == 2
    assert "'int8-dynamic' is made for amx, and its 8-bit products overflow on this CPU (avx2), so that" in done.stderr
    assert contents(path) == before
