"""Continuing the base's training from its checkpoint gives the same weights as not stopping."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

WORDS = [*"abcdefgh", "river", "town", "king", "war", "book", "film", "house", "old", "new", "north"]


@pytest.fixture(scope="module")
def pretrain() -> ModuleType:
    place = Path(__file__).parents[2] / "benchmarks" / "base" / "pretrain.py"
    spec = importlib.util.spec_from_file_location("pretrain", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["pretrain"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("corpus") / "texts.jsonl"
    texts = [" ".join(random.choice(WORDS, 60)) for _ in range(40)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf8")
    return path


@pytest.mark.parametrize("kind", ["tiny", "tiny-gptj"])
def test_resumed_equals_undisturbed(pretrain: ModuleType, corpus: Path, kind: str, tmp_path: Path) -> None:
    setting = pretrain.SETTINGS[kind]
    per_step = setting.rows * setting.length
    run = {"setting": setting, "corpus": [corpus], "minutes": 1e9, "every": 5, "device": "cpu"}
    whole = pretrain.train(tmp_path / "whole", tokens=12 * per_step, **run).model.state_dict()
    pretrain.train(tmp_path / "parts", tokens=7 * per_step, **run)
    parts = pretrain.train(tmp_path / "parts", tokens=12 * per_step, **run).model.state_dict()
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize("kind", ["tiny", "tiny-gptj"])
def test_training_through_the_bf16_copy_is_training_but_for_rounding(
    pretrain: ModuleType, corpus: Path, kind: str, tmp_path: Path
) -> None:
    setting = pretrain.SETTINGS[kind]
    tokenizer = pretrain.prepare([corpus], tmp_path, setting)
    start, plain, copied = (pretrain.Training(tmp_path, setting, tokenizer, "cpu") for _ in range(3))
    copied.runner = pretrain.copy_to_run(copied.model, compiled=False)
    for _ in range(30):
        expected, found = float(plain.advance()), float(copied.advance())
        assert found == pytest.approx(expected, rel=5e-3)
    weights = [torch.cat([p.detach().flatten() for p in t.model.parameters()]) for t in (start, plain, copied)]
    assert (weights[2] - weights[1]).norm() < 0.1 * (weights[1] - weights[0]).norm()
    assert weights[2].dtype == torch.float32


def test_a_checkpoint_goes_on_with_larger_steps_where_it_stood(
    pretrain: ModuleType, corpus: Path, tmp_path: Path
) -> None:
    setting = pretrain.SETTINGS["tiny"]
    tokens = 6 * setting.rows * setting.length
    pretrain.train(tmp_path, setting, [corpus], tokens=tokens, minutes=1e9, every=5, device="cpu")
    larger = replace(setting, rows=2 * setting.rows)
    tokenizer = pretrain.prepare([corpus], tmp_path, larger)
    training = pretrain.Training(tmp_path, larger, tokenizer, "cpu")
    assert training.tokens == tokens
    assert training.begun == 0


def test_export_leaves_the_checkpoint_and_writes_the_card(pretrain: ModuleType, corpus: Path, tmp_path: Path) -> None:
    setting = pretrain.SETTINGS["tiny"]
    training = pretrain.train(tmp_path / "work", setting, [corpus], tokens=320, minutes=1e9, every=5, device="cpu")
    before = (tmp_path / "work" / "checkpoint.pt").read_bytes()
    facts = pretrain.export(training, anneal=256, out=tmp_path / "out")
    assert (tmp_path / "work" / "checkpoint.pt").read_bytes() == before
    assert facts["tokens"] == 320 + 256
    assert facts["annealed_tokens"] == 256
    assert "Wikipedia" in (tmp_path / "out" / "README.md").read_text(encoding="utf8")


def test_orthogonalised_matrices_have_singular_values_near_one(pretrain: ModuleType) -> None:
    matrices = torch.randn(3, 8, 20, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(pretrain.Muon.orthogonalise(matrices))
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_factorised_embeddings_put_words_of_the_same_contexts_together(pretrain: ModuleType) -> None:
    random = np.random.default_rng(0)
    first, second = np.array([10, 11, 12]), np.array([20, 21, 22])
    rows = [random.choice(first if row % 2 else second, 12) for row in range(400)]
    found = pretrain.factorised_embeddings(np.array(rows, np.uint16), 30, 4)
    unit = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)
    assert unit[10] @ unit[11] > 0.9
    assert abs(unit[10] @ unit[20]) < 0.2
    assert np.abs(found[5]).max() < 1e-6
