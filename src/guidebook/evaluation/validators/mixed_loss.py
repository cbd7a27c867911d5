"""UDALM's stopping rule: the task loss on the source and the language-modelling loss on the target, mixed."""

from __future__ import annotations

from guidebook.evaluation.seen import Seen, needed
from guidebook.evaluation.validators.source_loss import source_loss


def mixed_loss(source: Seen, target: Seen) -> float:
    """Weighted mean of source task loss and target language-modelling loss, in nats; lower is better.

    The weights are the shares of rows: with n source and m target rows, n / (n + m) and m / (n + m).

    Reference:
        Karouzos, Paraskevopoulos & Potamianos 2021, UDALM, equation 2 and section 4.3 (the mixed loss stops training).
    """
    labelled = source.total or len(source.probabilities)
    raw = target.total or len(target.probabilities)
    share = labelled / (labelled + raw)
    return float(share * source_loss(source, target) + (1 - share) * needed(target.lm_loss, "language-modelling loss"))
