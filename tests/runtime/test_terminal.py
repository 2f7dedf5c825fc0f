"""The command line at a terminal, whatever it is given and wherever its output goes: answers or one sentence."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertport.runtime import cli
from bertport.runtime.commands import output, predict
from bertport.runtime.commands.output import Messages, show_json

BERTPORT = [sys.executable, "-m", "bertport.runtime"]
NOT_UTF_8 = os.fsdecode(b"no\xff")
CLOSED = "bertport: error: cannot write the output (it is not open): give the command a standard output\n"
FULL = "bertport: error: cannot write the output (No space left on device): free some room, or write elsewhere\n"

posix = pytest.mark.skipif(os.name != "posix", reason="closing a standard stream takes a POSIX shell")
linux = pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")


class Ended:
    """End of a run of the command line."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(tiny_bundle, tiny_checkpoint, tmp_path, monkeypatch):
    """Run `main` in this process, its output in an encoding; BUNDLE and CHECKPOINT stand for the tiny ones."""
    monkeypatch.chdir(tmp_path)
    stands = {"BUNDLE": str(tiny_bundle), "CHECKPOINT": str(tiny_checkpoint)}

    def invoke(*arguments, encoding="utf-8", closed=False):
        out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        err = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")
        with monkeypatch.context() as patched:  # undone alone: the working directory stays for the next run
            patched.setattr(sys, "stdout", out)
            patched.setattr(sys, "stderr", None if closed else err)  # as Python has it where a process has none
            patched.setattr(sys, "argv", ["bertport", *arguments])
            with pytest.raises(SystemExit) as end:
                cli.main([stands.get(argument, argument) for argument in arguments])
            err.flush()
        return Ended(end.value.code, out.buffer.getvalue().decode(encoding), err.buffer.getvalue().decode(encoding))

    return invoke


def shell(script, *arguments, stdin=None, **environment):
    """Run `bertport ARGUMENTS` where `script` has "$@"."""
    return subprocess.run(
        ["/bin/sh", "-c", script, "sh", *BERTPORT, *map(str, arguments)],
        input=stdin,
        env=os.environ | environment,
        capture_output=True,
        check=False,
        timeout=120,
    )


FORKS = """
import os, sys
import bertport.runtime.cli, bertport.runtime.model
import numpy, onnxruntime, tokenizers  # what commands import, once for all of them
codes, *words = sys.argv[1:]
while words:
    end = words.index("END")
    arguments, words = words[:end], words[end + 1:]
    child = os.fork()
    if not child:
        bertport.runtime.cli.main(arguments)  # and the interpreter ends as it does after any command
    with open(codes, "a") as file:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=file)
    for number in (1, 2):
        try:
            os.write(number, b"\\0")
        except OSError:
            pass
"""
"""Runs commands that each end in END, each in a process of its own; a NUL ends the output of each, where it can."""


def forked(script, commands, codes, stdin=None):
    """Run `bertport` with the arguments of each command where `script` has "$@"; return how each ended."""
    words = [str(word) for command in commands for word in (*command, "END")]
    done = subprocess.run(
        ["/bin/sh", "-c", script, "sh", sys.executable, "-W", "ignore", "-c", FORKS, str(codes), *words],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    outs, errs = ((*each.split(b"\0"), *[b""] * len(commands)) for each in (done.stdout, done.stderr))
    return [Ended(int(code), *said) for code, *said in zip(codes.read_text().split(), outs, errs, strict=False)]


# Whatever is given


def hostile(directory):
    """Make files and directories that no program expects."""
    (directory / "directory").mkdir()
    (directory / "empty").touch()
    (directory / "binary").write_bytes(bytes(range(256)) * 9)
    (directory / "text").write_text("some text\n")
    (directory / "loop").symlink_to("loop")
    contents = {
        "deep": b"[" * 100_000,
        "list": b"[]",
        "nan": b'{"format_version": NaN}',
        "digits": b'{"format_version": ' + b"9" * 5000 + b"}",
        "bytes": bytes(range(256)),
    }
    for name, content in contents.items():
        (directory / name).mkdir()
        (directory / name / "manifest.json").write_bytes(content)
    (directory / "odd" / "manifest.json").mkdir(parents=True)


PATHS = [
    *("", "empty", "binary", "directory", "text", "loop", "deep", "list", "nan", "digits", "bytes", "odd"),
    *("/dev/null", "/nowhere", NOT_UTF_8, "a\0b", "x" * 5000, "\n", "\x1b[31m"),
]
WITH_A_PATH = [
    ("fill-mask", "a [MASK]", "-m", "PATH"),
    ("next-sentence", "a", "b", "-m", "PATH"),
    ("features", "a", "-m", "PATH"),
    ("predict", "fill-mask", "-m", "PATH"),
    ("predict", "fill-mask", "PATH", "-m", "BUNDLE"),
    ("inspect", "PATH"),
    ("verify", "PATH"),
    ("export", "PATH", "out"),
    ("quantize", "PATH"),
    ("quantize", "BUNDLE", "--text", "PATH", "--calibration", "PATH"),
    ("evaluate", "PATH", "--data", "text"),
    ("evaluate", "BUNDLE", "--data", "PATH", "--task", "text-classification"),
    ("evaluate", "BUNDLE", "--data", "text", "--output", "PATH"),
    ("compare", "PATH", "--quick", "--output", "out"),
    ("compare", "--output", "PATH", "--from", "PATH"),
    ("compare", "--output", "out", "--from", "PATH", "--against", "PATH"),
    ("compare", "BUNDLE", "--output", "out", "--quick", "--text", "PATH", "--templates", "PATH"),
]
NUMBERS = ["10" * 30, "-1", "0", "nan", "inf", "1e400", "", "½", "0x10"]
WITH_A_NUMBER = [
    ("fill-mask", "no mask", "-m", "BUNDLE", "--threads", "NUMBER"),
    ("fill-mask", "no mask", "-m", "BUNDLE", "-k", "NUMBER"),
    ("predict", "fill-mask", "/nowhere", "-m", "BUNDLE", "--streams", "NUMBER"),
    ("predict", "fill-mask", "/nowhere", "-m", "BUNDLE", "-p", "top_k=NUMBER"),
    ("export", "CHECKPOINT", "/dev/null/out", "--atol", "NUMBER"),
    ("export", "CHECKPOINT", "/dev/null/out", "--opset", "NUMBER"),
    ("quantize", "/nowhere", "--smooth", "NUMBER"),
    ("quantize", "/nowhere", "--positions", "NUMBER"),
    ("quantize", "/nowhere", "--accuracy-budget", "top1=NUMBER"),
    ("evaluate", "BUNDLE", "--data", "/nowhere", "--limit", "NUMBER"),
    ("evaluate", "BUNDLE", "--data", "/nowhere", "--examples", "NUMBER"),
    ("compare", "--output", "out", "--from", "/nowhere", "--threads", "NUMBER"),
    ("compare", "--output", "out", "--from", "/nowhere", "--tolerance", "NUMBER"),
    ("compare", "--output", "out", "--from", "/nowhere", "--accuracy-budget", "top1=NUMBER"),
    ("serve", "/nowhere", "--port", "1NUMBER0000000"),
]
WORDS = ["", "\udcff", "a\0b", "\n", "--", "=", "[" * 100_000, "targets=[[[", "日本", "\x1b[31m"]
WITH_A_WORD = [
    ("WORD",),
    ("predict", "WORD", "text", "-m", "BUNDLE"),
    ("predict", "fill-mask", "text", "-m", "BUNDLE", "-p", "WORD"),
    ("features", "a", "-m", "BUNDLE", "--pooling", "WORD"),
    ("fill-mask", "a [MASK]", "-m", "BUNDLE", "--variant", "WORD"),
    ("fill-mask", "a [MASK]", "-m", "BUNDLE", "--provider", "WORD"),
    ("fill-mask", "a [MASK]", "-m", "BUNDLE", "--provider", "cpu", "--provider-option", "WORD"),
    ("export", "CHECKPOINT", "/dev/null/out", "--name", "WORD"),
    ("quantize", "BUNDLE", "--recipe", "WORD"),
    ("quantize", "BUNDLE", "--accuracy-budget", "WORD"),
    ("evaluate", "BUNDLE", "--data", "/nowhere", "--against", "WORD"),
    ("evaluate", "BUNDLE", "--data", "/nowhere", "--task", "WORD"),
    ("evaluate", "BUNDLE", "--data", "/nowhere", "--label-map", "WORD"),
    ("compare", "BUNDLE", "--quick", "--output", "out", "--variant", "WORD"),
    ("compare", "BUNDLE", "--quick", "--output", "out", "--provider", "WORD"),
    ("serve", "BUNDLE", "--variant", "WORD", "--port", "x"),
]


def mistaken(done):
    """It failed, said so in one sentence that moves no cursor and is not too long, and blamed no other party."""
    assert done.code in {1, 2}
    assert done.out == "" or done.out.startswith('{"line"')
    assert "Traceback" not in done.err
    assert "unexpected" not in done.err.replace("unexpected extra argument", "")
    assert not set(done.err) & {"\x1b", "\0", "\r"}
    assert len(done.err) < 6000
    last = done.err.splitlines()[-1]
    if last.startswith("Error: "):  # click's own, with a line of usage before
        assert done.code == 2
    else:
        assert last.startswith("bertport: error: ")
        assert done.err.count("bertport: error: ") == 1


def ids(case):
    return ascii(case if isinstance(case, str) else " ".join(case))[1:-1][:60]


@pytest.mark.parametrize("path", PATHS, ids=ids)
@pytest.mark.parametrize("command", WITH_A_PATH, ids=ids)
def test_a_path_that_is_none(run, tmp_path, monkeypatch, command, path):
    hostile(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    if (command[1:3], path) in {(("fill-mask", "PATH"), place) for place in ("/dev/null", "empty")}:
        assert run(*("/dev/null" if word == "PATH" else word for word in command)).code == 0
        return
    mistaken(run(*(path if word == "PATH" else word for word in command)))


@pytest.mark.parametrize("number", NUMBERS, ids=ids)
@pytest.mark.parametrize("command", WITH_A_NUMBER, ids=ids)
def test_a_number_that_is_none(run, command, number):
    mistaken(run(*(word.replace("NUMBER", number) for word in command)))


@pytest.mark.parametrize("word", WORDS, ids=ids)
@pytest.mark.parametrize("command", WITH_A_WORD, ids=ids)
def test_a_word_that_is_none(run, tmp_path, command, word):
    hostile(tmp_path)
    line = [word if part == "WORD" else part for part in command]
    if line == ["--"]:  # the end of options, and so as good as nothing: what is shown where nothing was asked
        assert run(*line).code == 0
        return
    mistaken(run(*line))


@pytest.mark.slow
def test_a_bundle_and_a_checkpoint_in_a_directory_whose_name_is_not_utf_8(run, tiny_bundle, tiny_checkpoint, tmp_path):
    bundle = shutil.copytree(tiny_bundle, tmp_path / NOT_UTF_8)
    checkpoint = shutil.copytree(tiny_checkpoint, tmp_path / os.fsdecode(b"checkpoint\xff"))
    for command in (
        ("fill-mask", "a [MASK]", "-m", str(bundle)),
        ("quantize", str(bundle)),
        ("compare", str(bundle), "--quick", "--output", "out"),
    ):
        done = run(*command)
        mistaken(done)
        assert "is a path that is not UTF-8, which ONNX Runtime cannot open: rename the directory" in done.err
    for command in (
        ("export", str(checkpoint), "out"),
        ("export", "CHECKPOINT", os.fsdecode(b"out\xff")),
    ):
        mistaken(run(*command))
    for command in ("inspect", "verify"):
        done = run(command, str(bundle))
        assert done.code == 0
        assert "no\\udcff" in done.out
        done = run("verify", str(bundle), "--json")
        assert json.loads(done.out)["bundle"] == str(bundle)


@pytest.mark.parametrize(
    ("content", "answers", "code"),
    [
        (b'\xef\xbb\xbf"a [MASK]"\r\n\r\n"b [MASK]"', [True, True], 0),
        (b'"a [MASK]"', [True], 0),
        (b"[" * 3_000_000 + b'\n"b [MASK]"', [False, True], 1),
        (b'{"text": ' * 200_000 + b'\n"b [MASK]"\n', [False, True], 1),
        (bytes(range(256)) + b'\n"b [MASK]"\n', [False, False, True], 1),
        (b'"a [MASK]\x00"\n' + b"9" * 5000 + b"\nNaN\n1e999\n" + b'"\\ud83d [MASK]"\n', [False] * 5, 1),
        (b'"' + b"x" * 50_000_000 + b'"\n"b [MASK]"\n', [False, True], 1),
        (b"\n" * 100_000 + b'"b [MASK]"', [True], 0),
    ],
    ids=["bom", "no end", "deep", "deeper", "binary", "odd", "50 MB", "blank"],
)
def test_lines_of_every_kind(run, tmp_path, content, answers, code):
    (tmp_path / "lines").write_bytes(content)
    done = run("predict", "fill-mask", "lines", "-m", "BUNDLE")
    assert done.code == code
    assert ["result" in json.loads(line) for line in done.out.splitlines()] == answers
    assert len(done.err.splitlines()) == answers.count(False) + code
    assert len(done.err) < 6000


def test_a_line_without_end_is_not_kept(tmp_path, monkeypatch):
    """Nor is it copied again for each piece of it that arrives."""
    monkeypatch.setattr(predict, "LONGEST_LINE", 1000)
    monkeypatch.setattr(predict, "CHUNK", 64)
    lines = ['"a [MASK]"', f'"{"x" * 998}"', f'"{"x" * 999}"', '"b [MASK]"', "y" * 5000]
    (tmp_path / "lines").write_text("\n".join(lines))
    with (tmp_path / "lines").open("rb") as stream:
        kept = list(predict._lines(stream, "lines"))
    counted = [line for line in kept if isinstance(line, bytes | int)]
    assert counted == [lines[0].encode(), lines[1].encode(), 1001, lines[3].encode(), 5000]
    places = predict.deque()
    values = [value for value in predict._values(kept, places) if not isinstance(value, predict.Flush)]
    assert "a line of 1,001 bytes is too long: shorten it to 1,000" in str(values[2])
    assert [end for _, end in places] == [len("\n".join(lines[: count + 1])) + 1 for count in range(5)]


@posix
def test_standard_input_on_which_reading_does_not_wait_is_read_to_its_end(tiny_bundle):
    """As a program leaves it that shares it: a moment without lines is not the end."""
    (reading, writing), waiting = os.pipe(), False
    os.set_blocking(reading, waiting)
    command = [*BERTPORT, "predict", "fill-mask", "-m", str(tiny_bundle)]
    with subprocess.Popen(command, stdin=reading, stdout=subprocess.PIPE) as process:
        for number in (1, 2):
            os.write(writing, b'"a [MASK]"\n')
            assert json.loads(process.stdout.readline())["line"] == number
        os.close(writing)
    assert process.returncode == 0
    assert not os.get_blocking(reading)  # as the program that shares it left it
    os.close(reading)


@posix
def test_standard_output_on_which_writing_does_not_wait_gets_all_of_an_answer(tiny_bundle):
    """As Node.js leaves a pipe that it shares: an answer may be longer than what has room there."""
    (reading, writing), waiting = os.pipe(), False
    os.set_blocking(writing, waiting)
    command = [*BERTPORT, "features", "a " * 150, "--json", "-m", str(tiny_bundle)]
    with subprocess.Popen(command, stdout=writing) as process:
        said = os.read(reading, 1)
        time.sleep(0.5)  # in which as much is written as has room
        while not said.endswith(b"\n"):
            said += os.read(reading, 1 << 20)
    assert process.returncode == 0
    assert not os.get_blocking(writing)  # as the program that shares it left it
    os.close(reading)
    os.close(writing)
    assert len(said) > 1 << 16
    assert len(json.loads(said)[0]) == 152


@posix
def test_what_cannot_be_read_on_is_one_sentence(run):
    if not Path("/proc/self/mem").exists():
        pytest.skip("only Linux has a file whose beginning cannot be read")
    done = run("predict", "fill-mask", "/proc/self/mem", "-m", "BUNDLE")
    mistaken(done)
    assert "cannot read /proc/self/mem (Input/output error)" in done.err


# Whatever happens


class OddError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            OddError("one\ntwo \x1b[31m"),
            1,
            "unexpected OddError (one two \\x1b[31m): this is a fault of bertport: set BERTPORT_T",
        ),
        (AssertionError(), 1, "unexpected AssertionError: this is a fault of bertport"),
        (ValueError("x" * 10_000), 1, "unexpected ValueError (" + "x" * 300 + "...)"),
        (EOFError("ran out"), 1, "unexpected EOFError (ran out)"),
        (RecursionError("too deep"), 1, "unexpected RecursionError (too deep)"),
        (MemoryError(), 1, "out of memory (MemoryError): ask for less at once"),
        (PermissionError(13, "Permission denied", "/x"), 1, "cannot use /x (Permission denied): check its path"),
        (OSError(28, "No space left on device", "/x"), 1, "cannot write /x (No space left on device): free some room"),
        (OSError(5, "Input/output error"), 1, "input or output failed (Input/output error)"),
        (OSError("odd"), 1, "unexpected OSError (odd)"),
        (UnicodeEncodeError("utf-8", "\ud83d", 0, 1, "surrogates not allowed"), 2, "'\\ud83d' is not Unicode text"),
    ],
    ids=lambda case: type(case).__name__ if isinstance(case, Exception) else "",
)
def test_no_error_is_a_traceback(run, monkeypatch, error, code, said):
    @click.command()
    def fail():
        raise error

    monkeypatch.delenv("BERTPORT_TRACEBACK", raising=False)
    monkeypatch.setattr(cli.Commands, "get_command", lambda *_: fail)
    done = run("fail")
    assert done.code == code
    assert done.err.startswith(f"bertport: error: {said}")
    assert len(done.err.splitlines()) == 1
    monkeypatch.setenv("BERTPORT_TRACEBACK", "1")
    monkeypatch.setattr(cli.Commands, "get_command", lambda *_: fail)
    done = run("fail")
    assert done.code == code
    assert done.err.startswith("Traceback (most recent call last):")
    assert done.err.splitlines()[-1].startswith(f"bertport: error: {said}")


@pytest.mark.parametrize(("end", "code", "said"), [(3, 3, ""), (None, 0, ""), ("why", 1, "why\n")])
def test_a_command_that_exits_by_itself(run, monkeypatch, end, code, said):
    @click.command()
    def leave():
        sys.exit(end)

    monkeypatch.setattr(cli.Commands, "get_command", lambda *_: leave)
    done = run("leave")
    assert (done.code, done.err) == (code, said)


@posix
def test_an_interrupt_is_quiet_and_130(tiny_bundle):
    command = [*BERTPORT, "predict", "fill-mask", "-m", str(tiny_bundle)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        process.stdin.write(b'"a [MASK]"\n')
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, b"")


# Whatever it is written in

TEXT = "é ñ 中文 😀 \u200b [MASK]"
ENCODINGS = ["utf-8", "latin-1", "ascii", "cp1252", "utf-16"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_people_and_programs_can_read_it_in_every_encoding(run, model, encoding):
    targets = ["-t", "中", "-t", "é", "-t", "king"]
    done = run("fill-mask", TEXT, "-m", "BUNDLE", *targets, encoding=encoding)
    assert done.code == 0
    head = done.out.splitlines()[0]
    assert head == "é ñ 中文 😀 \\u200b [MASK]".encode(encoding, "backslashreplace").decode(encoding)
    done = run("fill-mask", TEXT, "-m", "BUNDLE", "--json", *targets, encoding=encoding)
    assert json.loads(done.out) == model.fill_mask(TEXT, targets=["中", "é", "king"])
    done = run("fill-mask", "中文 😀 without", "-m", "BUNDLE", encoding=encoding)
    mistaken(done)


@pytest.mark.parametrize("command", ["inspect", "verify", "doctor", "fill-mask", "predict", "export", "quantize"])
@pytest.mark.parametrize("encoding", ["latin-1", pytest.param("ascii", marks=pytest.mark.slow)])
def test_json_is_json_in_every_encoding(run, edited, tmp_path, command, encoding):
    def rename(manifest):
        manifest["name"] = "中文 😀 é"

    bundle = edited(rename)
    bundle = str(bundle.rename(bundle.with_name("é 中 😀")))
    (tmp_path / "lines").write_text(json.dumps([TEXT, "no mask 😀"], ensure_ascii=False), encoding="utf-8")
    arguments = {
        "fill-mask": (TEXT, "-m", bundle, "--json"),
        "predict": ("next-sentence", "lines", "-m", bundle),
        "export": ("CHECKPOINT", "out", "--name", "中文 😀 é", "--json"),
        "quantize": ("--list", "--json"),
    }.get(command, (bundle, "--json"))
    done = run(command, *arguments, encoding=encoding)
    assert done.code == 0
    said = json.loads(done.out)
    if command in {"inspect", "export"}:
        assert said["name"] == "中文 😀 é"
    if command == "verify":
        assert said["bundle"] == bundle


@posix
@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "utf-8:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C"},
    ],
    ids=str,
)
def test_in_every_locale(tiny_bundle, environment):
    commands = (
        ("fill-mask", "a [MASK]", "-m", tiny_bundle, "-k", "672"),
        ("fill-mask", "a [MASK]", "-m", tiny_bundle, "-k", "672", "--json"),
        ("fill-mask", "中文 😀 [MASK]", "-m", tiny_bundle, "--json"),
        ("--help",),
        ("中文 😀",),
    )
    # One process for all: its streams and the words of its command line are what the locale makes of them.
    program = (
        "import sys\nfrom bertport.runtime.cli import main\nwords = sys.argv[1:]\n"
        "while words:\n"
        "    end = words.index('END')\n"
        "    try:\n        main(words[:end])\n"
        "    except SystemExit as ended:\n        print(end=f'{ended.code}\\0', flush=True)\n"
        "    words = words[end + 1:]\n"
    )
    words = [str(word) for command in commands for word in (*command, "END")]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], env=os.environ | environment, capture_output=True, check=True
    )
    assert b"Traceback" not in done.stderr
    assert b"unexpected" not in done.stderr
    *outs, rest = done.stdout.split(b"\0")
    assert (rest, outs[-1]) == (b"", b"2")
    for arguments, out in zip(commands, outs, strict=True):
        said, code = out[:-1], int(out[-1:])
        # Where the locale has no letters, those of the command line are lone surrogates, which are refused.
        foreign = any("中文" in str(word) for word in arguments)
        assert code in {0, 2} if foreign else code == 0, arguments
        if "--json" in arguments and not code:
            json.loads(said)


def written(value, encoding):
    """Return what show_json writes of a value."""
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    before, sys.stdout = sys.stdout, out
    try:
        show_json(value)
    finally:
        sys.stdout = before
    return out.buffer.getvalue().decode(encoding)


def test_no_name_moves_the_cursor(capsys):
    output.show("a\x1b[2J\r\x9b2J\tb\nc\u200dd")
    assert capsys.readouterr().out == "a\\u001b[2J\\u000d\\u009b2J\tb\nc\u200dd\n"
    assert written("a\x7f\x9b", "utf-8") == '"a\\u007f\\u009b"\n'


@given(
    st.recursive(st.text(st.characters()) | st.floats() | st.integers(-(2**70), 2**70) | st.none(), st.lists),
    st.sampled_from(ENCODINGS),
)
def test_json_reads_back_whatever_it_holds(value, encoding):
    """Lone surrogates and astral characters too; numbers that are not finite are null."""

    def finite(value):
        if isinstance(value, list):
            return [finite(item) for item in value]
        return None if isinstance(value, float) and value - value != 0 else value

    assert json.loads(written(value, encoding)) == finite(value)


# Wherever it goes

ANSWERING = [
    ("fill-mask", "a [MASK]", "-m", "BUNDLE"),
    ("fill-mask", "a [MASK]", "-m", "BUNDLE", "--json"),
    ("next-sentence", "a", "b", "-m", "BUNDLE"),
    ("features", "a", "-m", "BUNDLE"),
    ("predict", "features", "lines", "-m", "BUNDLE"),
    ("inspect", "BUNDLE"),
    ("verify", "BUNDLE", "--json"),
    ("doctor", "BUNDLE"),
    ("quantize", "--list"),
    ("quantize", "--list", "--json"),
    ("--help",),
    ("--version",),
    ("inspect", "--help"),
]


@pytest.fixture
def placed(tiny_bundle, tiny_checkpoint, tmp_path):
    """Return arguments with paths in the place of their names."""
    (tmp_path / "lines").write_text('"a"\n"b"\n')
    stands = {name: str(tmp_path / name) for name in ("lines", "out")}
    stands |= {"BUNDLE": str(tiny_bundle), "CHECKPOINT": str(tiny_checkpoint)}
    return lambda arguments: [stands.get(argument, argument) for argument in arguments]


@posix
@pytest.mark.slow
@pytest.mark.parametrize(("stream", "error"), [(">&-", CLOSED), pytest.param(">/dev/full", FULL, marks=linux)])
def test_an_answer_that_has_nowhere_to_go_is_a_failure(placed, tmp_path, stream, error):
    ends = forked(f'exec "$@" {stream}', [placed(arguments) for arguments in ANSWERING], tmp_path / "codes")
    for arguments, done in zip(ANSWERING, ends, strict=True):
        assert done.code == 1, arguments
        assert done.err.decode().endswith(error), arguments
        assert b"Traceback" not in done.err, arguments


@posix
def test_a_command_by_itself_has_nowhere_to_go(placed):
    """As a user starts it: nothing was imported before its streams are looked at."""
    done = shell('exec "$@" >&-', *placed(ANSWERING[0]))
    assert (done.returncode, done.stdout, done.stderr.decode()) == (1, b"", CLOSED)


@posix
@pytest.mark.parametrize("streams", [">&- 2>&-", ">&- 2>&- <&-", "1</dev/null 2>&-"])
def test_with_nowhere_to_say_it_the_exit_code_is_left(placed, tmp_path, streams):
    commands = [placed(arguments) for arguments in (ANSWERING[0], ANSWERING[4], ("--help",))]
    ends = forked(f'"$@" {streams}', commands, tmp_path / "codes")
    assert [(done.code, done.out, done.err) for done in ends] == [(1, b"", b"")] * 3


@posix
@pytest.mark.parametrize("streams", ["2>&-", pytest.param("2>/dev/full", marks=linux), "2</dev/null", "2>&- <&-"])
def test_standard_error_stops_nothing(placed, tmp_path, streams):
    commands = [
        placed(("fill-mask", "a [MASK]", "-m", "BUNDLE", "-t", "parisian", "-t", "king")),
        ("inspect", "/nowhere"),
        ("inspect", "--nothing"),
    ]
    predicting = placed(("predict", "fill-mask", "-m", "BUNDLE"))
    lines = b'"a [MASK]"\nbad\n"b [MASK]"\n"no mask"\n"c [MASK]"\n'
    closed = "<&-" in streams
    ends = forked(f'"$@" {streams}', commands + [predicting] * (not closed), tmp_path / "codes", stdin=lines)
    assert [done.code for done in ends] == [0, 2, 2, 1][: 4 - closed]
    assert ends[0].out.startswith(b"a [MASK]\n  king ")
    if not closed:
        assert ["result" in json.loads(line) for line in ends[3].out.splitlines()] == [True, False] * 2 + [True]


@posix
def test_progress_that_cannot_be_shown_stops_nothing(run):
    """Neither ours nor that of the packages that make an export; what a process begins with is tried above."""
    error = os.dup(2)
    os.close(2)
    try:
        done = run("export", "CHECKPOINT", "out", closed=True)
    finally:
        os.dup2(error, 2)
        os.close(error)
    assert (done.code, done.out) == (0, "out: mlm, nsp, pooler\n")


@linux
def test_a_full_disk_under_predict_is_told_and_ends_it(placed):
    done = shell('exec "$@" >/dev/full', *placed(("predict", "features", "lines", "-m", "BUNDLE")))
    assert (done.returncode, done.stderr.decode()) == (1, FULL)
    done = shell('exec "$@" >/dev/full 2>/dev/full', *placed(("predict", "features", "lines", "-m", "BUNDLE")))
    assert done.returncode == 1


@posix
def test_a_reader_that_leaves_is_no_error_to_tell(placed):
    many = placed(("features", "a " * 150, "-m", "BUNDLE", "--json"))
    done = shell('{ "$@"; echo $? >&2; } | head -c 10', *many)
    assert done.stdout.startswith(b"[")
    assert done.stderr in {b"0\n", b"1\n"}  # 0 where the pipe took it all in time


@posix
def test_no_file_takes_the_number_of_a_closed_stream(tmp_path):
    """Or what ONNX Runtime writes to standard error would go into it."""
    program = (
        "import os, sys\n"
        "from bertport.runtime.commands.output import guard\n"
        "guard()\n"
        f"print(os.open({str(tmp_path / 'file')!r}, os.O_CREAT | os.O_WRONLY), file=open({str(tmp_path / 'n')!r}, 'w'))"
    )
    shell(f'exec {sys.executable} -c "$P" <&- >&- 2>&-', P=program)
    assert int((tmp_path / "n").read_text()) > 2


class Late(io.RawIOBase):
    """A file that takes everything, and says as it is flushed that there was no room."""

    def __init__(self):
        self.full = False

    def writable(self):
        return True

    def write(self, data):
        if self.full:
            raise OSError(122, "Disk quota exceeded")
        return len(data)


def test_an_error_that_shows_only_at_the_end_is_told(monkeypatch):
    late = Late()
    stream = io.TextIOWrapper(io.BufferedWriter(late), encoding="utf-8")
    said = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", said)

    @click.command()
    def speak():
        sys.stdout.write("an answer")  # not flushed
        late.full = True

    monkeypatch.setattr(cli.Commands, "get_command", lambda *_: speak)
    with pytest.raises(SystemExit) as end:
        cli.main(["speak"])
    late.full = False
    assert end.value.code == 1
    assert said.getvalue() == (
        "bertport: error: cannot write the output (Disk quota exceeded): free some room, or write elsewhere\n"
    )


def test_messages_are_a_stream_like_any_other():
    assert not Messages(None).isatty()
    assert Messages(None).write("x") == 1
    Messages(None).flush()
    with pytest.raises(io.UnsupportedOperation):
        Messages(None).fileno()
    closed = io.StringIO()
    closed.close()
    assert Messages(closed).write("x") == 1
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    assert Messages(stream).encoding == "latin-1"
    assert output.LONGEST > 1000
