"""Batches are a pure function of rows, settings and seed, and add up to one big step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from guidebook.adapters.host import Host
from guidebook.adapters.presets import Houlsby
from guidebook.data.corpus import read_corpus
from guidebook.data.domains import Domain
from guidebook.data.streams import seed_for
from guidebook.losses.language_modelling import LanguageModelling
from guidebook.losses.task import TaskLoss
from guidebook.methods.stage import Stage
from guidebook.tasks.classification import Classification
from guidebook.training.engine import Engine
from guidebook.training.model import StageModel
from guidebook.training.plan import StagePlan, next_tokens
from guidebook.training.prediction import input_of
from guidebook.training.run import Material, Run
from guidebook.training.settings import FuseTraining, TaskTraining, Training
from guidebook.training.store import Store
from tiny import TEXTS

TRAIN = Training(
    tokens_per_batch=96, max_length=16, fuse=FuseTraining(tokens=400), task=TaskTraining(epochs=2, rows_per_batch=4)
)


@pytest.fixture(params=["bert", "gpt2", "t5", "bart"])
def host(request, tiny_base) -> Host:
    return Host.load(str(tiny_base(request.param)))


def material(host: Host) -> Material:
    corpus = read_corpus(
        [Domain("source", texts=TEXTS * 2, labels=[1, 0, 1, 0, 0, 1, 0, 1] * 2)],
        [Domain("target", texts=[text + " indeed" for text in TEXTS])],
    )
    return Material(corpus, host.tokenizer, length=16, task_length=16, causal=host.placement.kind == "causal")


def stages(host: Host) -> dict[str, Stage]:
    made = material(host)
    run = Run(made, made.corpus.targets[0], 0, None)
    lm, task = LanguageModelling(run.text()), TaskLoss(run.source)
    return {
        "lm": Stage("fuse", {"lm": lm}, train={"domain": None}),
        "task": Stage("task", {"task": task}, train={"task": None}),
        "both": Stage("both", {"task": task, "lm": lm}, train={"task": None}),
    }


def engine(host: Host, tmp_path, train: Training = TRAIN) -> Engine:
    return Engine(host, Houlsby(reduction=4), Classification(dropout=0.0), 2, train, 0, Store(tmp_path))


@pytest.mark.parametrize("name", ["lm", "task", "both"])
def test_the_same_seed_gives_the_same_batches_and_another_seed_others(host: Host, name: str) -> None:
    stage, feed = stages(host)[name], input_of(host)
    one, two, other = (StagePlan(stage, TRAIN, seed, feed) for seed in (0, 0, 1))
    assert len(one) == len(two) > 1
    for item in range(len(one)):
        assert torch.equal(one[item]["inputs"]["input_ids"], two[item]["inputs"]["input_ids"])
        assert torch.equal(one[item]["positions"], two[item]["positions"])
    same = [
        torch.equal(one[i]["inputs"]["input_ids"], other[i]["inputs"]["input_ids"])
        for i in range(min(len(one), len(other)))
    ]
    assert not all(same)


def test_a_batch_does_not_depend_on_which_batches_were_made_before(host: Host) -> None:
    stage, feed = stages(host)["lm"], input_of(host)
    late = StagePlan(stage, TRAIN, 0, feed)[3]
    torch.rand(7)
    plan = StagePlan(stage, TRAIN, 0, feed)
    for step in range(3):
        plan[step]
    assert torch.equal(plan[3]["targets"], late["targets"])


def test_the_global_random_state_is_left_alone(host: Host) -> None:
    before = torch.get_rng_state()
    StagePlan(stages(host)["both"], TRAIN, 0, input_of(host))[1]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["lm", "task", "both"])
def test_parts_of_a_step_add_up_to_its_gradient(host: Host, name: str, tmp_path) -> None:
    """Accumulation x micro-batch invariance, for CE, for LM and for both in one forward."""
    gradients = []
    for parts in (1, 2, 3):
        made = engine(host, tmp_path)
        made.build(stages(host)[name], {})
        model = StageModel(host, stages(host)[name], made.new_heads(stages(host)[name]))
        plan = StagePlan(stages(host)[name], TRAIN, 0, input_of(host), parts=parts)
        for part in range(parts):
            (model.train()(plan[parts + part])["loss"] / parts).backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    for other in gradients[1:]:
        assert other.keys() == gradients[0].keys()
        for key, value in gradients[0].items():
            torch.testing.assert_close(other[key], value, rtol=1e-4, atol=1e-6)


def test_one_forward_of_two_losses_equals_two_forwards(host: Host, tmp_path) -> None:
    stage = stages(host)["both"]
    made = engine(host, tmp_path)
    made.build(stage, {})
    model = StageModel(host, stage, made.new_heads(stage)).eval()
    batch = StagePlan(stage, TRAIN, 0, input_of(host))[1]
    parts = model(batch)["parts"]
    for key, loss_name in zip(batch["rows"], ("task", "lm"), strict=True):
        alone = Stage("one", {loss_name: stage.losses[loss_name]}, train={})
        single = StageModel(host, alone, dict(model.heads)).eval()
        rows, picks = slice(*batch["rows"][key]), slice(*batch["picks"][key])
        width = batch["inputs"]["input_ids"].shape[1]
        only = {
            **batch,
            "inputs": {name: value[rows] for name, value in batch["inputs"].items()},
            "positions": batch["positions"][picks] - batch["rows"][key][0] * width,
            "targets": batch["targets"][picks],
            "labels": batch["labels"][rows],
            "rows": {key: (0, rows.stop - rows.start)},
            "picks": {key: (0, picks.stop - picks.start)},
            "views": {loss_name: [key]},
        }
        torch.testing.assert_close(single(only)["parts"][loss_name], parts[loss_name], rtol=1e-5, atol=1e-6)


def test_next_tokens_against_a_loop() -> None:
    ids = torch.tensor([[5, 6, 7, 0], [8, 9, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]]).bool()
    positions, goals = next_tokens(ids, mask, first=0)
    expected = [(r * 4 + t, int(ids[r, t + 1])) for r in range(2) for t in range(3) if mask[r, t] and mask[r, t + 1]]
    assert list(zip(positions.tolist(), goals.tolist(), strict=True)) == expected


def test_the_mix_is_the_declared_token_ratio(host: Host) -> None:
    made = material(host)
    run = Run(made, made.corpus.targets[0], 0, None)
    stage = Stage("fuse", {"lm": LanguageModelling(run.text(mixture="equal"))}, train={"domain": None})
    plan = StagePlan(stage, replace(TRAIN, fuse=FuseTraining(tokens=2000)), 0, input_of(host))
    assert all(abs(share - 0.5) < 0.03 for share in plan.mix().values())
    assert abs(plan.tokens - 2000) < 100


def test_every_labelled_row_is_read_once_an_epoch(host: Host) -> None:
    stage = stages(host)["task"]
    plan = StagePlan(stage, TRAIN, 0, input_of(host))
    rows = np.concatenate(plan.rows[plan.primary])
    assert np.array_equal(np.bincount(rows), np.full(len(plan.streams[plan.primary].tokens), 2))


def test_seeds_differ_by_role_and_not_by_process() -> None:
    assert len({seed_for(0, "head"), seed_for(0, "order"), seed_for(1, "order")}) == 3
    assert seed_for(3, "masks", "text", 7) == 3431652020585874413  # the same on every machine and in every process


def test_a_step_is_made_once_for_all_its_parts(host, tmp_path, monkeypatch):
    """Rows are padded and masked once a step, and every part is what it is when it is asked for alone."""
    made: list[int] = []
    fed = StagePlan._fed

    def counted(self, read, rows, width, step):
        made.append(step)
        return fed(self, read, rows, width, step)

    for name, stage in stages(host).items():
        train = replace(TRAIN, micro_batches=4)
        plan = engine(host, tmp_path, train).plan(stage)
        with monkeypatch.context() as patch:
            patch.setattr(StagePlan, "_fed", counted)
            made.clear()
            together = [plan.batch(step, part) for step in range(plan.steps) for part in range(4)]
        assert len(made) == plan.steps * len(plan.views), name
        again = [plan.batch(step, part) for part in (3, 1, 0, 2) for step in reversed(range(plan.steps))]
        found = {
            (batch["fraction"], part): batch for batch, part in zip(together, [0, 1, 2, 3] * plan.steps, strict=True)
        }
        parts_of = [part for part in (3, 1, 0, 2) for _ in range(plan.steps)]
        for batch, part in zip(again, parts_of, strict=True):
            assert same(batch, found[batch["fraction"], part])


def same(one, other) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
