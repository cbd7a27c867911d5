"""Contrastive learning of texts: two views of one text are drawn together, other texts apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from guidebook.data.streams import Stream, seed_for
from guidebook.losses.contract import Counts, Facts, Reads, View
from guidebook.losses.task import PooledHead
from guidebook.tasks.heads import Head


def contrastive(one: Tensor, two: Tensor, temperature: float) -> Tensor:
    """Return the mean over rows of -log(e^{cos(one_i, two_i)/τ} / Σ_j e^{cos(one_i, two_j)/τ}), in nats.

    Args:
        one: (B, D) one view of every text, in float32.
        two: (B, D) the other view of the same texts, in the same order.
        temperature: τ.

    Reference: Gao, Yao and Chen 2021, SimCSE, equation 4.
    """
    cosines = functional.normalize(one, dim=-1) @ functional.normalize(two, dim=-1).mT  # (B, B)
    return functional.cross_entropy(cosines / temperature, torch.arange(len(one), device=one.device))


@dataclass(frozen=True)
class Contrastive:
    """SimCSE: the same texts twice under other dropout masks, each to be found among the texts of its batch.

    A trained projection stands between the pooled row and the cosine; it is not used afterwards.

    Reference: Gao, Yao and Chen 2021, SimCSE: Simple Contrastive Learning of Sentence Embeddings, EMNLP.
    """

    stream: Stream
    temperature: float = 0.05

    counts: ClassVar[Counts] = "batches"
    length_in: ClassVar[Literal["tokens", "rows"]] = "tokens"
    layers: ClassVar[bool] = False
    rates: ClassVar[Mapping[str, float]] = MappingProxyType({})

    @property
    def reads(self) -> Sequence[Reads]:
        """The texts twice, as they are."""
        return (Reads(self.stream), Reads(self.stream, copy=1))

    def modules(self, facts: Facts) -> Mapping[str, nn.Module]:
        """The projection, `projection`."""
        seed = seed_for(facts.seed, "projection")
        head = Head(facts.hidden_size, facts.hidden_size, "linear", dropout=0.0, seed=seed)
        return {"projection": PooledHead(head, "mean" if facts.pooling == "tokens" else facts.pooling)}

    def __call__(self, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return the loss of the batch, and the mean cosine of a text's two views."""
        one, two = (torch.tanh(view.modules["projection"](view.hidden, view.mask)) for view in views)  # (B, H)
        device = one.device.type
        with torch.autocast(device, enabled=False):
            one, two = one.float(), two.float()
            alike = functional.cosine_similarity(one.detach(), two.detach()).mean() if len(one) else one.sum().detach()
            return {"loss": contrastive(one, two, self.temperature), "alike": alike}
