"""The tasks and the subjects of the table, a row each: what is asked, what answers, and what of it is counted."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "CHANGED",
    "CHANGES",
    "FP32",
    "GLUE",
    "PYTORCH",
    "STOCK",
    "SUBJECTS",
    "TASKS",
    "VARIANTS",
    "Change",
    "Subject",
    "Task",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One row: a task with labels."""

    name: str
    """Name in its files and checkpoints."""
    title: str
    """Name for people."""
    task: str
    """The runtime's task that answers it."""
    metrics: tuple[str, ...]
    """Its metrics; the mean of them, in points, is its score, as GLUE has it."""
    positive: str | None = None
    """The label that F1 counts; None where no metric does."""
    glue: bool = True
    """Whether it is one of the five of GLUE that the mean is over."""


TASKS = {
    row.name: row
    for row in (
        Task(name="sst2", title="SST-2", task="text-classification", metrics=("accuracy",)),
        Task(name="cola", title="CoLA", task="text-classification", metrics=("matthews",)),
        Task(
            name="mrpc",
            title="MRPC",
            task="text-classification",
            metrics=("f1", "accuracy"),
            positive="equivalent",
        ),
        Task(name="rte", title="RTE", task="text-classification", metrics=("accuracy",)),
        Task(name="stsb", title="STS-B", task="text-classification", metrics=("pearson", "spearman")),
        Task(name="wnut17", title="WNUT17", task="token-classification", metrics=("entity_f1",), glue=False),
    )
}
"""By name."""
GLUE = tuple(name for name, row in TASKS.items() if row.glue)
"""The tasks of GLUE."""

PYTORCH, FP32, STOCK = "PyTorch", "fp32", "stock INT8"
VARIANTS = ("int8-dynamic", "int8-static-cpu", "int8-static")
"""Recipes that the bundles are quantized by, with the default budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One row: a change of recipes after which their variants answer otherwise."""

    commit: str
    """Its commit, in 7 digits."""
    date: str
    """When it was made, in UTC: what was measured before lacks it. A shallow clone has no history to ask instead."""
    recipes: tuple[str, ...]
    """The recipes that it changed."""
    what: str
    """Change in words."""


CHANGES = (
    Change(
        commit="5d87053",
        date="2026-11-29T01:22:04Z",
        recipes=("int8-dynamic",),
        what="each token is rounded by one operator",
    ),
    Change(
        commit="2184413",
        date="2026-11-29T01:25:16Z",
        recipes=("int8-dynamic",),
        what="GELU is computed by tanh",
    ),
    Change(
        commit="c5a68af",
        date="2026-11-29T01:26:42Z",
        recipes=("int8-static-cpu", "int8-static"),
        what="outlier channels stay in float",
    ),
    Change(
        commit="adce3dc",
        date="2026-11-29T01:42:54Z",
        recipes=("int8-dynamic",),
        what="attention is masked by a channel of the keys",
    ),
    Change(
        commit="4861487",
        date="2026-12-01T00:31:43Z",
        recipes=("int8-static-cpu", "int8-static"),
        what="activations are rotated by blocks",
    ),
)
"""The changes since the first figures, oldest first. Whoever changes what a variant answers adds a row: the page then
says of older figures what they lack, and what was made before is made anew."""
CHANGED = [row.commit for row in CHANGES]
"""Their commits, in the records of what was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One row: what answers."""

    name: str
    """Name on the page."""
    what: str
    """Description in words."""
    timed: bool = True
    """Whether it is timed."""


SUBJECTS = {
    row.name: row
    for row in (
        Subject(name=PYTORCH, what="the checkpoint in transformers, fp32"),
        Subject(name=FP32, what="the bundle as `bertport export` makes it"),
        Subject(name="int8-dynamic", what="`bertport quantize`, with its default budget"),
        Subject(
            name="int8-static-cpu",
            what=(
                "`--recipe int8-static-cpu`, with its default budget, calibrated on texts of the task's train part "
                "(`--calibration`), without their labels"
            ),
        ),
        Subject(
            name="int8-static",
            what="`--recipe int8-static`, likewise: for TensorRT, here computed by the CPU",
            timed=False,
        ),
        Subject(
            name=STOCK,
            what=(
                "ONNX Runtime's `quantize_dynamic` on the portable graph, with what Optimum's preset asks for (signed "
                "weights, a scale per channel); one text at a time, as Optimum's pipeline runs it"
            ),
        ),
    )
}
"""By name, in the order of the page; all after fp32 are 8-bit."""
