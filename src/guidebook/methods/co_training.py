"""Co-training: adapters that read the text and a model that counts its words teach each other on the target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from guidebook.errors import InputError
from guidebook.evaluation.prior import calibrate, em_prior
from guidebook.losses.language_modelling import LanguageModelling
from guidebook.losses.task import TaskLoss
from guidebook.methods.priors import balanced_choice, every_class, tilt_towards
from guidebook.methods.stage import Stage
from guidebook.methods.tfidf import word_model

INVERSE_RIDGE = 1.0
"""Of the word counts that learn from the pool: its labels are many and partly wrong, so their weights are less free."""
ENOUGH = 100
"""Rows of a pool in which a word or bigram has to be in two texts to count."""

if TYPE_CHECKING:
    from guidebook.evaluation.seen import Floats, Ints
    from guidebook.training.run import Run


@dataclass(frozen=True)
class CoTraining:
    """Let adapters and a model of word counts label the target together, and each learn from what both said.

    Both learn the task from the source. Then, in rounds, their calibrated probabilities for the target's rows are
    multiplied, drawn to the class shares of the source, and become labels: the surest rows for new adapters, which
    learn them beside the source, all rows by their weight for the word counts. What one view gets wrong the other often
    gets right, and a word of the target that no source row holds gets its weight from rows in which other words tell.
    The last adapters are what is kept; the word counts were only a teacher.

    Reference: Blum and Mitchell 1998, Combining Labeled and Unlabeled Data with Co-Training, COLT (two views, and the
        product of what they say); Nigam and Ghani 2000, Analyzing the Effectiveness and Applicability of Co-training,
        CIKM (co-EM: every round labels all rows anew); Zou et al. 2018, Class-Balanced Self-Training, ECCV.
    Differs: the views are two readings of the same words, not two sets of features, and learn from their product, not
        from each other; the labels are drawn to the source's class shares; the rows are the target's, not the source's.
    Reads: source labels, target pool; with `start: domain_fusion` also source text and all targets' text.
    Assumes: class shares of the target that are near the source's, or known, see `pull` and `shares`; that words tell
        the classes apart, at least a little (where they do not, as with pairs of texts, they hardly count).
    """

    rounds: int = 2
    """Rounds of labelling and learning after the first task stage."""
    share: float = 0.5
    """Share of the pool that the adapters may learn from, surest rows of every class first."""
    pull: float = 3.0
    """How much the source's class shares weigh in the labels' shares, as a multiple of the target's rows; 0 takes what
    EM estimates alone, which drifts to one class where the models lean to it."""
    shares: Mapping[str, float] | None = None
    """Class shares of the target where you know them, {label: share}; the labels are then drawn to these."""
    start: Literal["source_only", "domain_fusion"] = "source_only"
    """source_only: from a new adapter; domain_fusion: from a copy of the fused one."""
    weight: float = 1.0
    """Of the target's rows beside the source's."""

    calibrates: ClassVar[bool] = True

    @property
    def assumes_equal_priors(self) -> bool:
        """Whether the target is taken to have nearly the source's class shares."""
        return self.shares is None

    def __post_init__(self) -> None:
        if self.rounds < 1 or not 0 < self.share <= 1 or self.pull < 0 or self.weight <= 0:
            raise InputError(
                f"method.rounds is {self.rounds}, share {self.share}, pull {self.pull}, weight {self.weight}; expected "
                "1 round or more, share in (0, 1], pull of 0 or more and weight above 0."
            )

    def plan(self, run: Run) -> Iterator[Stage]:
        """Fuse if asked to, learn the task, then agree and learn again."""
        known = known_shares(self.shares, run.labels)
        start = None
        if self.start == "domain_fusion":
            start = "domain"
            yield Stage("fuse", {"lm": LanguageModelling(run.text(("source", "targets")))}, train={"domain": None})
        yield Stage("task", {"task": TaskLoss(run.source)}, train={"task": start})
        words = None if run.planned else Words(*run.labelled_texts(), run.pool_texts(), run.classes)
        for number in range(1, self.rounds + 1):
            agreed, shares = self._agreed(run, words, known)
            rows, labels = balanced_choice(agreed, shares, self.share, 0.0)
            if not len(rows):
                raise InputError(
                    f"co_training labels the target's own rows; a share of {self.share} of {len(agreed)} is less than "
                    "one row of any class. Give more text of the target, or a larger method.share."
                )
            run.note(f"round {number}: class shares of the labels " + ", ".join(f"{value:.2f}" for value in shares))
            taught = TaskLoss(run.pseudo_labelled(f"agreed {number}", rows, labels))
            yield Stage(
                f"round{number}",
                {"task": TaskLoss(run.source), "agreed": taught},
                train={"task": start},
                weights={"agreed": lambda fraction: self.weight},
            )
            if words is not None:
                words.learn(agreed)

    def _agreed(self, run: Run, words: Words | None, known: Floats | None) -> tuple[Floats, Floats]:
        """Return what both views say of the target's pool (N, C), and the class shares (C,) it was drawn to."""
        held_out, labels = run.predicted_source()
        labelled = labels >= 0
        shares = np.bincount(labels[labelled], minlength=run.classes) / max(int(labelled.sum()), 1)
        pool = run.predicted()
        otherwise = "labels follow the adapters alone, and nothing is calibrated"
        if words is None or not every_class(run, shares, otherwise):
            return pool, shares if known is None else known
        views = [(held_out, pool), (words.said_of(run.held_out_texts()), words.said_of())]
        agreed = multiplied(views, labels)
        drawn = em_prior(agreed, shares, pull=self.pull) if known is None else known
        tilted = agreed * tilt_towards(agreed, drawn)
        return tilted / tilted.sum(1, keepdims=True), drawn


def known_shares(shares: Mapping[str, float] | None, labels: Sequence[str]) -> Floats | None:
    """Return class shares (C,) in the order of the labels; None where none are known.

    Raises:
        InputError: a label is missing or unknown, or the shares are not positive and 1 together.

    >>> known_shares({"good": 0.8, "bad": 0.2}, ["bad", "good"]).tolist()
    [0.2, 0.8]
    """
    if shares is None:
        return None
    if sorted(shares) != sorted(labels) or min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-3:
        raise InputError(
            f"method.shares is {dict(shares)}; expected a share above 0 for each of {', '.join(labels)}, 1 together."
        )
    return np.array([shares[label] for label in labels])


def multiplied(views: Sequence[tuple[Floats, Floats]], labels: Ints) -> Floats:
    """Return the calibrated product (N, C) of what several views say of the same rows.

    Each view is calibrated on labelled rows, so that an unsure one counts little; the product is calibrated again,
    since views that agree for the same reason make it too sure.

    Args:
        views: Of every view its probabilities on labelled rows (S, C) and on the rows in question (N, C).
        labels: (S,) classes of the labelled rows; -1: none.
    """
    known = labels >= 0
    fits = [calibrate(on_labelled[known], labels[known]) for on_labelled, _ in views]
    labelled = _product([fit(on_labelled[known]) for fit, (on_labelled, _) in zip(fits, views, strict=True)])
    rows = _product([fit(on_rows) for fit, (_, on_rows) in zip(fits, views, strict=True)])
    return calibrate(labelled, labels[known])(rows)


def _product(chances: Sequence[Floats]) -> Floats:
    logs = np.sum([np.log(np.maximum(each, 1e-6)) for each in chances], axis=0)
    found = np.exp(logs - logs.max(1, keepdims=True))
    return np.asarray(found / found.sum(1, keepdims=True))


class Words:
    """Logistic regression on tf-idf: of the source's labelled rows, then of the target's rows beside them.

    Args:
        texts: Of the source's rows (S,).
        labels: (S,) their class ids; -1: none, and the row is left out.
        pool: Texts of the target's rows (N,).
        classes: C; a class without a labelled row gets a chance of nought.
    """

    def __init__(self, texts: Sequence[str], labels: Ints, pool: Sequence[str], classes: int) -> None:
        self._texts = [text for text, label in zip(texts, labels, strict=True) if label >= 0]
        self._labels = labels[labels >= 0]
        self._pool, self._classes = list(pool), classes
        self._model = word_model().fit(self._texts, self._labels)

    def learn(self, chances: Floats) -> None:
        """Learn anew, with these chances (N, C) of the pool beside the source: a row weighs by its lead."""
        ordered = np.sort(chances, axis=1)
        weights = np.concatenate([np.ones(len(self._labels)), ordered[:, -1] - ordered[:, -2]])
        labels = np.concatenate([self._labels, chances.argmax(1)])
        self._model = word_model(INVERSE_RIDGE, least=2 if len(self._pool) >= ENOUGH else 1)
        self._model.fit([*self._texts, *self._pool], labels, logisticregression__sample_weight=weights)

    def said_of(self, texts: Sequence[str] | None = None) -> Floats:
        """Return probabilities (N, C) of texts; of the pool where none are given."""
        found = np.zeros((len(self._pool if texts is None else texts), self._classes))
        found[:, self._model.classes_] = self._model.predict_proba(self._pool if texts is None else texts)
        return found
