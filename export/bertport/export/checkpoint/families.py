"""The table of families: encoders that compute what BERT does, and where their checkpoints differ from BERT's.

Every family is exported as BERT's modules: its tensors are given BERT's names, and rows of its position embedding that
no token takes are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.export.checkpoint.heads import HEADS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BERT", "FAMILIES", "INPUTS", "Family", "classes", "family_of", "family_of_class", "promises"]

BERT = "bert"
"""The family of a checkpoint that states no model type, as BERT's first ones do not."""

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""BERT's inputs, int64 [batch, sequence]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One row: an encoder whose checkpoints can be exported."""

    name: str
    """`model_type` of its config.json."""
    title: str
    """What people call it."""
    class_prefix: str
    """What the names of transformers' classes begin with: `Bert` in `BertForMaskedLM`."""
    prefix: str
    """What the encoder's tensors begin with in a checkpoint with heads, in place of BERT's `bert.`."""
    renames: tuple[tuple[str, str], ...] = ()
    """Patterns of names that are not BERT's, behind the prefix, and what takes their place; applied in this order."""
    inputs: tuple[str, ...] = INPUTS
    """Those of BERT's inputs that the encoder has."""
    position_offset: int = 0
    """Rows of the position embedding before that of the first token."""
    tokenizer: str
    """transformers' model type whose tokenizer it has where no file of a checkpoint names one."""
    citation: str
    """Its paper, in BibTeX."""

    @property
    def has_segments(self) -> bool:
        """Whether the encoder tells the texts of a pair apart."""
        return "token_type_ids" in self.inputs


FAMILIES: dict[str, Family] = {
    row.name: row
    for row in (
        Family(
            name=BERT,
            title="BERT",
            class_prefix="Bert",
            prefix="bert.",
            tokenizer="bert",
            citation="""\
@inproceedings{devlin2019bert,
  title     = {{BERT}: Pre-training of Deep Bidirectional Transformers for Language Understanding},
  author    = {Devlin, Jacob and Chang, Ming-Wei and Lee, Kenton and Toutanova, Kristina},
  booktitle = {Proceedings of NAACL-HLT 2019},
  pages     = {4171--4186},
  year      = {2019}
}""",
        ),
    )
}
"""By model type, in the order in which people are shown them."""


def family_of(config: Mapping[str, Any]) -> Family | None:
    """Return the family of a checkpoint by its config.json; None for one that is not supported."""
    stated = config.get("model_type")
    if stated is None:
        return FAMILIES[BERT] if "hidden_size" in config else None
    return FAMILIES.get(stated) if isinstance(stated, str) else None


def classes(family: Family) -> tuple[str, ...]:
    """Return transformers' classes of a family, those that promise most heads first and the bare encoder last."""
    promised = dict.fromkeys(each for head in HEADS.values() for each in head.classes)
    return tuple(family.class_prefix + each for each in (*promised, "Model"))


def family_of_class(name: str) -> Family | None:
    """Return the family of one of transformers' classes; None for a class of none."""
    return next((family for family in FAMILIES.values() if name in classes(family)), None)


def promises(family: Family, name: str) -> frozenset[str]:
    """Return the heads that one of transformers' classes promises."""
    kind = name.removeprefix(family.class_prefix)
    return frozenset(head for head, row in HEADS.items() if kind in row.classes)
