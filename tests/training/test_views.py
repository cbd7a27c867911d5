"""What a loss may ask for: the same rows in several ways, all layers, exact row counts, a teacher, its own rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from guidebook.adapters.host import Host
from guidebook.adapters.presets import Houlsby
from guidebook.data.corpus import read_corpus
from guidebook.data.domains import Domain
from guidebook.data.streams import Stream
from guidebook.losses.contract import Counts, Facts, Reads, View
from guidebook.losses.contrastive import Contrastive
from guidebook.losses.language_modelling import LanguageModelling
from guidebook.losses.task import TaskLoss, task_head
from guidebook.methods.stage import Stage, Teacher
from guidebook.tasks.classification import Classification
from guidebook.training.engine import Engine
from guidebook.training.model import StageModel
from guidebook.training.run import Material, Run
from guidebook.training.settings import FuseTraining, TaskTraining, Training
from guidebook.training.store import Store
from guidebook.training.teacher import Average
from tiny import LABELS, TEXTS

TRAIN = Training(
    tokens_per_batch=96,
    max_length=16,
    dtype="float32",
    fuse=FuseTraining(tokens=300, learning_rate=1e-2),
    task=TaskTraining(epochs=2, rows_per_batch=4, learning_rate=1e-2),
)


@dataclass(frozen=True)
class Agreement:
    """Squared distance between the model's logits and its teacher's on the same rows; keeps what it saw."""

    stream: Stream
    rows: int = 5
    seen: Any = None

    counts: ClassVar[Counts] = "rows"
    length_in: ClassVar[Any] = "rows"
    layers: ClassVar[bool] = True
    rates: ClassVar[Mapping[str, float]] = MappingProxyType({"head": 10.0})

    @property
    def reads(self) -> Sequence[Reads]:
        hows: tuple[Any, ...] = ("plain", "teacher", "masked")
        return [Reads(self.stream, how, rows=self.rows) for how in hows]

    def modules(self, facts: Facts) -> Mapping[str, nn.Module]:
        return {"head": task_head(facts)}

    def __call__(self, views: Sequence[View]) -> Mapping[str, Tensor]:
        own, teacher, masked = views
        self.seen.append(views)
        difference = own.modules["head"](own.hidden, own.mask) - teacher.modules["head"](teacher.hidden, teacher.mask)
        return {"loss": difference.pow(2).sum(), "rows": torch.tensor(float(len(masked.hidden)))}


@pytest.fixture
def parts(tiny_base, tmp_path) -> tuple[Engine, Run]:
    host = Host.load(str(tiny_base("bert")))
    corpus = read_corpus([Domain("source", texts=TEXTS * 3, labels=LABELS * 3)], [Domain("target", texts=TEXTS)])
    material = Material(corpus, host.tokenizer, length=16, task_length=16, causal=False)
    engine = Engine(host, Houlsby(reduction=4), Classification(dropout=0.0), 2, TRAIN, 0, Store(tmp_path))
    return engine, Run(material, corpus.targets[0], 0, None)


def model_of(engine: Engine, stage: Stage) -> tuple[StageModel, Any]:
    plan = engine.plan(stage)
    engine.build(stage, {})
    return StageModel(engine.host, stage, engine.new_heads(stage), plan.steps), plan


def test_all_views_of_a_stream_hold_the_same_rows_and_exactly_as_many_as_asked(parts) -> None:
    engine, run = parts
    seen: list[Any] = []
    stage = Stage("s", {"a": Agreement(run.pool("target"), seen=seen)}, train={"task": None}, teacher=Teacher())
    model, plan = model_of(engine, stage)
    out = model(plan.batch(0))
    own, teacher, masked = seen[0]
    assert len(own.hidden) == len(teacher.hidden) == len(masked.hidden) == 5
    assert float(out["parts"]["a/rows"]) == 5
    assert len(masked.targets) > 0
    torch.testing.assert_close(own.hidden, teacher.hidden)  # no dropout here: the teacher is the model itself
    assert not teacher.hidden.requires_grad
    assert own.hidden.requires_grad
    assert float(out["loss"].detach()) == pytest.approx(0, abs=1e-10)
    assert len(own.states) == engine.host.layers + 1
    assert torch.equal(own.states[-1][own.mask], own.hidden[own.mask])


def test_a_masked_view_shares_the_rows_of_the_plain_one(parts) -> None:
    engine, run = parts
    seen: list[Any] = []
    stage = Stage("s", {"a": Agreement(run.pool("target"), seen=seen)}, train={"task": None}, teacher=Teacher())
    _, plan = model_of(engine, stage)
    batch = plan.batch(1)
    (first, last), (start, stop) = (batch["rows"][f"pool of target {how} 0"] for how in ("plain", "masked"))
    plain, masked = batch["inputs"]["input_ids"][first:last], batch["inputs"]["input_ids"][start:stop]
    changed = (plain != masked).flatten().nonzero().flatten() + start * plain.shape[1]
    assert set(changed.tolist()) <= set(batch["positions"].tolist())
    assert torch.equal(
        batch["targets"], batch["inputs"]["input_ids"].flatten()[batch["positions"] - start * plain.shape[1]]
    )


def test_the_averaging_teacher_follows_a_slow_loop(parts) -> None:
    engine, run = parts
    stage = Stage(
        "s",
        {"t": TaskLoss(run.source), "a": Agreement(run.pool("target"), seen=[])},
        train={"task": None},
        teacher=Teacher(half_life=0.25),
    )
    model, plan = model_of(engine, stage)
    assert model.average is not None
    optimiser = torch.optim.SGD(model.trainable().values(), lr=0.1)
    slow = {name: value.detach().clone() for name, value in model.trainable().items()}
    decay = 0.5 ** (1 / (0.25 * plan.steps))
    for step in range(4):
        model(plan.batch(step))["loss"].backward()
        optimiser.step()
        optimiser.zero_grad()
        model.average.update(model.trainable())
        keep = min(decay, (1 + step) / (10 + step))
        slow = {name: keep * slow[name] + (1 - keep) * value.detach() for name, value in model.trainable().items()}
    for name, value in model.average.values().items():
        torch.testing.assert_close(value, slow[name])


def test_the_teachers_view_is_a_forward_with_the_averaged_weights(parts) -> None:
    engine, run = parts
    seen: list[Any] = []
    stage = Stage("s", {"a": Agreement(run.pool("target"), seen=seen)}, {"task": None}, teacher=Teacher(half_life=0.5))
    model, plan = model_of(engine, stage)
    assert model.average is not None
    with torch.no_grad():
        for value in model.average.values().values():
            value.normal_(generator=torch.Generator().manual_seed(1), std=0.1)
    batch = plan.batch(0)
    model(batch)
    teacher = seen[0][1]
    logits = teacher.modules["head"](teacher.hidden, teacher.mask)
    averages = model.average.values()
    with torch.no_grad():  # the slow way: put the averages in place of the weights
        for name, value in model.trainable().items():
            value.copy_(averages[name])
    model(batch)
    own = seen[1][0]
    torch.testing.assert_close(teacher.hidden, own.hidden, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(logits, own.modules["head"](own.hidden, own.mask), rtol=1e-5, atol=1e-6)


def test_a_stage_with_a_teacher_trains_resumes_from_the_store_and_logs_shares(parts) -> None:
    engine, run = parts
    losses = {"t": TaskLoss(run.source), "a": Agreement(run.pool("target"), seen=[])}
    kept = Stage("s", losses, train={"task": None}, teacher=Teacher(half_life=0.5, keep=True))
    left = Stage("s", losses, train={"task": None}, teacher=Teacher(half_life=0.5))
    average, last = (engine.train_or_reuse(stage, {}) for stage in (kept, left))
    assert average.key != last.key
    shares = average.figures["gradient_shares"]
    assert set(shares) == {"t", "a"}
    assert shares["t"]["first"] == pytest.approx(1.0)  # at first the teacher and the model agree
    assert sum(share["last"] for share in shares.values()) == pytest.approx(1.0, abs=1e-3)
    first, second = (engine.host, engine.host)
    engine.attach(average)
    first_state = first.state("task")
    engine.attach(last)
    second_state = second.state("task")
    assert any(not torch.equal(first_state[name], second_state[name]) for name in first_state)


def test_modules_with_a_rate_of_their_own_have_their_own_group(parts) -> None:
    from guidebook.training.listener import Listener
    from guidebook.training.trainer import StageTrainer, training_arguments

    engine, run = parts
    stage = Stage("s", {"a": Agreement(run.pool("target"), seen=[])}, train={"task": None}, teacher=Teacher())
    model, plan = model_of(engine, stage)
    arguments = training_arguments(engine.store.work("k"), TRAIN, TRAIN.task, steps=plan.steps, rate=1e-3, extra={})
    optimiser = StageTrainer(model, arguments, plan, Listener()).create_optimizer()
    head = {id(parameter) for parameter in model.heads["head"].parameters()}
    rates = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    assert [rates[key] for key in head] == pytest.approx([1e-2] * len(head))
    assert {rate for key, rate in rates.items() if key not in head} == {1e-3}
    assert set(rates) == {id(value) for value in model.trainable().values()}


def test_hyper_parameters_of_a_loss_are_in_the_stages_key(parts) -> None:
    engine, run = parts
    keys = {
        engine.key(Stage("s", {"a": Agreement(run.pool("target"), rows=rows)}, train={"task": None}), {})
        for rows in (3, 4)
    }
    assert len(keys) == 2


def test_streams_of_one_name_must_be_one(parts) -> None:
    engine, run = parts
    other = Stream("source", run.pool("target").tokens, run.pool("target").owner, ("x",), run.pool("target").ratios)
    losses = {"t": TaskLoss(run.source), "lm": LanguageModelling(other)}
    with pytest.raises(ValueError, match="two different streams"):
        engine.plan(Stage("s", losses, train={"task": None}))


def test_an_average_of_a_constant_stays() -> None:
    value = {"w": torch.ones(3)}
    average = Average(value, half_life=7)
    average.update(value)
    assert torch.equal(average.values()["w"], value["w"])


def test_arrays_are_made_once(tmp_path) -> None:
    import numpy as np

    made = []

    def make() -> Any:
        made.append(1)
        return np.arange(3.0)

    store = Store(tmp_path)
    assert np.array_equal(store.array("k", make), store.array("k", make))
    assert len(made) == 1


def test_taken_rows_are_those_rows(parts) -> None:
    import numpy as np

    _, run = parts
    tokens = run.pool("target").tokens
    some = tokens.take(np.array([5, 0, 5]))
    assert [some[row].tolist() for row in range(3)] == [tokens[row].tolist() for row in (5, 0, 5)]
    assert some.fingerprint != tokens.take(np.array([0, 5, 5])).fingerprint
    assert len(tokens.take(np.zeros(0, np.int64))) == 0


def test_training_leaves_the_global_random_states_alone(parts) -> None:
    import random

    import numpy as np

    engine, run = parts
    states = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    engine.train_or_reuse(Stage("t", {"t": TaskLoss(run.source)}, train={"task": None}), {})
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


@pytest.mark.parametrize("parts_of_step", [1, 3, 7])
def test_a_step_without_a_known_label_is_no_step_and_no_error(parts, parts_of_step) -> None:
    """As in rounds of pseudo-labels of words, when none in a step is sure enough; other losses go on."""
    engine, run = parts
    engine.train = replace(TRAIN, micro_batches=parts_of_step)
    unknown = replace(run.source, name="unknown", labels=np.full(len(run.source.tokens), -1))
    stage = Stage("s", {"task": TaskLoss(run.source), "pseudo": TaskLoss(unknown)}, train={"task": None})
    model, plan = model_of(engine, stage)
    outs = [model(plan.batch(0, part)) for part in range(parts_of_step)]
    assert all(float(out["parts"]["pseudo"]) == 0 for out in outs)
    torch.stack([out["loss"] for out in outs]).sum().backward()
    found = {name: value.grad.clone() for name, value in model.trainable().items()}
    assert all(torch.isfinite(value).all() for value in found.values())
    assert any(value.any() for value in found.values())
    alone = Stage("s", {"task": TaskLoss(run.source)}, train={"task": None})
    engine.clear()
    model, plan = model_of(engine, alone)
    torch.stack([model(plan.batch(0, part))["loss"] for part in range(parts_of_step)]).sum().backward()
    for name, value in model.trainable().items():
        torch.testing.assert_close(value.grad, found[name])
    engine.clear()
    model, plan = model_of(engine, Stage("s", {"pseudo": TaskLoss(unknown)}, train={"task": None}))
    out = model(plan.batch(0))
    out["loss"].backward()
    assert not any(value.grad.any() for value in model.trainable().values())


def test_a_part_without_rows_of_one_loss_is_no_error(parts) -> None:
    """A mean over no rows is not a number: a step of fewer rows than parts must not take one."""
    engine, run = parts
    engine.train = replace(TRAIN, micro_batches=9)
    stage = Stage("s", {"lm": LanguageModelling(run.text()), "alike": Contrastive(run.pool("target"))}, {"task": None})
    model, plan = model_of(engine, stage)
    for part in range(9):
        out = model(plan.batch(0, part))
        assert all(torch.isfinite(value) for value in out["parts"].values())
        assert torch.isfinite(out["loss"])
