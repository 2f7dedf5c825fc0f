"""Evaluation and the model card: scores are right, and the card says what was measured and nothing else."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import evaluate
import export_default
from bertport.measure.budget import Budget
from bertport.quantize.card import refresh_card
from bertport.quantize.job import Options
from bertport.quantize.quantizer import quantize
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.heads import SEQUENCE_CLASSIFICATION
from evaluation.card import render_card, write_card
from evaluation.record import TRAINING, read_record
from evaluation.scorers import BundleScorer, CheckpointScorer, serving_variants
from evaluation.scores import score_batches, score_sentences, summarize
from pretraining.corpus import Corpus, tokenize
from pretraining.errors import RecipeError
from pretraining.objective import BatchSource, SpecialTokens
from pretraining.trainer import heldout_batches
from pretraining.vocabulary import special_tokens
from tests.heads import head_bundle

SENTENCES = (
    "the king went home and read a book.",
    "my hello world is a small house.",
    "she bought bread and milk at the large store.",
    "three men walk through the city at night.",
    "the doctor and the nurse drink tea, not coffee.",
    "a white bird began to talk!",
)


@pytest.fixture(scope="module")
def heldout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Held-out text of two sources, in the words of the tiny bundle."""
    path = tmp_path_factory.mktemp("heldout") / "heldout.jsonl"
    rng = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(12):
            text = " ".join(s[0].upper() + s[1:] for s in rng.choice(SENTENCES, size=150).tolist())
            file.write(json.dumps({"id": f"{'books' if number % 2 else 'openstax'}/x#{number}", "paragraphs": [text]}))
            file.write("\n")
    return path


@pytest.fixture(scope="module")
def corpus(heldout: Path, tiny_bundle: Path) -> Corpus:
    return tokenize(heldout, BundleScorer(tiny_bundle, "portable").tokenizer)


@pytest.fixture(scope="module")
def special(tiny_bundle: Path) -> SpecialTokens:
    return special_tokens(BundleScorer(tiny_bundle, "portable").tokenizer)


class Oracle:
    """Knows the answers: gives every label the highest logit but for every fourth, which comes second."""

    def __init__(self, corpus: Corpus, special: SpecialTokens, *, size: int) -> None:
        self.size = size
        source = BatchSource(corpus, special, tokens_per_batch=1024, seed=3)
        self.batches = heldout_batches(source, rows=32, length=64)
        self.known = {batch.input_ids.tobytes(): batch for batch in self.batches}

    def __call__(self, input_ids: Any, token_type_ids: Any, positions: Any) -> tuple[Any, Any]:
        batch = self.known[input_ids.tobytes()]
        assert np.array_equal(token_type_ids, batch.token_type_ids)
        mlm = np.zeros((len(positions), self.size), dtype=np.float32)
        mlm[np.arange(len(positions)), batch.masked_labels] = 5
        mlm[::4, 0] = 9
        nsp = np.zeros((len(input_ids), 2), dtype=np.float32)
        nsp[np.arange(len(nsp)), batch.next_sentence_labels] = 1
        nsp[:2] = nsp[:2, ::-1]
        return mlm, nsp


def test_scores_are_those_of_a_model_that_is_known(corpus: Corpus, special: SpecialTokens) -> None:
    oracle = Oracle(corpus, special, size=special.vocab_size)
    sums = score_batches(oracle, oracle.batches, corpus)
    scores = summarize(sums, np.ones(len(corpus.names), dtype=bool))
    masked = sum(len(batch.masked_labels) for batch in oracle.batches)
    second = sum(-(-len(batch.masked_labels) // 4) for batch in oracle.batches)
    assert scores["mlm_top1"]["count"] == masked
    assert scores["mlm_top1"]["value"] == pytest.approx(1 - second / masked, abs=1e-4)
    assert scores["mlm_top5"]["value"] == 1.0
    assert scores["nsp_accuracy"]["value"] == pytest.approx(1 - 2 * len(oracle.batches) / 32)
    others = special.vocab_size - 1
    first_loss = np.log(1 + others * np.exp(-5))
    second_loss = np.log(np.exp(0) * (others - 1) + np.exp(5) + np.exp(9)) - 5
    loss = (first_loss * (masked - second) + second_loss * second) / masked
    assert scores["mlm_perplexity"]["value"] == pytest.approx(np.exp(loss), rel=1e-3)
    for name in ("mlm_top1", "mlm_perplexity", "nsp_accuracy"):
        assert scores[name]["low"] <= scores[name]["value"] <= scores[name]["high"]


def test_sources_add_up(corpus: Corpus, special: SpecialTokens) -> None:
    oracle = Oracle(corpus, special, size=special.vocab_size)
    sums = score_batches(oracle, oracle.batches, corpus)
    books = np.array([name.startswith("books") for name in corpus.names])
    parts = [summarize(sums, kept) for kept in (books, ~books)]
    whole = summarize(sums, np.ones(len(books), dtype=bool))
    for name in ("mlm_top1", "nsp_accuracy"):
        assert sum(part[name]["count"] for part in parts) == whole[name]["count"]
        assert all(part[name]["count"] for part in parts)


def test_a_uniform_model_is_as_perplexed_as_its_vocabulary_is_large(corpus: Corpus, special: SpecialTokens) -> None:
    seen: list[Any] = []

    def uniform(input_ids: Any, token_type_ids: Any, positions: Any) -> tuple[Any, Any]:
        assert not token_type_ids.any()
        seen.append((input_ids, positions))
        return np.zeros((len(positions), special.vocab_size), np.float32), np.zeros((len(input_ids), 2), np.float32)

    sums = score_sentences(uniform, corpus, special, sentences=20, seed=1)
    scores = summarize(sums, np.ones(len(corpus.names), dtype=bool))
    assert scores["pseudo_perplexity"]["value"] == pytest.approx(special.vocab_size, rel=1e-4)
    for input_ids, positions in seen:
        assert (input_ids == special.mask).sum() == len(input_ids) == len(positions), "one token of each row is hidden"
        assert (input_ids.reshape(-1)[positions] == special.mask).all()


def test_a_bundle_scores_as_its_checkpoint_does(
    tiny_bundle: Path, tiny_checkpoint: Path, corpus: Corpus, special: SpecialTokens
) -> None:
    source = BatchSource(corpus, special, tokens_per_batch=512, seed=2)
    scorers = [CheckpointScorer(tiny_checkpoint)]
    scorers += [BundleScorer(tiny_bundle, name) for name in ("portable", *serving_variants(Bundle.open(tiny_bundle)))]
    assert len(scorers) > 2
    for batch in heldout_batches(source, rows=8, length=32, rows_per_batch=4):
        reference, *others = (
            scorer(batch.input_ids, batch.token_type_ids, batch.masked_positions) for scorer in scorers
        )
        for other in others:
            for expected, actual in zip(reference, other, strict=True):
                # The export's own tolerance.
                np.testing.assert_allclose(actual, expected, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path, heldout: Path) -> Path:
    """The record of a made-up run, with a real evaluation of the tiny bundle."""
    directory = tmp_path_factory.mktemp("training")
    run = {
        "settings": {"start": "x", "start_sha256": "0" * 64, "dtype": "float32", "seed": 1},
        "schedule_tokens": [4000, 3000],
        "schedule": {
            "steps": 6,
            "tokens_per_batch": 512,
            "peak_rate": 0.0005,
            "warmup": 0.04,
            "length": 128,
            "long_length": 512,
            "weight_decay": 0.01,
            "betas": [0.9, 0.98],
            "epsilon": 1e-6,
            "clip": 1.0,
        },
        "progress": {"step": 6, "anchors": 24, "tokens": 3072, "seconds": 7200.0},
        "machine": "2 threads of a made-up CPU",
    }
    (directory / "run.json").write_text(json.dumps(run), encoding="utf-8")
    row = {"train_mlm_loss": 5.0, "heldout_mlm_loss": 5.1, "heldout_mlm_top1": 0.21, "heldout_nsp_accuracy": 0.55}
    rates = {2: 1e-4, 4: 0.0, 6: 0.0}  # a run that had ended, and was taken up again
    rows = [json.dumps({"step": step, "tokens": 512 * step, "rate": rates[step], **row}) for step in rates]
    (directory / "log.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    output = directory / "evaluation.json"
    result = CliRunner().invoke(
        evaluate.main,
        [str(tiny_bundle), "--heldout", str(heldout), "--output", str(output), "--share", "0.02"],
    )
    assert result.exit_code == 0, result.output
    return directory


def test_the_card_shows_every_prompt_and_what_was_measured(tiny_bundle: Path, training: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    kept = shutil.copytree(training, tmp_path / "training")
    write_card(bundle, kept)
    card = (bundle / "README.md").read_text(encoding="utf-8")
    assert "$" not in card.replace("$\\", "")
    prompts = json.loads((Path(evaluate.__file__).parent / "prompts.json").read_text(encoding="utf-8"))
    for text in (*prompts["fill_mask"], *prompts["bias"]):
        assert f"| {text} | " in card
    for pair in prompts["next_sentence"]:
        assert pair["continuation"] in card
        assert pair["stranger"] in card
    evaluation = json.loads((kept / "evaluation.json").read_text(encoding="utf-8"))
    for variant, samples in evaluation["scores"].items():
        for parts in samples.values():
            assert set(parts) == {"all", "books", "openstax"}
        assert f"`{variant}` | 128 tokens | all | {samples['128']['all']['mlm_top1']['value']:.1%}" in card
    assert re.search(r"masked words, top 1 \| at least 38% \| \d\.\d% \| missed", card)
    assert "first made for 0.004 million tokens" in card
    assert "ended at 0.0 million tokens and was taken up again" in card
    assert "Quantized variants" not in card
    assert "2.0 hours of stepping on 2 threads of a made-up CPU" in card
    assert (kept / "learning-curve.svg").stat().st_size < 100_000
    first = (kept / "learning-curve.svg").read_bytes()
    write_card(bundle, kept)
    assert (kept / "learning-curve.svg").read_bytes() == first
    assert Bundle.open(bundle).verify() == ()


@pytest.mark.slow
def test_the_card_keeps_the_section_on_quantized_variants(tiny_bundle: Path, training: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    kept = shutil.copytree(training, tmp_path / "training")
    everything = Options(budget=Budget.parse("none"), force=True, positions=100, pairs=20)
    quantize(bundle, ["int8-weight-only"], options=everything)
    write_card(bundle, kept)
    card = (bundle / "README.md").read_text(encoding="utf-8")
    assert "| int8-weight-only | 0." in card
    refresh_card(Bundle.open(bundle))
    assert (bundle / "README.md").read_text(encoding="utf-8") == card


@pytest.mark.slow
def test_quantized_variants_are_measured_again_on_the_held_out_text(
    tiny_bundle: Path, heldout: Path, tmp_path: Path
) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    evaluate.remeasure_quantized(bundle, heldout)  # there is none yet
    quantize(bundle, ["int8-weight-only"], options=Options(budget=Budget.parse("none"), positions=60, pairs=8))
    evaluate.remeasure_quantized(bundle, heldout)
    fidelity = Bundle.open(bundle).manifest.variants["int8-weight-only"].fidelity
    assert fidelity is not None
    assert fidelity["text"]["name"] == "rest.jsonl"
    assert fidelity["text"]["masked_positions"] >= 1000


def test_a_record_that_lacks_a_file_says_which_program_writes_it(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no run\.json: run models/export_default\.py first"):
        read_record(tmp_path)
    for name in ("run.json", "log.jsonl"):
        shutil.copy(TRAINING / name, tmp_path)
    with pytest.raises(RecipeError, match=r"no evaluation\.json: run models/evaluate\.py --heldout first"):
        read_record(tmp_path)


def test_a_card_without_its_record_ends_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "TRAINING", tmp_path)
    result = CliRunner().invoke(evaluate.main, [])
    assert result.exit_code == 1
    assert result.stderr == f"Error: {tmp_path} has no run.json: run models/export_default.py first\n"


def test_a_model_is_not_scored_without_text(tiny_bundle: Path) -> None:
    result = CliRunner().invoke(evaluate.main, [str(tiny_bundle)])
    assert result.exit_code == 2
    assert f"there is no text to score {tiny_bundle} on: name one by --heldout" in result.stderr


def test_a_model_without_both_heads_is_refused_in_a_sentence(
    heldout: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    scores = tmp_path / "scores.json"
    for model in head_bundle(tmp_path_factory, "bert", SEQUENCE_CLASSIFICATION):
        result = CliRunner().invoke(evaluate.main, [str(model), "--heldout", str(heldout), "--output", str(scores)])
        assert result.exit_code == 1
        assert "Error: " in result.stderr  # behind what transformers shows of its loading
        assert "and the scores are of the heads mlm and nsp: name a bundle or a BertForPreTraining" in result.stderr
        assert not scores.exists()


def test_a_part_of_the_scores_takes_no_place_in_the_record(
    heldout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    monkeypatch.setattr(evaluate, "EVALUATION", tmp_path / "evaluation.json")
    monkeypatch.setattr(evaluate, "score_model", lambda *_: {"scores": {}})
    monkeypatch.setattr(evaluate, "remeasure_quantized", lambda *_: called.append("remeasure_quantized"))
    monkeypatch.setattr(evaluate, "write_card", lambda *_: called.append("write_card"))
    scores = tmp_path / "new" / "scores.json"
    for part in (["--variant", "fp32"], ["--share", "0.5"]):
        refused = CliRunner().invoke(evaluate.main, ["--heldout", str(heldout), *part])
        assert refused.exit_code == 2
        assert "leave --variant and --share out, or name a file by --output" in refused.stderr
        named = CliRunner().invoke(evaluate.main, ["--heldout", str(heldout), *part, "--output", str(scores)])
        assert named.exit_code == 0, named.output
        assert json.loads(scores.read_text(encoding="utf-8")) == {"scores": {}}
        scores.unlink()
    assert not called
    assert not (tmp_path / "evaluation.json").exists()
    whole = CliRunner().invoke(evaluate.main, ["--heldout", str(heldout)])
    assert whole.exit_code == 0, whole.output
    assert (tmp_path / "evaluation.json").exists()
    assert called == ["remeasure_quantized", "write_card"]


def test_an_unfinished_run_is_not_exported(tmp_path: Path) -> None:
    result = CliRunner().invoke(export_default.main, [str(tmp_path), "--output", str(tmp_path / "bundle")])
    assert result.exit_code == 1
    assert "holds no finished model" in result.stderr
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("option", ["--output", "--training"])
def test_another_bundle_does_not_take_the_default_s_record(tmp_path: Path, option: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}", encoding="utf-8")
    result = CliRunner().invoke(export_default.main, [str(tmp_path), option, str(tmp_path / "other")])
    assert result.exit_code == 2
    assert "--output and --training belong together: give both, or neither" in result.stderr
    assert not (tmp_path / "other").exists()


DEFAULT = Path(evaluate.__file__).parent / "default"
KNOWN = re.compile(
    r"manifest\.json|README\.md|config\.json|golden(-\d+)?\.json|tokenizer\.json|tokenizer_config\.json|vocab\.txt|onnx/[\w.-]+\.onnx(_data)?"
    r"|quantization/[\w.-]+\.(json|svg)"
)


def test_the_default_bundle_is_small_and_holds_what_its_manifest_lists() -> None:
    files = {path.relative_to(DEFAULT).as_posix(): path for path in DEFAULT.rglob("*") if path.is_file()}
    assert sum(path.stat().st_size for path in files.values()) <= export_default.MOST_BYTES
    assert not [name for name in files if not KNOWN.fullmatch(name)]
    assert Bundle.open(DEFAULT).verify() == ()


def test_the_default_card_is_what_its_record_gives() -> None:
    card = (DEFAULT / "README.md").read_text(encoding="utf-8")
    assert card == render_card(Bundle.open(DEFAULT), read_record(TRAINING))


def test_the_default_record_is_of_the_default_bundle() -> None:
    record = read_record(TRAINING)
    manifest = Bundle.open(DEFAULT).manifest
    assert record.evaluation["weights_sha256"] == manifest.source.weights_sha256
    assert manifest.default_variant in record.evaluation["scores"]
    scores = record.evaluation["scores"][manifest.default_variant]["128"]["all"]
    assert scores["mlm_top1"]["count"] >= 20_000
    assert scores["nsp_accuracy"]["count"] >= 2_000
    assert (record.evaluation["heldout_sha256"], record.evaluation["seed"]) == (
        "03ecd54168d0f0a759872483d516daaeea311d2da9794e8122c0b9276d3a3b2f",
        evaluate.SEED,
    )
