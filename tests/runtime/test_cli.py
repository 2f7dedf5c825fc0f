"""The command line: results on stdout, one sentence on stderr for a mistake, and the exit code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bertport.runtime import cli
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.commands.options import FiniteRange
from bertport.runtime.commands.predict import described, predict
from bertport.runtime.installation import install_command
from bertport.runtime.tasks.poolings import CLS_CHANGED
from bertport.runtime.tasks.table import TASKS


@pytest.fixture
def run(tiny_bundle):
    """Run the command line; `BUNDLE` in the arguments stands for the tiny bundle."""

    def invoke(*arguments, stdin=None):
        place = [str(tiny_bundle) if argument == "BUNDLE" else argument for argument in arguments]
        return CliRunner().invoke(cli.app, place, input=stdin, catch_exceptions=False)

    return invoke


def test_fill_mask_json_is_the_answer(run, model):
    done = run("fill-mask", "a [MASK]", "-m", "BUNDLE", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == model.fill_mask("a [MASK]")
    assert done.stderr == ""
    done = run(
        "fill-mask", "a [MASK]", "[MASK] b [MASK]", "-k", "2", "-m", "BUNDLE", "--json", "-t", "king", "-t", "queen"
    )
    assert json.loads(done.stdout) == model.fill_mask(
        ["a [MASK]", "[MASK] b [MASK]"], top_k=2, targets=["king", "queen"]
    )


LOW_MEMORY = """
import sys
from bertport.runtime import loading
real = loading.load
def load(*given, **named):
    print(named["low_memory"], file=sys.stderr)
    return real(*given, **named)
loading.load = load
from bertport.runtime.cli import main
main()
"""


def test_low_memory_reaches_load_and_changes_no_word(tiny_bundle, model):
    command = [sys.executable, "-c", LOW_MEMORY, "fill-mask", "a [MASK]", "-m", str(tiny_bundle), "--json"]
    done = subprocess.run([*command, "--low-memory"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "True\n")
    said, expected = (
        [answer["token"] for answer in answers] for answers in (json.loads(done.stdout), model.fill_mask("a [MASK]"))
    )
    assert said == expected


def test_fill_mask_for_people_is_aligned(run):
    done = run("fill-mask", "日本 is [MASK]", "-m", "BUNDLE", "--top-k", "3", "-t", "king", "-t", "日", "-t", "the")
    text, *rows = done.stdout.splitlines()
    assert text == "日本 is [MASK]"
    assert len(rows) == 3
    columns = {cli_width(line[: line.index("%")]) for line in rows}
    assert len(columns) == 1


def cli_width(text):
    return sum(2 if "\u2e80" <= character <= "\u9fff" else 1 for character in text)


def test_alone_it_shows_where_to_begin(run):
    done = run()
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) <= 12
    assert max(map(len, lines)) <= 120
    commands = [line.split()[1] for line in lines if line.startswith("  bertport ")]
    assert commands == ["fill-mask", "export", "serve"]
    assert set(commands) <= set(cli.app.list_commands(None))


def test_several_masks_and_texts_for_people(run):
    done = run("fill-mask", "a [MASK]\x1b[31m", "[MASK] [MASK]", "-m", "BUNDLE", "-k", "1")
    lines = done.stdout.splitlines()
    assert lines[0] == "a [MASK]\\x1b[31m"
    assert lines[2:5] == ["", "[MASK] [MASK]", "mask 1 of 2"]
    assert lines[6] == "mask 2 of 2"


def test_next_sentence(run, model):
    done = run("next-sentence", "a", "b", "-m", "BUNDLE", "--json")
    assert json.loads(done.stdout) == model.next_sentence("a", "b")
    lines = run("next-sentence", "a", "b", "-m", "BUNDLE").stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].split()[0] == model.next_sentence("a", "b")["label"]


def test_features(run, model):
    done = run("features", "a", "b c", "-m", "BUNDLE", "--pooling", "mean", "--normalize", "--json")
    assert json.loads(done.stdout) == model.features(["a", "b c"], pooling="mean", normalize=True).tolist()
    assert "3 x 32 float32" in run("features", "a", "-m", "BUNDLE").stdout


@pytest.mark.parametrize("command", [["features", "a", "--pooling"], ["predict", "features", "-p"]])
def test_a_pooling_whose_meaning_changed_is_said_in_one_line(run, command):
    said = {}
    for pooling in ("cls", "pooler"):
        value = pooling if "--pooling" in command else f"pooling={pooling}"
        done = run(*command, value, "-m", "BUNDLE", stdin='"a"\n"b"')
        assert done.exit_code == 0
        said[pooling] = done.stderr.splitlines()
    assert said == {"cls": [f"bertport: note: {CLS_CHANGED}"], "pooler": []}


def test_predict_answers_every_line_and_reports_the_bad_ones(run, model):
    lines = ['"a [MASK]"', "{bad", "", '{"text": "b [MASK]"}', '"no mask"', "3", '"[MASK] ' + "x " * 300 + '"']
    done = run("predict", "fill-mask", "-", "-m", "BUNDLE", "-p", "top_k=2", stdin="\n".join(lines))
    assert done.exit_code == 1
    outputs = [json.loads(line) for line in done.stdout.splitlines()]
    assert [output["line"] for output in outputs] == [1, 2, 4, 5, 6, 7]
    assert outputs[0]["result"] == model.fill_mask("a [MASK]", top_k=2)
    assert outputs[2]["result"] == model.fill_mask("b [MASK]", top_k=2)
    assert ["error" in output for output in outputs] == [False, True, False, True, True, True]
    reported = done.stderr.splitlines()
    assert [line.split(":")[1].strip() for line in reported[:-1]] == ["line 2", "line 5", "line 6", "line 7"]
    assert reported[-1] == "bertport: error: 4 of 6 lines could not be answered"


def test_predict_answers_inputs_on_the_command_line(run, model):
    inputs = ["[MASK] a", '"a [MASK]"', '{"text":\n"b [MASK]"}', "3", '[1, "[MASK]"']
    done = run("predict", "fill-mask", *(part for text in inputs for part in ("-i", text)), "-m", "BUNDLE")
    assert done.exit_code == 1
    outputs = [json.loads(line) for line in done.stdout.splitlines()]
    texts = ["[MASK] a", "a [MASK]", "b [MASK]", None, '[1, "[MASK]"']
    for number, (output, text) in enumerate(zip(outputs, texts, strict=True), 1):
        assert output["line"] == number
        assert ("error" in output) is (text is None)
        assert text is None or output["result"] == model.fill_mask(text)
    said = done.stderr.splitlines()
    assert said[0].startswith("bertport: input 4: No mask_token ([MASK]) found on the input")
    assert said[1:] == ["bertport: error: 1 of 5 inputs could not be answered"]


def test_help_names_every_task():
    assert all(name in predict.help for name in TASKS)


def test_the_committed_page_is_what_the_commands_say():
    program = [sys.executable, str(Path(__file__).parents[2] / "docs" / "generate_cli.py"), "--check"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_predict_reads_a_file_of_pairs_and_gives_vectors_as_lists(run, tmp_path, model):
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b'\xef\xbb\xbf["a", "b"]\r\n{"text": "a", "text_pair": "b"}\n')
    done = run("predict", "next-sentence", str(path), "-m", "BUNDLE")
    assert done.exit_code == 0
    first, second = (json.loads(line)["result"] for line in done.stdout.splitlines())
    assert first == second
    assert first["probabilities"] == pytest.approx(model.next_sentence("a", "b")["probabilities"], abs=1e-6)
    done = run("predict", "features", "-m", "BUNDLE", "-p", "pooling=mean", stdin='"a"')
    assert json.loads(done.stdout)["result"] == model.features("a", pooling="mean").tolist()


def test_predict_answers_each_line_as_it_comes(tiny_bundle):
    """A program that writes a line and waits for its answer before it writes the next is not kept waiting."""
    command = [sys.executable, "-m", "bertport.runtime", "predict", "fill-mask", "-m", str(tiny_bundle)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        for number in range(1, 12):
            process.stdin.write('"a [MASK]"\n')
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["line"] == number
        process.stdin.write('"the last line [MASK], without an end"')
        process.stdin.close()
        assert json.loads(process.stdout.readline())["line"] == 12
        assert process.wait(30) == 0


@pytest.mark.skipif(not shutil.which("sh"), reason="closing standard input takes a POSIX shell")
def test_closed_standard_input_is_one_sentence(tiny_bundle):
    bertport = [sys.executable, "-m", "bertport.runtime", "predict", "fill-mask", "-m", str(tiny_bundle)]
    command = ["sh", "-c", 'exec "$@" <&-', "sh", *bertport]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr == (
        "bertport: error: cannot read - (it is not open): name a file of JSON lines, or - for standard input\n"
    )


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="only POSIX has pseudo-terminals")
@pytest.mark.parametrize("source", ["file", "pipe"])
def test_a_terminal_is_shown_how_far_predict_is(tiny_bundle, tmp_path, source):
    """Standard error is a terminal and standard output is not: the answers are clean, and the line is erased."""
    path = tmp_path / "lines.jsonl"
    path.write_text('"a [MASK]"\n"no mask"\n' * 300)
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "bertport.runtime", "predict", "fill-mask", "-m", str(tiny_bundle)]
    command += [str(path)] if source == "file" else []
    answers, said = [], b""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=theirs) as process:
        os.close(theirs)
        others = [threading.Thread(target=lambda: answers.append(process.stdout.read()))]
        if source == "pipe":
            others.append(
                threading.Thread(target=lambda: (process.stdin.write(path.read_bytes()), process.stdin.close()))
            )
        for thread in others:
            thread.start()
        with suppress(OSError):  # Linux's way of saying that the other end is closed
            while part := os.read(ours, 65536):
                said += part
        for thread in others:
            thread.join()
        process.wait(60)
    os.close(ours)
    lines = [json.loads(line) for line in answers[0].splitlines()]
    assert [line["line"] for line in lines] == list(range(1, 601))
    if source == "file":
        assert b"% " in said
        assert b"[#" in said or b"[." in said
    assert b" lines, " in said
    assert b" a second" in said
    # The errors stand on lines of their own, and the last line is erased before the closing sentence.
    errors = [line for line in said.split(b"\n") if b"bertport: line" in line]
    assert len(errors) == 300
    errors.append(said.split(b"\n")[-2])
    seen = [line.rstrip(b"\r").rpartition(b"\r")[2] for line in errors]
    assert all(line.startswith(b"bertport: line") for line in seen[:-1])
    assert seen[-1].startswith(b"bertport: error: 300 of 600 lines could not be answered")


def test_no_terminal_is_shown_nothing(run):
    assert run("predict", "fill-mask", "-m", "BUNDLE", stdin='"a [MASK]"\n').stderr == ""
    assert described(1200, 50, 200, 2.0) == "[######..................]  25%  1,200 lines, 600 a second, 6 s left"
    assert described(1200, 50, None, 2.0) == "1,200 lines, 600 a second"


def test_a_target_that_is_replaced_is_a_warning_on_stderr(run):
    done = run("fill-mask", "a [MASK]", "-m", "BUNDLE", "--target", "parisian", "--target", "king", "--json")
    assert done.exit_code == 0
    json.loads(done.stdout)
    assert done.stderr.startswith("bertport: warning: the target 'parisian' is not in the vocabulary")


def test_inspect(run, tiny_bundle):
    done = run("inspect", "BUNDLE", "--json")
    assert json.loads(done.stdout) == json.loads((tiny_bundle / "manifest.json").read_text())
    text = run("inspect", "BUNDLE").stdout
    for said in ("tiny-bert", "mlm, nsp, pooler", "0: is_next, 1: not_next", "160 tokens", "fp32 *", "apache-2.0"):
        assert said in text


def test_verify(run, edited):
    bundle = edited()
    done = run("verify", str(bundle), "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["files"] == len(Bundle.open(bundle).manifest.files)
    (bundle / "notes.txt").write_text("mine")
    (bundle / "README.md").write_text("mine")
    done = run("verify", str(bundle))
    assert done.exit_code == 0
    assert done.stderr == "bertport: warning: notes.txt is not part of the bundle\n"
    with (bundle / "vocab.txt").open("a") as file:
        file.write("x")
    done = run("verify", str(bundle))
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "vocab.txt is not the file that was exported" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["fill-mask", "no mask", "-m", "BUNDLE"], 2, r"No mask_token ([MASK]) found on the input"),
        (["fill-mask", "a [MASK]", "-m", "/nowhere"], 2, "no bundle at /nowhere"),
        (["fill-mask", "a [MASK]", "-m", "BUNDLE", "--variant", "int3"], 2, "unknown variant 'int3' (available:"),
        (["fill-mask", "a [MASK]", "-m", "BUNDLE", "--provider", "gpu"], 2, "unknown provider 'gpu' (available:"),
        (
            ["fill-mask", "a [MASK]", "-m", "BUNDLE", "--provider", "cpu", "--provider", "cuda"],
            2,
            "--provider is given 2 times ('cpu', 'cuda'): keep one",
        ),
        (["fill-mask", "a [MASK]", "-m", "BUNDLE", "--provider", "cuda"], 1, "'cuda' is not available here"),
        (["fill-mask", "a [MASK]", "-m", "BUNDLE", "--threads", "0"], 2, "threads is a number from 1 up"),
        (["fill-mask", "a [MASK]", "-m", "BUNDLE", "--threads", "99999"], 2, "cores: ask for 1024 at most"),
        (["fill-mask", "[MASK]" + " a" * 200, "-m", "BUNDLE"], 2, "the input has 203 tokens and the model takes 160"),
        (["fill-mask", "a " * 200 + "[MASK]", "-m", "BUNDLE", "--truncation"], 2, "cut off a [MASK]"),
        (["features", "a", "-m", "BUNDLE", "--pooling", "max"], 2, "unknown pooling 'max'"),
        (["predict", "features", "-m", "BUNDLE", "--streams", "0"], 2, "streams is 0 and each takes at least one of"),
        (
            ["sentence-order", "a", "b", "-m", "BUNDLE"],
            2,
            "it; this one answers fill-mask, next-sentence, feat",
        ),
        (["predict", "nothing", "-m", "BUNDLE"], 2, "unknown task 'nothing'"),
        (["predict", "fill-mask", "/nowhere", "-m", "BUNDLE"], 2, "cannot read /nowhere"),
        (["predict", "fill-mask", "x.jsonl", "-i", "a", "-m", "BUNDLE"], 2, "x.jsonl or --input, and both were given"),
        (["predict", "fill-mask", "-m", "BUNDLE", "-p", "top_k"], 2, "a parameter is written KEY=VALUE"),
        (["predict", "fill-mask", "-m", "BUNDLE", "-p", "top=1"], 2, "unknown parameter of fill-mask 'top'"),
        (["predict", "fill-mask", "-m", "BUNDLE", "-p", "task=1"], 2, "unknown parameter of fill-mask 'task'"),
        (
            ["predict", "fill-mask", "-m", "BUNDLE", "-p", "top_k=1", "-p", "top_k=2"],
            2,
            "the parameter 'top_k' is given twice ('1' and '2'): keep one",
        ),
        (["predict", "fill-mask", "-m", "BUNDLE", "-p", "targets=1"], 2, "targets is a word or a list of words, not 1"),
        (["inspect", "/nowhere"], 2, "no bundle at /nowhere"),
        (["verify", "/tmp"], 1, "/tmp is not a bundle"),  # noqa: S108 — only looked at
    ],
)
def test_a_mistake_is_one_sentence_and_an_exit_code(run, arguments, code, said):
    done = run(*arguments)
    assert done.exit_code == code
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("bertport: error: ")
    assert said in line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize("command", [("fill-mask", "a [MASK]", "-m"), ("inspect", "--json")])
def test_no_room_for_the_answer_is_one_sentence(tiny_bundle, command):
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bertport.runtime", *command, str(tiny_bundle)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr == (
        "bertport: error: cannot write the output (No space left on device): free some room, or write elsewhere\n"
    )


def test_a_subcommand_whose_packages_are_missing_does_not_take_the_others_along(monkeypatch, tmp_path):
    """A real entry point, in a distribution of its own, whose module needs what is not installed."""
    (tmp_path / "broken_area.py").write_text("import not_there_at_all\n")
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[bertport.commands]\nbroken = broken_area:command\n")
    monkeypatch.syspath_prepend(tmp_path)
    runner = CliRunner()
    listing = runner.invoke(cli.app, ["--help"], catch_exceptions=False)
    assert listing.exit_code == 0
    assert "(not available: `bertport broken` says what it lacks)" in listing.stdout
    done = runner.invoke(cli.app, ["broken", "x", "--y"], catch_exceptions=False)
    assert done.exit_code == 1
    assert done.stderr == (
        "bertport: error: broken needs the package not_there_at_all, which is not installed: "
        f"{install_command('broken')}\n"
    )


def test_main_is_what_the_program_runs(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("bertport, version ")


def test_what_is_no_finite_number_is_in_no_range():
    for text in ("nan", "inf"):
        with pytest.raises(click.BadParameter, match=f"{text} is not a finite number"):
            FiniteRange(0).convert(text, None, None)
    assert FiniteRange(0).convert("1.5", None, None) == 1.5
