"""Everything of a training step in one module with one forward: base, adapters, heads, teacher, losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from guidebook.adapters.host import Host
from guidebook.losses.chunked import chunked_cross_entropy
from guidebook.losses.contract import Loss, View
from guidebook.methods.stage import Stage
from guidebook.training.head import finish_for
from guidebook.training.tap import Tap, Tapped
from guidebook.training.teacher import Average, evaluating, with_weights


class StageModel(nn.Module):
    """The module that the trainer wraps; `forward(batch)` returns {"loss", "parts", "weighted"}.

    Every loss is a sum over its items divided by `batch["scale"]`, the items of the whole optimiser step divided by
    the number of its parts, so that micro-batches and devices add up to the same gradient.
    """

    def __init__(self, host: Host, stage: Stage, modules: Mapping[str, nn.Module], steps: int = 1) -> None:
        super().__init__()
        self.base = host.model
        self.heads = nn.ModuleDict(modules)
        self._losses: Mapping[str, Loss] = stage.losses
        self._weights = stage.weights
        self._layers = any(loss.layers for loss in stage.losses.values())
        self._tap = Tap(host.lm_head)
        self._finish = finish_for(host) if _in_chunks(stage) else None
        self._scale = host.hidden_scale
        half_life = stage.teacher.half_life * steps if stage.teacher else 0.0
        self.average = Average(self.trainable(), half_life) if half_life else None
        """Averages of what is trained, where the stage has a teacher that is not the model itself."""
        self._keeps_average = self.average is not None and stage.teacher is not None and stage.teacher.keep

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return what is trained, by name."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def kept(self) -> Mapping[str, Tensor]:
        """Return what the stage leaves, by name: what is trained, or the teacher's average of it."""
        return self.average.values() if self._keeps_average and self.average is not None else self.trainable()

    @torch.no_grad()
    def put(self, values: Mapping[str, Tensor]) -> None:
        """Give what is trained other values, by name."""
        for name, parameter in self.trainable().items():
            parameter.copy_(values[name])

    @contextmanager
    def as_kept(self) -> Iterator[None]:
        """Run with the weights that the stage leaves while the context lasts."""
        if not self._keeps_average:
            yield
            return
        own = {name: value.detach().clone() for name, value in self.trainable().items()}
        self.put(self.kept())
        try:
            yield
        finally:
            self.put(own)

    def rates(self) -> dict[str, float]:
        """Return the learning-rate factor of every module that has one, by name."""
        return {name: factor for loss in self._losses.values() for name, factor in loss.rates.items()}

    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the weighted loss, its named parts (not weighted), and the weighted parts with their graph.

        Only losses that `batch["views"]` names are computed. One without an item in the whole step, or without a row in
        this part of it, is zero: a step of pseudo-labels may know no label, a part of a small step may have no row.
        """
        losses = {name: self._losses[name] for name in batch["views"]}
        if not len(batch["inputs"]["input_ids"]):  # not every base reads zero rows
            nothing = self._nothing()
            parts = dict.fromkeys(losses, nothing.detach())
            return {"loss": nothing, "parts": parts, "weighted": dict.fromkeys(losses, nothing)}
        views = self._views(batch)
        parts, weighted = {}, {}
        for name, loss in losses.items():
            given, scale = [views[key] for key in batch["views"][name]], batch["scale"][name]
            if not scale or not len(given[0].hidden):
                weighted[name] = self._nothing()
                parts[name] = weighted[name].detach()
                continue
            found = loss(given)
            part = found["loss"] / scale
            weighted[name] = part * (self._weights[name](batch["fraction"]) if name in self._weights else 1.0)
            parts[name] = part.detach()
            parts |= {f"{name}/{other}": value.detach() for other, value in found.items() if other != "loss"}
        total = torch.stack([value.float() for value in weighted.values()]).sum()
        return {"loss": total, "parts": parts, "weighted": weighted}

    def _nothing(self) -> Tensor:
        """Return a zero that what is trained has a gradient of, zero too."""
        return torch.stack([0 * value.sum() for value in self.trainable().values()]).sum()

    def _views(self, batch: dict[str, Any]) -> dict[str, View]:
        """Return every view of the batch: one forward for the model's own, one for the teacher's."""
        heads: dict[str, Callable[..., Tensor]] = dict(self.heads.items())
        asked = batch["positions"] if self._finish is None else batch["positions"][:0]
        with self._tap:
            tapped = self._tap.run(self.base, batch["inputs"], asked, layers=self._layers)
        views = {key: self._view(batch, key, tapped, heads) for key in batch["rows"]}
        if (lesson := batch.get("teacher")) is not None:
            averages = self.average.values() if self.average is not None else None
            base = with_weights(self.base, _inside(averages, "base."))
            heads = {name: with_weights(head, _inside(averages, f"heads.{name}.")) for name, head in self.heads.items()}
            with evaluating(self.base, self.heads):
                with self._tap:
                    tapped = self._tap.run(base, lesson["inputs"], lesson["positions"], layers=self._layers)
                views |= {key: self._view(lesson, key, tapped, _still(heads)) for key in lesson["rows"]}
        return views

    def _view(
        self, batch: dict[str, Any], key: str, tapped: Tapped, heads: Mapping[str, Callable[..., Tensor]]
    ) -> View:
        rows, picks = slice(*batch["rows"][key]), slice(*batch["picks"][key])
        summed = None
        if self._finish is not None:
            chosen = tapped.hidden.flatten(0, 1)[batch["positions"][picks]]  # (B, T, H) -> (M, H)
            summed = partial(chunked_cross_entropy, chosen, batch["targets"][picks], self._tap.lm_head, self._finish)
        return View(
            hidden=tapped.hidden[rows] if self._scale == 1.0 else tapped.hidden[rows] * self._scale,
            mask=(batch["mask"] if "mask" in batch else read_mask(batch["inputs"])).bool()[rows],
            logits=tapped.logits[picks],
            targets=batch["targets"][picks],
            labels=batch["labels"][rows],
            owner=batch["owner"][rows],
            states=tuple(state[rows] for state in tapped.states),
            modules=heads,
            fraction=batch["fraction"],
            summed=summed,
        )


def _in_chunks(stage: Stage) -> bool:
    """Return whether no loss of a stage needs the logits themselves."""
    reading = [loss for loss in stage.losses.values() if any(read.how == "masked" for read in loss.reads)]
    return bool(reading) and all(getattr(loss, "in_chunks", False) for loss in reading)


def read_mask(inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the mask (B, T) of the last hidden states: the decoder's, where a base has two sides."""
    return inputs.get("decoder_attention_mask", inputs["attention_mask"])


def _inside(values: Mapping[str, Tensor] | None, prefix: str) -> dict[str, Tensor] | None:
    """Return the values whose name starts with a prefix, without it."""
    if values is None:
        return None
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _still(heads: Mapping[str, Callable[..., Tensor]]) -> dict[str, Callable[..., Tensor]]:
    """Return heads that give neither gradient nor noise, whenever a loss calls them."""

    def still(head: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*args: Any) -> Tensor:
            modules = [head] if isinstance(head, nn.Module) else []
            with evaluating(*modules):
                return head(*args)

        return call

    return {name: still(head) for name, head in heads.items()}
