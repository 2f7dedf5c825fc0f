"""The table of families: encoders whose checkpoints can be exported, as transformers' own modules compute them.

What can be read off those modules is not repeated here: the tensors of encoder and heads, what is tied to what, which
stored names are constants (`bertport.export.checkpoint.layout`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bertport.export.checkpoint.heads import HEADS
from bertport.runtime.heads import MLM, NSP, POOLER, RTD, SOP

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BERT",
    "FAMILIES",
    "INPUTS",
    "Family",
    "classes",
    "family_of",
    "family_of_class",
    "heads_of_kind",
    "kinds",
    "possible_heads",
    "promises",
]

BERT = "bert"
"""The family of a checkpoint that states no model type, as BERT's first ones do not."""

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""Inputs of encoders, int64 [batch, sequence]."""
WITHOUT_SEGMENTS = INPUTS[:2]
SPOKEN_AS_VOWELS = ("A", "E", "MP", "X")
"""Beginnings of titles that take "an"."""
AS_BERT: Mapping[str, tuple[str, ...]] = {"ForPreTraining": (MLM, NSP), "ForNextSentencePrediction": (NSP,)}
"""Classes of the families that were pretrained as BERT was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One row: an encoder whose checkpoints can be exported."""

    name: str
    """`model_type` of its config.json."""
    title: str
    """Name for people."""
    class_prefix: str
    """The prefix of its class names in transformers: `Bert` in `BertForMaskedLM`."""
    prefix: str
    """The prefix of the encoder's tensor names in a checkpoint with heads: `bert.`."""
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Heads of its classes that not every family has, by the name without the prefix: `ForPreTraining`."""
    without: tuple[str, ...] = ()
    """Classes that every other family has and transformers does not have for it, without the prefix."""
    pooler: bool = True
    """Whether its encoder can have a pooler."""
    inputs: tuple[str, ...] = INPUTS
    """The inputs that its encoder can have."""
    position_offset: int | None = 0
    """Rows of the position embedding before that of the first token; None where it follows that of padding's id."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Settings of config.json that are set for tracing, whatever the checkpoint states."""
    legacy: tuple[str, ...] = ()
    """Settings that checkpoints state and that transformers' config reads, but does not list among its own."""
    newer: tuple[str, ...] = ()
    """Settings that say what it computes and that transformers before 5 does not read."""
    sizes: Mapping[str, str] = field(default_factory=dict)
    """The family's names of sizes that Optimum does not know."""
    window: str | None = None
    """The setting with the width of local attention; None where every token sees all others."""
    joins_neighbours: bool = False
    """Whether a token's embedding is made of its neighbours' too, so that padding would move a text's last token."""
    unscripted: tuple[str, ...] = ()
    """Functions of its module that transformers compiles, and that choose between attention with and without a cache:
    here are as many queries as keys, so that they are traced without the choice."""
    tokenizer: str
    """transformers' model type whose tokenizer it has where no file of a checkpoint names one."""
    citation: str
    """Its paper, in BibTeX."""

    @property
    def noun(self) -> str:
        """Name for people, with an article."""
        return f"{'an' if self.title.startswith(SPOKEN_AS_VOWELS) else 'a'} {self.title}"


_ROWS = (
    Family(
        name=BERT,
        title="BERT",
        class_prefix="Bert",
        prefix="bert.",
        classes=AS_BERT,
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
    Family(
        name="roberta",
        title="RoBERTa",
        class_prefix="Roberta",
        prefix="roberta.",
        inputs=WITHOUT_SEGMENTS,
        position_offset=None,
        tokenizer="roberta",
        citation="""\
@article{liu2019roberta,
  title   = {{RoBERTa}: A Robustly Optimized {BERT} Pretraining Approach},
  author  = {Liu, Yinhan and Ott, Myle and Goyal, Naman and Du, Jingfei and Joshi, Mandar and Chen, Danqi and
             Levy, Omer and Lewis, Mike and Zettlemoyer, Luke and Stoyanov, Veselin},
  journal = {arXiv:1907.11692},
  year    = {2019}
}""",
    ),
    Family(
        name="xlm-roberta",
        title="XLM-RoBERTa",
        class_prefix="XLMRoberta",
        prefix="roberta.",
        inputs=WITHOUT_SEGMENTS,
        position_offset=None,
        tokenizer="xlm-roberta",
        citation="""\
@inproceedings{conneau2020unsupervised,
  title     = {Unsupervised Cross-lingual Representation Learning at Scale},
  author    = {Conneau, Alexis and Khandelwal, Kartikay and Goyal, Naman and Chaudhary, Vishrav and Wenzek, Guillaume
               and Guzm{\\'a}n, Francisco and Grave, Edouard and Ott, Myle and Zettlemoyer, Luke and Stoyanov, Veselin},
  booktitle = {Proceedings of ACL 2020},
  pages     = {8440--8451},
  year      = {2020}
}""",
    ),
    Family(
        name="camembert",
        title="CamemBERT",
        class_prefix="Camembert",
        prefix="roberta.",
        inputs=WITHOUT_SEGMENTS,
        position_offset=None,
        tokenizer="camembert",
        citation="""\
@inproceedings{martin2020camembert,
  title     = {{CamemBERT}: a Tasty {French} Language Model},
  author    = {Martin, Louis and Muller, Benjamin and Ortiz Su{\\'a}rez, Pedro Javier and Dupont, Yoann and
               Romary, Laurent and de la Clergerie, {\\'E}ric and Seddah, Djam{\\'e} and Sagot, Beno{\\^i}t},
  booktitle = {Proceedings of ACL 2020},
  pages     = {7203--7219},
  year      = {2020}
}""",
    ),
    Family(
        name="distilbert",
        title="DistilBERT",
        class_prefix="DistilBert",
        prefix="distilbert.",
        pooler=False,
        inputs=WITHOUT_SEGMENTS,
        sizes={"intermediate_size": "hidden_dim"},
        tokenizer="distilbert",
        citation="""\
@article{sanh2019distilbert,
  title   = {{DistilBERT}, a distilled version of {BERT}: smaller, faster, cheaper and lighter},
  author  = {Sanh, Victor and Debut, Lysandre and Chaumond, Julien and Wolf, Thomas},
  journal = {arXiv:1910.01108},
  year    = {2019}
}""",
    ),
    Family(
        name="electra",
        title="ELECTRA",
        class_prefix="Electra",
        prefix="electra.",
        classes={"ForPreTraining": (RTD,)},
        pooler=False,
        tokenizer="electra",
        citation="""\
@inproceedings{clark2020electra,
  title     = {{ELECTRA}: Pre-training Text Encoders as Discriminators Rather Than Generators},
  author    = {Clark, Kevin and Luong, Minh-Thang and Le, Quoc V. and Manning, Christopher D.},
  booktitle = {International Conference on Learning Representations},
  year      = {2020}
}""",
    ),
    Family(
        name="mpnet",
        title="MPNet",
        class_prefix="MPNet",
        prefix="mpnet.",
        inputs=WITHOUT_SEGMENTS,
        position_offset=2,
        tokenizer="mpnet",
        citation="""\
@inproceedings{song2020mpnet,
  title     = {{MPNet}: Masked and Permuted Pre-training for Language Understanding},
  author    = {Song, Kaitao and Tan, Xu and Qin, Tao and Lu, Jianfeng and Liu, Tie-Yan},
  booktitle = {Advances in Neural Information Processing Systems 33},
  year      = {2020}
}""",
    ),
    Family(
        name="albert",
        title="ALBERT",
        class_prefix="Albert",
        prefix="albert.",
        classes={"ForPreTraining": (MLM, SOP)},
        tokenizer="albert",
        citation="""\
@inproceedings{lan2020albert,
  title     = {{ALBERT}: A Lite {BERT} for Self-supervised Learning of Language Representations},
  author    = {Lan, Zhenzhong and Chen, Mingda and Goodman, Sebastian and Gimpel, Kevin and Sharma, Piyush and
               Soricut, Radu},
  booktitle = {International Conference on Learning Representations},
  year      = {2020}
}""",
    ),
    Family(
        name="deberta",
        title="DeBERTa",
        class_prefix="Deberta",
        prefix="deberta.",
        without=("ForMultipleChoice",),
        pooler=False,
        legacy=("embedding_size", "talking_head"),
        unscripted=("build_rpos", "uneven_size_corrected"),
        tokenizer="deberta",
        citation="""\
@inproceedings{he2021deberta,
  title     = {{DeBERTa}: Decoding-enhanced {BERT} with Disentangled Attention},
  author    = {He, Pengcheng and Liu, Xiaodong and Gao, Jianfeng and Chen, Weizhu},
  booktitle = {International Conference on Learning Representations},
  year      = {2021}
}""",
    ),
    Family(
        name="deberta-v2",
        title="DeBERTa-v2",
        class_prefix="DebertaV2",
        prefix="deberta.",
        pooler=False,
        legacy=(
            "attention_head_size",
            "conv_act",
            "conv_groups",
            "conv_kernel_size",
            "embedding_size",
            "norm_rel_ebd",
            "position_buckets",
            "share_att_key",
        ),
        unscripted=("build_rpos",),
        tokenizer="deberta-v2",
        citation="""\
@inproceedings{he2023debertav3,
  title     = {{DeBERTaV3}: Improving {DeBERTa} using {ELECTRA}-Style Pre-Training with Gradient-Disentangled Embedding
               Sharing},
  author    = {He, Pengcheng and Gao, Jianfeng and Chen, Weizhu},
  booktitle = {International Conference on Learning Representations},
  year      = {2023}
}""",
    ),
    Family(
        name="modernbert",
        title="ModernBERT",
        class_prefix="ModernBert",
        prefix="model.",
        pooler=False,
        inputs=WITHOUT_SEGMENTS,
        defaults={"reference_compile": False, "sparse_prediction": False},
        legacy=("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta", "rope_scaling"),
        newer=("layer_types", "rope_parameters"),
        window="local_attention",
        tokenizer="modernbert",
        citation="""\
@inproceedings{warner2025smarter,
  title     = {Smarter, Better, Faster, Longer: A Modern Bidirectional Encoder for Fast, Memory Efficient, and Long
               Context Finetuning and Inference},
  author    = {Warner, Benjamin and Chaffin, Antoine and Clavi{\\'e}, Benjamin and Weller, Orion and
               Hallstr{\\"o}m, Oskar and Taghadouini, Said and Gallagher, Alexis and Biswas, Raja and Ladhak, Faisal and
               Aarsen, Tom and Adams, Griffin Thomas and Howard, Jeremy and Poli, Iacopo},
  booktitle = {Proceedings of ACL 2025},
  pages     = {2526--2547},
  year      = {2025}
}""",
    ),
    Family(
        name="mobilebert",
        title="MobileBERT",
        class_prefix="MobileBert",
        prefix="mobilebert.",
        classes=AS_BERT,
        joins_neighbours=True,
        tokenizer="mobilebert",
        citation="""\
@inproceedings{sun2020mobilebert,
  title     = {{MobileBERT}: a Compact Task-Agnostic {BERT} for Resource-Limited Devices},
  author    = {Sun, Zhiqing and Yu, Hongkun and Song, Xiaodan and Liu, Renjie and Yang, Yiming and Zhou, Denny},
  booktitle = {Proceedings of ACL 2020},
  pages     = {2158--2170},
  year      = {2020}
}""",
    ),
    Family(
        name="ernie",
        title="ERNIE",
        class_prefix="Ernie",
        prefix="ernie.",
        classes=AS_BERT,
        tokenizer="bert",
        citation="""\
@article{sun2019ernie,
  title   = {{ERNIE}: Enhanced Representation through Knowledge Integration},
  author  = {Sun, Yu and Wang, Shuohuan and Li, Yukun and Feng, Shikun and Chen, Xuyi and Zhang, Han and Tian, Xin and
             Zhu, Danxiang and Tian, Hao and Wu, Hua},
  journal = {arXiv:1904.09223},
  year    = {2019}
}""",
    ),
)
FAMILIES: dict[str, Family] = {family.name: family for family in _ROWS}
"""Families by model type, in the order in which people are shown them."""


def family_of(config: Mapping[str, Any]) -> Family | None:
    """Return the family of a checkpoint by its config.json; None for one that is not supported."""
    stated, architectures = config.get("model_type"), config.get("architectures")
    if stated is None:
        named = architectures[0] if isinstance(architectures, list) and architectures else None
        known = family_of_class(named) if isinstance(named, str) else None
        return known or (FAMILIES[BERT] if "hidden_size" in config else None)
    return FAMILIES.get(stated) if isinstance(stated, str) else None


def classes(family: Family) -> tuple[str, ...]:
    """Return transformers' classes of a family, those that promise most heads first and the bare encoder last."""
    every = dict.fromkeys(kind for head in HEADS for kind in kinds(family, head))
    return tuple(family.class_prefix + kind for kind in (*every, "Model"))


def kinds(family: Family, head: str) -> tuple[str, ...]:
    """Return the classes of a family that hold a head, without its prefix, that with most heads first."""
    shared = [kind for kind, heads in family.classes.items() if head in heads and len(heads) > 1]
    own = HEADS[head].own_class
    if own in family.without:
        return ()
    alone = [own] if own else [kind for kind, heads in family.classes.items() if heads == (head,)]
    return (*shared, *alone)


def heads_of_kind(family: Family, kind: str) -> tuple[str, ...]:
    """Return the heads of one of a family's classes, in the table's order."""
    return tuple(head for head in HEADS if kind in kinds(family, head))


def possible_heads(family: Family) -> tuple[str, ...]:
    """Return the heads that a family can have, in the table's order."""
    return tuple(head for head in HEADS if kinds(family, head) or (head == POOLER and family.pooler))


def family_of_class(name: str) -> Family | None:
    """Return the family of one of transformers' classes; None for a class of none."""
    return next((family for family in FAMILIES.values() if name in classes(family)), None)


def promises(family: Family, name: str) -> frozenset[str]:
    """Return the heads that one of transformers' classes promises."""
    return frozenset(heads_of_kind(family, name.removeprefix(family.class_prefix)))
