"""The model card: a bundle's README.md, generated from its manifest."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from bertport.export.checkpoint.families import BERT, FAMILIES, family_of_class, possible_heads
from bertport.export.checkpoint.heads import HEADS
from bertport.runtime.bundle.cards import code, prose
from bertport.runtime.bundle.hub_card import metadata
from bertport.runtime.commands.render import in_columns, printable
from bertport.runtime.heads import MLM
from bertport.runtime.installation import portable_install_command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertport.export.checkpoint.families import Family
    from bertport.runtime.bundle.manifest import Manifest

__all__ = ["LIMITS_OF_TUNED", "LIMITS_OF_WORDS", "model_card", "restored_card"]

PLAIN = re.compile(r"[A-Za-z][\w./-]*")
"""Texts that YAML reads as texts without quotes, but for these."""
WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
TOKEN = re.compile(r"[^\s\"'\\$`!]+")
"""Tokens that mean themselves between double quotes in Python and in a shell."""
FEATURES = ('model.features(["some text"], pooling="mean")', 'bertport features "some text" -m BUNDLE')
"""A call from Python and from the command line that every bundle answers."""

LIMITS_OF_WORDS = """\
The model knows what its training text said, errors and prejudices included. Masked language models of this kind
are known to complete sentences about people by stereotypes of sex, origin, religion and occupation; look at the
predictions for your own use before people are affected by them. It does not know facts, dates or events as such,
and its probabilities say how well a word fits its training text, not whether a statement is true."""
"""Of a model that fills in words."""
LIMITS_OF_TUNED = """\
The model judges by what the examples of its training had in common, errors and prejudices included: what it says of a
text about people may depend on their sex, origin, religion or occupation. Look at its answers on texts of your own use,
with names and groups exchanged, before people are affected by them. A score says how sure the model is, which is not
how often it is right on texts unlike those of its training."""
"""Of any other, whose answers about people are not seen in a word that it fills in."""


def model_card(
    manifest: Manifest,
    tokens: Mapping[str, str] | None = None,
    *,
    alone: bool = False,
    licences: Mapping[str, str | None] | None = None,
    datasets: Sequence[str] = (),
) -> str:
    """Write the card in Markdown, with the front matter that the Hugging Face Hub reads.

    Args:
        manifest: the bundle's manifest.
        tokens: the tokenizer's own tokens by those of BERT's that stand for them: `<mask>` by `[MASK]`.
        alone: whether the encoder alone was asked for, whatever heads the checkpoint holds.
        licences: what the checkpoints of heads that were added from others state, by head; None where one states none.
        datasets: what the checkpoint's card says it was trained on, as ids of the Hub.
    """
    family = family_of_class(manifest.architecture.model_class) or FAMILIES[BERT]
    known = LIMITS_OF_WORDS if MLM in manifest.heads else LIMITS_OF_TUNED
    sections = (
        _front_matter(manifest, family, datasets),
        f"# {prose(manifest.name)}\n\n{_summary(manifest, family)}",
        "## Heads\n\n" + _with_tokens(_heads(manifest, family, alone=alone), tokens or {}),
        f"## Languages\n\n{', '.join(map(prose, manifest.languages)) or 'The checkpoint does not state them.'}",
        "## Use\n\n" + _with_tokens(_use(manifest), tokens or {}),
        "## Graphs\n\n" + _graphs(manifest),
        f"## Limitations and bias\n\n{known}\n\n{_limits(manifest)}",
        "## Licence\n\n" + _licence(manifest, licences or {}),
        f"## Citation\n\n```bibtex\n{family.citation}\n```",
    )
    return "\n\n".join(sections) + "\n"


def _scalar(text: str) -> str:
    """Write a text for YAML, in quotes where it could be read as anything else ("no", "a: b")."""
    plain = PLAIN.fullmatch(text) is not None and text.lower() not in WORDS
    quoted = text if plain else json.dumps(text, ensure_ascii=False)
    # YAML ends lines at more characters than JSON, and refuses others.
    return "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in quoted)


def restored_card(manifest: Manifest, model_class: str) -> str:
    """Write the card of the checkpoint that is restored from a bundle: what the bundle knows of its weights.

    Args:
        manifest: the bundle's.
        model_class: transformers' class of the checkpoint.
    """
    known = metadata(manifest)
    terms = [line for key in ("language", "license") if key in known for line in _entry(key, known[key])]
    front = "\n".join(["---", *terms, "---"])
    origin = f"bertport restored it from a bundle, which was exported from the checkpoint {code(manifest.source.name)}"
    return f"{front}\n\n# {prose(manifest.name)}\n\nA {code(model_class)} of transformers: {origin}.\n"


def _front_matter(manifest: Manifest, family: Family, datasets: Sequence[str]) -> str:
    terms = metadata(manifest)
    terms |= {"datasets": list(datasets)} if datasets else {}
    terms["tags"] = [family.name, *terms["tags"]]
    return "\n".join(["---", *(line for key, value in terms.items() for line in _entry(key, value)), "---"])


def _entry(key: str, value: str | list[str]) -> list[str]:
    """Return the lines of YAML of an entry: a text, or a list of texts."""
    if isinstance(value, str):
        return [f"{key}: {_scalar(value)}"]
    return [f"{key}:", *(f"  - {_scalar(each)}" for each in value)]


def _summary(manifest: Manifest, family: Family) -> str:
    shape, source = manifest.architecture, manifest.source
    origin = code(source.name) + (f" at revision {code(source.revision)}" if source.revision else "")
    case = {
        True: "lower-cases its input",
        False: "keeps upper and lower case",
        None: "treats case as its tokenizer does",
    }
    return (
        f"{family.noun[0].upper()}{family.noun[1:]} encoder as ONNX graphs, exported from the checkpoint {origin} "
        f"({code(shape.model_class)}) on {manifest.created[:10]} and compared with it output by output.\n\n"
        f"It has {shape.layers} layers of width {shape.hidden_size} with {shape.attention_heads} attention heads, "
        f"{shape.vocab_size:,} vocabulary entries and {shape.parameters:,} parameters. It {case[manifest.lowercase]} "
        f"and takes up to {manifest.max_length} tokens."
    )


def _with_tokens(text: str, tokens: Mapping[str, str]) -> str:
    """Return a text with the tokenizer's own tokens; those that could end the strings of its examples stay BERT's."""
    for token, own in tokens.items():
        if TOKEN.fullmatch(own) and own.isprintable():
            text = text.replace(token, own)
    return text


def _heads(manifest: Manifest, family: Family, *, alone: bool) -> str:
    lines = [f"- `{head}`: {HEADS[head].summary if head in HEADS else 'another head'}" for head in manifest.heads]
    for head in manifest.heads.values():
        columns = in_columns([code(printable(label)) for label in head.labels or ()], "{} is {}")
        lines += [f"\nIn `{head.output}`, column {columns}."] if columns else []
    missing = [name for name in possible_heads(family) if name not in manifest.heads and not HEADS[name].tuned]
    if alone:
        lines.append("\nThe encoder was exported alone, without the heads of its checkpoint.")
    elif missing:
        lines.append(f"\nNot in the checkpoint, and so not here: {', '.join(f'`{name}`' for name in missing)}.")
    return "\n".join(lines) if manifest.heads else "\n".join(["None: features only.", *lines])


def _use(manifest: Manifest) -> str:
    examples = [head.example for name, head in HEADS.items() if name in manifest.heads]
    calls = [*filter(None, examples), FEATURES]
    python = "\n".join(
        ["from bertport.runtime import load", "", 'model = load("BUNDLE")', *(call for call, _ in calls)]
    )
    shell = "\n".join(command for _, command in calls)
    return (
        f"After {portable_install_command('cpu')}, `BUNDLE` being this directory:\n\n```python\n{python}\n```\n\n"
        f"```sh\n{shell}\n```\n\n"
        "`onnx/model.onnx` also opens in Optimum, in transformers.js and in ONNX Runtime itself."
    )


def _graphs(manifest: Manifest) -> str:
    rows = ["| variant | file | recipe | opset | IR | largest difference from PyTorch |", "|---|---|---|---|---|---|"]
    for name, variant in manifest.variants.items():
        worst = variant.validation.worst if variant.validation else {}
        difference = f"{max(worst.values()):.1e}" if worst else "see manifest.json"
        default = " (default)" if name == manifest.default_variant else ""
        versions = f"{variant.requires.opset} | {variant.requires.ir_version}"
        rows.append(f"| {name}{default} | `{variant.file}` | {variant.recipe} | {versions} | {difference} |")
    return "\n".join(rows)


def _licence(manifest: Manifest, licences: Mapping[str, str | None]) -> str:
    """Return the licence, and those of heads from other checkpoints that state another one, or none."""
    lines = [prose(manifest.licence) if manifest.licence else "The checkpoint does not state one; ask its authors."]
    for head, licence in licences.items():
        source = manifest.heads[head].source
        if source is not None and licence != manifest.licence:
            stated = prose(licence) if licence else "not stated; ask its authors"
            lines.append(f"Of the head `{head}`, from the checkpoint {code(source.name)}: {stated}.")
    return "\n\n".join(lines)


def _limits(manifest: Manifest) -> str:
    longest = f"Texts of more than {manifest.max_length} tokens must be cut or split."
    case = " Words that differ only in case are one to it." if manifest.lowercase else ""
    return longest + case
