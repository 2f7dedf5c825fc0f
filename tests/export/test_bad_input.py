"""What a user can get wrong: one sentence and an exit code on the command line, and nothing left behind."""

from __future__ import annotations

import json
import os
import re

import pytest
import transformers
from click.testing import CliRunner

from bertport.export.graph import build
from bertport.runtime.cli import app
from bertport.runtime.errors import BertportError
from tests.export.passes import as_pass
from tests.export.validation.test_check import change_weight
from tests.families import MAX_LENGTH, tiny

OF_4 = transformers.__version__.startswith("4.")


@pytest.fixture
def refused(tmp_path):
    """Return a function that runs `bertport export` and checks that it refuses in one sentence and leaves nothing."""

    def run(source, *options, code=1):
        out = tmp_path / "out"
        before = sorted(tmp_path.iterdir())
        result = CliRunner().invoke(app, ["export", str(source), str(out), *options])
        assert result.exit_code == code, result.output
        lines = [line for line in result.stderr.splitlines() if line.startswith("bertport: error: ")]
        assert lines == result.stderr.splitlines()[-1:], "the last line is the error, and there is but one"
        assert "Traceback" not in result.output
        assert result.stdout == ""
        assert sorted(tmp_path.iterdir()) == before
        return lines[0].removeprefix("bertport: error: ")

    return run


def test_no_such_path(refused, tmp_path):
    assert "no such directory" in refused(tmp_path / "nowhere", code=2)


def test_not_a_checkpoint(refused, tmp_path):
    (tmp_path / "folder").mkdir()
    assert "is not a checkpoint that can be read: it has no config.json" in refused(tmp_path / "folder")


def test_a_bundle_is_not_a_checkpoint(refused, tiny_bundle):
    assert "holds an ONNX graph (onnx/model.onnx), which is not read: get the PyTorch checkpoint" in refused(
        tiny_bundle
    )


FAMILIES = "supported: BERT (bert), RoBERTa (roberta), XLM-RoBERTa (xlm-roberta), CamemBERT (camembert), DistilBERT"
OF_BERT = "of the family BERT: BertForPreTraining, BertForMaskedLM, BertForNextSentencePrediction, BertForSequence"


@pytest.mark.parametrize(
    ("entries", "named", "supported"),
    [
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "is a GPT2LMHeadModel", FAMILIES),
        ({"model_type": "nomic_bert", "architectures": None}, "of the model type 'nomic_bert'", FAMILIES),
        ({"model_type": "x" * 5000, "architectures": None}, "xxx..., which cannot be exported", FAMILIES),
        (
            {"model_type": "xlm-roberta-xl", "architectures": ["XLMRobertaXLForMaskedLM"]},
            "is a XLMRobertaXLForMaskedLM",
            FAMILIES,
        ),
        ({"architectures": ["BertForRelations"]}, "is a BertForRelations", OF_BERT),
        ({"architectures": ["BertLMHeadModel"], "is_decoder": True}, "is a BertLMHeadModel", OF_BERT),
        ({"auto_map": {"AutoModel": "own.Model"}}, "code of its own", FAMILIES),
        ({"model_type": "roberta"}, "the model type roberta and the architecture BertForPreTraining", "another family"),
    ],
)
def test_another_architecture_is_named_with_those_supported(  # noqa: PLR0913, PLR0917 — fixtures
    entries, named, supported, refused, checkpoint, change_config
):
    change_config(checkpoint, **entries)
    message = refused(checkpoint)
    assert named in message
    assert supported in message


def test_the_weights_of_another_family(refused, checkpoint, change_config, change_weights):
    change_config(checkpoint, model_type="roberta", architectures=["RobertaForMaskedLM"])
    message = refused(checkpoint)
    assert "hold no roberta.embeddings.word_embeddings.weight: these are not the weights of a RoBERTa" in message
    assert "by their names (bert.embeddings." in message
    assert message.endswith("they are those of a BERT encoder")
    change_weights(checkpoint, lambda tensors: {f"model.{name}": tensor for name, tensor in tensors.items()})
    assert refused(checkpoint).endswith("they are those of a BERT encoder")


@pytest.mark.parametrize("entries", [{"is_decoder": True}, {"add_cross_attention": True}])
def test_a_decoder(entries, refused, checkpoint, change_config):
    change_config(checkpoint, **entries)
    assert "is a decoder" in refused(checkpoint)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"architectures": "BertModel"}, "a list of names is expected"),
        ({"architectures": [["BertModel"] * 50]}, "...; a list of names is expected"),
        ({"hidden_size": "32"}, "hidden_size is '32'; a positive number up to 100,000,000 is expected"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_attention_heads": 5}, "hidden_size 32 is not a multiple of num_attention_heads 5"),
        ({"hidden_act": "gleu"}, "unknown hidden_act 'gleu'"),
        (
            {"hidden_act": "xielu"},  # it has weights of its own, which transformers 5 makes room for without values
            "hidden_act 'xielu' cannot be exported: PyTorch does not make it without values"
            if OF_4
            else "the weights hold the mlm head only in part: cls.predictions.transform.transform_act_fn.alpha_p",
        ),
        ({"vocab_size": 10**30}, "a positive number up to 100,000,000 is expected"),
        ({"type_vocab_size": 10**20}, "a positive number up to 100,000,000 is expected"),
        ({"intermediate_size": 10**400}, "a positive number up to 100,000,000 is expected"),
        ({"hidden_size": 2**63, "num_attention_heads": 1}, "a positive number up to 100,000,000 is expected"),
        ({"max_position_embeddings": 2**62}, "a positive number up to 100,000,000 is expected"),
        ({"max_position_embeddings": 10**8}, "bert.embeddings.position_embeddings.weight has the shape [160, 32]"),
        ({"num_hidden_layers": 501}, "a positive number up to 500 is expected"),
        ({"layer_norm_eps": -1e-12}, "layer_norm_eps is -1e-12; a number from 0 up is expected"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps is nan; a number from 0 up is expected"),
        ({"layer_norm_eps": 10**400}, "; a number from 0 up is expected"),
        ({"layer_norm_eps": True}, "layer_norm_eps is True; a number from 0 up is expected"),
        ({"pruned_heads": {"0": [1]}}, "attention heads were pruned"),
        ({"pad_token_id": 5000}, "pad_token_id is 5000, beyond vocab_size 672"),
        ({"position_embedding_type": "rotary"}, "one of absolute, relative_key, relative_key_query is expected"),
    ],
)
def test_a_config_that_makes_no_sense(entries, message, refused, checkpoint, change_config):
    change_config(checkpoint, **entries)
    assert message in refused(checkpoint)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_model_too_short_for_any_text(rows, refused, checkpoint, change_config, change_weights):
    name = "bert.embeddings.position_embeddings.weight"
    change_weights(checkpoint, lambda tensors: tensors | {name: tensors[name][:rows]})
    change_config(checkpoint, max_position_embeddings=rows)
    assert f"the model takes {rows} tokens (max_position" in refused(checkpoint)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        pytest.param(
            "SplinterTokenizer",
            "cannot load the SplinterTokenizerFast of the checkpoint again",
            marks=pytest.mark.optimum,  # transformers 5 loads it
        ),
        ("LayoutLMv2Tokenizer", f"LayoutLMv2Tokenizer{'Fast' if OF_4 else ''} takes no plain text (ValueError: "),
        ("RoFormerTokenizer", "without a package that is not installed (ImportError: You need to install rjieba"),
    ],
)
def test_a_tokenizer_of_another_kind(kind, message, refused, checkpoint, change_config):
    if kind == "SplinterTokenizer":
        (checkpoint / "tokenizer.json").unlink()
        (checkpoint / "tokenizer_config.json").write_text("{}")
        lines = (checkpoint / "vocab.txt").read_text(encoding="utf-8").splitlines()
        lines[8] = "[QUESTION]"
        (checkpoint / "vocab.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    change_config(checkpoint, "tokenizer_config.json", tokenizer_class=kind)
    refusal = refused(checkpoint)
    assert message in refusal
    assert "give it a tokenizer.json" in refusal


@pytest.mark.parametrize(
    ("entries", "tensor"),
    [
        ({"intermediate_size": 128}, "bert.encoder.layer.0.intermediate.dense.bias has the shape [64]"),
        ({"num_hidden_layers": 3}, "the weights lack bert.encoder.layer.2.attention.output.LayerNorm.bias"),
        ({"num_hidden_layers": 1}, "the weights hold bert.encoder.layer.1.attention.output.LayerNorm.bias"),
        ({"max_position_embeddings": 512}, "bert.embeddings.position_embeddings.weight has the shape [160, 32]"),
        ({"type_vocab_size": 3}, "bert.embeddings.token_type_embeddings.weight has the shape [2, 32]"),
        ({"vocab_size": 700}, "bert.embeddings.word_embeddings.weight has the shape [672, 32]"),
    ],
)
def test_a_config_that_disagrees_with_the_tensors(entries, tensor, refused, checkpoint, change_config):
    change_config(checkpoint, **entries)
    assert tensor in refused(checkpoint)


ENTRIES = ("config.json", "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json")
ODD = (None, 0, "x", -1, ["x"], [], {"a": 1}, {}, float("inf"), 1.5, True, 10**7)


@pytest.mark.parametrize(
    ("file", "step"),
    [*((name, 4) for name in ENTRIES[1:]), *(pytest.param(name, 1, marks=pytest.mark.slow) for name in ENTRIES)],
)
def test_any_entry_may_be_wrong(file, step, checkpoint):
    """Every entry in turn is replaced by values of every kind: it is refused in a sentence, or does no harm.

    Of every `step` values one is taken, of one entry another than of the next.
    """
    from bertport.export.checkpoint.read import read_checkpoint
    from bertport.export.checkpoint.source import locate
    from bertport.export.checkpoint.tokenizer import read_tokenizer

    if file == "special_tokens_map.json" and not (checkpoint / file).exists():  # transformers 5 writes none
        (checkpoint / file).write_text(json.dumps({"mask_token": "[MASK]", "pad_token": "[PAD]", "unk_token": "[UNK]"}))
    entries = json.loads((checkpoint / file).read_text())
    others = (
        "pruned_heads",
        "torch_dtype",
        "quantization_config",
        "id2label",
        "tokenizer_class",
        "tie_word_embeddings",
    )
    refusals = 0
    for place, name in enumerate((*entries, *others)):
        for value in ODD[place % step :: step]:
            (checkpoint / file).write_text(json.dumps(entries | {name: value}))
            try:
                if file == "config.json":
                    read_checkpoint(locate(str(checkpoint)))
                else:
                    read_tokenizer(checkpoint, vocab_size=672, max_positions=160)
            except BertportError:
                refusals += 1
    # tokenizer_config.json states the same tokens, and is what counts.
    assert refusals > 10 or file == "special_tokens_map.json"


@pytest.mark.parametrize(("buckets", "tokens"), [(8, 8), (26, MAX_LENGTH)])
def test_sizes_with_which_transformers_cannot_run(buckets, tokens, refused, tmp_path):
    """An MPNet's distances reach row 31 of their embedding, whatever its size: some at once, some in long texts."""
    source = tiny("mpnet", tmp_path / "source", relative_attention_num_buckets=buckets)
    message = refused(source)
    assert (
        f"with the settings of config.json, transformers' MPNet encoder cannot run on {tokens} tokens (Ind" in message
    )


def test_truncated_weights(refused, checkpoint):
    path = checkpoint / "model.safetensors"
    os.truncate(path, path.stat().st_size // 2)
    assert "model.safetensors is truncated or damaged" in refused(checkpoint)


def test_a_damaged_header(refused, checkpoint):
    path = checkpoint / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[20:40] = b"\xff" * 20
    path.write_bytes(data)
    assert "truncated or damaged" in refused(checkpoint)


def test_a_vocabulary_that_is_not_text(refused, checkpoint):
    (checkpoint / "vocab.txt").write_bytes(b"\xff\xfe")
    (checkpoint / "tokenizer.json").unlink()
    assert "vocab.txt cannot be read ('utf-8' codec" in refused(checkpoint)


def test_a_vocabulary_of_another_size(refused, checkpoint):
    path = checkpoint / "vocab.txt"
    path.write_text(path.read_text(encoding="utf-8") + "surplus\n", encoding="utf-8")
    (checkpoint / "tokenizer.json").unlink()
    assert "has 673 tokens and the word embedding 672 rows, none for 'surplus' (672)" in refused(checkpoint)


def test_a_head_that_is_not_there(refused, make_checkpoint, tmp_path):
    source = make_checkpoint(tmp_path / "source", "BertForMaskedLM")
    assert "the head 'nsp' was asked for" in refused(source, "--head", "nsp", code=2)


@pytest.mark.parametrize("options", [("--opset", "99"), ("--weights", "int4"), ("--head", "x"), ("--atol", "much")])
def test_options_that_cannot_be(options, tiny_checkpoint, tmp_path):
    result = CliRunner().invoke(app, ["export", str(tiny_checkpoint), str(tmp_path / "out"), *options])
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


@pytest.fixture
def wrong_graph(monkeypatch):
    """Every graph gets one bias of another value."""
    monkeypatch.setattr(build, "name_weights", as_pass(change_weight("cls.predictions.bias", 200, 3e-4)))


@pytest.mark.usefixtures("wrong_graph")
def test_a_difference_beyond_the_tolerance(refused, tiny_checkpoint):
    message = refused(tiny_checkpoint, "--atol", "2e-4")
    assert "differs from PyTorch by" in message
    assert "more than 0.0002, at worst in output " in message
    assert "shape [" in message
    assert "element [" in message


def test_an_operation_that_the_opset_cannot_express(checkpoint, change_config, refused, monkeypatch):
    """PyTorch's exporter has no such activation in any opset; its page of advice becomes one sentence."""
    import torch
    from transformers.activations import ACT2FN

    class Unknown(torch.nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x)

    monkeypatch.setitem(ACT2FN, "bessel", Unknown)
    change_config(checkpoint, hidden_act="bessel")
    message = refused(checkpoint)
    assert "cannot be traced with opset 17" in message
    assert "choose another --opset" in message


@pytest.mark.slow
def test_a_tolerance_below_float32_is_decided_by_float64_and_told(tiny_checkpoint, tmp_path):
    """No graph can be nearer to PyTorch than PyTorch is to what its weights stand for."""
    result = CliRunner().invoke(app, ["export", str(tiny_checkpoint), str(tmp_path / "out"), "--atol", "1e-9"])
    assert result.exit_code == 0
    assert re.search(
        r"note: [\d,]+ values of portable differ from PyTorch by more than 1e-09 \(up to .*float64", result.output
    )
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    validation = manifest["variants"]["portable"]["validation"]
    assert validation["decided_by_float64"] > 0
    assert validation["worst"]["logits"] > validation["atol"]


@pytest.mark.slow
def test_folders_made_for_a_failed_export_are_removed(tiny_checkpoint, tmp_path, monkeypatch):
    out = tmp_path / "a" / "b" / "out"
    with monkeypatch.context() as changed:
        changed.setattr(build, "name_weights", as_pass(change_weight("cls.predictions.bias", 200, 3e-4)))
        result = CliRunner().invoke(app, ["export", str(tiny_checkpoint), str(out)])
    assert result.exit_code == 1
    assert list(tmp_path.iterdir()) == []
    assert CliRunner().invoke(app, ["export", str(tiny_checkpoint), str(out)]).exit_code == 0
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_name_that_is_no_unicode_is_written_with_escapes(tiny_checkpoint, tmp_path):
    result = CliRunner().invoke(app, ["export", str(tiny_checkpoint), str(tmp_path / "out"), "--name", "a\udcff"])
    assert result.exit_code == 0, result.stderr
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["name"] == "a\\udcff"


class TestOutputThatExists:
    """Refused without --overwrite; a bundle is replaced with it, anything else never."""

    @pytest.fixture
    def existing(self, tmp_path, tiny_bundle):
        import shutil

        return shutil.copytree(tiny_bundle, tmp_path / "out")

    def run(self, tiny_checkpoint, out, *options):
        return CliRunner().invoke(app, ["export", str(tiny_checkpoint), str(out), *options])

    def test_without_overwrite(self, existing, tiny_checkpoint):
        before = (existing / "manifest.json").read_bytes()
        result = self.run(tiny_checkpoint, existing)
        assert result.exit_code == 2
        assert "exists: pass --overwrite to replace it" in result.stderr
        assert (existing / "manifest.json").read_bytes() == before

    def test_with_overwrite(self, existing, tiny_checkpoint, tmp_path):
        (existing / "stale.txt").write_text("from before")
        result = self.run(tiny_checkpoint, existing, "--overwrite", "--name", "Second", "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["name"] == "Second"
        assert json.loads((existing / "manifest.json").read_text())["name"] == "Second"
        assert not (existing / "stale.txt").exists()
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_a_failed_export_keeps_the_old_bundle(self, existing, tiny_checkpoint, tmp_path, monkeypatch):
        monkeypatch.setattr(build, "name_weights", as_pass(change_weight("cls.predictions.bias", 200, 3e-4)))
        before = {path: path.read_bytes() for path in existing.rglob("*") if path.is_file()}
        result = self.run(tiny_checkpoint, existing, "--overwrite")
        assert result.exit_code == 1
        assert {path: path.read_bytes() for path in existing.rglob("*") if path.is_file()} == before
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    @pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
    def test_something_else_is_never_replaced(self, overwrite, tiny_checkpoint, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.txt").write_text("years of work")
        result = self.run(tiny_checkpoint, tmp_path / "out", *overwrite)
        assert result.exit_code == 2
        assert "is not a bundle, so it will not be replaced" in result.stderr
        assert (tmp_path / "out" / "thesis.txt").exists()

    def test_the_source_itself(self, checkpoint):
        result = self.run(checkpoint, checkpoint, "--overwrite")
        assert result.exit_code == 2
        assert (checkpoint / "model.safetensors").exists()

    def test_the_source_inside(self, existing, tiny_checkpoint):
        import shutil

        source = shutil.copytree(tiny_checkpoint, existing / "checkpoint")
        result = self.run(source, existing, "--overwrite")
        assert result.exit_code == 2
        assert f"{existing} holds {source}, which is read, and replacing it would remove that" in result.stderr
        assert (source / "model.safetensors").exists()

    def test_a_file(self, tiny_checkpoint, tmp_path):
        (tmp_path / "out").write_text("a file")
        result = self.run(tiny_checkpoint, tmp_path / "out", "--overwrite")
        assert result.exit_code == 2
        assert (tmp_path / "out").read_text() == "a file"
