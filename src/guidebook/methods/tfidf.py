"""Words and word pairs with logistic regression: seconds, no base, in every table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from guidebook.methods.stage import Stage

if TYPE_CHECKING:
    from guidebook.training.run import Run


@dataclass(frozen=True)
class Tfidf:
    """Logistic regression on tf-idf of words and bigrams of the labelled source rows.

    Reads: source labels.
    Assumes: that the words which carry the labels are the same in both domains.
    """

    trains: ClassVar[bool] = False

    def plan(self, run: Run) -> Iterator[Stage]:
        """No stage: the predictions are computed at once."""
        model = word_model().fit(*run.labelled_texts())
        run.submit(lambda rows: model.predict_proba(rows.joined()))
        yield from ()


def word_model(inverse_ridge: float = 10.0, least: int = 1) -> Any:
    """Return an unfitted pipeline of tf-idf and logistic regression.

    Args:
        inverse_ridge: The larger, the freer the weights (scikit-learn's C).
        least: Texts that a word or bigram must be in to count.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=least)
    return make_pipeline(vectors, LogisticRegression(C=inverse_ridge, max_iter=1000, random_state=0))
