"""Fine-tuning as a user runs it: it learns, resumes to the same weights, chooses without dev, and names bad data."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import finetune
from bertport.export import export
from bertport.runtime import load
from bertport.runtime.bundle.digest import sealed
from finetuning.data import Encoded, absent_labels, encode, epoch, read_rows
from finetuning.job import Job, perform
from finetuning.model import open_start
from finetuning.scoring import answer_text, entity_f1, score
from finetuning.selection import choose, split
from finetuning.tasks import TASKS, Settings
from pretraining.checkpoint import Progress, read_log
from pretraining.errors import RecipeError
from pretraining.machine import Hardware
from tests.families import tiny
from tests.models.conftest import ENDINGS, SUBJECTS

CPU = Hardware(device=torch.device("cpu"), dtype=torch.float32)
QUICK = Settings(rate=3e-3, epochs=3, batch=16, dropout=0.1)


def sentence(rng: random.Random, place: str) -> str:
    return f"{rng.choice(SUBJECTS[place])} {rng.choice(ENDINGS[place])}"


def sst2(rng: random.Random) -> dict[str, object]:
    """A sentence of the sea is positive, one of the town negative."""
    place = rng.choice(["sea", "town"])
    return {"text": sentence(rng, place), "label": "positive" if place == "sea" else "negative"}


def stsb(rng: random.Random) -> dict[str, object]:
    """Sentences that both speak of the sea score 5, of which one does 2.5."""
    places = [rng.choice(["sea", "town"]) for _ in range(2)]
    texts = [sentence(rng, place) for place in places]
    return {"text": texts[0], "text_pair": texts[1], "label": 2.5 * places.count("sea")}


def wnut17(rng: random.Random) -> dict[str, object]:
    """A captain is a person, and a storm a product of two words."""
    words = sentence(rng, rng.choice(["sea", "farm"])).split()
    tags = ["B-person" if word in {"captain", "girl", "sailor", "farmer"} else "O" for word in words]
    for at, (first, second) in enumerate(pairwise(words)):
        if (first, second) in {("the", "storm."), ("the", "field.")}:
            tags[at : at + 2] = ["B-product", "I-product"]
    return {"tokens": words, "tags": tags}


def xquad(rng: random.Random) -> dict[str, object]:
    """Asked who, the first words of the only sentence of the sea answer."""
    who = rng.choice(SUBJECTS["sea"])
    before, behind = (f"{sentence(rng, 'town')} " * rng.randrange(2) for _ in range(2))
    context = f"{before}{who} {rng.choice(ENDINGS['sea'])} {behind}".strip()
    answers = {"text": [who], "answer_start": [context.index(who)]}
    return {"question": "The old pilot?", "context": context, "answers": answers}


def write_task(directory: Path, name: str, make: Callable[[random.Random], dict[str, object]]) -> Path:
    directory.mkdir(exist_ok=True)
    for seed, (part, count) in enumerate((("train", 160), ("dev", 30))):
        rng = random.Random(seed)  # noqa: S311 — text, not secrets
        lines = [json.dumps(make(rng)) + "\n" for _ in range(count)]
        (directory / f"{name}-{part}.jsonl").write_text("".join(lines), encoding="utf-8")
    return directory


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_task(tmp_path_factory.mktemp("tasks") / "data", "sst2", sst2)


def after(steps: int) -> Callable[[], bool]:
    """Ask for a stop after so many steps: the loop asks once before each, and once while it waits for the lock."""
    asked = iter(range(10**9))
    return lambda: next(asked) >= steps


@pytest.fixture(scope="module")
def plain(data: Path, encoder: Path) -> Job:
    return Job(
        name="sst2",
        data=data,
        init=encoder,
        output=Path(),
        seed=0,
        candidates=(QUICK,),
        select=False,
        trial_rows=None,
        hardware=CPU,
        save_every_s=300.0,
        stopping=lambda: False,
    )


@pytest.fixture(scope="module")
def finished(plain: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run, with a choice between two rates."""
    output = tmp_path_factory.mktemp("finetune") / "run"
    rates = (replace(QUICK, rate=1e-6), QUICK)
    perform(replace(plain, output=output, candidates=rates, select=True))
    return output


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "model" / "model.safetensors")


def assert_same_weights(first: Path, second: Path) -> None:
    one, other = weights(first), weights(second)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_it_learns_and_chooses_the_rate_that_learns(finished: Path) -> None:
    record = json.loads((finished / "run.json").read_text(encoding="utf-8"))
    slow, quick = record["trials"]
    assert slow["scores"]["accuracy"] < quick["scores"]["accuracy"] == 1.0
    assert record["chosen"] == quick["settings"]
    assert record["dev"] == {"rows": 30, "accuracy": 1.0}
    assert record["progress"]["step"] == 30  # 3 epochs of 160 rows, 16 a step
    assert record["machine"] == "1 threads of " + record["machine"].partition(" of ")[2]
    assert {path.name for path in finished.iterdir()} == {"dev-predictions.jsonl", "log.jsonl", "model", "run.json"}


def test_the_result_is_an_ordinary_checkpoint(finished: Path, data: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(finished / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(finished / "model")
    assert model.config.id2label == {0: "negative", 1: "positive"}
    assert model.config.problem_type == "single_label_classification"
    rows = [json.loads(line) for line in (data / "sst2-dev.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = [json.loads(line) for line in (finished / "dev-predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    with torch.no_grad():
        answers = model(**tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")).logits
    np.testing.assert_allclose([entry["logits"] for entry in kept], answers.numpy(), atol=1e-5)


@pytest.mark.slow
def test_a_bundle_of_the_result_answers_as_pytorch_and_can_be_trained_further(
    finished: Path, plain: Job, data: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    export(finished / "model", bundle)
    rows = read_rows(data / "sst2-dev.jsonl", TASKS["sst2"])
    kept = [json.loads(line) for line in (finished / "dev-predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    expected = torch.tensor([entry["logits"] for entry in kept]).softmax(-1)[:, 1]
    answers = load(bundle).classify([str(row.text) for row in rows], top_k=2)
    scores = [next(label["score"] for label in answer if label["label"] == "positive") for answer in answers]
    np.testing.assert_allclose(scores, expected.numpy(), atol=1e-5)
    # Of the bundle, the encoder is taken: the fresh head and one step make the same model as from the checkpoint.
    step = (replace(QUICK, epochs=1, batch=160),)
    for name, init in (("from-bundle", bundle), ("from-checkpoint", finished / "model")):
        perform(replace(plain, init=init, output=tmp_path / name, candidates=step))
    assert_same_weights(tmp_path / "from-bundle", tmp_path / "from-checkpoint")
    again = perform(replace(plain, init=bundle, output=tmp_path / "from-bundle", candidates=step))
    assert "is finished already" in again
    assert not (tmp_path / "from-bundle" / "cache").exists()


def test_a_resumed_run_is_the_uninterrupted_one(finished: Path, plain: Job, tmp_path: Path) -> None:
    stopped = replace(plain, output=tmp_path, stopping=after(12))
    assert perform(stopped) == "stopped in training: the same command goes on"
    assert not (tmp_path / "model").exists()
    # A kill after the last save leaves rows of steps that are taken, and logged, once more.
    with (tmp_path / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write('{"step": 20}\n')
    perform(replace(stopped, stopping=lambda: False))
    assert_same_weights(finished, tmp_path)
    logs = [[entry["step"] for entry in read_log(path / "log.jsonl")] for path in (finished, tmp_path)]
    assert logs[0] == logs[1] == [30]


@pytest.mark.slow
@pytest.mark.parametrize("steps", [15, 45])  # in the first trial and in the second
def test_a_trial_goes_on_where_it_was_stopped(finished: Path, plain: Job, tmp_path: Path, steps: int) -> None:
    rates = (replace(QUICK, rate=1e-6), QUICK)
    stopped = replace(plain, output=tmp_path / "run", candidates=rates, select=True, stopping=after(steps))
    assert perform(stopped) == "stopped during a trial: the same command goes on"
    perform(replace(stopped, stopping=lambda: False))
    assert_same_weights(finished, tmp_path / "run")
    records = [json.loads((path / "run.json").read_text(encoding="utf-8")) for path in (finished, tmp_path / "run")]
    first, second = (
        [(trial["settings"], trial["scores"], trial["tokens"]) for trial in record["trials"]] for record in records
    )
    assert first == second


def test_what_dev_holds_changes_nothing_but_its_scores(finished: Path, plain: Job, tmp_path: Path) -> None:
    other = tmp_path / "data"
    shutil.copytree(plain.data, other)
    lines = (other / "sst2-dev.jsonl").read_text(encoding="utf-8")
    turned = lines.replace("positive", "?").replace("negative", "positive").replace("?", "negative")
    (other / "sst2-dev.jsonl").write_text(turned, encoding="utf-8")
    rates = (replace(QUICK, rate=1e-6), QUICK)
    perform(replace(plain, data=other, output=tmp_path / "turned", candidates=rates, select=True))
    assert_same_weights(finished, tmp_path / "turned")
    assert json.loads((tmp_path / "turned" / "run.json").read_text(encoding="utf-8"))["dev"]["accuracy"] == 0.0


def test_a_task_without_a_dev_part_is_trained_all_the_same(finished: Path, plain: Job, tmp_path: Path) -> None:
    shutil.copy(plain.data / "sst2-train.jsonl", tmp_path)
    assert perform(replace(plain, data=tmp_path, output=tmp_path / "run")).endswith("no dev part to score on")
    assert_same_weights(finished, tmp_path / "run")  # the chosen settings given by hand make the same model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "make", "metric"),
    [("stsb", stsb, "pearson"), ("wnut17", wnut17, "entity_f1"), ("xquad", xquad, "answer_f1")],
)
def test_scores_tags_and_answers_are_learned_too(
    plain: Job, tmp_path: Path, name: str, make: Callable[[random.Random], dict[str, object]], metric: str
) -> None:
    data = write_task(tmp_path / "data", name, make)
    perform(
        replace(plain, name=name, data=data, output=tmp_path / "run", candidates=(replace(QUICK, epochs=12, batch=8),))
    )
    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert record["dev"][metric] > 0.9, record["dev"]
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text(encoding="utf-8"))
    if name != "xquad":
        assert tuple(config["id2label"].values()) == (TASKS[name].labels or ("LABEL_0",))


def test_a_rate_that_nothing_is_learned_with_ends_in_a_sentence(plain: Job, tmp_path: Path) -> None:
    useless = replace(QUICK, rate=1e300)
    with pytest.raises(RecipeError, match=r"the loss of step 2, .* is not a finite number, .*: choose a lower --rate"):
        perform(replace(plain, output=tmp_path / "run", candidates=(useless,)))
    assert not (tmp_path / "run" / "model").exists()
    perform(replace(plain, output=tmp_path / "chosen", candidates=(useless, QUICK), select=True))
    record = json.loads((tmp_path / "chosen" / "run.json").read_text(encoding="utf-8"))
    assert [trial["scores"] for trial in record["trials"]] == [{}, {"accuracy": 1.0}]
    assert record["chosen"]["rate"] == QUICK.rate


def test_settings_that_diverge_are_not_chosen_over_those_that_learn_nothing(tmp_path: Path) -> None:
    scores: dict[float, dict[str, float]] = {1.0: {}, QUICK.rate: {"matthews": -0.1}, 1e-4: {"matthews": -0.2}}
    candidates = [replace(QUICK, rate=rate) for rate in scores]
    chosen = choose(
        candidates,
        "matthews",
        lambda candidate, _: (Progress(), scores[candidate.rate]),
        tmp_path,
        [],
        lambda _: None,
    )
    assert chosen == candidates[1]


def test_the_seed_decides_the_result(finished: Path, plain: Job, tmp_path: Path) -> None:
    perform(replace(plain, output=tmp_path, seed=1))
    assert not torch.equal(weights(finished)["classifier.weight"], weights(tmp_path)["classifier.weight"])


def test_the_tenth_is_the_same_for_every_run_and_is_not_trained_on(data: Path) -> None:
    rows = read_rows(data / "sst2-train.jsonl", TASKS["sst2"])
    numbered = [replace(row, target=number) for number, row in enumerate(rows)]
    parts = split(numbered, most=None)
    assert len(parts.heldout) == 16
    assert sorted(row.target for row in parts.train + parts.heldout) == list(range(160))
    fewer = split(numbered, most=50)
    assert (fewer.heldout, fewer.train) == (parts.heldout, parts.train[:50])


def test_labels_that_no_row_has_are_named(tmp_path: Path) -> None:
    path = tmp_path / "wnut17-train.jsonl"
    line = {"tokens": ["a", "b", "c"], "tags": ["O", "B-person", "I-person"]}
    path.write_text(json.dumps(line) + "\n", encoding="utf-8")
    kinds = ("corporation", "creative-work", "group", "location", "product")
    expected = tuple(f"{prefix}-{kind}" for kind in kinds for prefix in "BI")
    assert absent_labels(read_rows(path, TASKS["wnut17"]), TASKS["wnut17"]) == expected
    assert absent_labels([], TASKS["stsb"]) == ()


def test_a_tenth_of_a_single_row_is_refused_in_a_sentence(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "sst2-train.jsonl").write_text(GOOD, encoding="utf-8")
    result = invoke("--task", "sst2", "--data", tmp_path, "--init", encoder, "--output", tmp_path / "run", "--select")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"note: 1 of the task's 2 labels never occurs in {tmp_path / 'sst2-train.jsonl'}: negative",
        "Error: --select holds out a tenth of train, and train has a single row: add some, or leave it out",
    ]


@pytest.mark.parametrize("numbers", [[2.0, 2.0, 2.0], [np.nan, np.nan, np.nan], [1.0, np.nan, 2.0]])
def test_scores_that_say_nothing_correlate_with_nothing(encoder: Path, tmp_path: Path, numbers: list[float]) -> None:
    path, task = tmp_path / "stsb-dev.jsonl", TASKS["stsb"]
    path.write_text("".join(json.dumps({"text": "a", "text_pair": "b", "label": label}) + "\n" for label in (0, 2, 5)))
    rows = read_rows(path, task)
    data = encode(rows, AutoTokenizer.from_pretrained(encoder).backend_tokenizer, length=128)
    answers, increasing = (
        [np.array([number], dtype=np.float32) for number in each] for each in (numbers, [0.0, 1.0, 2.0])
    )
    assert score(answers, data, rows, task) == {"spearman": 0.0, "pearson": 0.0}
    assert score(increasing, data, rows, task)["spearman"] == pytest.approx(1.0)
    alike = encode([rows[0]] * 3, AutoTokenizer.from_pretrained(encoder).backend_tokenizer, length=128)
    assert score(increasing, alike, [rows[0]] * 3, task) == {"spearman": 0.0, "pearson": 0.0}


def test_an_epoch_takes_every_row_once_and_pads_little() -> None:
    rng = np.random.default_rng(5)
    rows = [np.zeros(length, dtype=np.int64) for length in rng.integers(5, 120, size=1000)]
    data = Encoded(input_ids=rows, token_type_ids=rows, targets=[], offsets=[])
    batches, others = (list(epoch(data, 16, np.random.default_rng(seed))) for seed in (1, 2))
    assert sorted(np.concatenate(batches)) == list(range(1000))
    assert not np.array_equal(np.concatenate(batches), np.concatenate(others))
    padded = sum(len(batch) * max(len(rows[row]) for row in batch) for batch in batches)
    assert padded < 1.05 * sum(map(len, rows))


def test_only_the_first_token_of_a_word_is_labelled(encoder: Path, tmp_path: Path) -> None:
    path, task = tmp_path / "wnut17-train.jsonl", TASKS["wnut17"]
    path.write_text('{"tokens": ["The", "captainly", "sea"], "tags": ["O", "B-person", "O"]}\n', encoding="utf-8")
    encoded = encode(read_rows(path, task), AutoTokenizer.from_pretrained(encoder).backend_tokenizer, length=128)
    (ids,), (tags,) = encoded.input_ids, encoded.targets
    assert len(ids) > 6
    assert [task.labels[tag] for tag in tags[tags >= 0]] == ["O", "B-person", "O"]
    assert tags[0] == tags[-1] == -100


def test_an_answer_is_its_tokens_and_one_that_is_cut_away_is_none(encoder: Path, tmp_path: Path) -> None:
    context = "The sailor watched the waves from the deck before the storm."
    answers = {"text": ["the storm"], "answer_start": [context.index("the storm")]}
    path = tmp_path / "xquad-train.jsonl"
    path.write_text(json.dumps({"question": "What?", "context": context, "answers": answers}), encoding="utf-8")
    rows, tokenizer = read_rows(path, TASKS["xquad"]), AutoTokenizer.from_pretrained(encoder).backend_tokenizer
    whole = encode(rows, tokenizer, length=128)
    ((first, last),), (offsets,) = whole.targets, whole.offsets
    assert context[offsets[first, 0] : offsets[last, 1]] == "the storm"
    sure = np.zeros((2, len(offsets)), dtype=np.float32)
    sure[0, first] = sure[1, last] = 1.0
    assert answer_text(sure, offsets, rows[0]) == "the storm"
    (cut,) = encode(rows, tokenizer, length=int(last)).targets
    assert cut.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("truth", "predicted", "expected"),
    [
        (["B-a", "I-a", "O"], ["B-a", "I-a", "O"], 1.0),
        (["B-a", "I-a", "O"], ["B-a", "O", "O"], 0.0),
        (["B-a", "B-a", "O"], ["B-a", "I-a", "O"], 0.0),
        (["B-a", "I-a", "B-b"], ["O", "O", "I-b"], 2 / 3),
        (["O", "O", "O"], ["O", "O", "O"], 0.0),
    ],
)
def test_an_entity_counts_as_a_whole(truth: list[str], predicted: list[str], expected: float) -> None:
    assert entity_f1([truth], [predicted]) == pytest.approx(expected)


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(finetune.main, [str(argument) for argument in arguments])


def test_the_command_trains_and_its_second_call_leaves_the_result_alone(
    finished: Path, data: Path, encoder: Path, tmp_path: Path
) -> None:
    command = ["--task", "sst2", "--data", data, "--init", encoder, "--output", tmp_path / "run", "--threads", "1"]
    command += ["--dtype", "float32", "--rate", "3e-3", "--epochs", "3", "--batch", "16", "--dropout", "0.1"]
    result = invoke(*command)
    assert result.exit_code == 0, result.output
    assert "dev: accuracy 1.0000" in result.stderr
    assert_same_weights(finished, tmp_path / "run")
    again = invoke(*command)
    assert again.exit_code == 0
    assert "is finished already: choose another --output for another run" in again.stderr
    other = invoke(*command, "--seed", "2")
    assert other.exit_code == 1
    assert "began with seed 0, not 2: give it the options it began with" in other.stderr


def test_a_choice_is_among_bert_s_rates_and_epochs_where_none_are_given(
    plain: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Job] = []
    monkeypatch.setattr(finetune, "perform", lambda job: jobs.append(job) or "done")
    command = ("--task", "sst2", "--data", plain.data, "--init", plain.init, "--output", tmp_path)
    for extra in (("--select",), ("--select", "--rate", "1e-3", "--dropout", "0", "--dropout", "0.1"), ()):
        assert invoke(*command, *extra).exit_code == 0
    whole, narrowed, none = (job.candidates for job in jobs)
    assert {(each.rate, each.epochs) for each in whole} == set(product((2e-5, 3e-5, 5e-5, 1e-4), (2, 3, 4)))
    assert {(each.rate, each.epochs, each.dropout) for each in narrowed} == set(product([1e-3], [2, 3, 4], [0, 0.1]))
    assert none == (TASKS["sst2"].settings,)


QUESTION = '{"question": "What?", "context": "The storm.", "answers": {"text": ["%s"], "answer_start": [%d]}}\n'
GOOD = '{"text": "The captain", "label": "positive"}\n'


@pytest.mark.parametrize(
    ("name", "lines", "sentence"),
    [
        ("sst2", "", "is empty: expected one JSON object a line"),
        ("sst2", GOOD + "{\n", "line 2: not JSON"),
        ("sst2", GOOD + '{"text": "a"}\n', "line 2: label is missing"),
        ("sst2", GOOD + '{"label": "positive"}\n', "line 2: text is missing"),
        ("sst2", GOOD + '{"text": "a", "label": 1}\n', "line 2: 1 is none of the task's labels (negative, positive)"),
        ("sst2", '{"text": "a", "label": "good"}\n', "line 1: 'good' is none of the task's labels"),
        ("rte", '{"text": "a", "label": "entailment"}\n', "line 1: text_pair is missing"),
        (
            "stsb",
            '{"text": "a", "text_pair": "b", "label": "5"}\n',
            "line 1: label must be a finite number, and is '5'",
        ),
        (
            "stsb",
            '{"text": "a", "text_pair": "b", "label": NaN}\n',
            "line 1: label must be a finite number, and is nan",
        ),
        (
            "stsb",
            '{"text": "a", "text_pair": "b", "label": true}\n',
            "line 1: label must be a finite number, and is True",
        ),
        ("wnut17", '{"tokens": ["a"], "tags": ["B-place"]}\n', "line 1: 'B-place' is none of the task's labels (O, B-"),
        (
            "wnut17",
            '{"tokens": ["a"], "tags": []}\n',
            "line 1: tags must be a list of 1 tags, one for each token, and is []",
        ),
        ("wnut17", '{"tokens": ["a"], "tags": [["O"]]}\n', "line 1: ['O'] is none of the task's labels"),
        (
            "wnut17",
            '{"tokens": [], "tags": []}\n',
            "line 1: tokens must be a list of 1 or more texts, and is []: correct or remove the line",
        ),
        ("xquad", QUESTION % ("storm", 5), "line 1: answers must be an object whose text stands at answer_start"),
        ("xquad", QUESTION % ("", 4), "line 1: answers must be an object whose text stands at answer_start"),
        ("cola", None, "holds no cola-train.jsonl, nor one that is compressed: put the training rows there"),
    ],
)
def test_bad_data_is_named_in_a_sentence_before_anything_is_trained(
    encoder: Path, tmp_path: Path, name: str, lines: str | None, sentence: str
) -> None:
    for part in ("train", "dev") if lines is not None else ():
        (tmp_path / f"{name}-{part}.jsonl").write_text(lines or "", encoding="utf-8")
    result = invoke("--task", name, "--data", tmp_path, "--init", encoder, "--output", tmp_path / "run")
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("extra", "code", "sentence"),
    [
        (("--task", "sst3"), 2, "'sst3' is not one of 'sst2', 'cola'"),
        (("--init", "nowhere"), 1, "--init nowhere: no such directory; name a bundle or a checkpoint directory"),
        (("--rate", "1e-4", "--rate", "1e-5"), 2, "2 settings were given: add --select to choose among them"),
        (("--dropout", "1"), 2, "'--dropout'"),
        (("--dropout", "nan"), 2, "'--dropout': nan is not a finite number"),
        (("--rate", "inf"), 2, "'--rate': inf is not a finite number"),
        (("--save-every", "nan"), 2, "'--save-every': nan is not a finite number"),
        (("--trial-rows", "4"), 2, "--trial-rows is about the trials of --select: give both, or neither"),
    ],
)
def test_a_mistake_is_answered_in_a_sentence(
    plain: Job, tmp_path: Path, extra: tuple[str, ...], code: int, sentence: str
) -> None:
    common = ("--task", "sst2", "--data", plain.data, "--init", plain.init, "--output", tmp_path / "run")
    result = invoke(*common, *extra)
    assert result.exit_code == code
    assert sentence in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("name", ["cola", "wnut17"])  # a head of the same shape, and one of another
def test_a_head_is_fresh_and_the_encoder_is_not(finished: Path, tmp_path: Path, name: str) -> None:
    start = open_start(finished / "model", TASKS[name], tmp_path)
    model, again, other = (start.model(dropout=0.1, seed=seed).state_dict() for seed in (4, 4, 5))
    trained = weights(finished)
    assert all(torch.equal(tensor, trained[name]) for name, tensor in model.items() if name.startswith("bert."))
    head = model["classifier.weight"]
    assert torch.equal(head, again["classifier.weight"])
    assert not torch.equal(head, other["classifier.weight"])
    assert head.shape != trained["classifier.weight"].shape or not torch.equal(head, trained["classifier.weight"])
    assert head.std() < 0.03  # BERT's initializer_range is 0.02


def test_a_bundle_in_the_place_of_another_is_not_taken_for_it(tiny_bundle: Path, tmp_path: Path) -> None:
    """An interrupted run goes on with what it restored, and one that began with another bundle is refused."""
    bundle, cache = shutil.copytree(tiny_bundle, tmp_path / "bundle"), tmp_path / "cache"
    first = open_start(bundle, TASKS["sst2"], cache).path
    assert open_start(bundle, TASKS["sst2"], cache).path == first
    manifest = bundle / "manifest.json"
    manifest.write_bytes(sealed(json.loads(manifest.read_text(encoding="utf-8")) | {"name": "another"}))
    assert open_start(bundle, TASKS["sst2"], cache).path != first


@pytest.mark.parametrize("family", ["bert", "roberta"])  # whose positions count from 0, and from behind padding's id
def test_a_text_is_cut_to_what_the_encoder_has_positions_for(plain: Job, tmp_path: Path, family: str) -> None:
    init = tiny(family, tmp_path / "init", max_position_embeddings=20)
    tokenizer = AutoTokenizer.from_pretrained(init)
    tokenizer.model_max_length = 10**30  # transformers' own where nothing is stated
    tokenizer.save_pretrained(init)
    rows = [json.dumps({"text": "the sea " * 200, "label": label}) + "\n" for label in ("negative", "positive")]
    for part in ("train", "dev"):
        (tmp_path / f"sst2-{part}.jsonl").write_text("".join(rows), encoding="utf-8")
    step = (replace(QUICK, epochs=1),)
    said = perform(replace(plain, data=tmp_path, init=init, output=tmp_path / "run", candidates=step))
    positions = {"bert": 20, "roberta": 18}[family]
    assert f"{2 * positions} tokens in" in said


@pytest.mark.parametrize("family", ["bert", "distilbert"])  # whose settings have other names
def test_dropout_is_that_of_every_layer_and_of_the_head(tmp_path: Path, family: str) -> None:
    start = open_start(tiny(family, tmp_path / "init"), TASKS["sst2"], tmp_path)
    modules = start.model(dropout=0.25, seed=0).modules()
    assert {module.p for module in modules if isinstance(module, torch.nn.Dropout)} == {0.25}


def test_an_encoder_without_its_weights_is_refused(data: Path, encoder: Path, tmp_path: Path) -> None:
    init = tmp_path / "init"
    shutil.copytree(encoder, init)
    config = json.loads((init / "config.json").read_text(encoding="utf-8"))
    (init / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}), encoding="utf-8")
    result = invoke("--task", "sst2", "--data", data, "--init", init, "--output", tmp_path / "run")
    assert result.exit_code == 1
    assert "lacks weights of the encoder (bert.encoder.layer.2." in result.stderr
