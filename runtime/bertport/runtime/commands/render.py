"""Rendering of answers and manifests as text for people."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from bertport.runtime.bundle.manifest import FORMAT_VERSION
from bertport.runtime.bundle.measured import class_here
from bertport.runtime.bundle.select import providers_for
from bertport.runtime.bundle.task_metrics import HEADINGS, labelled_metrics
from bertport.runtime.commands.terminal import columns, width, wrapped
from bertport.runtime.heads import HEADS
from bertport.runtime.providers.table import PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.bundle.manifest import Manifest
    from bertport.runtime.bundle.measured import MeasuredSpeed
    from bertport.runtime.providers.table import Provider
    from bertport.runtime.tasks.answers import TokenLabel
    from bertport.runtime.text.tokenizer import Tokens

__all__ = [
    "features",
    "fill_mask",
    "in_columns",
    "manifest",
    "measured",
    "notes",
    "percent",
    "printable",
    "table",
    "token_labels",
    "verdict",
]

SHOWN = 4
"""Number of a vector's leading values that are printed."""
MOST_COLUMNS = 100
"""Most labels of a head that are listed: a checkpoint may have a million."""
GAP = "  "
"""Separator of columns."""
NARROWEST = 16
"""Columns of a terminal that must be left for the last column of a table, or its lines are not parted."""
LONGEST_TITLE = 40
"""Characters shown of the name of a head that this version does not know."""


def fill_mask(text: str, answer: Sequence[Any], tokens: Tokens) -> str:
    """Return the answer for one text: a block per mask, best first, each word in its place in the text as it was given.

    Args:
        text: as it was given.
        answer: of `Model.fill_mask`, for one text.
        tokens: the model's tokenizer.
    """
    every = [answer] if answer and isinstance(answer[0], dict) else answer
    mask = tokens.mask_token or ""
    between = text.split(mask) if mask else [text]
    known = len(between) == len(every) + 1  # where a text was cut, masks may be missing, and which is not known
    blocks = []
    for number, rows in enumerate(every):
        ends = [mask.join(part) for part in (between[: number + 1], between[number + 1 :])] if known else []
        block = table(
            [(row["token_str"], percent(row["score"]), _filled(row, ends, tokens)) for row in rows], right={1}
        )
        blocks.append(block if len(every) == 1 else f"mask {number + 1} of {len(every)}\n{block}")
    return "\n".join((printable(text), *blocks))


def _filled(row: Mapping[str, Any], ends: Sequence[str], tokens: Tokens) -> str:
    """Return what is before and behind a mask with a word between; the answer's own sequence where that is not known.

    A piece that goes on a word follows it without the space that the text has there: that is how the model read it.
    """
    word = tokens.after_mask(row["token"])
    if not ends or not word.strip():
        return str(row["sequence"])
    before, behind = ends
    return f"{before if word[0].isspace() else before.rstrip()}{word.strip()}{behind}"


def verdict(probabilities: Mapping[str, float], meaning: str) -> str:
    """Return the probability of each label, the largest first, with what it means."""
    ranked = sorted(probabilities.items(), key=lambda item: item[1], reverse=True)
    rows = [(label, percent(value), "" if place else meaning) for place, (label, value) in enumerate(ranked)]
    return table(rows, right={1})


def token_labels(text: str, rows: Sequence[TokenLabel]) -> str:
    """Return a text and the label of each of its tokens."""
    if not rows:
        return printable(text)
    cells = [(tag["word"], tag["entity"], percent(tag["score"]), f"{tag['start']}-{tag['end']}") for tag in rows]
    return f"{printable(text)}\n{table(cells, right={2})}"


def features(text: str, values: NDArray[np.float32]) -> str:
    """Return one text's vectors: shape, Euclidean length and first numbers of each."""
    rows = values.reshape(-1, values.shape[-1])
    head = f"{printable(text)}\n  {' x '.join(map(str, values.shape))} float32"
    lines = []
    for number, vector in enumerate(rows):
        label = f"token {number}" if values.ndim > 1 else "vector"
        numbers = "  ".join(f"{value:8.4f}" for value in vector[:SHOWN])
        lines.append((label, f"length {float((vector**2).sum()) ** 0.5:.4f}", f"{numbers}  ..."))
    return f"{head}\n{table(lines)}"


def manifest(bundle: Bundle) -> str:
    """Return what a bundle states of itself."""
    known = bundle.manifest
    shape = known.architecture
    facts = [
        ("name", known.name),
        ("bundle", str(bundle.path)),
        ("digest", bundle.digest),
        ("format", _format(bundle)),
        ("source", f"{known.source.name}{'@' + known.source.revision if known.source.revision else ''}"),
        ("exported", known.created),
        ("class", shape.model_class),
        ("size", f"{shape.parameters:,} parameters, {shape.layers} layers, hidden {shape.hidden_size}"),
        ("vocabulary", f"{shape.vocab_size:,} words{', lower-case' if known.lowercase else ''}"),
        ("longest input", f"{known.max_length} tokens"),
        ("heads", ", ".join(known.heads) or "none"),
        *_labels(known),
        *_vectors(known),
        ("languages", ", ".join(known.languages) or "not stated"),
        ("licence", known.licence or "not stated"),
        ("made with", ", ".join(f"{name} {number}" for name, number in known.tools.items()) or "not stated"),
    ]
    variants = [("variant", "recipe", "kind", "providers", "instruction set", "opset", "file", "bytes")]
    for name, variant in known.variants.items():
        mark = " *" if name == known.default_variant else ""
        paths = dict.fromkeys((variant.file, *variant.external_data))
        size = sum(known.files[path].size for path in paths)
        variants.append(
            (
                name + mark,
                variant.recipe,
                variant.kind,
                ", ".join(providers_for(variant.requires)) or "none known",
                variant.requires.isa or "any",
                str(variant.requires.opset),
                variant.file,
                f"{size:,}",
            )
        )
    total = sum(variant.size for variant in known.files.values())
    end = f"  * default; {len(known.files)} files, {total:,} bytes (bytes of a variant include weights it shares)"
    measured = [metric.cells() for metric in labelled_metrics(known)]
    on_tasks = f"\n\n{table([HEADINGS, *measured], right={3, 4})}" if measured else ""
    return f"{table(facts)}\n\n{table(variants, right={7})}\n{end}{on_tasks}"


def _labels(known: Manifest) -> list[tuple[str, str]]:
    """Return a row for each head that classifies: its labels by column, or none where the bundle lacks them."""
    rows = []
    for name, head in known.heads.items():
        kind = HEADS.get(name)
        if head.labels or (kind and kind.labels):
            labels = in_columns(head.labels or (), "{}: {}")
            rows.append((f"{kind.title if kind else name[:LONGEST_TITLE]} labels", labels or "none"))
    return rows


def in_columns(labels: Sequence[str], form: str) -> str:
    """Return the labels of a head's columns in a line: the first of them, and how many more there are.

    Args:
        labels: by column.
        form: writes a column and its label, in this order.
    """
    parts = [form.format(column, label) for column, label in enumerate(labels[:MOST_COLUMNS])]
    left = len(labels) - len(parts)
    return ", ".join(parts) + (f" and {left:,} more" if left else "")


def _vectors(known: Manifest) -> list[tuple[str, str]]:
    """Return a row for each head that makes vectors of texts: what they are, and the names of its prompts."""
    rows = []
    for name, head in known.heads.items():
        if (facts := head.embedding) is None:
            continue
        prompts = [f"{prompt}{' (default)' * (prompt == facts.default_prompt)}" for prompt in facts.prompts]
        said = f"{facts.dimension} numbers{', of length 1' if facts.normalized else ''}"
        said += f", cut to {facts.truncate_dim}" if facts.truncate_dim else ""
        said += f"; compared by {facts.similarity}; prompts: {', '.join(prompts) or 'none'}"
        rows.append((HEADS[name].title if name in HEADS else name[:LONGEST_TITLE], said))
    return rows


def _format(bundle: Bundle) -> str:
    """Return the format of a bundle's manifest, and what to do about an old one."""
    old = bundle.format_version < FORMAT_VERSION
    return f"{bundle.format_version}{f' (bertport upgrade {bundle.path})' if old else ''}"


def notes(told: Mapping[str, str]) -> list[str]:
    """Return notes on variants, a line each."""
    return [f"  {printable(name)} was {printable(text)}" for name, text in told.items()]


def measured(speeds: Sequence[MeasuredSpeed], default: str) -> list[str]:
    """Return the line on variants that were measured on this class of CPU; none where they are the default alone."""
    if all(speed.variant == default for speed in speeds):
        return []
    ratios = [f"{speed}{_to_install(PROVIDERS[speed.provider])}" for speed in speeds]
    return [printable(f"  measured on this class of CPU ({class_here()}): {', '.join(ratios)} as fast as fp32 on cpu")]


def _to_install(provider: Provider) -> str:
    """Return what a plugin that is not here would be installed by."""
    return f" ({provider.install})" if provider.plugin and provider.plugin.library is None else ""


def percent(value: float) -> str:
    """Return a probability in per cent; one that would round to nothing keeps two significant digits."""
    hundredfold = value * 100
    return f"{hundredfold:.1f}%" if hundredfold >= 0.1 else f"{hundredfold:.1g}%"  # noqa: PLR2004 — one decimal shows it


def table(
    rows: Sequence[Sequence[str]],
    *,
    right: frozenset[int] | set[int] = frozenset(),
    headed: bool = False,
    indent: int = 2,
) -> str:
    """Return rows in columns; on a terminal that is too narrow the last column goes on in further lines.

    Args:
        rows: cells, as many in each row.
        right: columns that are aligned to the right.
        headed: whether the first row is a heading, under which a line is drawn.
        indent: spaces before each row.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    room = columns(sys.stdout) - indent - sum(widths[:-1]) - len(GAP) * (len(widths) - 1)
    lines = []
    for number, row in enumerate(cells):
        parts = wrapped(row[-1], room) if room >= NARROWEST and len(widths) - 1 not in right else [row[-1]]
        for part in parts:
            first = part is parts[0]
            padded = [
                _padded(cell if first else "", to, right=index in right)
                for index, (cell, to) in enumerate(zip(row[:-1], widths[:-1], strict=True))
            ]
            padded.append(_padded(part, widths[-1], right=len(widths) - 1 in right))
            lines.append((" " * indent + GAP.join(padded)).rstrip())
        if headed and not number:
            lines.append(" " * indent + GAP.join("-" * each for each in widths))
    return "\n".join(lines)


def _padded(cell: str, to: int, *, right: bool) -> str:
    gap = " " * (to - width(cell))
    return gap + cell if right else cell + gap


def printable(text: str) -> str:
    """Escape characters that would move the cursor or change colours."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
