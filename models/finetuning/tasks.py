"""The tasks that the recipe knows, one row each, and the settings to train them with."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Hyperparameters of a task, beside its data."""

    rate: float
    """Highest learning rate, reached after the first tenth of the steps; it then falls linearly to 0."""
    epochs: int
    """Number of times that each row is trained on."""
    batch: int
    """Rows in one optimizer step."""
    dropout: float
    """Dropout of the encoder's layers, of its attention and before the classifier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task: the columns of its rows, its head, and how it is scored."""

    head: Literal["sequence-classification", "token-classification", "question-answering"]
    """The head that is trained, by the name that bundles give it."""
    labels: tuple[str, ...] = ()
    """The labels in the order of the head's outputs; none for a regression and for answers."""
    pair: bool = False
    """Whether a row has a second text, `text_pair`."""
    metrics: tuple[str, ...]
    """Names of the metrics; settings are chosen by the first."""
    positive: str | None = None
    """The label that the binary F1 counts."""
    length: int = 128
    """Longest sequence in training, in tokens; longer rows are cut."""
    settings: Settings
    """Hyperparameters for the default model.

    Trials on a held-out tenth of train chose the rate of sst2, cola, rte, stsb and wnut17 and the dropout of mrpc; the
    other values were not tried. Epochs and batches are values of BERT's grid. A rate of 1e-4 is above it, and dropout
    is 0, as in the model's own config.json, where BERT's authors have 0.1."""


GRID_RATES, GRID_EPOCHS = (2e-5, 3e-5, 5e-5, 1e-4), (2, 3, 4)
"""Grid that `--select` searches by default: the rates and epochs of BERT's paper, and a rate that small models need."""

_TYPES = ("corporation", "creative-work", "group", "location", "person", "product")

TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "sst2": Task(
            head="sequence-classification",
            labels=("negative", "positive"),
            metrics=("accuracy",),
            settings=Settings(rate=1e-4, epochs=2, batch=32, dropout=0.0),
        ),
        "cola": Task(
            head="sequence-classification",
            labels=("unacceptable", "acceptable"),
            metrics=("matthews", "accuracy"),
            settings=Settings(rate=1e-4, epochs=3, batch=32, dropout=0.0),
        ),
        "mrpc": Task(
            head="sequence-classification",
            labels=("not_equivalent", "equivalent"),
            pair=True,
            metrics=("accuracy", "f1"),
            positive="equivalent",
            settings=Settings(rate=1e-4, epochs=3, batch=16, dropout=0.0),
        ),
        "rte": Task(
            head="sequence-classification",
            labels=("entailment", "not_entailment"),
            pair=True,
            metrics=("accuracy",),
            settings=Settings(rate=5e-5, epochs=3, batch=16, dropout=0.0),
        ),
        "stsb": Task(
            head="sequence-classification",
            pair=True,
            metrics=("spearman", "pearson"),
            settings=Settings(rate=1e-4, epochs=3, batch=16, dropout=0.0),
        ),
        "wnut17": Task(
            head="token-classification",
            labels=("O", *(f"{prefix}-{kind}" for kind in _TYPES for prefix in "BI")),
            metrics=("entity_f1",),
            settings=Settings(rate=1e-4, epochs=4, batch=16, dropout=0.0),
        ),
        "xquad": Task(
            head="question-answering",
            metrics=("answer_f1", "exact_match"),
            length=384,
            settings=Settings(rate=1e-4, epochs=3, batch=16, dropout=0.0),
        ),
    }
)
"""The recipe's tasks by name. The columns are those of `<task>-train.jsonl` in models/README.md."""
