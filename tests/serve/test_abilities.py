"""Tasks that a bundle cannot do are not listed, and asking for one is refused in one sentence, everywhere."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

from bertport.export.exporter import export
from bertport.measure.budget import Budget
from bertport.quantize.job import Options
from bertport.quantize.quantizer import quantize
from bertport.runtime import load
from bertport.runtime.cli import app
from bertport.runtime.errors import InputTextError, MissingHeadError, UsageError
from tests.broken import copied, edited_json
from tests.conftest import WORDS, build_checkpoint
from tests.serve.running import Running


@pytest.fixture(scope="module")
def one_segment(tmp_path_factory):
    """A bundle of a checkpoint with an NSP head and one segment, and what the export said of it."""
    place = tmp_path_factory.mktemp("one-segment")
    notes = []
    checkpoint = build_checkpoint(place / "checkpoint", type_vocab_size=1, num_hidden_layers=1)
    bundle = export(checkpoint, place / "bundle", progress=lambda event: notes.append(event.text))
    return bundle, notes


def test_one_segment_means_no_next_sentence(one_segment):
    bundle, notes = one_segment
    assert list(bundle.manifest.heads) == ["mlm", "pooler"]
    [context] = [note for note in notes if "one segment" in note and "type_vocab" in note]
    assert context.endswith("the bundle has no next-sentence prediction")
    assert not any("hold no nsp" in note for note in notes)
    model = load(bundle.path, provider="cpu")
    assert model.describe()["tasks"] == ["fill-mask", "features"]
    with pytest.raises(MissingHeadError, match="next-sentence needs the head 'nsp'"):
        model.next_sentence("a b", "c d")
    assert len(model.features("a b", pooling="mean")) == 32


@pytest.mark.parametrize("pair", [("a b", "c d"), ("a b " * 40, "c d " * 5000)])
def test_pairs_are_refused_by_a_model_of_one_segment(one_segment, pair):
    model = load(one_segment[0].path, provider="cpu")
    with pytest.raises(
        InputTextError, match=r"a pair of texts and the model knows 1 segment \(type_vocab_size\): give"
    ):
        model.features([pair], truncation=True)


def test_doctor_answers_for_a_model_of_one_segment(one_segment):
    result = CliRunner().invoke(app, ["doctor", str(one_segment[0].path), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["speed"]["task"] == "fill-mask"


@pytest.mark.slow
def test_a_model_of_one_segment_is_quantized_and_served(one_segment, tmp_path):
    place = shutil.copytree(one_segment[0].path, tmp_path / "bundle")
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"The {word} was small. He saw the old {word} by night." for word in WORDS[:120]) + "\n")
    options = Options(text=text, calibration=text, budget=Budget(bounds={}), positions=60, pairs=8, force=True)
    recipes = ["int8-dynamic", "int8-static-cpu"]
    assert [variant.name for variant in quantize(place, recipes, options=options)] == recipes
    with Running(f"one={place}") as running:
        assert running.get("/ready")[0] == 200
        assert running.stop() == 0


def test_a_tokenizer_without_a_mask_offers_no_fill_mask(tiny_bundle, tmp_path):
    def rename(settings):
        settings.update(mask_token="[GONE]")  # noqa: S106 — no password

    # transformers before 5 writes a second file of them.
    names = [name for name in ("tokenizer_config", "special_tokens_map") if (tiny_bundle / f"{name}.json").exists()]
    files = {f"{name}_json": edited_json(rename) for name in names}
    model = load(copied(tiny_bundle, tmp_path / "bundle", **files), provider="cpu")
    assert model.describe()["tasks"] == ["next-sentence", "features"]
    with pytest.raises(UsageError, match=r"has no mask token '\[GONE\]', so nothing can be filled"):
        model.fill_mask("the [MASK] is small .")


@pytest.mark.parametrize(
    ("length", "tasks"), [(4, ["fill-mask", "features"]), (5, ["fill-mask", "next-sentence", "features"])]
)
def test_a_model_too_short_for_a_pair_offers_no_next_sentence(tiny_bundle, tmp_path, length, tasks):
    model = load(copied(tiny_bundle, tmp_path / "bundle", manifest=lambda known: known.update(max_length=length)))
    assert model.describe()["tasks"] == tasks
    if length == 5:
        assert model.next_sentence("a", "b")["label"]
        return
    with pytest.raises(
        MissingHeadError, match=r"next-sentence takes two texts, and .* takes 4 tokens, too few for any"
    ):
        model.next_sentence("a", "b")
