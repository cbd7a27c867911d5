"""The scikit-learn face: an estimator like others, on a tiny base."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags

from guidebook.errors import InputError
from guidebook.sklearn import DomainAdapter, names_of
from tiny import LABELS, TEXTS

X = [f"{text} {number}" for number in range(3) for text in TEXTS]
Y = ["good" if label else "bad" for label in LABELS] * 3
TARGET = [f"the {text}" for text in TEXTS]
TRAIN = {
    "tokens_per_batch": 96,
    "max_length": 16,
    "dtype": "float32",
    "fuse": {"tokens": 120, "learning_rate": 1e-2},
    "task": {"epochs": 1, "rows_per_batch": 12, "learning_rate": 1e-2},
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUIDEBOOK_CACHE", str(tmp_path_factory.mktemp("sklearn") / "cache"))
        yield


@pytest.fixture(scope="module")
def make(tiny_base: Callable[[str], Path], cache: None) -> Callable[..., DomainAdapter]:
    settings: dict[str, Any] = {"base": str(tiny_base("bert")), "train": TRAIN, "task": {"max_length": 16}}
    return lambda **changes: DomainAdapter(**{"target": TARGET, "method": "source_only", **settings, **changes})


@pytest.fixture(scope="module")
def fitted(make: Callable[..., DomainAdapter]) -> DomainAdapter:
    return make(method="domain_fusion").fit(X, Y)


def test_it_predicts_labels_of_the_kind_it_was_given(fitted: DomainAdapter) -> None:
    assert fitted.classes_.tolist() == ["bad", "good"]
    chances = fitted.predict_proba(TARGET)
    assert chances.shape == (8, 2)
    np.testing.assert_allclose(chances.sum(1), 1, atol=1e-6)
    assert fitted.predict(TARGET).tolist() == fitted.classes_[chances.argmax(1)].tolist()
    assert fitted.score(TARGET, fitted.predict(TARGET)) == 1.0
    assert is_classifier(fitted)
    assert get_tags(fitted).input_tags.string


def test_it_gives_what_the_guidebook_gives(fitted: DomainAdapter) -> None:
    book = fitted.guidebook_
    assert book.labels == ["bad", "good"]
    np.testing.assert_array_equal(book.predict_proba(TARGET, domain="target"), fitted.predict_proba(TARGET))
    assert book.meta["method"] == "domain_fusion"
    assert {d["name"]: d["rows"] for d in book.meta["domains"]} == {"source": 24, "target": 8}  # nothing held out


@pytest.mark.parametrize("labels", [[0, 1], [-1, 1], [True, False], [2.0, 10.0], ["-1", " 1 "]])
def test_labels_keep_their_type(make: Callable[..., DomainAdapter], labels: list[Any]) -> None:
    y = np.array(labels)[np.array(LABELS * 3)]
    model = make(random_state=1).fit(np.array(X, dtype=object), y)
    assert model.classes_.tolist() == sorted(labels)
    assert model.predict(X[:3]).dtype == y.dtype
    assert model.guidebook_.labels == names_of(model.classes_)


@pytest.mark.slow
def test_labels_and_their_names_stay_together(make: Callable[..., DomainAdapter]) -> None:
    """The same rows under two namings that sort the other way round: the same model with its columns swapped."""
    train = {**TRAIN, "task": {"epochs": 4, "rows_per_batch": 6, "learning_rate": 3e-2}}
    one = make(method="linear_probe", train=train).fit(X, Y)
    other = make(method="linear_probe", train=train).fit(X, ["0" if label == "good" else "1" for label in Y])
    np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X)[:, ::-1], atol=1e-4)
    assert one.score(X, Y) > 0.6


def test_parameters_and_clones(make: Callable[..., DomainAdapter], fitted: DomainAdapter) -> None:
    model = make()
    assert set(model.get_params()) == {
        *("target", "base", "method", "adapter", "train", "task", "unlabelled", "general", "trainer", "random_state")
    }
    twin = clone(model)
    assert twin.get_params() == model.get_params()
    assert twin.set_params(method="target_mlm").method == "target_mlm"
    assert model.method == "source_only"
    assert not hasattr(clone(fitted), "path_")
    with pytest.raises(ValueError, match="Invalid parameter 'reduction'"):
        model.set_params(reduction=6)
    assert "method='source_only'" in repr(model)


@pytest.mark.slow
def test_the_same_parameters_give_the_same_model(make: Callable[..., DomainAdapter], fitted: DomainAdapter) -> None:
    again = clone(fitted).fit(X, Y)
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    other = clone(fitted).set_params(random_state=3).fit(X, Y)
    assert not np.array_equal(other.predict_proba(X), fitted.predict_proba(X))
    drawn = [clone(fitted).set_params(random_state=np.random.RandomState(5)) for _ in range(2)]
    seeds = [model.fit(X, Y).guidebook_.meta["seed"] for model in drawn]
    assert seeds[0] == seeds[1] > 0


def test_a_copy_for_another_process_carries_no_base(fitted: DomainAdapter) -> None:
    raw = pickle.dumps(fitted)
    assert len(raw) < 10_000
    for copied in (pickle.loads(raw), copy.deepcopy(fitted)):
        assert "guidebook_" not in vars(copied)
        np.testing.assert_array_equal(copied.predict_proba(TARGET), fitted.predict_proba(TARGET))
    assert fitted.guidebook_ is fitted._book()


def test_it_stands_in_a_pipeline(make: Callable[..., DomainAdapter]) -> None:
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    model = make_pipeline(lower, make()).fit([text.upper() for text in X], Y)
    assert model.predict_proba(["THE PAN WARPED"]).shape == (1, 2)
    np.testing.assert_array_equal(model.predict_proba(X), make().fit(X, Y).predict_proba(X))


@pytest.mark.slow
def test_grid_search_chooses_on_source_rows(make: Callable[..., DomainAdapter]) -> None:
    steps = Pipeline([("model", make())])
    grid = {"model__method": ["source_only", "linear_probe"]}
    search = GridSearchCV(steps, grid, cv=2, error_score="raise").fit(np.array(X, dtype=object), Y)
    assert search.best_params_["model__method"] in grid["model__method"]
    scores = search.cv_results_["mean_test_score"]
    assert search.best_score_ == max(scores)
    assert search.best_estimator_.named_steps["model"].target == TARGET
    assert search.predict(TARGET).shape == (8,)
    folds = cross_val_predict(make(method="linear_probe"), X, Y, cv=2, method="predict_proba")
    assert folds.shape == (24, 2)


@pytest.mark.parametrize(
    ("method", "task", "dev"),
    [
        ("co_training", {}, 0.2),
        ("self_training", {}, 0.2),
        ("domain_fusion", {}, 0.0),
        ("co_training", {"dev": 0.0}, 0.0),
    ],
)
def test_methods_that_calibrate_hold_rows_out_for_it(make: Callable[..., DomainAdapter], method, task, dev) -> None:
    model = make(method=method, task=task)
    assert model._recipe(X, Y, ["bad", "good"]).task.dev == dev


def test_wrong_calls_say_what_to_do(make: Callable[..., DomainAdapter]) -> None:
    with pytest.raises(NotFittedError):
        make().predict(X)
    for changes, rows, message in (
        ({}, "one text", "one string"),
        ({}, np.array([X, X]).T, "expected one column"),
        ({}, [1.0] * 24, "row 1 is 1.0, expected a string"),
        ({"target": None}, X, "has no target"),
        ({"method": "tfidf"}, X, "keeps no model"),
        ({"method": "tfidff"}, X, "Did you mean 'tfidf'"),
        ({"train": {"taks": 1}}, X, "unknown key"),
    ):
        with pytest.raises(InputError, match=message):
            make(**changes).fit(rows, Y)
    for error in (InputError, ValueError):
        with pytest.raises(error, match="y holds one class, good"):
            make().fit(X, ["good"] * len(X))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        make().fit(X, Y[:-1])
    with pytest.raises(ValueError, match="Unknown label type"):
        make().fit(X, np.linspace(0, 1, 24))
