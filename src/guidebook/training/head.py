"""Whether a base's language-modelling head may be run in chunks: it is tried before it is trusted."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from guidebook.adapters.host import Host
from guidebook.losses.chunked import Finish, finish_of, token_losses
from guidebook.training.tap import Tap

TRIED = 4
"""Positions of the trial."""


def finish_for(host: Host) -> Finish | None:
    """Return what comes after a base's head, or None where running the head by itself is not the same.

    The base runs once over a few tokens: its own losses and those of the head, run by itself, have to agree.
    """
    if host.placement.kind == "seq2seq":
        return None
    finish, device = finish_of(host.config), next(host.model.parameters()).device
    ids = torch.arange(1, TRIED + 2, device=device)[None]  # (1, T)
    places, targets = torch.arange(TRIED, device=device), ids[0, 1:]
    was_training = host.model.training
    host.model.eval()
    try:
        with torch.no_grad(), Tap(host.lm_head) as tap:
            whole = tap.run(host.model, {"input_ids": ids}, places)
        expected = functional.cross_entropy(whole.logits.float(), targets, reduction="none")
        found = token_losses(whole.hidden.flatten(0, 1)[places], targets, host.lm_head, finish)
    finally:
        host.model.train(was_training)
    return finish if torch.allclose(found, expected, rtol=1e-3, atol=1e-3) else None


def losses_at(
    host: Host, inputs: dict[str, Tensor], positions: Tensor, targets: Tensor, finish: Finish | None
) -> Tensor:
    """Return the cross-entropy in nats (M,) of the host's active adapters at flat positions (M,) of a batch.

    Args:
        host: The base with what is active on it.
        inputs: What its forward takes.
        positions: Where something is predicted.
        targets: (M,) token ids.
        finish: What `finish_for` gave: the head runs in chunks. None: all its logits (M, V) at once.
    """
    with Tap(host.lm_head) as tap:
        tapped = tap.run(host.model, inputs, positions if finish is None else positions[:0])
    if finish is None:
        return functional.cross_entropy(tapped.logits.float(), targets, reduction="none")
    return token_losses(tapped.hidden.flatten(0, 1)[positions], targets, host.lm_head, finish)
