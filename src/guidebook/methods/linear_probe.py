"""A linear probe: logistic regression on the untouched base's pooled rows. Seconds, in every table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from guidebook.methods.stage import Stage

if TYPE_CHECKING:
    from guidebook.training.run import Run


@dataclass(frozen=True)
class LinearProbe:
    """Logistic regression on pooled hidden rows of the base with its adapters off.

    Reads: source labels.
    Assumes: nothing about the target.
    """

    trains: ClassVar[bool] = False

    def plan(self, run: Run) -> Iterator[Stage]:
        """No stage: the base runs once over every text."""
        import numpy as np
        import torch
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        rows, labels = run.labelled_rows()
        features = run.pooled(rows)  # (N, H)
        scale = StandardScaler().fit(features)
        model = LogisticRegression(C=0.1, max_iter=2000, random_state=0).fit(scale.transform(features), labels)
        weight = model.coef_ / scale.scale_  # the scaling is folded into the head
        bias = model.intercept_ - weight @ scale.mean_
        if len(weight) == 1:  # two classes: one logit z is the pair (0, z)
            weight, bias = np.stack([0 * weight[0], weight[0]]), np.stack([0 * bias[0], bias[0]])
        tensors = {"head.output.weight": torch.tensor(weight), "head.output.bias": torch.tensor(bias)}
        run.submit_head({name: value.float().contiguous() for name, value in tensors.items()})
        yield from ()
