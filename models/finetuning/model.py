"""The model under training: an encoder from a bundle or a checkpoint with a fresh head, and its loss."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn import functional
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from bertport.export import restore
from bertport.export.checkpoint.config import max_positions
from bertport.export.checkpoint.families import BERT, FAMILIES, family_of
from bertport.runtime.bundle.directory import MANIFEST, file_sha256
from bertport.runtime.excerpts import one_line
from evaluation.scorers import is_bundle
from pretraining.errors import RecipeError
from pretraining.machine import Hardware

from .data import UNLABELLED
from .tasks import Task

_CLASSES: dict[str, Any] = {
    "sequence-classification": AutoModelForSequenceClassification,
    "token-classification": AutoModelForTokenClassification,
    "question-answering": AutoModelForQuestionAnswering,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Starting point of every run of a task."""

    path: Path
    """The checkpoint's directory."""
    task: Task
    """The task whose head is put on it."""
    tokenizer: PreTrainedTokenizerFast
    """transformers' tokenizer, which is saved with the result."""
    longest: int
    """The longest sequence that encoder and tokenizer take, in tokens."""

    @property
    def pad(self) -> int:
        """The id of the padding token; any id will do where there is none, since padding is masked."""
        pad = self.tokenizer.pad_token_id
        return pad if isinstance(pad, int) else 0

    def model(self, *, dropout: float, seed: int) -> PreTrainedModel:
        """Read the encoder and put a fresh head on it, whose weights `seed` decides.

        Raises:
            RecipeError: when the weights lack a part of the encoder, or transformers cannot read them.
        """
        torch.manual_seed(seed)
        kind = _CLASSES[self.task.head]
        try:
            config = self._config(dropout)
            model, loading = kind.from_pretrained(
                self.path,
                config=config,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # of a head with other labels
                dtype=torch.float32,
                # Under bf16 on a CPU the fused kernel's backward pass makes a step 1.3 to 1.6 times as long.
                attn_implementation="eager",
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise RecipeError(
                f"--init {self.path}: transformers cannot read it ({one_line(error)[:200]}): "
                "name a bundle or a checkpoint directory"
            ) from error
        encoder = f"{model.base_model_prefix}."
        made = set(loading["missing_keys"]) | {name for name, *_ in loading["mismatched_keys"]}
        lost = sorted(name for name in made if name.startswith(encoder) and "pooler" not in name)
        if lost:
            raise RecipeError(f"--init {self.path} lacks weights of the encoder ({lost[0]}): name a whole checkpoint")
        taken = [name for name in model.state_dict() if not name.startswith(encoder) and name not in made]
        if taken:
            # A head of this class was trained on another task, perhaps with as many labels.
            torch.manual_seed(seed)
            fresh = kind.from_config(config).state_dict()
            model.load_state_dict({name: fresh[name] for name in taken}, strict=False)
        trained: PreTrainedModel = model
        return trained

    def _config(self, dropout: float) -> Any:  # noqa: ANN401 — a class of transformers
        settings: dict[str, Any] = {"problem_type": None}
        if self.task.head != "question-answering":
            names = dict(enumerate(self.task.labels or ("LABEL_0",)))
            settings |= {"id2label": names, "label2id": {name: index for index, name in names.items()}}
        if self.task.head == "sequence-classification":
            settings["problem_type"] = "single_label_classification" if self.task.labels else "regression"
        config = transformers.AutoConfig.from_pretrained(self.path, **settings)
        for name, value in config.to_dict().items():  # each family has names of its own
            if "dropout" in name and (value is None or isinstance(value, int | float)):
                setattr(config, name, dropout)
        return config


def open_start(init: Path, task: Task, cache: Path) -> Start:
    """Open a checkpoint directory, or a bundle, whose checkpoint is restored below `cache` once while it is the same.

    Raises:
        RecipeError: when there is no such directory, or transformers reads no config.json or no tokenizer there.
        BertportError: when the bundle cannot be restored.
    """
    if not init.is_dir():
        raise RecipeError(f"--init {init}: no such directory; name a bundle or a checkpoint directory")
    path = init
    if is_bundle(init):
        # By its manifest, which has the digest of every file: another bundle may have its place when the run goes on.
        path = cache / f"init-{file_sha256(init / MANIFEST)[:16]}"
        if not path.is_dir():
            restore(init, path)
    # What from_pretrained reports about heads that are left out and made fresh is what was asked for.
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(path)
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"--init {init}: transformers reads no config.json and tokenizer there "
            f"({one_line(error)[:200]}): name a bundle or a checkpoint directory"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise RecipeError(f"--init {init}: its tokenizer is {type(tokenizer).__name__}: add a tokenizer.json")
    tokenizer.backend_tokenizer.no_padding()
    positions = max_positions(family_of(config.to_dict()) or FAMILIES[BERT], config)
    return Start(path=path, task=task, tokenizer=tokenizer, longest=min(tokenizer.model_max_length, positions))


def logits(model: PreTrainedModel, batch: dict[str, torch.Tensor], hardware: Hardware) -> torch.Tensor:
    """Return the head's outputs in float32.

    Returns:
        Shape (rows, labels); of tags (rows, tokens, labels); of answers (rows, 2, tokens): where they begin, and where
        they end, with the least number at padding.
    """
    inputs = {
        name: batch[name].to(hardware.device)
        for name in ("input_ids", "attention_mask", "token_type_ids")
        if name != "token_type_ids" or getattr(model.config, "type_vocab_size", 0) > 1
    }
    with torch.autocast(hardware.device.type, dtype=hardware.dtype, enabled=hardware.dtype != torch.float32):
        outputs = model(**inputs)
    if "logits" in outputs:
        values: torch.Tensor = outputs.logits.float()
        return values
    spans = torch.stack([outputs.start_logits, outputs.end_logits], dim=1).float()
    return spans.masked_fill(inputs["attention_mask"][:, None] == 0, torch.finfo(torch.float32).min)


def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean loss: squared error of a score, else cross entropy in nats over what is labelled."""
    if targets.dtype.is_floating_point:
        return functional.mse_loss(outputs.squeeze(-1), targets)
    return functional.cross_entropy(outputs.flatten(0, -2), targets.flatten(), ignore_index=UNLABELLED)
