"""Format 1 is read for good: a tiny bundle that bertport 0.1.0 wrote, with its int8-dynamic variant.

tests/data/bundle-0.1.0 was made by the code of commit e2c2416: `build_checkpoint` with a vocabulary of 74 entries, one
layer of width 16 and 24 positions, `export`, then `quantize --recipe int8-dynamic --isa avx2 --force`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from bertport.runtime import cli, load
from bertport.runtime.bundle.changes import add_variant, replace_figures, upgrade
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.reading import from_json, read_manifest
from bertport.runtime.bundle.select import preferred, providers_for, suits
from bertport.runtime.bundle.workspace import Workspace
from bertport.runtime.errors import BundleError
from bertport.runtime.providers.table import PROVIDERS
from tests.conftest import OLD

DIGEST = "sha256:1c6f4e4751f9e5889bab60fb07adfa195e17203f134922aaa5306b0fe469c6ae"
PROMPT = "the capital of france is [MASK]."
PAIR = ("he went to the store.", "the milk is in the city.")


def run(*arguments):
    done = CliRunner().invoke(cli.app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def hashes(directory):
    return {
        path.relative_to(directory): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


def answers(path, variant):
    model = load(path, variant=variant, provider="cpu", threads=1)
    return model.fill_mask(PROMPT, top_k=5), model.next_sentence(*PAIR), model.features("the man").tolist()


def test_it_is_as_0_1_0_wrote_it():
    content = (OLD / "manifest.json").read_bytes()
    assert json.loads(content)["format_version"] == 1
    bundle = Bundle.open(OLD)
    assert (bundle.format_version, bundle.digest) == (1, DIGEST)
    assert "sha256:" + hashlib.sha256(content).hexdigest() == DIGEST
    assert bundle.verify() == ()


@pytest.mark.parametrize("variant", ["portable", "fp32"])
def test_it_gives_the_answers_that_0_1_0_gave(variant):
    filled, pair, vectors = answers(OLD, variant)
    assert [answer["token_str"] for answer in filled][:2] == ["##.", "##p"]
    assert [answer["score"] for answer in filled][:2] == pytest.approx([0.0446, 0.0445], abs=1e-4)
    assert pair["label"] == "not_next"
    assert pair["probabilities"] == pytest.approx({"is_next": 0.3941724, "not_next": 0.6058276}, abs=1e-6)
    assert vectors[0][:3] == pytest.approx([1.488447, -0.8793192, -0.3938718], abs=1e-5)


def test_the_quantized_variant_gives_the_answers_that_0_1_0_gave():
    _, pair, vectors = answers(OLD, "int8-dynamic")
    assert pair["probabilities"]["is_next"] == pytest.approx(
        0.3954675, abs=2e-3
    )  # CPUs sum 8-bit products in their own order
    assert vectors[0][:3] == pytest.approx([1.4850981, -0.8814015, -0.39391866], abs=2e-2)


def test_upgrading_changes_the_manifest_and_no_answer(old):
    variants = tuple(Bundle.open(old).manifest.variants)
    given, kept = [answers(old, variant) for variant in variants], hashes(old)
    before, after = upgrade(old)
    assert (before.format_version, before.digest) == (1, DIGEST)
    assert (after.format_version, after.manifest) == (2, before.manifest)
    assert hashes(old) == kept
    assert [answers(old, variant) for variant in variants] == given
    again, same = upgrade(old)
    assert again == same == after


def test_a_digest_is_asked_for(old):
    assert load(old, provider="cpu", digest=DIGEST.upper().replace("SHA256", "sha256")).next_sentence(*PAIR)
    with pytest.raises(BundleError, match=f"has the digest {DIGEST}, and sha256:000.* was asked for"):
        load(old, digest="0" * 64)
    upgrade(old)
    with pytest.raises(BundleError, match=f"and {DIGEST} was asked for"):
        load(old, digest=DIGEST)


def test_the_command_line_reads_it(old):
    assert DIGEST in run("verify", old)
    assert DIGEST in run("verify", old, "--digest", DIGEST)
    said = json.loads(run("inspect", old, "--json"))
    assert (said["format_version"], said["digest"], said["name"]) == (1, DIGEST, "tiny-0.1.0")
    assert "int8-dynamic" in run("inspect", old)
    assert json.loads(run("next-sentence", *PAIR, "-m", old, "--variant", "fp32", "--json"))["follows"] is False


def test_a_variant_that_is_added_makes_it_format_2(old):
    bundle = Bundle.open(old)
    fp32 = bundle.manifest.variants["fp32"]
    with Workspace.beside(bundle) as work:
        made = shutil.copy(old / fp32.file, work.directory / "copy.onnx")
        file = work.reserve("onnx/copy.onnx")
        added = add_variant(work, "copy", dataclasses.replace(fp32, file=file), {file: Path(made)})
    assert (added.format_version, added.verify()) == (2, ())
    assert added.manifest.variants == {**bundle.manifest.variants, "copy": added.manifest.variants["copy"]}
    assert answers(old, "copy") == answers(old, "fp32")


def test_new_figures_make_it_format_2(old):
    bundle = Bundle.open(old)
    measured = dataclasses.replace(bundle.manifest.variants["int8-dynamic"], fidelity={"top1": 1.0})
    changed = replace_figures(bundle, "int8-dynamic", measured, default=lambda now: now.manifest.default_variant)
    assert changed.format_version == 2
    assert changed.manifest.variants["int8-dynamic"].fidelity == {"top1": 1.0}


@pytest.fixture
def held_out(tmp_path):
    """A text in the words of the old bundle."""
    path = tmp_path / "text.txt"
    starts = ("he went to the store", "the man is in the city", "milk is in the store", "paris is a city of france")
    lines = [f"{a}. {b}. {c}.\n" for a in starts for b in starts for c in starts[:2]]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_recipe_that_is_made_today_makes_it_format_2(old, held_out):
    from bertport.measure.budget import Budget
    from bertport.quantize.job import Options
    from bertport.quantize.quantizer import quantize

    settings = Options(
        isa="avx2", budget=Budget(bounds={}), text=held_out, calibration=held_out, positions=20, pairs=4, force=True
    )
    quantize(old, ["int8-weight-only"], options=settings)
    changed = Bundle.open(old)
    assert changed.format_version == 2
    assert set(changed.manifest.variants) == {"portable", "fp32", "int8-dynamic", "int8-weight-only"}
    assert changed.verify() == ()
    assert load(old, variant="int8-weight-only", provider="cpu").next_sentence(*PAIR)["label"] == "not_next"


def test_unknown_fields_are_ignored_and_not_kept():
    value = json.loads((OLD / "manifest.json").read_text(encoding="utf-8"))
    known = from_json(value)
    value["colour"] = value["source"]["colour"] = value["variants"]["fp32"]["colour"] = "blue"
    assert from_json(value) == known
    assert b"colour" not in from_json(value).to_bytes()


PLUGINS = {name for name, provider in PROVIDERS.items() if provider.plugin is not None}
"""Providers that 0.1.0 did not have; its `openvino` was another."""
RUNS = {
    # recipe: the providers that 0.1.0 wrote into a variant's entry, but for its openvino
    "fp32": {"cpu", "cuda", "tensorrt"},
    "fp32-weights16": {"cpu", "cuda", "tensorrt"},
    "int8-dynamic": {"cpu"},
    "int8-static": {"cuda", "tensorrt"},
    "int8-static-cpu": {"cpu"},
    "int8-weight-only": {"cpu"},
    "int4-weight-only": {"cpu"},
    "fp16": {"cuda", "tensorrt"},
}
DOMAINS = {"int8-dynamic": {"com.microsoft": 1}, "int4-weight-only": {"com.microsoft": 1}}
"""Operators beside the standard ones, by recipe."""
TAKEN = {
    # what is there beside fp32: what 0.1.0 took on tensorrt, cuda and cpu, where fp32 is the default
    ("portable", "fp32"): ("fp32", "fp32", "fp32"),
    ("portable", "fp32", "fp16"): ("fp16", "fp16", "fp32"),
    ("portable", "fp32", "int8-static"): ("int8-static", "fp32", "fp32"),
    ("portable", "fp32", "int8-static", "fp16"): ("fp16", "fp16", "fp32"),
    ("portable", "fp32", "int8-static-cpu"): ("fp32", "fp32", "fp32"),
    ("portable", "fp32", "int8-dynamic", "int4-weight-only"): ("fp32", "fp32", "fp32"),
    ("portable", "int8-dynamic"): ("portable", "portable", "int8-dynamic"),
    ("portable", "fp16"): ("fp16", "fp16", "portable"),
    ("int8-dynamic",): (None, None, "int8-dynamic"),
}


def of_recipes(*names, default=None):
    """A manifest of format 1 with a variant of each recipe, as 0.1.0 would have written it."""
    value = json.loads((OLD / "manifest.json").read_text(encoding="utf-8"))
    plain = value["variants"]["fp32"]
    value["variants"] = {
        name: {
            **plain,
            "recipe": "fp32" if name == "portable" else name,
            "kind": "portable" if name == "portable" else "serving",
            "providers": sorted(RUNS["fp32" if name == "portable" else name]),
            "domains": DOMAINS.get(name, {}),
        }
        for name in names
    }
    value["default_variant"] = default or names[-1]
    return read_manifest(json.dumps(value).encode()).manifest


def test_what_runs_where_is_what_0_1_0_wrote():
    variants = of_recipes(*RUNS).variants
    assert {
        name: {provider for provider in PROVIDERS.keys() - PLUGINS if suits(variants[name].requires, provider)}
        for name in RUNS
    } == RUNS
    assert providers_for(variants["fp32"].requires)[0] == "cpu"
    upgraded = from_json(of_recipes(*RUNS).to_json()).variants
    assert {name: set(providers_for(upgraded[name].requires)) - PLUGINS for name in RUNS} == RUNS


@pytest.mark.parametrize("names", TAKEN)
def test_what_is_taken_where_is_what_0_1_0_took(names):
    manifest = of_recipes(*names, default="fp32" if "fp32" in names else names[-1])
    for known in (manifest, from_json(manifest.to_json())):
        assert tuple(preferred(known, provider) for provider in ("tensorrt", "cuda", "cpu")) == TAKEN[names]


def test_what_the_fixture_runs_on():
    providers = {
        name: set(providers_for(variant.requires)) for name, variant in Bundle.open(OLD).manifest.variants.items()
    }
    assert providers == {
        "portable": {"cpu", "cuda", "tensorrt", *PLUGINS},
        "fp32": {"cpu", "cuda", "tensorrt", *PLUGINS},
        "int8-dynamic": {"cpu"},
    }


def test_what_a_new_bundle_runs_on(tiny_bundle):
    providers = {
        name: set(providers_for(variant.requires))
        for name, variant in Bundle.open(tiny_bundle).manifest.variants.items()
    }
    assert providers == {name: {"cpu", "cuda", "tensorrt", *PLUGINS} for name in ("portable", "fp32")}
