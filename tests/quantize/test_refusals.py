"""What is refused before it costs anything: text that is not read, bounds on what is not there; and exit codes."""

import io
import json
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from bertport.measure.budget import Budget, budget_for
from bertport.measure.quality.samples import refuse_unread, token_counts, unread_share
from bertport.measure.text import Text
from bertport.quantize import job, quantizer
from bertport.quantize.calibration.ranges import Calibration
from bertport.quantize.evaluation import Speed
from bertport.quantize.job import Options, provider_for
from bertport.quantize.quantizer import quantize
from bertport.quantize.recipes.table import RECIPES
from bertport.runtime.bundle.packing import pack
from bertport.runtime.cli import app
from bertport.runtime.errors import BundleError, InputTextError, MissingHeadError, ProviderError, UsageError
from bertport.runtime.providers.table import PROVIDERS
from tests.conftest import contents
from tests.families import TINY

FOREIGN = "\u4eca\u65e5\u306f\u3044\u3044\u5929\u6c17\u3067\u3059\u3002"


def test_a_bundle_that_was_packed_without_fp32_is_refused_with_the_one_to_take(tiny_bundle, tmp_path):
    packed = pack(tiny_bundle, tmp_path / "packed", ["portable"])
    with pytest.raises(BundleError, match=r"packed has no fp32 serving graph .*: take the bundle that it was packed"):
        quantize(packed.path, options=Options())


@pytest.fixture
def foreign(tmp_path):
    path = tmp_path / "foreign.txt"
    path.write_text(f"{FOREIGN}\n" * 40, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("which", "option"), [("text", "--text"), ("calibration", "--calibration")], ids=["evaluation", "calibration"]
)
@pytest.mark.parametrize("budget", ["none", "top1=0.98"])
def test_a_text_that_the_vocabulary_does_not_read_is_refused(  # noqa: PLR0913, PLR0917 — fixtures
    bundle_copy, held_out, foreign, monkeypatch, which, option, budget
):
    monkeypatch.setattr(job, "fuse", lambda *_: pytest.fail("the work began"))
    texts = {"text": held_out, "calibration": held_out} | {which: foreign}
    message = rf"85\.7% of the tokens of foreign\.txt are unknown to the model's vocabulary.*{option} FILE$"
    with pytest.raises(InputTextError, match=message):
        quantize(bundle_copy, options=Options(**texts, budget=Budget.parse(budget)))


def test_a_calibration_text_that_gives_no_pair_of_strangers_is_refused_before_anything_is_measured(
    bundle_copy, held_out, tmp_path, monkeypatch
):
    monkeypatch.setattr(job, "fuse", lambda *_: pytest.fail("the work began"))
    lines = ["The old house. The dog. The city.", *["the old house had a small school " * 4] * 20]
    text = tmp_path / "one.txt"
    text.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InputTextError, match="no pair of unrelated sentences can be made from a single text"):
        quantize(bundle_copy, options=Options(text=held_out, calibration=text, budget=Budget.parse("none")))


def test_a_comparison_refuses_it_as_well(tiny_bundle, foreign, tmp_path):
    from bertport.compare.options import Options as Asked
    from bertport.compare.runner import Comparison
    from bertport.runtime.commands.progress import Progress

    asked = Asked(bundles=(tiny_bundle,), output=tmp_path / "report", text=foreign, effort="quick")
    with pytest.raises(InputTextError, match=r"85\.7% of the tokens of foreign\.txt .* --text FILE$"):
        Comparison(asked, Progress(io.StringIO()))


@pytest.mark.parametrize(("foreign_words", "refused"), [(4, False), (6, True)])
def test_five_per_cent_is_the_line(tiny, foreign_words, refused):
    from bertport.measure.quality.model import read_tokenizer

    tokenizer = read_tokenizer(tiny)
    texts = [Text(text=" ".join([*["the"] * (100 - foreign_words), *["\u4eca"] * foreign_words]), document=0)]
    assert unread_share(token_counts(texts, tokenizer), tokenizer) == pytest.approx(foreign_words / 100)
    assert (unread_share(token_counts(texts, tokenizer), tokenizer) >= 0.05) is refused


def test_a_tokenizer_without_an_unknown_token_reads_everything():
    from tokenizers import Tokenizer, models

    tokenizer = Tokenizer(models.BPE())
    assert unread_share(token_counts([Text(text=FOREIGN, document=0)], tokenizer), tokenizer) == 0


@pytest.mark.parametrize(
    ("family", "reason"),
    [("xlm-roberta", "unknown to the model's vocabulary"), ("roberta", "single bytes of characters")],
)
def test_every_kind_of_vocabulary_refuses_what_it_does_not_read(family, reason, tmp_path):
    """A Unigram has an unknown token; a vocabulary of bytes has none, and spells what it does not know."""
    from tokenizers import Tokenizer

    TINY[family].write(tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    english = [Text(text="the man\u2019s dog was small and the old house was near the river .", document=0)]
    refuse_unread(english, tokenizer, "english.txt", shipped=False, option="--text")
    with pytest.raises(
        InputTextError, match=rf"of the tokens of foreign\.txt are {reason}.* pass a text .*--text FILE$"
    ):
        refuse_unread([Text(text=FOREIGN, document=0)], tokenizer, "foreign.txt", shipped=False, option="--text")


@pytest.mark.parametrize(
    ("bounds", "heads"),
    [("top1=0.98", {"nsp"}), ("kl=0.1", {"nsp"}), ("nsp=0.005", {"mlm"}), (str(Budget.default()), {"mlm"})],
)
def test_a_bound_that_was_asked_for_on_a_head_that_is_absent_is_refused(bounds, heads):
    with pytest.raises(MissingHeadError, match="there is no head"):
        budget_for(Budget.parse(bounds), heads)


@pytest.mark.parametrize(
    ("heads", "budget"),
    [({"mlm", "nsp"}, "top1=0.98,nsp=0.005"), ({"mlm"}, "top1=0.98"), ({"nsp"}, "nsp=0.005"), (set(), "cosine=0.999")],
)
def test_the_default_budget_bounds_what_is_there(heads, budget):
    assert str(budget_for(None, heads)) == budget


@pytest.mark.parametrize("as_json", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize(
    ("budget", "code", "message"),
    [("none", 3, "is slower than fp32"), ("kl=0.0000001", 1, "breaks the accuracy budget")],
)
def test_what_was_measured_is_shown_before_it_is_refused(  # noqa: PLR0913, PLR0917 — fixtures
    bundle_copy, held_out, monkeypatch, as_json, budget, code, message
):
    slow = Speed(reference_ms=1.0, ms=2.0, speedup=0.5, low=0.5, high=0.5)
    monkeypatch.setattr(quantizer, "time_against", lambda *_, **__: {"1x16": slow})
    before = contents(bundle_copy)
    arguments = ["quantize", str(bundle_copy), "--text", str(held_out), "--calibration", str(held_out)]
    arguments += ["--positions", "60", "--pairs", "4", "--accuracy-budget", budget, "--recipe", "int8-dynamic"]
    arguments += ["--time-limit", "10m"]
    answer = CliRunner().invoke(app, [*arguments, *(["--json"] if as_json else [])], prog_name="bertport")
    assert answer.exit_code == code
    assert message in answer.stderr
    if as_json:
        [(name, value)] = json.loads(answer.stdout).items()
        assert name == "int8-dynamic"
        assert message in value["refused"]
        assert value["fidelity"]["accuracy"]["mlm"]["kl"]["count"]
    else:
        assert "MLM KL divergence" in answer.stdout
        assert ("SLOWER than fp32" in answer.stdout) is (code == 3)
    assert contents(bundle_copy) == before


@pytest.mark.slow
@pytest.mark.parametrize("width", [4, 8])
def test_a_model_too_narrow_for_a_recipe_is_refused_in_a_sentence(width, held_out, tmp_path):
    from transformers import BertConfig, BertForPreTraining

    from bertport.export import export
    from bertport.quantize.recipes.table import RECIPES
    from tests.conftest import write_tokenizer
    from tests.quantize.every_recipe import GRAPHS

    write_tokenizer(tmp_path)
    entries = len((tmp_path / "vocab.txt").read_text(encoding="utf-8").splitlines())
    sizes = {"hidden_size": width, "num_attention_heads": 1, "intermediate_size": 4, "num_hidden_layers": 1}
    config = BertConfig(vocab_size=entries, max_position_embeddings=16, **sizes)
    BertForPreTraining(config).save_pretrained(tmp_path)
    export(tmp_path, tmp_path / "bundle")
    few = {"text": held_out, "calibration": held_out, "positions": 60, "pairs": 4, "force": True}
    options = Options(budget=Budget.parse("none"), **few)
    for name in GRAPHS:
        if RECIPES[name].emitter:
            with pytest.raises(UsageError, match=rf"no matrix .* 16 rows and columns.* so {name} would leave it"):
                quantize(tmp_path / "bundle", [name], options=options)
        else:
            assert quantize(tmp_path / "bundle", [name], options=options)


def test_a_text_of_one_token_is_refused(bundle_copy, held_out, tmp_path):
    path = tmp_path / "same.txt"
    path.write_text(f"{'the ' * 20}\n{'the of ' * 10}\n" * 20, encoding="utf-8")
    with pytest.raises(InputTextError, match=r"75\.0% of the tokens of same\.txt are the same \('the'\)"):
        quantize(bundle_copy, options=Options(text=path, calibration=held_out, budget=Budget.parse("none")))


@pytest.mark.parametrize("pairs", [0, 8])
def test_a_bound_on_pairs_that_there_are_none_of_is_not_blamed_on_the_head(bundle_copy, held_out, tmp_path, pairs):
    path = tmp_path / "single.txt"
    path.write_text(held_out.read_text(encoding="utf-8").replace(". ", ", "), encoding="utf-8")
    how = Options(text=path, calibration=held_out, budget=Budget.parse("nsp=0.1"), positions=60, pairs=pairs)
    reason = "--pairs 0 leaves none" if not pairs else r"single\.txt makes no pair of sentences"
    with pytest.raises(UsageError, match=f"{reason} to measure them on: give more --pairs"):
        quantize(bundle_copy, options=how)


def test_a_provider_that_is_built_in_and_does_not_start_is_passed_over(monkeypatch):
    """A wheel for GPUs lists TensorRT, whose libraries are another package, and CUDA where there is no GPU."""
    wheel = SimpleNamespace(get_available_providers=lambda: [row.ort for row in PROVIDERS.values() if not row.plugin])
    broken = []
    monkeypatch.setattr(job, "onnxruntime", lambda: wheel)
    monkeypatch.setattr(job, "obstacle", lambda row, _: "it is a test" if row.name in broken else None)
    recipe = RECIPES["int8-static"]
    for name in ("tensorrt", "cuda", "tensorrt-rtx"):
        assert provider_for(recipe).name == name
        broken.append(name)
    with pytest.raises(ProviderError, match="int8-static is for tensorrt, cuda and tensorrt-rtx, which this machine"):
        provider_for(recipe)
    assert provider_for(recipe, force=True).name == "cpu"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time_limit": "10m"}, "a time limit is a number of seconds above 0, not '10m'"),
        ({"positions": 0}, "positions is a whole number from 1 up, not 0"),
        ({"pairs": -1}, "pairs is a whole number from 0 up, not -1"),
        ({"calibrating": Calibration(samples=0)}, "samples is a whole number from 1 up, not 0"),
        ({"calibrating": Calibration(method="median")}, "unknown calibration method 'median'"),
    ],
)
def test_options_that_nothing_could_be_measured_with_are_refused_at_once(options, message):
    with pytest.raises(UsageError, match=f"^{message}"):
        Options(**options)
