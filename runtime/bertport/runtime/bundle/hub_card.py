"""A bundle's card as the Hub reads it: the metadata in front of README.md, figures that were measured, and the digest.

The keys are those of the Hub's model cards (https://huggingface.co/docs/hub/model-cards). What a card states already is
kept, since people edit it; what it lacks follows from the manifest.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.runtime.bundle.cards import prose, with_section
from bertport.runtime.bundle.task_metrics import labelled_metrics, number
from bertport.runtime.errors import BundleError
from bertport.runtime.excerpts import one_line
from bertport.runtime.heads import HEADS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from huggingface_hub import EvalResult

    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.bundle.manifest import Manifest

__all__ = ["hub_card", "metadata", "results", "states_all", "was_edited"]

LIBRARY = "bertport"
"""`library_name`: without one the Hub takes whatever has a config.json for a checkpoint of transformers."""
RELATION = "quantized"
"""`base_model_relation`. Of the Hub's four (adapter, merge, quantized, finetune) the only one in which nothing was
trained; without it the Hub takes `finetune`."""
FEATURES = "feature-extraction"
"""`pipeline_tag` of a bundle whose heads have no task of their own on the Hub."""
REFERENCE = "fp32"
"""The variant that figures in the manifest compare with."""
COMPARED = {"_reference": True, "_candidate": False}
"""Endings of the figures that are measured of both variants, and whether they are the reference's."""
DIFFERENCE = "_difference"
"""Ending of the figures that say by how much those of two variants differ."""
COMMENT = re.compile(r"(?:^|\s)#", re.MULTILINE)
"""Beginning of a comment in metadata, which nothing reads, and a person wrote."""
BEGIN, END = "<!-- from the Hub: begin -->", "<!-- from the Hub: end -->"
SEAL = "<!-- as pushed: sha256:{} -->"
"""Mark of a card that was pushed: the hash of its text, of the mark itself with zeros in place of the hash."""
SEALED = re.compile(SEAL.format("([0-9a-f]{64})"))
UNSEALED = SEAL.format("0" * 64)


def metadata(manifest: Manifest) -> dict[str, Any]:
    """Return what a manifest states, under the keys of a model card; what it does not state is left out."""
    bases = [manifest.source, *(head.source for head in manifest.heads.values() if head.source)]
    on_hub = list(dict.fromkeys(base.name for base in bases if base.revision))
    tasks = [head.pipeline for name, head in HEADS.items() if name in manifest.heads and head.pipeline]
    return {
        **({"language": list(manifest.languages)} if manifest.languages else {}),
        **({"license": manifest.licence} if manifest.licence else {}),
        "library_name": LIBRARY,
        "pipeline_tag": tasks[0] if tasks else FEATURES,
        **({"base_model": on_hub[0] if len(on_hub) == 1 else on_hub} if on_hub else {}),
        **({"base_model_relation": RELATION} if on_hub else {}),
        "tags": ["onnx", LIBRARY],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One figure of a bundle's manifest, as a model card lists it."""

    task: str
    """The Hub's name of the task, or the head's own where the Hub has none."""
    data: str
    """Name of the text or of the data that it was measured on."""
    metric: str
    """Name of the metric."""
    variant: str
    """Name of the variant."""
    value: float
    """The figure."""
    against: bool = False
    """Whether it compares the variant with the reference, rather than with what is right."""

    @property
    def title(self) -> str:
        """Name for people."""
        return f"{self.metric.replace('_', ' ')}, {self.variant}{f' against {REFERENCE}' if self.against else ''}"


def results(manifest: Manifest) -> list[Result]:
    """Return the figures that a manifest has: of labelled data, and of each quantized variant's held-out text.

    Entries of another form are passed over, as in an inspection: they come from a file.
    """
    found: dict[tuple[str, str, str, str], Result] = {}
    for result in (*_labelled(manifest), *_held_out(manifest)):
        found.setdefault((result.task, result.data, result.metric, result.variant), result)
    return list(found.values())


def _labelled(manifest: Manifest) -> Iterator[Result]:
    for metric in labelled_metrics(manifest):
        record = manifest.variants[metric.variant].task_metrics[metric.data]
        task = record.get("task")
        task = task if isinstance(task, str) else FEATURES
        for variant, value in ((REFERENCE, metric.reference), (metric.variant, metric.value)):
            if value is not None:
                yield Result(task=task, data=metric.data, metric=metric.metric, variant=variant, value=value)


def _held_out(manifest: Manifest) -> Iterator[Result]:
    for name, variant in manifest.variants.items():
        record = variant.fidelity or {}
        text, accuracy = record.get("text"), record.get("accuracy")
        data = text.get("name") if isinstance(text, dict) else None
        if not isinstance(data, str) or not isinstance(accuracy, dict):
            continue
        for head in manifest.heads:
            task = (HEADS[head].pipeline or HEADS[head].title) if head in HEADS else head
            figures = accuracy.get(head)
            for key, figure in figures.items() if isinstance(figures, dict) else ():
                value = number(figure, "value")
                if value is None or key.endswith(DIFFERENCE):
                    continue
                ending = next((each for each in COMPARED if key.endswith(each)), None)
                yield Result(
                    task=task,
                    data=data,
                    metric=key.removesuffix(ending) if ending else key,
                    variant=REFERENCE if ending and COMPARED[ending] else name,
                    value=value,
                    against=ending is None,
                )


def hub_card(bundle: Bundle, text: str | None, repository: str, *, revision: str | None = None) -> str:
    """Return the card of a bundle for a repository of the Hub.

    Args:
        bundle: the bundle.
        text: its README.md; None where it has none.
        repository: `owner/name` on the Hub.
        revision: the branch that it is for; None for the main branch.

    Raises:
        BundleError: where what stands in front of the text is no metadata.
    """
    from huggingface_hub import ModelCard
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    manifest = bundle.manifest
    text = f"# {prose(manifest.name)}\n" if text is None else text
    try:
        card = ModelCard(text if REGEX_YAML_BLOCK.search(text) else f"---\ntags: []\n---\n\n{text}")
    except Exception as error:  # YAML's errors, or a ValueError of the card's own checks
        said = one_line(error)
        raise BundleError(
            f"the card of {bundle.path} has metadata that cannot be read ({said[:200]}): correct what is between the "
            "lines --- at the beginning of its README.md"
        ) from error
    _complete(card.data, manifest)
    measured = [_eval_result(result) for result in results(manifest)]
    if measured:
        ours = {_subject(result) for result in measured}
        others = [result for result in card.data.get("eval_results") or () if _subject(result) not in ours]
        card.data["model_name"] = card.data.get("model_name") or manifest.name
        card.data["eval_results"] = [*others, *measured]
    section = f"{_section(bundle, repository, revision)}\n\n{UNSEALED}"
    card.text = with_section(card.text, section, begin=BEGIN, end=END)
    return str(card).replace(UNSEALED, SEAL.format(_hash(str(card))))


def was_edited(card: str) -> bool:
    r"""Return whether a card of the Hub has content that push did not write.

    Its mark is then not that of its text, or it has no section of push's and is not empty. Of a card with the section
    and without the mark, as earlier versions wrote it, nothing is known: False.

    >>> was_edited("---\nlicense: mit\n---\n"), was_edited("# Mine"), was_edited("\n")
    (True, True, False)
    """
    mark = SEALED.search(card)
    if mark is None:
        return BEGIN not in card and bool(card.strip())
    return _hash(card.replace(mark[0], UNSEALED)) != mark[1]


def states_all(card: str, other: str) -> bool:
    r"""Return whether a card is metadata alone, as the Hub makes it of the choice of a licence, which another has too.

    >>> states_all("---\nlicense: mit\n---\n", "---\nlicense: mit\nlanguage: en\n---\n# Ours\n")
    True
    >>> states_all("---\nlicense: mit\n---\n", "---\nlicense: apache-2.0\n---\n# Ours\n")
    False
    """
    from huggingface_hub import ModelCard
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    block = REGEX_YAML_BLOCK.search(card)
    if block is None or REGEX_YAML_BLOCK.sub("", card).strip() or COMMENT.search(block[2]):
        return False
    try:
        read = (ModelCard(text, ignore_metadata_errors=True).data for text in (card, other))
        stated, known = (data.to_dict() for data in read)  # type: ignore[no-untyped-call]  # huggingface_hub's own
    except Exception:  # noqa: BLE001 — YAML's errors, or a ValueError of the card's own checks
        return False
    return all(_items(value) <= _items(known.get(key)) for key, value in stated.items())


def _items(value: object) -> set[str]:
    """Return the values of a key: one value and a list of it say the same."""
    return {json.dumps(item, sort_keys=True, default=str) for item in (value if isinstance(value, list) else [value])}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _complete(data: Any, manifest: Manifest) -> None:  # noqa: ANN401 — huggingface_hub's, whose keys are attributes
    """Add what the metadata of a card lacks.

    The relation to a base model is stated for the base of the manifest alone: of another one, which somebody wrote into
    the card, nothing is known here.
    """
    known = metadata(manifest)
    base = data.get("base_model")
    if base is not None and base != known.get("base_model"):
        known.pop("base_model_relation", None)
    tags = data.get("tags") or []
    data["tags"] = [*tags, *(tag for tag in known.pop("tags") if tag not in tags)]
    for key, value in known.items():
        if data.get(key) is None:
            data[key] = value


def _eval_result(result: Result) -> EvalResult:
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type=result.task,
        dataset_type=result.data,
        dataset_name=result.data,
        metric_type=result.metric,
        metric_name=result.title,
        metric_value=result.value,
    )


def _subject(result: EvalResult) -> tuple[object, ...]:
    """Return what a figure of a card is of, by which an older one of the same is replaced."""
    return result.task_type, result.dataset_name, result.metric_type, result.metric_name


def _section(bundle: Bundle, repository: str, revision: str | None) -> str:
    """Return the section that says how this bundle, and no other, is loaded from the Hub."""
    asked = f", revision={json.dumps(revision)}" if revision else ""
    option = f" --revision {shlex.quote(revision)}" if revision else ""
    return f"""\
## From the Hub

```python
from bertport.runtime import load

model = load("{repository}"{asked}, digest="{bundle.digest}")
model.features(["some text"], pooling="mean")
```

```sh
bertport features "some text" -m {repository}{option} --digest {bundle.digest}
```

The digest stands for every file that `manifest.json` lists, and so for this bundle alone: without `--digest`, whatever
the repository holds by then is taken."""
