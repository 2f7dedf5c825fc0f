"""The bundles that plugins are tried on: the default model, and tiny ones of every family and every other head."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from bench.checkout import ROOT
from bench.performance.models import few_texts
from bench.quantization.families import CLASSES, TINY
from bench.random_weights import save_seeded
from bertport.measure.budget import NO_BUDGET, Budget
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import Bundle

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

__all__ = ["DEFAULT", "HEADS", "PLACE", "bundles", "bundles_of"]

PLACE = ROOT / "out" / "bench" / "plugins"
"""Directory of what these programs install and make."""
DEFAULT = "default model"
HEADS = {
    "classification": "BertForSequenceClassification",
    "tagging": "BertForTokenClassification",
    "answers": "BertForQuestionAnswering",
    "choice": "BertForMultipleChoice",
    "hidden states": "BertModel",
}
"""transformers' classes of the heads that the families below do not have; the default model has those of BERT's
pretraining."""
NARROW = {"mobilebert": {"embedding_size": 16, "true_hidden_size": 32, "intra_bottleneck_size": 32}}
"""By model type, more sizes of a tiny one: a MobileBERT's embeddings are narrower than its layers."""
TEXTS = 10
"""Paragraphs that variants are calibrated on: engines and differences from the CPU do not depend on how well."""


def bundles(recipes: Iterable[str] = (), only: Collection[str] | None = None) -> dict[str, Path]:
    """Return the bundles by what a table calls them; those that are not there yet are made.

    Args:
        recipes: of the variants that they are to have beside fp32, but for those that came with the default model.
        only: the bundles to return; None for all.
    """
    wanted = {DEFAULT: "", **{f"tiny bert, {head}": name for head, name in HEADS.items()}}
    wanted |= {f"tiny {family}": name for family, name in CLASSES.items()}
    return bundles_of(wanted, recipes, only)


def bundles_of(
    classes: Mapping[str, str], recipes: Iterable[str] = (), only: Collection[str] | None = None
) -> dict[str, Path]:
    """Return bundles by what a table calls them; those that are not there yet are made.

    Args:
        classes: transformers' class of each, by that title; the default model's is not read.
        recipes: as `bundles` takes them; so the next.
        only: the bundles to return.
    """
    made = {}
    for title, model_class in classes.items():
        if only is not None and title not in only:
            continue
        place = PLACE / "bundles" / title.replace(" ", "-").replace(",", "")
        if not (place / "manifest.json").is_file():
            shutil.rmtree(place, ignore_errors=True)
            if title == DEFAULT:
                shutil.copytree(default_bundle(), place)
            else:
                _export(model_class, place)
        _quantize(place, recipes)
        made[title] = place
    return made


def _export(model_class: str, place: Path) -> None:
    """Export a model of seeded random weights, with the default model's tokenizer."""
    import transformers

    from bertport.export import export

    made = getattr(transformers, model_class)
    tokenizer = json.loads((default_bundle() / "tokenizer.json").read_text(encoding="utf-8"))
    ids = {entry["content"]: entry["id"] for entry in tokenizer["added_tokens"]}
    roles = {"pad": "[PAD]", "bos": "[CLS]", "cls": "[CLS]", "eos": "[SEP]", "sep": "[SEP]"}
    sizes: dict[str, Any] = {**TINY, **NARROW.get(made.config_class.model_type, {})}
    sizes |= {f"{role}_token_id": ids[token] for role, token in roles.items()}
    sizes["vocab_size"] = len(tokenizer["model"]["vocab"])
    if model_class.startswith(("Roberta", "XLMRoberta", "Camembert", "MPNet")):
        sizes["max_position_embeddings"] = 514  # the first two are the padding's
    checkpoint = place.with_name(f"{place.name}-checkpoint")
    save_seeded(made(made.config_class(**sizes)), checkpoint)
    export(checkpoint, place)
    shutil.rmtree(checkpoint)


def _quantize(place: Path, recipes: Iterable[str]) -> None:
    """Add the variants that a bundle lacks."""
    from bertport.quantize.job import Options
    from bertport.quantize.quantizer import quantize

    lacking = [name for name in recipes if name not in Bundle.open(place).manifest.variants]
    if not lacking:
        return
    few = place.with_name("calibration.txt")
    few.write_text(few_texts(TEXTS), encoding="utf-8")
    asked = Options(budget=Budget.parse(NO_BUDGET), calibration=few, positions=100, pairs=20, force=True)
    quantize(place, lacking, options=asked)
