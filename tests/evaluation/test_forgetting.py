"""What adapters made a base forget: nothing at first, and what a loop over single rows finds after."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import guidebook as gb
from guidebook.adapters.host import Host
from guidebook.adapters.presets import Houlsby
from guidebook.cli.main import main
from guidebook.data.streams import seed_for
from guidebook.data.tokens import chunk, read_specials, tokenise
from guidebook.errors import InputError
from guidebook.evaluation.forgetting import ROWS_AT_ONCE, forgetting, language_loss
from guidebook.evaluation.similarity import cka
from tiny import LABELS, TEXTS, tiny_recipe


def disturbed(base) -> Host:
    """A base with an active adapter that changes something."""
    host = Host.load(str(base))
    host.add("moved", Houlsby(reduction=4), seed=0)
    host.activate(("moved",), train=("moved",))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in host.trainable().values():
            value.add_(0.3 * torch.randn(value.shape, generator=generator))
    host.activate(("moved",), train=())
    return host


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_an_untouched_adapter_forgets_nothing_bit_for_bit(tiny_base, family):
    host = Host.load(str(tiny_base(family)))
    host.add("new", Houlsby(reduction=4), seed=0)
    host.activate(("new",), train=())
    found = forgetting(host, TEXTS, length=16)
    assert found.base_loss == found.adapted_loss
    assert (found.increase.low, found.increase.high) == (0, 0)
    assert found.divergence == 0
    assert found.alignment == pytest.approx([1.0] * (host.layers + 1))
    assert host.stack == ("new",)


def test_a_causal_base_is_judged_row_by_row_alike(tiny_base):
    host = disturbed(tiny_base("gpt2"))
    found = forgetting(host, TEXTS, length=16)
    pieces = chunk(tokenise(TEXTS, host.tokenizer), 16, read_specials(host.tokenizer))
    sums, count, increases, states, apart = np.zeros(2), 0, [], ([], []), 0.0
    with torch.no_grad():
        for row in range(len(pieces)):
            ids = torch.tensor(pieces[row]).long()[None]
            logs = []
            for side in range(2):
                host.activate(("moved",) if side else (), train=())
                out = host.model(input_ids=ids, output_hidden_states=True)
                logs.append(out.logits[0, :-1].log_softmax(-1))
                states[side].append([state[0].mean(0).numpy() for state in out.hidden_states])
            losses = [-log[range(len(ids[0]) - 1), ids[0, 1:]] for log in logs]
            sums += [float(loss.sum()) for loss in losses]
            count += len(losses[0])
            if count and len(losses[0]):
                increases.append(float((losses[1] - losses[0]).mean()))
            apart += float((logs[0].exp() * (logs[0] - logs[1])).sum())
    assert found.base_loss == pytest.approx(sums[0] / count, rel=1e-5)
    assert found.adapted_loss == pytest.approx(sums[1] / count, rel=1e-5)
    assert found.increase.estimate == pytest.approx(np.mean(increases), rel=1e-4)
    assert found.divergence == pytest.approx(apart / count, rel=1e-4)
    assert found.divergence > 0.01
    for layer, value in enumerate(found.alignment):
        slow = cka(*(np.array([row[layer] for row in side], dtype=float) for side in states))
        assert value == pytest.approx(slow, abs=1e-4)


def test_a_masked_base_predicts_the_same_places_with_and_without_adapters(tiny_base):
    host = disturbed(tiny_base("bert"))
    found = forgetting(host, TEXTS * 4, length=16, seed=3)
    assert found.adapted_loss == pytest.approx(language_loss(host, TEXTS * 4, length=16, rows=256, seed=3))
    with host.disabled():
        assert found.base_loss == pytest.approx(language_loss(host, TEXTS * 4, length=16, rows=256, seed=3))
    assert found.increase.low <= found.increase.estimate <= found.increase.high
    assert min(found.alignment) < 0.999
    assert found == pytest.approx(found)
    assert seed_for(3, "general", 0) != seed_for(3, "general", ROWS_AT_ONCE)
    with pytest.raises(InputError, match="fewer than 4 pieces"):
        forgetting(host, ["the"], length=16)


@pytest.mark.slow
def test_the_command_says_it_of_every_stack(tiny_base, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    book = gb.adapt(tiny_recipe(tiny_base("bert")), out=tmp_path / "book")
    general = tmp_path / "general.csv"
    general.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in zip(TEXTS, LABELS, strict=True)))
    before = book.predict_proba(TEXTS, domain="kitchen")
    assert main(["evaluate", str(book.path), "--general", str(general), "--json", "-q"]) == 0
    found = json.loads(capsys.readouterr().out)["forgetting"]
    assert set(found) == {"source_only", "domain_fusion", "domain (before the task)"}
    for entry in found.values():
        assert entry["adapted_loss"] != entry["base_loss"]
        assert len(entry["alignment"]) == 4
        assert {"base", "adapted", "difference"} == set(entry["probe"])
    assert np.array_equal(book.predict_proba(TEXTS, domain="kitchen"), before)
    assert main(["evaluate", str(book.path), "--general", str(general), "-q"]) == 0
    assert "before the task" in capsys.readouterr().out
