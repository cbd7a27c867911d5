"""Everything of a training step in one module with one forward: base, adapters, heads, losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from guidebook.adapters.host import Host
from guidebook.losses.contract import Loss, View
from guidebook.methods.stage import Stage
from guidebook.training.tap import Tap


class StageModel(nn.Module):
    """The module that the trainer wraps; `forward(batch)` returns {"loss", "parts"}.

    Every loss is a sum over its items divided by `batch["scale"]`, the items of the whole optimiser step divided by
    the number of its parts, so that micro-batches and devices add up to the same gradient.
    """

    def __init__(self, host: Host, stage: Stage, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.base = host.model
        self.heads = nn.ModuleDict(modules)
        self._losses: Mapping[str, Loss] = stage.losses
        self._weights = stage.weights
        self._tap = Tap(host.lm_head)

    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the weighted loss and its named, unweighted parts."""
        if not len(batch["inputs"]["input_ids"]):  # a step of fewer rows than parts; not every base reads zero rows
            nothing = torch.stack([0 * value.sum() for value in self.parameters() if value.requires_grad]).sum()
            return {"loss": nothing, "parts": dict.fromkeys(self._losses, nothing.detach())}
        with self._tap:
            hidden, logits = self._tap.run(self.base, batch["inputs"], batch["positions"])
        mask = batch["inputs"]["attention_mask"].bool()
        parts: dict[str, Tensor] = {}
        total = hidden.new_zeros((), dtype=torch.float32)
        heads = dict(self.heads.items())
        for name, loss in self._losses.items():
            views = [self._view(batch, key, hidden, mask, logits) for key in batch["views"][name]]
            parts[name] = loss(views, heads) / batch["scale"][name]
            weight = self._weights[name](batch["fraction"]) if name in self._weights else 1.0
            total = total + weight * parts[name]
        return {"loss": total, "parts": {name: value.detach() for name, value in parts.items()}}

    @staticmethod
    def _view(batch: dict[str, Any], key: str, hidden: Tensor, mask: Tensor, logits: Tensor) -> View:
        rows, picks = slice(*batch["rows"][key]), slice(*batch["picks"][key])
        return View(hidden[rows], mask[rows], logits[picks], batch["targets"][picks], batch["labels"][rows])
