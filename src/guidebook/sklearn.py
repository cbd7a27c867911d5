"""The scikit-learn face: a classifier of texts whose domain adaptation happens in `fit`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets, unique_labels
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from guidebook.data.in_memory import texts_of
from guidebook.data.labels import normalise_column
from guidebook.errors import InputError
from guidebook.methods import WITHOUT_A_MODEL
from guidebook.recipe import Recipe

if TYPE_CHECKING:
    from guidebook.artifact import Guidebook
    from guidebook.data.domains import Domain

CALIBRATED_ON = 0.2
"""Share of the rows that a method which calibrates keeps for that."""


class OneClassError(InputError, ValueError):
    """y holds one class; a ValueError too, as scikit-learn expects there."""


class DomainAdapter(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier of texts, adapted to raw text of the domain where it has to work.

    `X` is a list (or an array, or a column of a data frame) of texts, `y` their labels. The target's texts stand in
    the constructor: an argument of `fit` as long as `X` would be cut to the fold in cross-validation. A search over
    parameters that scores on held-out *source* rows chooses on the source; target labels are read nowhere.

    Args:
        target: Unlabelled texts of the target domain, or a `guidebook.Domain`.
        base: The frozen base, as in a recipe.
        method: A method's name, or a mapping with its settings.
        adapter: An adapter kind's name, or a mapping with its settings.
        train: Settings of the stages, as in a recipe.
        task: Settings of the task, as in a recipe. All rows given to `fit` are trained on unless it says `dev`; a
            method that calibrates probabilities (co_training, self_training) holds a fifth of them out for that.
        unlabelled: More raw text of the source domain.
        general: General text, for methods that read it.
        trainer: More transformers.TrainingArguments.
        random_state: The seed: a whole number, None (0), or a RandomState from which one is drawn.

    Attributes:
        classes_: The labels, sorted; columns of `predict_proba`.
        guidebook_: The guidebook that `fit` made, with its scores, costs and report.
        path_: The folder it stands in.

    Differs:
        None is the seed 0, not a fresh one: two fits with the same parameters are the same model, and stages that
        were trained before are taken from the store. There is no `n_features_in_`: a text has no columns.

    >>> DomainAdapter(["the pan warped"], method="source_only").get_params()["method"]
    'source_only'
    """

    def __init__(
        self,
        target: Sequence[str] | Domain | None = None,
        *,
        base: str = "mini",
        method: str | Mapping[str, Any] = "domain_fusion",
        adapter: str | Mapping[str, Any] = "houlsby",
        train: Mapping[str, Any] | None = None,
        task: Mapping[str, Any] | None = None,
        unlabelled: Sequence[str] | Domain | None = None,
        general: Sequence[str] | Domain | None = None,
        trainer: Mapping[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.target = target
        self.base = base
        self.method = method
        self.adapter = adapter
        self.train = train
        self.task = task
        self.unlabelled = unlabelled
        self.general = general
        self.trainer = trainer
        self.random_state = random_state

    def fit(self, X: Sequence[str], y: Sequence[object]) -> DomainAdapter:  # noqa: N803
        """Adapt the base to the target with the labels of X.

        Raises:
            InputError: X is not texts, y is not classes, or there is no target.
            OneClassError: y holds one class.
            RunError: a stage failed.
        """
        from guidebook.adaptation import adapt

        texts = texts_of(X, "X")
        check_classification_targets(y)
        check_consistent_length(texts, y)
        classes = unique_labels(y)
        if len(classes) < 2:
            raise OneClassError(
                f"y holds one class, {classes[0]}: a classifier tells two or more apart. Give rows of another."
            )
        names = names_of(classes)
        index = dict(zip(classes.tolist(), names, strict=True))
        recipe = self._recipe(texts, [index[label] for label in np.asarray(y).tolist()], names)
        self.classes_ = classes
        self.guidebook_: Guidebook = adapt(recipe)
        self.path_ = str(self.guidebook_.path)
        return self

    def predict_proba(self, X: Sequence[str]) -> np.ndarray:  # noqa: N803
        """Return class probabilities (N, C); columns are in the order of `classes_`."""
        check_is_fitted(self, "path_")
        return self._book().predict_proba(texts_of(X, "X"))

    def predict(self, X: Sequence[str]) -> np.ndarray:  # noqa: N803
        """Return the label (N,) of every text, of the kind that y had."""
        best = self.predict_proba(X).argmax(axis=1)  # (N, C) -> (N,)
        found: np.ndarray = self.classes_[best]
        return found

    def _recipe(self, texts: list[str], labels: list[str], names: list[str]) -> Recipe:
        from guidebook.data.domains import Domain

        if self.target is None:
            raise InputError("DomainAdapter has no target. Give its unlabelled texts: DomainAdapter(target=texts).")
        recipe = Recipe(
            base=self.base,
            source=Domain("source", texts, labels=labels),
            targets=[_domain(self.target, "target")],
            unlabelled=[] if self.unlabelled is None else [_domain(self.unlabelled, "unlabelled")],
            general=[] if self.general is None else [_domain(self.general, "general")],
            method=self.method,
            adapter=self.adapter,
            task={"kind": "classification", "dev": 0.0, **(self.task or {}), "labels": names},
            train=self.train,
            trainer=dict(self.trainer or {}),
            seed=0 if self.random_state is None else _seed(self.random_state),
        )
        name = self.method if isinstance(self.method, str) else self.method.get("name")
        if name in WITHOUT_A_MODEL:
            raise InputError(f"The method {name} keeps no model that could predict new rows. Choose another one.")
        if getattr(recipe.method, "calibrates", False) and "dev" not in (self.task or {}):
            recipe = dataclasses.replace(recipe, task=dataclasses.replace(recipe.task, dev=CALIBRATED_ON))
        return recipe

    def _book(self) -> Guidebook:
        """Return the guidebook, loaded again where the estimator comes from another process."""
        if not hasattr(self, "guidebook_"):
            from guidebook.artifact import load

            self.guidebook_ = load(self.path_)
        return self.guidebook_

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the loaded base: a copy in another process loads it from `path_`."""
        return {name: value for name, value in super().__getstate__().items() if name != "guidebook_"}

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags: rows are strings in one dimension."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags


def names_of(classes: np.ndarray) -> list[str]:
    """Return the names under which the classes (C,) are trained: their own where guidebook would not change them.

    >>> names_of(np.array(["bad", "good"])), names_of(np.array([False, True]))
    (['bad', 'good'], ['class 0', 'class 1'])
    """
    names = [str(label) for label in classes.tolist()]
    unchanged = normalise_column(names) == names and len(set(names)) == len(names)
    return names if unchanged else [f"class {index}" for index in range(len(names))]


def _domain(value: Sequence[str] | Domain, name: str) -> Domain:
    from guidebook.data.domains import Domain

    return value if isinstance(value, Domain) else Domain(name, texts_of(value, name))


def _seed(random_state: int | np.random.RandomState) -> int:
    if isinstance(random_state, np.random.RandomState):
        return int(check_random_state(random_state).randint(2**31))
    return random_state
