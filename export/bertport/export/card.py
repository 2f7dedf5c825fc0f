"""The model card: a bundle's README.md, generated from its manifest."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from bertport.runtime.installation import portable_install_command

if TYPE_CHECKING:
    from bertport.runtime.bundle.manifest import Manifest

__all__ = ["model_card"]

PLAIN = re.compile(r"[A-Za-z][\w.-]*")
"""Texts that YAML reads as texts without quotes, but for these."""
WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
HEADS = {
    "mlm": "masked language modelling: fills `[MASK]`",
    "nsp": "next-sentence prediction: says whether one sentence follows another",
    "pooler": "the pooled `[CLS]` feature",
}
USES = {
    "mlm": (
        'model.fill_mask("The capital of France is [MASK].", top_k=5)',
        'bertport fill-mask "The capital of France is [MASK]." -m BUNDLE',
    ),
    "nsp": (
        'model.next_sentence("He went to the store.", "He bought milk.")',
        'bertport next-sentence "He went to the store." "He bought milk." -m BUNDLE',
    ),
    None: ('model.features(["some text"], pooling="mean")', 'bertport features "some text" -m BUNDLE'),
}
"""A call from Python and from the command line, by the head that it needs."""

CITATION = """\
@inproceedings{devlin2019bert,
  title     = {{BERT}: Pre-training of Deep Bidirectional Transformers for Language Understanding},
  author    = {Devlin, Jacob and Chang, Ming-Wei and Lee, Kenton and Toutanova, Kristina},
  booktitle = {Proceedings of NAACL-HLT 2019},
  pages     = {4171--4186},
  year      = {2019}
}"""

LIMITATIONS = """\
The model knows what its training text said, errors and prejudices included. Masked language models of this kind
are known to complete sentences about people by stereotypes of sex, origin, religion and occupation; look at the
predictions for your own use before people are affected by them. It does not know facts, dates or events as such,
and its probabilities say how well a word fits its training text, not whether a statement is true."""


def model_card(manifest: Manifest) -> str:
    """Write the card in Markdown, with the front matter that the Hugging Face Hub reads."""
    sections = (
        _front_matter(manifest),
        f"# {manifest.name}\n\n{_summary(manifest)}",
        "## Heads\n\n" + _heads(manifest),
        f"## Languages\n\n{', '.join(manifest.languages) or 'The checkpoint does not state them.'}",
        "## Use\n\n" + _use(manifest),
        "## Graphs\n\n" + _graphs(manifest),
        f"## Limitations and bias\n\n{LIMITATIONS}\n\n{_limits(manifest)}",
        f"## Licence\n\n{manifest.licence or 'The checkpoint does not state one; ask its authors.'}",
        f"## Citation\n\n```bibtex\n{CITATION}\n```",
    )
    return "\n\n".join(sections) + "\n"


def _scalar(text: str) -> str:
    """Write a text for YAML, in quotes where it could be read as anything else ("no", "a: b")."""
    plain = PLAIN.fullmatch(text) is not None and text.lower() not in WORDS
    return text if plain else json.dumps(text, ensure_ascii=False)


def _front_matter(manifest: Manifest) -> str:
    lines = ["---"]
    if manifest.languages:
        lines += ["language:", *(f"  - {_scalar(language)}" for language in manifest.languages)]
    if manifest.licence:
        lines.append(f"license: {_scalar(manifest.licence)}")
    if manifest.source.revision:
        lines.append(f"base_model: {manifest.source.name}")
    if "mlm" in manifest.heads:
        lines.append("pipeline_tag: fill-mask")
    lines += ["tags:", "  - bert", "  - onnx", "  - bertport", "---"]
    return "\n".join(lines)


def _summary(manifest: Manifest) -> str:
    shape, source = manifest.architecture, manifest.source
    origin = f"`{source.name}`" + (f" at revision `{source.revision}`" if source.revision else "")
    case = {
        True: "lower-cases its input",
        False: "keeps upper and lower case",
        None: "treats case as its tokenizer does",
    }
    return (
        f"A BERT encoder as ONNX graphs, exported from the checkpoint {origin} (`{shape.model_class}`) on "
        f"{manifest.created[:10]} and compared with it output by output.\n\n"
        f"It has {shape.layers} layers of width {shape.hidden_size} with {shape.attention_heads} attention heads, "
        f"{shape.vocab_size:,} vocabulary entries and {shape.parameters:,} parameters. It {case[manifest.lowercase]} "
        f"and takes up to {manifest.max_length} tokens."
    )


def _heads(manifest: Manifest) -> str:
    lines = [f"- `{head}`: {HEADS.get(head, 'another head')}" for head in manifest.heads]
    if "nsp" in manifest.heads and (labels := manifest.heads["nsp"].labels):
        columns = ", ".join(f"{index} is `{label}`" for index, label in enumerate(labels))
        lines.append(f"\nIn `seq_relationship_logits`, column {columns}.")
    missing = [head for head in HEADS if head not in manifest.heads]
    if missing:
        lines.append(f"\nNot in the checkpoint, and so not here: {', '.join(f'`{head}`' for head in missing)}.")
    return "\n".join(lines) if manifest.heads else "\n".join(["None: features only.", *lines])


def _use(manifest: Manifest) -> str:
    calls = [use for head, use in USES.items() if head is None or head in manifest.heads]
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


def _limits(manifest: Manifest) -> str:
    longest = f"Texts of more than {manifest.max_length} tokens must be cut or split."
    case = " Words that differ only in case are one to it." if manifest.lowercase else ""
    return longest + case
