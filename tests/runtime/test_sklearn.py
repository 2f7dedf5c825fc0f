"""Encoder is a transformer of scikit-learn: its own checks, searches, frames, pickles."""

from __future__ import annotations

import importlib
import json
import pickle
import shutil
import sys

import numpy as np
import pytest
from sklearn import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

from bertport.runtime import load
from bertport.runtime.bundle.digest import sealed
from bertport.runtime.errors import (
    BundleError,
    InputTextError,
    MissingDependencyError,
    PathError,
    UnknownNameError,
    UsageError,
)
from bertport.runtime.sklearn import Encoder
from tests.hub_cache import COMMIT, in_hub_cache

TEXTS = ["the king went home", "a red train", "the queen of spain", "a blue ship", "the doctor", "a green car"]
LABELS = [0, 1, 0, 1, 0, 1]
CHECKS = """
check_do_not_raise_errors_in_init_or_set_params check_dont_overwrite_parameters check_estimator_cloneable
check_estimator_repr check_estimator_tags_renamed check_estimators_fit_returns_self check_estimators_overwrite_params
check_estimators_unfitted check_fit_check_is_fitted check_get_feature_names_out_error check_get_params_invariance
check_mixin_order check_no_attributes_set_in_init check_parameters_default_constructible check_readonly_memmap_input
check_set_params check_transformers_unfitted check_valid_tag_types
""".split()  # noqa: SIM905 — words read better so
"""Checks of scikit-learn that ask an estimator nothing of the numbers that they fit it to."""


@pytest.fixture
def encoder(tiny_bundle):
    """An Encoder of the tiny bundle that was not fitted."""
    return Encoder(str(tiny_bundle), threads=1)


@pytest.mark.filterwarnings("ignore:Can't test estimator Encoder which requires input")
def test_what_scikit_learn_asks_of_a_transformer_of_texts(encoder):
    """Of those that take texts it makes one check by itself, of its own vectorizers too."""
    estimator_checks.check_estimator(encoder)
    for name in CHECKS:
        check = getattr(estimator_checks, name, None)
        if check is not None:  # some are newer than the oldest release that is tested
            check("Encoder", encoder)


SKIPPED = {
    "check_complex_data": "numbers with imaginary parts are refused there; here texts are",
    "check_dtype_object": "as above, of objects that are no numbers",
    "check_estimator_sparse_tag": "fit looks at no rows, so that a sparse matrix is no error",
    "check_estimators_empty_data_messages": "fit looks at no rows, so that none are no error",
    "check_estimators_nan_inf": "fit looks at no rows, so that NaN is no error",
    "check_f_contiguous_array_estimator": "the order of an array in memory is nothing to texts",
    "check_fit1d": "one axis is right for texts",
    "check_fit2d_predict1d": "as above",
    "check_n_features_in": "texts have no columns to count",
    "check_n_features_in_after_fitting": "as above",
    "check_supervised_y_2d": "labels are not looked at",
    "check_methods_subset_invariance": "batches of other lengths differ in the last digits of float32",
    "check_methods_sample_order_invariance": "as above",
}
"""Checks that a transformer of numbers must pass and this one need not, and why."""


class OfRows(Encoder):
    """The Encoder behind rows of numbers, each written as words, for scikit-learn's checks of transformers."""

    def fit(self, X, y=None):  # noqa: N803
        self.columns_ = np.asarray(X).shape[-1:]
        return super().fit(X, y)

    def transform(self, X):  # noqa: N803
        rows = np.asarray(X)
        if hasattr(self, "columns_") and rows.shape[-1:] != self.columns_:
            raise ValueError("another number of columns")
        return super().transform([" ".join(TEXTS[int(abs(10 * value)) % 6] for value in row) for row in rows])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string = True, False
        return tags


@pytest.mark.slow
def test_the_checks_of_transformers_on_rows_written_as_texts(tiny_bundle):
    if not hasattr(estimator_checks, "_yield_api_checks"):
        pytest.skip("scikit-learn before 1.6 returns no list of checks")
    asked = OfRows(str(tiny_bundle), threads=1)
    checks = estimator_checks.check_estimator(asked, expected_failed_checks=SKIPPED, on_fail=None, on_skip=None)
    failed = [f"{check['check_name']}: {check['exception']}" for check in checks if check["status"] == "failed"]
    assert not failed, "\n".join(failed)
    assert {check["check_name"] for check in checks if check["status"] == "passed"} >= {
        "check_dict_unchanged",
        "check_estimators_pickle",
        "check_fit_idempotent",
        "check_pipeline_consistency",
        "check_transformer_general",
    }


def test_rows_are_the_models_vectors(tiny_bundle, encoder):
    model = load(tiny_bundle, threads=1)
    for pooling in (None, "cls", "pooler"):
        rows = encoder.set_params(pooling=pooling, normalize=pooling is None).fit_transform(TEXTS)
        assert rows.dtype == np.float32
        with pytest.warns(FutureWarning) if pooling == "cls" else pytest.MonkeyPatch.context():
            expected = model.features(TEXTS, pooling=pooling or "mean", normalize=pooling is None)
        np.testing.assert_array_equal(rows, expected)
    assert encoder.get_feature_names_out()[-1] == f"encoder{rows.shape[1] - 1}"
    np.testing.assert_array_equal(encoder.transform(np.array(TEXTS, dtype=object)), rows)
    np.testing.assert_array_equal(encoder.transform(text for text in TEXTS), rows)
    assert encoder.transform([]).shape == (0, rows.shape[1])
    assert encoder.transform(["the sea " * 200]).shape == (1, rows.shape[1])
    with pytest.raises(InputTextError, match="truncation=True"):
        encoder.set_params(truncation=False).fit().transform(["the sea " * 200])


def test_a_model_that_makes_vectors_makes_its_own(sentence_bundle):
    encoder = Encoder(sentence_bundle, prompt_name="query", truncate_dim=8, normalize=True, threads=1).fit()
    model = load(sentence_bundle, threads=1)
    expected = model.embed(TEXTS, prompt_name="query", truncate_dim=8, normalize=True)
    np.testing.assert_array_equal(encoder.transform(TEXTS), expected)
    assert len(encoder.get_feature_names_out()) == 8
    pooled = clone(encoder).set_params(pooling="mean", prompt_name=None, truncate_dim=None, normalize=False)
    np.testing.assert_array_equal(pooled.fit_transform(TEXTS), model.features(TEXTS, pooling="mean"))


def test_a_pickle_opens_the_same_bundle_and_no_other(tiny_bundle, tmp_path):
    place = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    encoder = Encoder(place, variant="portable", threads=1).fit()
    encoder.set_params(variant=None)  # what was fitted counts
    rows = encoder.transform(TEXTS)
    kept = pickle.dumps(encoder)
    assert len(kept) < 1000
    back = pickle.loads(kept)  # noqa: S301 — made above
    np.testing.assert_array_equal(back.transform(TEXTS), rows)
    assert back.variant_ == "portable"
    assert (back.digest_, back.get_params()) == (encoder.digest_, encoder.get_params())
    manifest = place / "manifest.json"
    manifest.write_bytes(sealed(json.loads(manifest.read_text()) | {"name": "another"}))
    with pytest.raises(BundleError, match=r"has the digest .* was asked for: it is another bundle"):
        pickle.loads(kept).transform(TEXTS)  # noqa: S301
    assert clone(encoder).fit().digest_ != encoder.digest_
    shutil.rmtree(place)
    with pytest.raises(PathError, match="bundle"):
        pickle.loads(kept).transform(TEXTS)  # noqa: S301


def test_a_search_over_its_parameters_opens_the_bundle_once(encoder, monkeypatch):
    opened = []
    monkeypatch.setattr("bertport.runtime.sklearn.load", lambda *args, **how: opened.append(args) or load(*args, **how))
    encoder.set_params(provider="cpu")  # no other test's model, which may be the one that is kept
    whole = make_pipeline(encoder, LogisticRegression())
    search = GridSearchCV(whole, {"encoder__pooling": ["mean", "pooler"]}, cv=2, error_score="raise")
    search.fit(TEXTS, LABELS)
    assert len(search.cv_results_["params"]) == 2
    assert search.predict(TEXTS).shape == (6,)
    assert len(opened) == 1


def test_of_a_repository_the_commit_that_was_looked_at_is_opened(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    in_hub_cache(tiny_bundle, tmp_path)
    asked = []
    monkeypatch.setattr("bertport.runtime.sklearn.load", lambda *_, **how: asked.append(how) or load(*_, **how))
    encoder = Encoder("acme/tiny", threads=1, revision="main").fit()
    assert [how["revision"] for how in asked] == [COMMIT]
    assert clone(encoder).fit().digest_ == encoder.digest_
    assert len(asked) == 1
    assert encoder.get_params()["revision"] == "main"


@pytest.mark.slow
def test_a_search_in_processes_finds_the_same(encoder):
    whole = make_pipeline(encoder, LogisticRegression())
    grid = {"encoder__pooling": ["mean", "pooler"], "encoder__normalize": [False, True]}
    found = [GridSearchCV(whole, grid, cv=2, n_jobs=jobs).fit(TEXTS, LABELS) for jobs in (1, 2)]
    for name in ("mean_test_score", "rank_test_score"):
        np.testing.assert_array_equal(found[0].cv_results_[name], found[1].cv_results_[name])


@pytest.mark.slow
def test_columns_of_data_frames_and_frames_of_vectors(encoder):
    import pandas as pd
    from sklearn.compose import make_column_transformer

    frame = pd.DataFrame({"text": TEXTS, "number": range(6)}, index=list("abcdef"))
    rows = encoder.set_output(transform="pandas").fit_transform(frame["text"])
    assert list(rows.columns[:2]) == ["encoder0", "encoder1"]
    assert list(rows.index) == list("abcdef")
    both = make_column_transformer((encoder, "text"), ("passthrough", ["number"])).set_output(transform="pandas")
    assert both.fit_transform(frame).shape == (6, rows.shape[1] + 1)
    with pytest.raises(InputTextError, match=r'the shape \(6, 1\): name one column, "text" and not \["text"\]'):
        encoder.transform(frame[["text"]])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("the king", "takes several texts, not 'the king': put one text in a list"),
        (7, "takes several texts, not 7"),
        ({"text": "the king"}, r"takes several texts, not \{'text': 'the king'\}"),
        ([["the king"]], "features takes a text"),
        (np.array([["the king"]]), r"one column of texts, and what was given has the shape \(1, 1\)"),
        (["the king", None], "input 2: features takes a text"),
        (["the king", float("nan")], "input 2: features takes a text"),
    ],
)
def test_what_is_no_column_of_texts(encoder, texts, message):
    with pytest.raises(InputTextError, match=message):
        encoder.fit().transform(texts)


@pytest.mark.parametrize(
    ("parameters", "kind", "message"),
    [
        ({"pooling": "none"}, UsageError, "makes a vector for each token"),
        ({"pooling": "median"}, UnknownNameError, "unknown pooling"),
        ({"normalize": 1}, UsageError, "normalize is True or False"),
        ({"prompt_name": "query"}, UsageError, "prompt_name is 'query', which pooled vectors do not have"),
        ({"model": 7}, UsageError, "model is a bundle's directory or a Hub id, not 7"),
        ({"model": "no/such/bundle"}, PathError, "no/such/bundle"),
        ({"variant": "int9"}, UnknownNameError, "unknown variant"),
    ],
)
def test_parameters_that_cannot_be_are_refused_by_fit(encoder, parameters, kind, message):
    with pytest.raises(kind, match=message):
        encoder.set_params(**parameters).fit(TEXTS)


def test_a_dimension_is_for_vectors_that_are_not_pooled(sentence_bundle):
    with pytest.raises(UsageError, match="truncate_dim is 8, which pooled vectors do not have"):
        Encoder(sentence_bundle, pooling="pooler", truncate_dim=8, threads=1).fit()


def test_it_is_fitted_before_it_is_asked(encoder):
    with pytest.raises(NotFittedError):
        encoder.transform(TEXTS)


def test_without_scikit_learn_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    monkeypatch.delitem(sys.modules, "bertport.runtime.sklearn")
    with pytest.raises(
        MissingDependencyError, match=r"needs the package scikit-learn, which is not installed: .*evaluate"
    ):
        importlib.import_module("bertport.runtime.sklearn")
