"""scikit-learn's own checks of an estimator, on the face that makes a domain adapter one.

They give numbers in columns, and a text has none: the estimator here writes each row of numbers as a text first, and is
the face itself in everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.validation import check_is_fitted, validate_data

from guidebook.sklearn import DomainAdapter
from tiny import TEXTS

TRAIN = {"max_length": 16, "dtype": "float32", "task": {"epochs": 1, "rows_per_batch": 32, "learning_rate": 1e-2}}


class OfNumbers(DomainAdapter):
    """A domain adapter of rows of numbers, each written as a text of words."""

    def fit(self, X: Any, y: Any) -> OfNumbers:
        X, y = validate_data(self, X, y)
        super().fit(texts_of(X), y)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return super().predict_proba(texts_of(validate_data(self, X, reset=False)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.one_d_array, tags.input_tags.two_d_array = False, False, True
        return tags


def texts_of(rows: np.ndarray) -> list[str]:
    words = [word for text in TEXTS for word in text.split()]
    return [
        " ".join(words[(7 * place + round(4 * value)) % len(words)] for place, value in enumerate(row)) for row in rows
    ]


EXCLUDED = {
    "check_array_api_input": "needs packages that compute on other arrays; texts are no arrays of numbers",
    "check_classifiers_train": "wants 83 % accuracy on clouds of points, which no text says",
    "check_methods_subset_invariance": "wants 1e-7; texts of a batch are padded together, see the test of that here",
}
"""Checks that do not apply, and why."""
WITHOUT_FIT = (
    "check_estimator_cloneable",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_estimators_unfitted",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_mixin_order",
    "check_complex_data",
    "check_estimators_empty_data_messages",
    "check_estimators_nan_inf",
    "check_estimator_sparse_tag",
    "check_parameters_default_constructible",
    "check_fit2d_1sample",
    "check_get_params_invariance",
    "check_set_params",
    "check_fit1d",
    "check_requires_y_none",
)
"""Checks that train nothing."""


def checks() -> list[Any]:
    found = []
    for _, check in estimator_checks_generator(OfNumbers(TEXTS)):
        function, settings = getattr(check, "func", check), getattr(check, "keywords", {})
        if function.__name__ not in EXCLUDED:
            name = " ".join([function.__name__, *map(str, settings.values())])
            marks = () if function.__name__ in WITHOUT_FIT else pytest.mark.slow
            found.append(pytest.param(check, id=name, marks=marks))
    return found


@pytest.fixture(scope="module")
def estimator(tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[OfNumbers]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUIDEBOOK_CACHE", str(tmp_path_factory.mktemp("checks") / "cache"))
        yield OfNumbers(TEXTS, base=str(tiny_base("bert")), method="linear_probe", train=TRAIN, task={"max_length": 16})


@pytest.mark.filterwarnings("ignore")  # of scikit-learn, about its own checks
@pytest.mark.parametrize("check", checks())
def test_an_estimator_as_scikit_learn_wants_it(check: Callable[[Any], None], estimator: OfNumbers) -> None:
    check(estimator)


def test_what_is_excluded_is_still_a_check_and_most_are_run() -> None:
    names = {getattr(check, "func", check).__name__ for _, check in estimator_checks_generator(OfNumbers(TEXTS))}
    assert names >= {*EXCLUDED, *WITHOUT_FIT}
    assert len(names) > 45
    assert len(checks()) > 40


def test_a_row_s_probabilities_do_not_depend_on_the_others(estimator: OfNumbers) -> None:
    rows = np.random.default_rng(0).normal(size=(12, 3))
    model = clone(estimator).fit(rows, np.arange(12) % 2)
    whole = model.predict_proba(rows)
    alone = np.concatenate([model.predict_proba(row[None]) for row in rows])
    np.testing.assert_allclose(alone, whole, atol=1e-5)
    assert np.ptp(whole[:, 0]) > 1e-3
