"""The one display of progress: a line that is rewritten on a terminal, lines elsewhere, silence without a stream."""

from __future__ import annotations

import io
import os

import pytest

from bertport.runtime.commands.progress import Progress
from bertport.runtime.commands.terminal import width


class Terminal(io.StringIO):
    def isatty(self):
        return True


def on_screen(written):
    """The lines that a terminal shows, trailing blanks left out."""
    lines = []
    for line in written.split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return lines


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still, and a function that moves it."""
    now = [0.0]
    monkeypatch.setattr("bertport.runtime.commands.progress.time.monotonic", lambda: now[0])

    def passes(seconds):
        now[0] += seconds

    return passes


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()], ids=["terminal", "pipe"])
def test_a_plan_shows_the_time_left(clock, stream):
    progress = Progress(stream)
    progress.plan({"one": 1.0, "two": 3.0})
    progress.begin("one", "first")
    clock(10)
    progress.update(1, 2)
    progress.finish()
    progress.begin("two", "second")
    progress.close()
    if stream.isatty():
        assert "\r[ 12%] first: 1 of 2 (about 1 min left)" in stream.getvalue()
        assert on_screen(stream.getvalue()) == ["[ 25%] second … (about 30 s left)", ""]
    else:
        assert stream.getvalue() == "first …\nsecond … (about 30 s left)\n"


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()], ids=["terminal", "pipe"])
def test_no_name_moves_the_cursor(stream):
    progress = Progress(stream)
    progress.say("loading a\x1b[2Jb\n")
    progress.stage("checking a\x1b[2J\rb")
    progress.close()
    assert "\x1b" not in stream.getvalue()
    assert on_screen(stream.getvalue())[:2] == ["loading a\\x1b[2Jb\\n", "checking a\\x1b[2J\\rb …"]


def test_stages_stay_on_a_terminal_and_are_counted_there():
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        with Progress(stream) as progress:
            progress.stage("measuring accuracy", 1, 2)
            progress.stage("measuring accuracy", 2, 2)
            progress.say("a note")
            progress.stage("writing")
    assert on_screen(terminal.getvalue()) == ["a note", "writing …", ""]
    assert "measuring accuracy: 2 of 2" in terminal.getvalue()
    assert pipe.getvalue() == "measuring accuracy …\na note\nwriting …\n"


@pytest.mark.parametrize(("erase", "left"), [(True, [""]), (False, ["half", ""])])
def test_an_interrupted_command_leaves_no_half_line(erase, left):
    terminal = Terminal()

    def run():
        with Progress(terminal, erase=erase) as progress:
            progress.show("more than half")
            progress.show("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert on_screen(terminal.getvalue()) == left


def test_a_line_is_due_some_times_a_second_and_only_on_a_terminal(clock):
    progress = Progress(Terminal())
    clock(1)
    assert progress.due()
    progress.show("one")
    assert not progress.due()
    clock(0.2)
    assert progress.due()
    progress.show("two")
    progress.clear()
    assert progress.due()
    assert not Progress(io.StringIO()).due()


def test_no_stream_is_silence(capfd):
    progress = Progress(None)
    progress.plan({"one": 1.0})
    progress.begin("one", "first")
    progress.update(1, 1)
    progress.finish()
    progress.say("text")
    progress.note("odd")
    progress.stage("stage")
    progress.close()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("text", ["a" * 100, "日" * 60])
def test_a_line_longer_than_the_terminal_is_cut_before_its_end(text, monkeypatch):
    monkeypatch.setenv("COLUMNS", "21")
    stream = Terminal()
    with Progress(stream) as progress:
        progress.show(text)
        progress.show("done")
    first, second = stream.getvalue().rstrip("\n").split("\r")[1:]
    assert width(first) == 20
    assert second == "done" + " " * 16  # all that was shown is covered


def test_a_terminal_whose_size_nobody_has_set_shows_the_line(monkeypatch):
    """The system gives it no columns: a pseudo-terminal that a program has made."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((0, 0)))
    monkeypatch.setattr(Terminal, "fileno", lambda _: 2)
    stream = Terminal()
    with Progress(stream) as progress:
        progress.show("a" * 100)
    assert stream.getvalue() == f"\r{'a' * 79}\n"


def test_a_terminal_that_rewrites_nothing_gets_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with Progress(stream) as progress:
        progress.stage("reading", 1, 2)
    assert stream.getvalue() == "reading …\n"
