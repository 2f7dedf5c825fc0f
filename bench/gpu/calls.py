"""The calls that bring a kit to a machine part by part, run it, and bring back what came of it."""

from __future__ import annotations

from typing import Any

from bench.gpu.parts import FOLDER

KIT = "/tmp/kit"  # noqa: S108 — on a machine that is ours alone
"""The kit, there."""
MEASURING, TRAINING = "kit", "training"
"""Folders of the parts: the wheels and the bundle, and what the training needs."""
START = "bertport-default"
"""Directory of the checkpoint that training starts from, by which the run's record calls it."""
LONGEST = 2000
"""Characters of a command, at most."""
STRING_S, CALL_S = 900, 600
"""Seconds of all calls, and of one, at most: the machine's start counts too, so the last one may be cut."""
BRING_S, START_S, FETCH_S = 15, 40, 60
"""Seconds of the calls that bring a part, start the training, and fetch its weights."""
ROW_S = 120
"""Seconds of the tests, or of a row, there."""
TRAIN_S, ENDING_S = 300, 60
"""Seconds of the training, and those after it in which its weights are written."""
TOKENS_PER_BATCH, RATE = 65_536, 1e-3
"""The batch that a large GPU needs, and a peak learning rate for it: models/README.md proposes them."""


def calls(count: int, training: int = 0) -> list[dict[str, Any]]:
    """Return the calls, in order, for so many parts of the wheels and of the training.

    The training is started first, and its weights come back between the two calls that measure; the tests run beside
    it, and no row does. All calls are to be made at once, one after the other: the machine goes back after 30 idle
    seconds. The last one goes on where the other was cut, and tries again what failed: where nothing is left, it need
    not be made.
    """
    made = [bringing(TRAINING, number) for number in range(1, training + 1)]
    if training:
        made[-1] |= {"command": f"{made[-1]['command']} && {starting(training)}", "timeout_s": START_S}
    made += [bringing(MEASURING, number) for number in range(1, count + 1)]
    back = [fetching()] if training else []
    left = STRING_S - sum(call["timeout_s"] for call in made + back)
    first = max(left * 5 // 8, TRAIN_S + ENDING_S + 20 if training else 0)  # the training ends before it does
    return [*made, measuring(count, first, training), *back, measuring(count, left - first, training)]


def bringing(kind: str, number: int) -> dict[str, Any]:
    """Return the call that brings a part."""
    part, place = f"{FOLDER}/{kind}/{number:02}", f"{KIT}/parts/{kind}"
    return _call(f"mkdir -p {place} && cp {part}/* {place}/", BRING_S, part)


def joining(kind: str, count: int) -> str:
    """Return the command that joins so many parts."""
    return (
        f"(cd {KIT}/parts/{kind} && test $(ls *.part | wc -l) = {count} && sha256sum -c --quiet *.sha256 "
        f"&& cat *.part | tar -x -C {KIT})"
    )


def starting(count: int) -> str:
    """Return the command that joins the parts of the training and starts it; it goes on when the call has ended.

    It runs a copy of the code, since the checkout comes anew with every call. Its end is told by a file, whatever
    became of it.
    """
    train = (
        f"timeout -k 10 {TRAIN_S + ENDING_S} python3 code/pretrain.py --init {TRAINING}/{START} "
        f"--corpus {TRAINING}/train.npz --heldout {TRAINING}/heldout.npz --output trained "
        f"--seconds {TRAIN_S} --tokens-per-batch {TOKENS_PER_BATCH} --rate {RATE:g}"
    )
    return (
        f"{joining(TRAINING, count)}; mkdir -p {KIT}/code; "
        f"cp -r models/pretrain.py models/pretraining runtime measure {KIT}/code/; cd {KIT}; "
        f"PYTHONPATH=code/runtime:code/measure HF_HUB_OFFLINE=1 setsid nohup sh -c '{train}; touch training-ended' "
        "> training.log 2>&1 < /dev/null & sleep 1"
    )


def measuring(count: int, seconds: int, training: int) -> dict[str, Any]:
    """Return the call that joins the parts, unless that is done, and measures; it brings back what there is.

    Figures are copied while they are measured: where the machine's time is over, what is there then comes back.
    """
    after = f" --after {KIT}/training-ended" if training else ""
    return _call(
        f"nvidia-smi -L; test -e {KIT}/joined || ({joining(MEASURING, count)} && touch {KIT}/joined) || exit 1; "
        f"(while sleep 5; do cp {KIT}/gpu.* $OUT/; done) 2> /dev/null & copying=$!; "
        f"timeout -k 5 {seconds - 20} python3 -m bench.gpu run {KIT} --installed --most-s {ROW_S}{after}; code=$?; "
        f"kill $copying; PYTHONPATH={KIT}/site python3 -m bertport.runtime doctor --json > $OUT/doctor.json; "
        f"cp {KIT}/gpu.* $OUT/; exit $code",
        seconds,
    )


def fetching() -> dict[str, Any]:
    """Return the call that fetches the weights as they were written last."""
    command = f"cp {KIT}/training.log $OUT/; python3 -m bench.gpu.training split {KIT}/trained $OUT/trained"
    return _call(command, FETCH_S)


def _call(command: str, seconds: int, *carry: str) -> dict[str, Any]:
    return {"command": command, "carry": list(carry), "timeout_s": seconds}
