"""What comes after the training reads no row twice with the same model, and says how far it is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import guidebook.training.engine as engine_module
import guidebook.training.prediction as prediction_module
from guidebook.adaptation import adapt
from guidebook.adapters.host import Host
from guidebook.adapters.presets import LoRA
from guidebook.data.tokens import chunk, read_specials, tokenise
from guidebook.evaluation.forgetting import language_loss
from guidebook.training import head as head_module
from guidebook.training.listener import Listener
from guidebook.training.prediction import make_rows, pooled_rows, predict_probabilities, predicted_and_pooled
from guidebook.training.reading import read_text
from tiny import TEXTS, tiny_recipe
from tiny_causal import save


class Told(Listener):
    """Keeps what began and what ended."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.open: list[str] = []

    def start(self, name: str, total: float | None) -> None:
        assert name not in self.open
        self.began.append(name)
        self.open.append(name)

    def finish(self, name: str, **figures: float) -> None:
        self.open.remove(name)


def digest(host: Host) -> tuple[Any, ...]:
    """Return what decides the answers of a host: the values of what is active."""
    return tuple((name, tuple(float(v.double().sum()) for v in host.state(name).values())) for name in host.stack)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Counter[Any]:
    """Count how often each model reads each set of rows."""
    seen: Counter[Any] = Counter()
    hidden = prediction_module._hidden

    def counted(host: Host, rows: Any, *rest: Any) -> Iterator[Any]:
        seen[digest(host), rows.fingerprint] += 1
        return hidden(host, rows, *rest)

    monkeypatch.setattr(prediction_module, "_hidden", counted)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["all", "pair"])
def test_no_model_reads_the_same_rows_twice(
    scope: str, tiny_base: Callable[[str], Path], tmp_path: Path, passes: Counter[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    loaded: Counter[str] = Counter()
    attach = engine_module.attach

    def counted(host: Host, stack: Any, places: Any, head: Any) -> Any:
        loaded[str(sorted(places.items()))] += 1
        return attach(host, stack, places, head)

    monkeypatch.setattr(engine_module, "attach", counted)
    told = Told()
    adapt(tiny_recipe(tiny_base("bert"), method={"name": "domain_fusion", "scope": scope}), tmp_path / "out", told)
    probes = {rows for (model, rows), count in passes.items() if not model and count > 1}  # the base: pooled and probed
    assert [(model, rows) for (model, rows), count in passes.items() if count > 1 and rows not in probes] == []
    assert len(passes) > 8
    assert not told.open
    assert {"predict", "read text", "language losses"} <= set(told.began)
    assert max(loaded.values()) <= 6  # predictions, scores, maps and words of two targets, not each set of rows


@pytest.mark.slow
def test_figures_none_leaves_out_the_closer_look_and_nothing_else(
    tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    recipe = tiny_recipe(tiny_base("bert"), method="source_only")
    without = adapt(recipe, tmp_path / "out", figures="none")
    assert without.meta["missing"] == {"closer look": "left out by --figures none"}
    assert json.loads((tmp_path / "out" / "evidence.json").read_text()) == {}
    whole = adapt(recipe, tmp_path / "out")
    assert whole.meta["missing"] == {}
    for key in ("scores", "evaluation"):
        assert whole.meta[key] == without.meta[key]
    assert json.loads((tmp_path / "out" / "evidence.json").read_text())["targets"]


def test_one_pass_gives_what_two_gave(tiny_base: Callable[[str], Path]) -> None:
    host = Host.load(str(tiny_base("bert")))
    rows = make_rows([*TEXTS, " ".join(TEXTS)], None, host.tokenizer, 16)
    tensors = {"head.output.weight": torch.randn(2, host.hidden_size), "head.output.bias": torch.randn(2)}
    head = engine_module.head_from(tensors, "mean")
    chances, pooled = predicted_and_pooled(host, head, rows, "mean")
    assert np.array_equal(chances, predict_probabilities(host, head, rows))
    assert np.array_equal(pooled, pooled_rows(host, rows, "mean"))


@pytest.mark.parametrize("family", ["llama", "gemma2", "bert"])
def test_losses_of_a_head_in_chunks_are_those_of_its_logits(
    family: str, tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both of what reads text at the end of a run, with adapters that moved."""
    host = Host.load(str(tiny_base("bert") if family == "bert" else save(family, tmp_path / family)))
    host.add("domain", LoRA(rank=2), seed=0)
    host.activate(("domain",), train=("domain",))
    for value in host.trainable().values():
        torch.nn.init.normal_(value, std=0.2, generator=torch.Generator().manual_seed(value.numel()))
    pieces = chunk(tokenise(TEXTS, host.tokenizer), 12, read_specials(host.tokenizer))
    shapes: list[int] = []
    host.lm_head.register_forward_hook(lambda module, inputs, output: shapes.append(len(inputs[0].flatten(0, -2))))
    monkeypatch.setattr("guidebook.losses.chunked.ROWS", 5)
    monkeypatch.setattr("guidebook.losses.chunked.IN_CACHE", 5)
    ours = read_text(host, pieces, dtype="float32"), language_loss(host, TEXTS, length=12, rows=64)
    assert max(shapes) <= 5
    for name in ("reading.finish_for", "head.finish_for"):
        monkeypatch.setattr(f"guidebook.training.{name}", lambda host: None)
    monkeypatch.setattr("guidebook.evaluation.forgetting.finish_for", lambda host: None)
    theirs = read_text(host, pieces, dtype="float32"), language_loss(host, TEXTS, length=12, rows=64)
    assert max(shapes) > 5
    np.testing.assert_allclose(ours[0].log_probabilities, theirs[0].log_probabilities, rtol=1e-4, atol=1e-5)
    assert np.array_equal(ours[0].tokens, theirs[0].tokens)
    assert ours[1] == pytest.approx(theirs[1], rel=1e-5)
    assert head_module.finish_for(host) is None  # patched: whole logits were taken the second time
