"""Methods for the heads of fine-tuned models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

from bertport.runtime.errors import UsageError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.methods.asking import Asking, are_lists, paired
from bertport.runtime.tasks.text_classification import BEST

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from bertport.runtime.tasks.answers import Answer, Choice, Entity, RankedText, ScoredLabel, TokenLabel, ZeroShot

__all__ = ["FineTunedMethods"]


class FineTunedMethods(Asking):
    """Classification of texts and tokens, labels of the caller's choice, answers, choices, ranking."""

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
        stride: int | None = None,
        truncation: bool = False,
    ) -> list[TokenLabel]: ...

    @overload
    def tag(
        self,
        texts: Sequence[str],
        *,
        aggregation_strategy: Literal["none"] = "none",
        ignore_labels: Collection[str] = ("O",),
        stride: int | None = None,
        truncation: bool = False,
    ) -> list[list[TokenLabel]]: ...

    @overload
    def tag(  # type: ignore[overload-overlap]  # as above
        self,
        texts: str,
        *,
        aggregation_strategy: Literal["simple", "first", "average", "max"],
        ignore_labels: Collection[str] = ("O",),
        stride: int | None = None,
        truncation: bool = False,
    ) -> list[Entity]: ...

    @overload
    def tag(
        self,
        texts: Sequence[str],
        *,
        aggregation_strategy: Literal["simple", "first", "average", "max"],
        ignore_labels: Collection[str] = ("O",),
        stride: int | None = None,
        truncation: bool = False,
    ) -> list[list[Entity]]: ...

    @overload
    def tag(
        self,
        texts: str | Sequence[str],
        *,
        aggregation_strategy: str,
        ignore_labels: Collection[str] = ("O",),
        stride: int | None = None,
        truncation: bool = False,
    ) -> list[Any]: ...

    def tag(
        self,
        texts: str | Sequence[str],
        *,
        aggregation_strategy: str = "none",
        ignore_labels: Collection[str] = ("O",),
        stride: int | None = None,
        truncation: bool = False,
    ) -> list[Any]:
        """Return the labels of a text's tokens, or its entities, as transformers' token-classification pipeline does.

        Args:
            texts: a text, or a list of texts.
            aggregation_strategy: `none` for a row per token; `simple` joins neighbouring tokens of one label to an
                entity; `first`, `average` and `max` give each word one label before that.
            ignore_labels: tokens or entities with these labels are left out.
            stride: read a text that is too long in windows, which have so many tokens in common; with a strategy that
                makes entities. None refuses it.
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
            "stride": stride,
            "truncation": truncation,
        }
        answers = list(self.predict("token-classification", [texts] if one else texts, **parameters))
        return answers[0] if one else answers

    @overload
    def zero_shot(  # type: ignore[overload-overlap]  # as above
        self,
        texts: str,
        candidate_labels: str | Sequence[str],
        *,
        hypothesis_template: str = "This example is {}.",
        multi_label: bool = False,
        truncation: bool = False,
    ) -> ZeroShot: ...

    @overload
    def zero_shot(
        self,
        texts: Sequence[str],
        candidate_labels: str | Sequence[str],
        *,
        hypothesis_template: str = "This example is {}.",
        multi_label: bool = False,
        truncation: bool = False,
    ) -> list[ZeroShot]: ...

    def zero_shot(
        self,
        texts: str | Sequence[str],
        candidate_labels: str | Sequence[str],
        *,
        hypothesis_template: str = "This example is {}.",
        multi_label: bool = False,
        truncation: bool = False,
    ) -> ZeroShot | list[ZeroShot]:
        """Return how well labels of your choice fit a text, as transformers' zero-shot-classification pipeline does.

        Args:
            texts: a text, or a list of texts.
            candidate_labels: the labels: a list, or a text with commas between them.
            hypothesis_template: what is said of a text, with `{}` in the place of a label.
            multi_label: whether several labels may fit: each has a probability of its own, not a share of one.
            truncation: cut a text that is too long instead of refusing it.

        Returns:
            For a text `{"sequence", "labels", "scores"}`: the text, the labels, best first, and their probabilities in
            this order; for a list of texts a list of these.

        Raises:
            MissingHeadError: when the bundle has no classifier that was trained on entailment.
            InputTextError: for a text that is too long.
            UsageError: for a parameter out of range.
        """
        one = isinstance(texts, str)
        parameters = {
            "candidate_labels": candidate_labels,
            "hypothesis_template": hypothesis_template,
            "multi_label": multi_label,
            "truncation": truncation,
        }
        answers = list(self.predict("zero-shot-classification", [texts] if one else texts, **parameters))
        return answers[0] if one else answers

    @overload
    def answer(  # type: ignore[overload-overlap]  # as above
        self,
        question: str,
        context: str,
        *,
        max_answer_len: int = 15,
        max_seq_len: int | None = None,
        doc_stride: int | None = None,
        handle_impossible_answer: bool = False,
        align_to_words: bool = True,
        truncation: bool = False,
    ) -> Answer: ...

    @overload
    def answer(
        self,
        question: Sequence[str],
        context: str | Sequence[str],
        *,
        max_answer_len: int = 15,
        max_seq_len: int | None = None,
        doc_stride: int | None = None,
        handle_impossible_answer: bool = False,
        align_to_words: bool = True,
        truncation: bool = False,
    ) -> list[Answer]: ...

    @overload
    def answer(
        self,
        question: str | Sequence[str],
        context: str | Sequence[str],
        *,
        top_k: int,
        max_answer_len: int = 15,
        max_seq_len: int | None = None,
        doc_stride: int | None = None,
        handle_impossible_answer: bool = False,
        align_to_words: bool = True,
        truncation: bool = False,
    ) -> Any: ...  # noqa: ANN401 — one answer, or a list of them where there is more than one

    def answer(  # noqa: PLR0913 — one parameter per option of the task
        self,
        question: str | Sequence[str],
        context: str | Sequence[str],
        *,
        top_k: int = 1,
        max_answer_len: int = 15,
        max_seq_len: int | None = None,
        doc_stride: int | None = None,
        handle_impossible_answer: bool = False,
        align_to_words: bool = True,
        truncation: bool = False,
    ) -> Any:
        """Return the part of a context that answers a question, as transformers 4's question-answering pipeline does.

        Args:
            question: a question, or a list of questions.
            context: the text that has the answer, for all questions, or a list of as many. It may be of any length: it
                is read in windows that overlap.
            top_k: how many answers are given, best first; there may be fewer.
            max_answer_len: most tokens of an answer.
            max_seq_len: most tokens of a window, the question and special tokens included; None for 384, or what the
                model takes.
            doc_stride: tokens of the context that neighbouring windows have in common; None for 128, or half a short
                window.
            handle_impossible_answer: let the empty answer compete, which the model gives where the context has none.
            align_to_words: extend an answer to whole words.
            truncation: read only the first window of a context that is too long.

        Returns:
            For a question `{"score", "start", "end", "answer"}`: the answer's probability, its characters in the
            context, and what they say; with `top_k` above 1 a list of them, best first. For a list of questions a list
            of these.

        Raises:
            MissingHeadError: when the bundle has no head that answers questions.
            InputTextError: for a question that leaves no room in a window, or a context without tokens.
            UsageError: for a parameter out of range, or lists of different lengths.
        """
        one = isinstance(question, str)
        questions = [question] if one else question
        if not are_lists(questions, context):
            raise UsageError(
                "answer takes a question or a list of questions, with a context or a list of contexts, not "
                f"{excerpt(question)} and {excerpt(context)}"
            )
        contexts = [context] * len(questions) if isinstance(context, str) else context
        if len(contexts) != len(questions):
            raise UsageError(
                f"answer takes a context for all questions or one for each, and {len(questions):,} questions with "
                f"{len(contexts):,} contexts were given: give as many"
            )
        inputs = [{"question": asked, "context": text} for asked, text in zip(questions, contexts, strict=True)]
        answers = list(
            self.predict(
                "question-answering",
                inputs,
                top_k=top_k,
                max_answer_len=max_answer_len,
                max_seq_len=max_seq_len,
                doc_stride=doc_stride,
                handle_impossible_answer=handle_impossible_answer,
                align_to_words=align_to_words,
                truncation=truncation,
            )
        )
        return answers[0] if one else answers

    def choose(self, prompt: str, choices: Sequence[str], *, truncation: bool = False) -> Choice:
        """Return which of several texts goes best with another, by the softmax over all of them.

        Args:
            prompt: a text.
            choices: the texts to choose from, one or more.
            truncation: cut the longer of the prompt and a choice that are too long together instead of refusing them.

        Returns:
            `{"label", "choice", "score", "probabilities"}`: the best choice, counted from 0, its text, its probability,
            and the probability of each choice in the order given.

        Raises:
            MissingHeadError: when the bundle has no head for choices.
            InputTextError: for a choice that is too long, or no choices.
        """
        [answer] = self.predict("multiple-choice", [{"prompt": prompt, "choices": choices}], truncation=truncation)
        return answer

    def rank(  # noqa: PLR0913 — one parameter per option of the task
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_k: int | None = None,
        return_documents: bool = False,
        function_to_apply: str | None = None,
        truncation: bool = False,
    ) -> list[RankedText]:
        """Return documents by how well they fit a query, as the CrossEncoder of sentence-transformers ranks them.

        Args:
            query: a text.
            documents: the texts to rank, one or more.
            top_k: how many are given, best first; None for all.
            return_documents: give the text of each document too.
            function_to_apply: what makes a score of the logit: `sigmoid` or `none`; None for what the bundle states, or
                else sigmoid.
            truncation: cut the longer of the query and a document that are too long together instead of refusing them.

        Returns:
            A list of `{"corpus_id", "score"}`, best first: the document's place in the list given, counted from 0, how
            well it fits, and with `return_documents` its `text`.

        Raises:
            MissingHeadError: when the bundle has no classifier of one label.
            InputTextError: for a document that is too long, or no documents.
            UsageError: for a parameter out of range.
        """
        ranked: list[RankedText]
        [ranked] = self.predict(
            "text-ranking",
            [{"query": query, "documents": documents}],
            top_k=top_k,
            return_documents=return_documents,
            function_to_apply=function_to_apply,
            truncation=truncation,
        )
        return ranked
