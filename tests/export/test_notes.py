"""Notes of an export that nobody listens to are logged."""

from __future__ import annotations

import logging

from bertport.export.exporter import log_notes
from bertport.export.progress import Event


def test_a_note_is_a_line_of_the_log(caplog):
    with caplog.at_level(logging.WARNING):
        log_notes(Event(kind="note", text="my\nmodel\x1b[2J has no tokenizer"))
        log_notes(Event(kind="step", text="tracing"))
    assert caplog.messages == ["my\\nmodel\\x1b[2J has no tokenizer"]
