"""A masked head that runs in chunks gives the losses and the gradients of whole logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from guidebook.adapters.host import Host
from guidebook.adapters.invertible import Invertible
from guidebook.adapters.presets import Houlsby
from guidebook.adapters.union import Union
from guidebook.data.streams import Stream
from guidebook.data.tokens import Tokens
from guidebook.losses.language_modelling import LanguageModelling
from guidebook.methods.stage import Stage
from guidebook.training.model import StageModel
from guidebook.training.plan import StagePlan
from guidebook.training.prediction import input_of
from guidebook.training.settings import FuseTraining, Training


def loss_and_gradients(host: Host, stage: Stage, train: Training) -> tuple[float, dict[str, Tensor]]:
    model = StageModel(host, stage, {})
    loss = model(StagePlan(stage, train, 0, input_of(host)).batch(0))["loss"]
    loss.backward()
    found = {name: value.grad.clone() for name, value in model.trainable().items() if value.grad is not None}
    model.zero_grad()
    return float(loss.detach()), found


def test_a_masked_head_in_chunks_equals_whole_logits(
    tiny_base: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an adapter on both sides of tied embeddings, moved away from where it starts."""
    host = Host.load(str(tiny_base("bert")))
    host.add("domain", Union((Invertible(), Houlsby(reduction=4))), seed=0)
    host.activate(("domain",), train=("domain",))
    for value in host.trainable().values():
        torch.nn.init.normal_(value, std=0.2, generator=torch.Generator().manual_seed(value.numel()))
    ids = np.random.default_rng(0).integers(5, 100, 12 * 20).astype(np.int32)
    tokens = Tokens(ids, np.arange(13, dtype=np.int64) * 20, "made")
    stream = Stream("text", tokens, np.zeros(12, np.int64), ("text",), np.ones(1))
    stage = Stage("fuse", {"lm": LanguageModelling(stream)}, train={"domain": None})
    train = Training(tokens_per_batch=240, max_length=20, dtype="float32", fuse=FuseTraining(tokens=240, mask_rate=0.3))
    rows: list[int] = []
    host.lm_head.register_forward_hook(lambda module, inputs, output: rows.append(inputs[0].shape[0]))
    monkeypatch.setattr("guidebook.losses.chunked.IN_CACHE", 1000)
    monkeypatch.setattr("guidebook.losses.chunked.ROWS", 10)
    ours, ours_gradients = loss_and_gradients(host, stage, train)
    assert len(rows) > 3  # the whole, and the chunks
    monkeypatch.setattr("guidebook.training.model.finish_for", lambda host: None)
    theirs, theirs_gradients = loss_and_gradients(host, stage, train)
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert ours_gradients.keys() == theirs_gradients.keys()
    assert theirs_gradients
    for name, value in ours_gradients.items():
        torch.testing.assert_close(value, theirs_gradients[name], rtol=1e-3, atol=1e-5)
