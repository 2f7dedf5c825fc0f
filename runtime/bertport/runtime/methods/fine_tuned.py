"""Methods for the heads of fine-tuned models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

from bertport.runtime.methods.asking import Asking, paired
from bertport.runtime.tasks.text_classification import BEST

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from bertport.runtime.tasks.answers import Entity, ScoredLabel, TokenLabel

__all__ = ["FineTunedMethods"]


class FineTunedMethods(Asking):
    """Text classification and token classification."""

    @overload
    def classify(  # type: ignore[overload-overlap]  # a text is a sequence of texts to the checker alone
        self,
        texts: str,
        text_pairs: str | None = None,
        *,
        top_k: Literal["best"] = BEST,
        function_to_apply: str | None = None,
        truncation: bool = False,
    ) -> ScoredLabel: ...

    @overload
    def classify(
        self,
        texts: Sequence[str],
        text_pairs: Sequence[str] | None = None,
        *,
        top_k: Literal["best"] = BEST,
        function_to_apply: str | None = None,
        truncation: bool = False,
    ) -> list[ScoredLabel]: ...

    @overload
    def classify(  # type: ignore[overload-overlap]  # as above
        self,
        texts: str,
        text_pairs: str | None = None,
        *,
        top_k: int | None,
        function_to_apply: str | None = None,
        truncation: bool = False,
    ) -> list[ScoredLabel]: ...

    @overload
    def classify(
        self,
        texts: Sequence[str],
        text_pairs: Sequence[str] | None = None,
        *,
        top_k: int | None,
        function_to_apply: str | None = None,
        truncation: bool = False,
    ) -> list[list[ScoredLabel]]: ...

    def classify(
        self,
        texts: str | Sequence[str],
        text_pairs: str | Sequence[str] | None = None,
        *,
        top_k: int | Literal["best"] | None = BEST,
        function_to_apply: str | None = None,
        truncation: bool = False,
    ) -> Any:
        """Return the labels of a text or of a pair of texts, as transformers' text-classification pipeline does.

        Args:
            texts: a text, or a list of texts.
            text_pairs: the second text of each pair, or a list of as many; None where each input is one text.
            top_k: `best` for the best label; a number for a list of so many, best first; None for a list of all.
            function_to_apply: what makes scores of the logits: `softmax`, `sigmoid` or `none`; None for what the head's
                problem type says.
            truncation: cut a text that is too long, of a pair the longer one, instead of refusing it.

        Returns:
            For a text `{"label", "score"}`, or with `top_k` a list of them; for a list of texts a list of these. The
            score is a probability, or the logit where no function is applied, as for a regression.

        Raises:
            MissingHeadError: when the bundle has no head for labels of texts.
            InputTextError: for a text or pair that is too long.
            UsageError: for a parameter out of range, or lists of different lengths.
        """
        inputs: Sequence[object]
        if text_pairs is None:
            one = isinstance(texts, str)
            inputs = [texts] if one else texts
        else:
            inputs, one = paired("classify", texts, text_pairs)
        parameters = {"top_k": top_k, "function_to_apply": function_to_apply, "truncation": truncation}
        answers = list(self.predict("text-classification", inputs, **parameters))
        return answers[0] if one else answers

    @overload
    def tag(  # type: ignore[overload-overlap]  # as above
        self,
        texts: str,
        *,
        aggregation_strategy: Literal["none"] = "none",
        ignore_labels: Collection[str] = ("O",),
        truncation: bool = False,
    ) -> list[TokenLabel]: ...

    @overload
    def tag(
        self,
        texts: Sequence[str],
        *,
        aggregation_strategy: Literal["none"] = "none",
        ignore_labels: Collection[str] = ("O",),
        truncation: bool = False,
    ) -> list[list[TokenLabel]]: ...

    @overload
    def tag(  # type: ignore[overload-overlap]  # as above
        self,
        texts: str,
        *,
        aggregation_strategy: Literal["simple", "first", "average", "max"],
        ignore_labels: Collection[str] = ("O",),
        truncation: bool = False,
    ) -> list[Entity]: ...

    @overload
    def tag(
        self,
        texts: Sequence[str],
        *,
        aggregation_strategy: Literal["simple", "first", "average", "max"],
        ignore_labels: Collection[str] = ("O",),
        truncation: bool = False,
    ) -> list[list[Entity]]: ...

    @overload
    def tag(
        self,
        texts: str | Sequence[str],
        *,
        aggregation_strategy: str,
        ignore_labels: Collection[str] = ("O",),
        truncation: bool = False,
    ) -> list[Any]: ...

    def tag(
        self,
        texts: str | Sequence[str],
        *,
        aggregation_strategy: str = "none",
        ignore_labels: Collection[str] = ("O",),
        truncation: bool = False,
    ) -> list[Any]:
        """Return the labels of a text's tokens, or its entities, as transformers' token-classification pipeline does.

        Args:
            texts: a text, or a list of texts.
            aggregation_strategy: `none` for a row per token; `simple` joins neighbouring tokens of one label to an
                entity; `first`, `average` and `max` give each word one label before that.
            ignore_labels: tokens or entities with these labels are left out.
            truncation: cut a text that is too long instead of refusing it.

        Returns:
            For a text a list of `{"entity", "score", "index", "word", "start", "end"}`, a row per token, or with
            another strategy of `{"entity_group", "score", "word", "start", "end"}`, a row per entity; `start` and `end`
            are characters of the text. For a list of texts a list of these.

        Raises:
            MissingHeadError: when the bundle has no head for labels of tokens.
            InputTextError: for a text that is too long.
            UnknownNameError, UsageError: for a parameter out of range.
        """
        one = isinstance(texts, str)
        parameters = {
            "aggregation_strategy": aggregation_strategy,
            "ignore_labels": ignore_labels,
            "truncation": truncation,
        }
        answers = list(self.predict("token-classification", [texts] if one else texts, **parameters))
        return answers[0] if one else answers
