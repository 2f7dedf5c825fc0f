"""A head that there is not and a family without a row: a row in each table, and a checkpoint that holds them.

The head says which of three colours a text has, from the pooled vector. The family is data2vec's encoder of texts,
which transformers has: without segments, its positions counted from the id of padding.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.export.checkpoint import families
from bertport.export.checkpoint import heads as exported
from bertport.measure import statistics
from bertport.measure.quality import heads as measured
from bertport.measure.quality import rows
from bertport.measure.quality.results import HeadFigures
from bertport.measure.quality.samples import TEXTS
from bertport.runtime import heads as known
from bertport.runtime.tasks import features
from bertport.runtime.tasks.table import TASKS, Task
from bertport.serve.api import outputs, questions
from bertport.serve.api import tasks as served
from tests.conftest import fill, vocabulary, write_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bertport.measure.quality.sums import HeadSums
    from bertport.measure.statistics import Settings

COLOURS = "colours"
LABELS = ("red", "green", "blue")
FAMILY = "data2vec-text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Parameters of the task."""

    truncation: bool = False
    """Cut a text that is too long instead of refusing it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Colours(HeadFigures):
    """The figures of the head."""

    agreement: statistics.Estimate  # looked up while the program runs, as reports are read by it
    """Share of texts of which both models say the same colour."""
    change: statistics.Estimate
    """Mean absolute difference of the logits."""

    @property
    def distance(self) -> float:
        """The change."""
        return self.change.value


def finish(_: Options, __: object, manifest: Any) -> Callable[[Any, object], dict[str, float]]:
    """The post-processing of the task: logits of one text to its colours, by the labels of the bundle."""
    labels = manifest.heads[COLOURS].labels

    def answer(logits: Any, _: object) -> dict[str, float]:
        weights = np.exp(logits - logits.max())
        return dict(zip(labels, (weights / weights.sum()).tolist(), strict=True))

    return answer


def compare(reference: Any, candidate: Any, *_: object) -> Any:
    """One row of metrics of a text: whether the models agree, and how far their logits are apart."""
    agrees = float(reference.argmax() == candidate.argmax())
    return np.array([[agrees, float(np.abs(reference - candidate).mean())]])


def summarize(sums: HeadSums, settings: Settings) -> Colours:
    """The figures of all texts."""
    counts = sums.counts
    return Colours(
        agreement=statistics.share(sums.sums("agrees"), counts, settings),
        change=statistics.ratio(sums.sums("change"), counts, settings),
    )


def colours(config: Any) -> Any:
    """The class of the head, as transformers would have it."""
    from torch import nn
    from transformers import BertModel, BertPreTrainedModel
    from transformers.modeling_outputs import SequenceClassifierOutput

    class BertForColours(BertPreTrainedModel):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.bert = BertModel(config)
            self.paint = nn.Linear(config.hidden_size, config.num_labels)

        def forward(self, **inputs: Any) -> Any:
            return SequenceClassifierOutput(logits=self.paint(self.bert(**inputs).pooler_output))

    return BertForColours(config)


def add_head(setitem: Callable[[dict[Any, Any], str, Any], None]) -> None:
    """Add the head: one row in each of four tables, and its task."""
    setitem(
        exported.HEADS,
        COLOURS,
        exported.Head(
            title="colours",
            summary="colours: says which of three a text has",
            own_class="ForColours",
            make=colours,
            attributes=("logits",),
            labels=lambda config: tuple(config["id2label"].values()),
            example=('model.predict("colour", ["some text"])', 'bertport predict colour -i "some text" -m BUNDLE'),
        ),
    )
    setitem(
        known.HEADS,
        COLOURS,
        known.Head(
            name=COLOURS,
            title="colours",
            output="colour_logits",
            axes=(known.BATCH, known.LABEL),
            problem_type="single_label_classification",
        ),
    )
    setitem(
        TASKS,
        "colour",
        Task(
            name="colour",
            summary="the colour of a text",
            options=Options,
            read=lambda *_: features.read,
            head=lambda _: COLOURS,
            finish=finish,
        ),
    )
    setitem(
        measured.HEADS,
        COLOURS,
        rows.Head(
            name=COLOURS,
            output="colour_logits",
            samples=frozenset({TEXTS}),
            columns=("agrees", "change"),
            compare=compare,
            summarize=summarize,
            results=Colours,
            title="Colours",
            reported=(
                rows.Column(key="agreement", title="colour agreement", heading="agreement", form=".1%"),
                rows.Column(key="change", title="change of colours", heading="mean change", form=".4f"),
            ),
            figures=(rows.Figure(key="agreement", title="colour agreement", form=".2%", unit="texts"),),
            limits=(
                rows.Limit(
                    name="colour",
                    meaning="colour agreement",
                    path=(COLOURS, "agreement"),
                    at_least=True,
                    form=".1%",
                    fine=".2%",
                    counts=True,
                    unit="texts",
                    default=0.9,
                ),
            ),
        ),
    )
    setitem(
        served.WIRE_TASKS,
        "colour",
        served.WireTask(
            name="colour",
            summary="the colour of a text",
            ask=questions.plain("colour"),
            runtime="colour",
            example={"inputs": "a red house"},
            parameters={},
            inputs={"type": "string"},
            tensors=(
                outputs.Tensor(
                    name="colours",
                    task="colour",
                    columns=outputs.label_count(COLOURS),
                    make=lambda answers, _: np.array([list(each.values()) for each in answers], dtype=np.float32),
                ),
            ),
        ),
    )


def add_family(setitem: Callable[[dict[Any, Any], str, Any], None]) -> None:
    """Add the family: one row."""
    row = families.Family(
        name=FAMILY,
        title="data2vec",
        class_prefix="Data2VecText",
        prefix="data2vec_text.",
        inputs=("input_ids", "attention_mask"),
        position_offset=None,
        tokenizer="roberta",
        citation="@misc{data2vec}",
    )
    setitem(families.FAMILIES, FAMILY, row)


def rewrite(source: Path, target: Path, change: Callable[[dict[str, Any]], dict[str, Any]], **config: object) -> Path:
    """Copy a checkpoint with other tensors and settings."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, target)
    path = target / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    path = target / "model.safetensors"
    tensors = change(load_file(path))
    path.unlink()
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
    return target


def painted(source: Path, target: Path) -> Path:
    """A checkpoint of BERT's with the head beside its own."""
    import torch

    random = torch.Generator().manual_seed(11)

    def change(tensors: dict[str, Any]) -> dict[str, Any]:
        width = tensors["bert.pooler.dense.bias"].numel()
        weight, bias = torch.randn((3, width), generator=random), torch.randn(3, generator=random)
        return tensors | {"paint.weight": weight, "paint.bias": bias}

    labels = {str(index): label for index, label in enumerate(LABELS)}
    return rewrite(source, target, change, architectures=["BertForColours"], id2label=labels)


def of_family(target: Path) -> Path:
    """A checkpoint of the family, with BERT's tokenizer."""
    from transformers import Data2VecTextConfig, Data2VecTextForMaskedLM

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = Data2VecTextConfig(
        vocab_size=len(vocabulary()), max_position_embeddings=65, pad_token_id=0, type_vocab_size=1, **sizes
    )
    fill(Data2VecTextForMaskedLM(config)).save_pretrained(target)
    write_tokenizer(target)
    return target
