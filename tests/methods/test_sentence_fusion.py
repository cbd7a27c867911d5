"""Bases without a language-modelling head, and two views of a text that differ."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoTokenizer, BertConfig, BertModel

from guidebook.adaptation import adapt, estimate, prepare
from guidebook.adapters.host import Host
from guidebook.artifact import load
from guidebook.errors import InputError
from guidebook.training.dropout import base_dropout
from guidebook.training.listener import Listener
from guidebook.training.model import StageModel
from guidebook.training.run import Run
from tiny import TEXTS, tiny_recipe


@pytest.fixture
def headless(tiny_base, tmp_path, monkeypatch) -> Path:
    """A tiny encoder as sentence encoders are stored: without any head."""
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    config = BertConfig.from_pretrained(tiny_base("bert"))
    torch.manual_seed(0)
    BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(tiny_base("bert")).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_a_base_without_a_head_has_one_fingerprint(headless) -> None:
    hosts = [Host.load(str(headless), needs_lm_head=False) for _ in range(2)]
    assert hosts[0].fingerprint == hosts[1].fingerprint
    assert not hosts[0].has_lm_head
    with pytest.raises(InputError, match="no trained language-modelling head"):
        Host.load(str(headless))


def test_methods_that_model_text_are_refused_before_training(headless, tmp_path) -> None:
    for method in ("domain_fusion", "mixed", "ssd"):
        with pytest.raises(InputError, match=r"no trained language-modelling head.*sentence_fusion"):
            adapt(tiny_recipe(headless, method=method))
    assert not list((tmp_path / "cache").glob("*/stage.json"))
    assert estimate(tiny_recipe(headless, method="self_training"))["stages"]


def test_a_base_that_lacks_more_than_its_head_is_refused(headless) -> None:
    from safetensors.torch import load_file, save_file

    place = headless / "model.safetensors"
    tensors = load_file(place)
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, place, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"1\.output.dense.weight"):
        Host.load(str(headless), needs_lm_head=False)


@pytest.mark.slow
def test_a_guidebook_of_such_a_base_is_made_and_loaded(headless) -> None:
    book = adapt(tiny_recipe(headless, method="sentence_fusion"))
    stage = next(stage for stage in book.meta["stages"] if stage["name"] == "fuse")
    assert "contrast" in stage["losses"]
    before = book.predict_proba(TEXTS, domain="kitchen")
    assert (load(book.path).predict_proba(TEXTS, domain="kitchen") == before).all()


def test_two_views_of_a_text_differ_in_the_contrastive_stage_and_only_there(tiny_base, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path))
    recipe = tiny_recipe(tiny_base("bert"), method="sentence_fusion")
    material, engine = prepare(recipe, Listener())
    stage = next(iter(recipe.method.plan(Run(material, material.corpus.targets[0], 0, None))))
    plan = engine.plan(stage)
    engine.build(stage, {})
    model = StageModel(engine.host, stage, engine.new_heads(stage), plan.steps).train()
    quiet = float(model(plan.batch(0))["parts"]["contrast/alike"])
    with base_dropout(engine.host.model, stage.base_dropout):
        noisy = float(model(plan.batch(0))["parts"]["contrast/alike"])
    assert quiet == pytest.approx(1.0, abs=1e-5)
    assert noisy < 0.9999
    assert {module.p for module in engine.host.model.modules() if isinstance(module, nn.Dropout)} == {0.0}


def test_the_probability_is_in_the_key(tiny_base, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path))
    keys = set()
    for dropout in (0.1, 0.2):
        recipe = tiny_recipe(tiny_base("bert"), method={"name": "sentence_fusion", "dropout": dropout})
        material, engine = prepare(recipe, Listener())
        keys.add(engine.key(next(iter(recipe.method.plan(Run(material, material.corpus.targets[0], 0, None)))), {}))
    assert len(keys) == 2


def test_a_base_without_dropout_has_no_two_views(tiny_base) -> None:
    host = Host.load(str(tiny_base("llama")))
    with pytest.raises(InputError, match="no two different views"), base_dropout(host.model, 0.1):
        pass
    with base_dropout(host.model, None):
        pass
