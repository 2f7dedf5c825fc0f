"""Encoder: a bundle as a transformer of scikit-learn, from texts to the rows of a matrix."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.hub import place_of
from bertport.runtime.errors import InputTextError, MissingDependencyError, UsageError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.heads import EMBEDDING
from bertport.runtime.loading import load
from bertport.runtime.methods.asking import raising
from bertport.runtime.providers.table import AUTO
from bertport.runtime.tasks.embeddings import facts

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils.validation import check_is_fitted
except ModuleNotFoundError as error:
    raise MissingDependencyError("bertport.runtime.sklearn", "scikit-learn", "evaluate") from error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from bertport.runtime.model import Model

__all__ = ["Encoder"]

POOLING = "mean"
"""The pooling of a bundle that makes no vectors of texts by itself, where none is asked for."""


class Encoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Texts to vectors, by a bundle's encoder. Fitting opens the bundle and learns nothing.

    It is cloned, pickled and searched over as any transformer. A pickle holds the parameters, the bundle's digest and
    the variant that was taken, and neither weights nor a session: where it is used, the same bundle must be at the same
    place, and another one is refused.

    Args:
        model: a bundle's directory, or the id of a repository of the Hub; None for the embedded default.
        pooling: `mean`, `cls` or `pooler`, as `Model.features` takes it; None for the vectors that the model was
            trained to make, or `mean` where it was trained for none.
        normalize: scale each vector to length 1.
        prompt_name: name of one of the model's prompts, with which each text begins; None for its default.
        truncate_dim: numbers to which a vector is cut; None for the model's own choice. Like `prompt_name`, it is for
            models that were trained to make vectors, with a pooling of None.
        truncation: cut a text that is too long; False refuses it.
        variant: one of the bundle's variants; None for its default, or the best for the provider.
        provider: where it runs, as `load` takes it.
        threads: threads of the CPU; None for one per physical core. With `n_jobs` of scikit-learn 1 is right.
        revision: branch, tag or commit of a Hub repository.

    Attributes:
        digest_: the digest of the bundle that was opened.
        variant_: the variant that was taken.
    """

    def __init__(  # noqa: PLR0913 — each is one choice, by keyword, as scikit-learn wants them
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        pooling: str | None = None,
        normalize: bool = False,
        prompt_name: str | None = None,
        truncate_dim: int | None = None,
        truncation: bool = True,
        variant: str | None = None,
        provider: str = AUTO,
        threads: int | None = None,
        revision: str | None = None,
    ) -> None:
        self.model = model
        self.pooling = pooling
        self.normalize = normalize
        self.prompt_name = prompt_name
        self.truncate_dim = truncate_dim
        self.truncation = truncation
        self.variant = variant
        self.provider = provider
        self.threads = threads
        self.revision = revision

    def fit(self, X: object = None, y: object = None) -> Self:  # noqa: ARG002, N803 — scikit-learn's names; texts teach it nothing
        """Open the bundle and check the parameters against it; texts and labels are not looked at.

        Raises:
            PathError, BundleError, ProviderError: as `load` raises them.
            MissingHeadError, UnknownNameError, UsageError: for parameters that the bundle cannot fulfil.
        """
        if self.model is not None and not isinstance(self.model, str | os.PathLike):
            raise UsageError(
                f"model is a bundle's directory or a Hub id, not {excerpt(self.model)}: an Encoder opens it by "
                "itself, so it can be cloned and pickled"
            )
        opened = _opened(self.model, self.variant, self.provider, self.threads, self.revision, None)
        task, parameters = self._asked(opened)
        opened.resolve(task, **parameters)
        self._opened = opened
        self.digest_ = opened.bundle.digest
        self.variant_ = opened.variant
        self._n_features_out = _width(opened, task, self.truncate_dim)
        return self

    def transform(self, X: Iterable[str]) -> NDArray[np.float32]:  # noqa: N803 — scikit-learn's name
        """Return the vectors of texts.

        Args:
            X: texts: a list, a column of a data frame, an array of one axis, or anything else that gives them in turn.

        Returns:
            float32 `[texts, dimension]`; a data frame where `set_output` asks for one.

        Raises:
            NotFittedError: before `fit`.
            InputTextError: for what is no text.
            BundleError: for an Encoder that was unpickled, where another bundle is at the place of its own.
        """
        check_is_fitted(self, "digest_")
        if isinstance(X, str | bytes | Mapping) or not hasattr(X, "__iter__"):
            raise InputTextError(f"an Encoder takes several texts, not {excerpt(X)}: put one text in a list")
        if len(getattr(X, "shape", (0,))) != 1:
            raise InputTextError(
                f"an Encoder takes one column of texts, and what was given has the shape {tuple(X.shape)}: "  # type: ignore[attr-defined]  # it has one
                'name one column, "text" and not ["text"]'
            )
        opened = self._model()
        task, parameters = self._asked(opened)
        texts = list(X)
        outcomes = opened.outcomes(opened.resolve(task, **parameters), texts)
        vectors = list(raising(outcomes, numbered=len(texts) > 1))
        return np.stack(vectors) if vectors else np.zeros((0, self._n_features_out), np.float32)

    def _model(self) -> Model:
        """Return the model that was fitted; one that was unpickled or forked is opened again, and must be the same."""
        opened = getattr(self, "_opened", None)
        if opened is None or opened.graph.process != os.getpid():
            self._opened = _opened(
                self.model, self.variant_, self.provider, self.threads, self.revision, self.digest_
            )  # fmt: skip
        return self._opened

    def _asked(self, opened: Model) -> tuple[str, dict[str, Any]]:
        """Return the task that makes the vectors, and its parameters."""
        shared = {"normalize": self.normalize, "truncation": self.truncation}
        own = {"prompt_name": self.prompt_name, "truncate_dim": self.truncate_dim}
        if self.pooling is None and EMBEDDING in opened.bundle.manifest.heads:
            return "embeddings", shared | own
        for name, value in own.items():
            if value is not None:
                raise UsageError(
                    f"{name} is {excerpt(value)}, which pooled vectors do not have: leave {name} out, or take a model "
                    "of sentence-transformers with a pooling of None"
                )
        pooling = POOLING if self.pooling is None else self.pooling
        if pooling == "none":
            raise UsageError("pooling 'none' makes a vector for each token, and a row is one vector: choose 'mean'")
        return "features", {"pooling": pooling} | shared

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle holds: all but the open model."""
        return {name: value for name, value in super().__getstate__().items() if name != "_opened"}

    def __sklearn_tags__(self) -> Any:  # noqa: ANN401 — scikit-learn's own type and name
        """Return what scikit-learn asks of estimators: this one takes texts."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _more_tags(self) -> dict[str, Any]:
        """Return the same for scikit-learn before 1.6."""
        return {"X_types": ["string"], "preserves_dtype": []}


@lru_cache(maxsize=1)
def _remembered(  # noqa: PLR0913, PLR0917 — what tells models apart
    path: str | None,
    variant: str | None,
    provider: str,
    threads: int | None,
    revision: str | None,
    digest: str,
    process: int,  # noqa: ARG001 — a model is of the process that opened it
) -> Model:
    """Return a model; the last one is kept, since each fold of a search opens the same."""
    return load(path, variant=variant, provider=provider, threads=threads, revision=revision, digest=digest)


def _opened(  # noqa: PLR0913, PLR0917 — as `_remembered` takes it
    path: str | os.PathLike[str] | None,
    variant: str | None,
    provider: str,
    threads: int | None,
    revision: str | None,
    digest: str | None,
) -> Model:
    """Return the model of a bundle as it is on the disk now."""
    place = place_of(path, revision=revision)
    bundle = Bundle.open(place.directory, digest=digest)
    commit = place.hub.revision if place.hub else None  # of which the digest is, wherever a branch has gone meanwhile
    shown = None if path is None else os.fspath(path)
    return _remembered(shown, variant, provider, threads, commit, bundle.digest, os.getpid())


def _width(opened: Model, task: str, truncate_dim: int | None) -> int:
    """Return the numbers of a vector."""
    manifest = opened.bundle.manifest
    if task == "embeddings":
        return facts(manifest).size if truncate_dim is None else int(truncate_dim)
    return manifest.architecture.hidden_size
