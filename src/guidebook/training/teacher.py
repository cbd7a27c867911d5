"""The teacher of a stage: an exponential average of what is trained, used without gradient and without dropout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


class Average(nn.Module):
    """Exponential averages of named parameters, stored as buffers so that checkpoints carry them.

    Reference: Tarvainen and Valpola 2017, Mean teachers are better role models, NeurIPS.
    Differs: the decay is given as a half-life in steps, since a fixed 0.999 never moves in a stage of a few hundred
        steps; it starts at min(decay, (1 + t) / (10 + t)), so that the first steps are forgotten soon.
    """

    def __init__(self, parameters: Mapping[str, Tensor], half_life: float) -> None:
        super().__init__()
        self._places = {name: f"value{index}" for index, name in enumerate(parameters)}
        for name, place in self._places.items():
            self.register_buffer(place, parameters[name].detach().clone())
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.decay = 0.5 ** (1 / half_life)

    def values(self) -> dict[str, Tensor]:
        """Return the averages under the parameters' names."""
        return {name: self.get_buffer(place) for name, place in self._places.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, Tensor]) -> None:
        """Move every average towards its parameter, once after every optimiser step."""
        steps = self.get_buffer("steps")
        done = steps.double()  # stays where it is: a GPU need not be waited for
        share = 1 - ((1 + done) / (10 + done)).clamp(max=self.decay)
        for name, average in self.values().items():
            average.lerp_(parameters[name].detach(), share.to(average.dtype))
        steps.add_(1)


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Put modules into evaluation mode, without gradients, while the context lasts."""
    before = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in zip(modules, before, strict=True):
            module.train(training)


def with_weights(module: nn.Module, weights: Mapping[str, Tensor] | None) -> Callable[..., Any]:
    """Return the module as a function under other weights; None: under its own."""
    if weights is None:
        return module
    return lambda *args, **kwargs: functional_call(module, dict(weights), args, kwargs)
