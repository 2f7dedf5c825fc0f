"""Methods for the heads of pretraining, and for the encoder itself."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from bertport.runtime.heads import DEFAULT_TOP_K
from bertport.runtime.methods.asking import Asking, paired

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from bertport.runtime.tasks.answers import NextSentence, SentenceOrder, TokenLabel

__all__ = ["PretrainingMethods"]


class PretrainingMethods(Asking):
    """Fill-mask, next sentence, sentence order, replaced tokens and features."""

    def fill_mask(
        self,
        texts: str | Sequence[str],
        *,
        top_k: int | None = DEFAULT_TOP_K,
        targets: str | Sequence[str] | None = None,
        truncation: bool = False,
    ) -> list[Any]:
        """Return the likeliest words for each mask, as transformers' fill-mask pipeline does.

        Args:
            texts: a text with one or more mask tokens, or a list of such texts.
            top_k: answers per mask.
            targets: only these words compete; their scores stay those of the full vocabulary.
            truncation: cut a text that is too long instead of refusing it.

        Returns:
            For a text with one mask a list of `{"score", "token", "token_str", "sequence"}`, best first; for several
            masks one such list per mask; for a list of texts a list of these, unwrapped when it holds one text.

        Raises:
            MissingHeadError: when the bundle has no head for masked words.
            InputTextError: for a text without a mask, too long, or whose mask is lost to truncation.
            UsageError: for a parameter out of range, or targets none of which is left.
        """
        one = isinstance(texts, str)
        answers = list(
            self.predict("fill-mask", [texts] if one else texts, top_k=top_k, targets=targets, truncation=truncation)
        )
        return answers[0] if len(answers) == 1 else answers  # a list of one is unwrapped, as in transformers

    @overload
    def next_sentence(self, a: str, b: str, *, truncation: bool = False) -> NextSentence: ...  # type: ignore[overload-overlap]  # a text is a sequence of texts to the checker alone

    @overload
    def next_sentence(self, a: Sequence[str], b: Sequence[str], *, truncation: bool = False) -> list[NextSentence]: ...

    def next_sentence(
        self, a: str | Sequence[str], b: str | Sequence[str], *, truncation: bool = False
    ) -> NextSentence | list[NextSentence]:
        """Return whether `b` follows `a`.

        Args:
            a: a text, or a list of texts.
            b: a text, or a list of as many.
            truncation: cut the longer text of a pair that is too long instead of refusing it.

        Returns:
            `{"label", "score", "follows", "probabilities"}`, or a list of them: the more probable label as the bundle
            records it, its probability, whether it says that `b` follows, and the probability of each label.

        Raises:
            MissingHeadError: when the bundle has no next-sentence head.
            InputTextError: for a pair that is too long.
            UsageError: for lists of different lengths.
        """
        pairs, one = paired("next-sentence", a, b)
        answers = list(self.predict("next-sentence", pairs, truncation=truncation))
        return answers[0] if one else answers

    @overload
    def sentence_order(self, a: str, b: str, *, truncation: bool = False) -> SentenceOrder: ...  # type: ignore[overload-overlap]  # as above

    @overload
    def sentence_order(
        self, a: Sequence[str], b: Sequence[str], *, truncation: bool = False
    ) -> list[SentenceOrder]: ...

    def sentence_order(
        self, a: str | Sequence[str], b: str | Sequence[str], *, truncation: bool = False
    ) -> SentenceOrder | list[SentenceOrder]:
        """Return whether `a` and `b`, two neighbouring pieces of a text, stand in the order in which it has them.

        Args:
            a: a text, or a list of texts.
            b: a text, or a list of as many.
            truncation: cut the longer text of a pair that is too long instead of refusing it.

        Returns:
            `{"label", "score", "in_order", "probabilities"}`, or a list of them: the more probable label as the bundle
            records it, its probability, whether it says that `a` came first, and the probability of each label.

        Raises:
            MissingHeadError: when the bundle has no sentence-order head.
            InputTextError: for a pair that is too long.
            UsageError: for lists of different lengths.
        """
        pairs, one = paired("sentence-order", a, b)
        answers = list(self.predict("sentence-order", pairs, truncation=truncation))
        return answers[0] if one else answers

    @overload
    def replaced_tokens(  # type: ignore[overload-overlap]  # as above
        self, texts: str, *, ignore_labels: Collection[str] = (), truncation: bool = False
    ) -> list[TokenLabel]: ...

    @overload
    def replaced_tokens(
        self, texts: Sequence[str], *, ignore_labels: Collection[str] = (), truncation: bool = False
    ) -> list[list[TokenLabel]]: ...

    def replaced_tokens(
        self, texts: str | Sequence[str], *, ignore_labels: Collection[str] = (), truncation: bool = False
    ) -> list[TokenLabel] | list[list[TokenLabel]]:
        """Return for each token whether it stands in place of another, as rows of transformers' token classification.

        Args:
            texts: a text, or a list of texts.
            ignore_labels: tokens with these labels are left out.
            truncation: cut a text that is too long instead of refusing it.

        Returns:
            For a text a list of `{"entity", "score", "index", "word", "start", "end"}`, a row for each token that is
            not special: the more probable label as the bundle records it, its probability, the token's position in the
            input, the token, and its characters in the text. For a list of texts a list of these.

        Raises:
            MissingHeadError: when the bundle has no replaced-token head.
            InputTextError: for a text that is too long.
            UsageError: for `ignore_labels` that are no labels.
        """
        one = isinstance(texts, str)
        inputs = [texts] if one else texts
        answers = list(self.predict("replaced-tokens", inputs, ignore_labels=ignore_labels, truncation=truncation))
        return answers[0] if one else answers

    @overload
    def features(  # type: ignore[overload-overlap]  # as above
        self, texts: str, *, pooling: str = "none", normalize: bool = False, truncation: bool = False
    ) -> NDArray[np.float32]: ...

    @overload
    def features(
        self,
        texts: Sequence[str],
        *,
        pooling: Literal["none"] = "none",
        normalize: bool = False,
        truncation: bool = False,
    ) -> list[NDArray[np.float32]]: ...

    @overload
    def features(
        self,
        texts: Sequence[str],
        *,
        pooling: Literal["cls", "mean", "pooler"],
        normalize: bool = False,
        truncation: bool = False,
    ) -> NDArray[np.float32]: ...

    @overload
    def features(
        self, texts: Sequence[str], *, pooling: str, normalize: bool = False, truncation: bool = False
    ) -> NDArray[np.float32] | list[NDArray[np.float32]]: ...

    def features(
        self,
        texts: str | Sequence[str],
        *,
        pooling: str = "none",
        normalize: bool = False,
        truncation: bool = False,
    ) -> NDArray[np.float32] | list[NDArray[np.float32]]:
        """Return the encoder's hidden states.

        Args:
            texts: a text, or a list of texts.
            pooling: `none` for a vector per token, `mean` for the mean over the tokens, special ones included, `cls`
                for the state of the first token, both as sentence encoders take them; `pooler` for the pooler's output,
                which is that state after a dense layer and an activation. Until 0.1 `cls` was that, so it warns
                (FutureWarning).
            normalize: scale pooled vectors to length 1.
            truncation: cut a text that is too long instead of refusing it.

        Returns:
            float32: for a text `[tokens, hidden]`, or `[hidden]` when pooled; for a list of texts a list of
            `[tokens, hidden]`, or one array `[texts, hidden]` when pooled.

        Raises:
            MissingHeadError: for `pooler` when the bundle has no pooler.
            InputTextError: for a text that is too long.
        """
        one = isinstance(texts, str)
        call = self.resolve("features", pooling=pooling, normalize=normalize, truncation=truncation)
        if call.note:
            warnings.warn(call.note, FutureWarning, stacklevel=2)
        vectors: list[NDArray[np.float32]] = list(self._answers(call, [texts] if one else texts))
        if one:
            return vectors[0]
        if pooling == "none":
            return vectors
        return (
            np.stack(vectors) if vectors else np.zeros((0, self.bundle.manifest.architecture.hidden_size), np.float32)
        )
