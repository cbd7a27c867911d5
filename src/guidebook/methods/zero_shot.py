"""Ask the untouched decoder which label fits: no training, no labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from guidebook.errors import InputError
from guidebook.methods.stage import Stage

if TYPE_CHECKING:
    from guidebook.training.run import Run

QUESTION = "{text}\n\nWhich of these labels fits the text above: {labels}? Answer with one label."
"""What a base with a chat template is asked, as a user's turn."""
COMPLETION = "Text: {text}\nOne of: {labels}\nLabel:"
"""What a base without one completes."""
CALIBRATED_ON = 128
"""Source texts that the calibration reads at most: the mean of so many is known to about a tenth of a nat."""


@dataclass(frozen=True)
class ZeroShot:
    """Probabilities of the label names as the answer to a question about the text, by the base as it is.

    The first token of a label name decides where the names begin with different tokens, else the whole name does.

    Reads: label names; texts of the source, for the calibration.
    Assumes: a decoder, label names that mean something, and (calibrated) classes about as frequent as in the source.

    Reference: Zhou et al. 2024, Batch Calibration, arXiv 2309.17249, equation 5: the mean log-probability of each
        answer over texts is subtracted, since a prompt favours some answers whatever the text.
    Differs: the mean is taken over the labelled source texts and the source's class shares are put back, so that
        nothing of the target enters and a rare class stays rare.
    """

    template: str | None = None
    """The prompt, with {text} and, if wanted, {labels}; a user's turn where the base has a chat template."""
    calibrate: Literal["source", "nothing"] = "source"
    """Texts on which the prompt's preference among the answers is measured and taken away."""
    trains: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.template is not None and self.template.count("{text}") != 1:
            raise InputError(f"method.template is {self.template!r}; expected a prompt with {{text}} in it once.")

    def obstacle(self, run: Run) -> str | None:
        """Return why this run cannot be asked; None where it can."""
        if not run.causal:
            return "zero_shot asks a decoder, and this base is none. Use a base such as smollm2."
        if run.labels_words:
            return "zero_shot labels whole texts, and this task labels words."
        if not all(any(letter.isalpha() for letter in label) for label in run.labels):
            return f"zero_shot needs label names that say something; these are {', '.join(run.labels)}."
        return None

    def plan(self, run: Run) -> Iterator[Stage]:
        """No stage: the base reads every prompt once."""
        yield from ()
        if run.planned:
            return
        import numpy as np

        answers = run.answers(self.template or QUESTION, self.template or COMPLETION)
        favoured = np.zeros(run.classes)
        if self.calibrate == "source":
            texts, labels = run.labelled_texts()
            chosen = np.random.default_rng(0).permutation(len(texts))[:CALIBRATED_ON]
            shares = np.bincount(labels[labels >= 0], minlength=run.classes) + 1.0
            favoured = answers([texts[row] for row in chosen]).mean(0) - np.log(shares / shares.sum())

        def predict(rows: Any) -> Any:
            logits = answers(rows.joined()) - favoured
            odds = np.exp(logits - logits.max(1, keepdims=True))
            return odds / odds.sum(1, keepdims=True)

        run.submit(predict)
