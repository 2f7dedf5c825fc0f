"""The program as a user runs it: from scratch to a model that transformers loads, stopped and resumed on the way."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertForPreTraining

import pretrain

PROGRAM = Path(pretrain.__file__)


@pytest.fixture(scope="module")
def arguments(text_file: Path, heldout_file: Path, config_file: Path) -> list[str]:
    return [
        *("--corpus", str(text_file), "--heldout", str(heldout_file), "--from-scratch", str(config_file)),
        *("--vocab-size", "150", "--tokens", "16384", "--tokens-per-batch", "512", "--evaluate-every", "16"),
        *("--dtype", "float32", "--threads", "1"),
    ]


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(pretrain.main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def finished(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run from scratch."""
    output = tmp_path_factory.mktemp("pretrain") / "run"
    result = invoke(*arguments, "--output", output)
    assert result.exit_code == 0, result.output
    return output


def test_from_scratch_ends_in_a_checkpoint_that_transformers_loads(finished: Path) -> None:
    model_directory = finished / "model"
    names = {file.name for file in model_directory.iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, loading = BertForPreTraining.from_pretrained(model_directory, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(model_directory)
    assert len(tokenizer) == model.config.vocab_size == 150
    assert model.config.architectures == ["BertForPreTraining"]
    encoded = tokenizer("The captain [MASK] the waves.", "The sailor tied the ropes.", return_tensors="pt")
    output = model(**encoded)
    assert output.prediction_logits.shape == (*encoded["input_ids"].shape, 150)
    assert output.seq_relationship_logits.shape == (1, 2)


def test_the_record_says_what_was_done(finished: Path) -> None:
    record = json.loads((finished / "run.json").read_text(encoding="utf-8"))
    assert record["settings"]["start"] == "tiny.json"
    assert record["settings"]["vocab_size"] == 150
    assert record["settings"]["dtype"] == "float32"
    assert record["schedule_tokens"] == [16384]
    assert record["progress"]["step"] == record["schedule"]["steps"] == 32
    assert record["progress"]["seconds"] > 0
    rows = [json.loads(line) for line in (finished / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["step"] for row in rows] == [16, 32]
    wanted = {"tokens", "seconds", "tokens_per_second", "rate", "train_mlm_loss", "train_nsp_loss"}
    wanted |= {f"heldout_{name}" for name in ("mlm_loss", "mlm_top1", "nsp_loss", "nsp_accuracy")}
    assert wanted < rows[0].keys()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_same_command_goes_on(
    finished: Path, arguments: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    output = tmp_path / "run"
    command = [sys.executable, str(PROGRAM), *arguments, "--output", str(output)]
    # Each step is logged, so that there is time to see the first one and to stop the run before its last.
    command += ["--evaluate-every", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 90
        while not (output / "log.jsonl").exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(number)
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert re.search(r"stopped at step \d+ of 32: the same command goes on", errors), errors
    assert not (output / "model").exists()
    assert invoke(*arguments, "--output", output).exit_code == 0
    first, second = (load_file(directory / "model" / "model.safetensors") for directory in (finished, output))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_other_settings_do_not_resume_a_run_but_more_tokens_do(
    finished: Path, arguments: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    output.mkdir()
    for name in ("run.json", "checkpoint.pt", "log.jsonl"):
        (output / name).write_bytes((finished / name).read_bytes())
    result = invoke(*arguments, "--output", output, "--seed", "2")
    assert result.exit_code == 1
    assert "began with seed 1, not 2: give it the options it began with, or choose another --output" in result.stderr
    longer = invoke(*arguments, "--output", output, "--tokens", "17408")
    assert longer.exit_code == 0, longer.output
    record = json.loads((output / "run.json").read_text(encoding="utf-8"))
    assert record["schedule_tokens"] == [16384, 17408]
    assert record["progress"]["step"] == 34


def test_a_finished_run_keeps_the_machine_that_it_ran_on(finished: Path, arguments: list[str], tmp_path: Path) -> None:
    output = shutil.copytree(finished, tmp_path / "run")
    record = json.loads((output / "run.json").read_text(encoding="utf-8"))
    (output / "run.json").write_text(json.dumps(record | {"machine": "another machine"}), encoding="utf-8")
    assert invoke(*arguments, "--output", output).exit_code == 0
    assert json.loads((output / "run.json").read_text(encoding="utf-8"))["machine"] == "another machine"


def test_an_earlier_result_is_trained_further_with_its_heads(
    finished: Path, arguments: list[str], tmp_path: Path
) -> None:
    at = arguments.index("--from-scratch")
    further = [*arguments[:at], *arguments[at + 2 :], "--init", str(finished / "model"), "--output", str(tmp_path)]
    # One step at a rate of almost nothing: what comes out is what went in.
    result = invoke(*further, "--tokens", "512", "--rate", "1e-12")
    assert result.exit_code == 0, result.output
    before, after = (load_file(directory / "model" / "model.safetensors") for directory in (finished, tmp_path))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-9, msg=name)


@pytest.mark.parametrize(
    ("extra", "code", "sentence"),
    [
        (("--init", "nowhere"), 1, "--init nowhere: no such directory"),
        (("--tokens", "0"), 2, "'--tokens'"),
        (("--rate", "nan"), 2, "'--rate': nan is not a finite number"),
        (("--save-every", "601"), 2, "'--save-every'"),
        (
            ("--seconds", "9", "--tokens", "9"),
            2,
            "--seconds and --tokens both say when training ends: give one of them",
        ),
        (("--corpus", "nowhere"), 2, "'--corpus'"),
    ],
)
def test_a_mistake_is_answered_in_a_sentence(
    arguments: list[str], tmp_path: Path, extra: tuple[str, ...], code: int, sentence: str
) -> None:
    at = arguments.index("--from-scratch")
    result = invoke(*arguments[:at], "--output", tmp_path / "run", *extra)
    assert result.exit_code == code
    assert sentence in result.stderr
    assert "Traceback" not in result.output


def test_layers_are_kept_of_an_encoder_and_of_no_configuration(arguments: list[str], tmp_path: Path) -> None:
    result = invoke(*arguments, "--output", tmp_path / "run", "--layers", "1")
    assert result.exit_code == 2
    assert "with --from-scratch, state their number in CONFIG" in result.stderr


def test_what_the_last_steps_need_is_looked_for_before_the_first(
    arguments: list[str], text_file: Path, config_file: Path, tmp_path: Path
) -> None:
    narrow, short = tmp_path / "narrow.json", tmp_path / "short.jsonl"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    narrow.write_text(json.dumps(config | {"max_position_embeddings": 128}), encoding="utf-8")
    sections = [json.loads(line) for line in text_file.read_text(encoding="utf-8").splitlines()]
    lines = [json.dumps(section | {"paragraphs": section["paragraphs"][:1]}) + "\n" for section in sections]
    short.write_text("".join(lines), encoding="utf-8")
    for option, path, sentence in (
        ("--from-scratch", narrow, "has 128 positions, and the last tenth of the steps takes 512 tokens: take one"),
        ("--corpus", short, "takes pairs of 512 tokens, and the corpus has 30 sections of "),
    ):
        result = invoke(*arguments, "--output", tmp_path / "run", option, path)
        assert result.exit_code == 1
        assert sentence in result.stderr
        assert not (tmp_path / "run" / "run.json").exists()


def test_a_run_by_the_clock_ends_in_a_checkpoint_and_is_not_resumed(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_clock = [*arguments[: (at := arguments.index("--tokens"))], *arguments[at + 2 :], "--output", str(tmp_path)]
    monkeypatch.setattr(pretrain, "BEGAN", time.monotonic() - 100)
    result = invoke(*by_clock, "--seconds", "104")
    assert result.exit_code == 0, result.output
    assert time.monotonic() - pretrain.BEGAN < 114
    BertForPreTraining.from_pretrained(tmp_path / "model")
    assert {path.name for path in tmp_path.iterdir()} >= {"model", "run.json", "log.jsonl"}
    assert not (tmp_path / "checkpoint.pt").exists()
    record = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert record["schedule"]["seconds"] == 104
    assert record["progress"]["tokens"] > 0
    again = invoke(*by_clock, "--seconds", "1000")
    assert again.exit_code == 1
    assert "has a run, and none is resumed by the clock: choose another --output" in again.stderr
    late = invoke(*by_clock[:-1], tmp_path / "late", "--seconds", "50")
    assert late.exit_code == 1
    assert "before the first step: give more --seconds, or texts that models/pack.py has packed" in late.stderr


def test_a_rate_that_nothing_is_learned_with_ends_in_a_sentence(arguments: list[str], tmp_path: Path) -> None:
    result = invoke(*arguments, "--output", tmp_path / "run", "--rate", "1e300")
    assert result.exit_code == 1
    assert re.search(r"the loss of step \d+, .* is not a finite number, .*: choose a lower --rate", result.stderr)
    assert not (tmp_path / "run" / "model").exists()


def test_help_names_every_option() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    for option in ("--init", "--from-scratch", "--layers", "--tokens-per-batch", "--save-every", "--dtype"):
        assert option in result.stdout
