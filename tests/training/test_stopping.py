"""A stage that stops early stops where the loss says, keeps its best weights, and resumes to the same ones."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from guidebook import Domain
from guidebook.adaptation import prepare
from guidebook.data.streams import Stream
from guidebook.data.tokens import Tokens
from guidebook.errors import InputError
from guidebook.losses.language_modelling import LanguageModelling
from guidebook.losses.task import TaskLoss
from guidebook.methods.stage import Stage, Teacher
from guidebook.training import stopping
from guidebook.training.engine import Trained
from guidebook.training.listener import Listener
from guidebook.training.run import Run
from guidebook.training.settings import FuseTraining
from guidebook.training.stopping import hold_out, is_best, waited
from tiny import TEXTS, tiny_recipe


def stream(rows: int = 100, domains: int = 2, name: str = "text") -> Stream:
    lengths = np.arange(rows) % 7 + 1
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = Tokens(np.repeat(np.arange(rows), lengths).astype(np.int32), offsets, f"{name} {rows}")
    names = tuple("abc"[:domains])
    return Stream(name, tokens, np.arange(rows) * domains // rows, names, np.full(domains, 1 / domains))


def rows_of(stage: Stage) -> list[int]:
    tokens = stage.losses["lm"].reads[0].stream.tokens
    return [int(tokens[row][0]) for row in range(len(tokens))]


def test_rows_are_trained_on_or_held_out_and_every_domain_gives_its_share():
    stage = Stage("fuse", {"lm": LanguageModelling(stream())}, train={"domain": None})
    rest, out = hold_out(stage, 0.1, seed=0)
    assert sorted(rows_of(rest) + rows_of(out)) == list(range(100))
    assert np.bincount(out.losses["lm"].reads[0].stream.owner).tolist() == [5, 5]
    assert rows_of(hold_out(stage, 0.1, seed=0)[1]) == rows_of(out)
    assert rows_of(hold_out(stage, 0.1, seed=1)[1]) != rows_of(out)


def test_no_more_rows_are_held_out_than_are_read_often():
    stage = Stage("fuse", {"lm": LanguageModelling(stream(20_000))}, train={})
    assert len(rows_of(hold_out(stage, 0.5, seed=0)[1])) == stopping.MOST_ROWS
    with pytest.raises(InputError, match="too few to hold out"):
        hold_out(Stage("fuse", {"lm": LanguageModelling(stream(9))}, train={}), 0.1, seed=0)


def test_losses_that_share_a_stream_share_what_is_left_of_it():
    shared = stream()
    stage = Stage("s", {"one": LanguageModelling(shared), "two": LanguageModelling(shared)}, train={})
    rest, _ = hold_out(stage, 0.1, seed=0)
    assert rest.losses["one"].reads[0].stream is rest.losses["two"].reads[0].stream


def in_documents(sizes: list[int], domains: int = 1, name: str = "text", first: int = 0) -> Stream:
    """A stream of documents of so many pieces each, that stand in no order."""
    ids = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes) + first).astype(np.uint64)
    owner = ((ids.astype(np.int64) - first) * domains) // len(sizes)
    return dataclasses.replace(stream(len(ids), domains, name), documents=ids, owner=owner)


@pytest.mark.parametrize(
    ("sizes", "domains"),
    [([1] * 60, 1), ([3] * 40, 2), ([1, 2, 40, 3] * 6, 3), (list(range(1, 21)), 2), ([500] * 20, 1)],
)
def test_pieces_of_one_document_stand_on_one_side(sizes, domains):
    whole = in_documents(sizes, domains)
    rest, out = hold_out(Stage("fuse", {"lm": LanguageModelling(whole)}, train={}), 0.2, seed=0)
    trained, held = (part.losses["lm"].reads[0].stream.documents for part in (rest, out))
    assert not set(trained.tolist()) & set(held.tolist())
    assert 0 < len(held) <= 0.2 * len(whole.tokens)
    if max(sizes) < 10:
        assert len(held) >= 0.1 * len(whole.tokens)
        assert len(trained) + len(held) == len(whole.tokens)


def test_where_every_document_is_long_one_is_held_out_and_read_in_part():
    rest, out = hold_out(Stage("fuse", {"lm": LanguageModelling(in_documents([900, 700, 1200]))}, train={}), 0.3, 0)
    trained, held = (part.losses["lm"].reads[0].stream for part in (rest, out))
    assert set(trained.documents.tolist()) == {0, 2}
    assert set(held.documents.tolist()) == {1}
    assert len(trained.tokens) == 2100
    assert 300 < len(held.tokens) <= stopping.MOST_ROWS
    for sizes, share in (([900, 700, 1200], 0.2), ([800], 0.5)):  # less than a document; only one
        with pytest.raises(InputError, match=r"whole documents are held out, and the shortest has [78]00 rows"):
            hold_out(Stage("fuse", {"lm": LanguageModelling(in_documents(sizes))}, train={}), share, 0)


def test_what_is_held_out_of_the_measured_loss_is_in_no_other_stream():
    measured, beside = in_documents([2] * 30), in_documents([3] * 30, name="pool", first=20)
    stage = Stage("s", {"one": LanguageModelling(measured), "two": LanguageModelling(beside)}, train={})
    rest, out = hold_out(stage, 0.5, seed=0)
    assert list(out.losses) == ["one"]  # nothing else is measured
    held = set(out.losses["one"].reads[0].stream.documents.tolist())
    trained = set(rest.losses["two"].reads[0].stream.documents.tolist())
    assert held & set(range(20, 30))
    assert not held & trained
    assert trained == set(range(20, 50)) - held


def test_streams_know_their_documents(tiny_base):
    texts = [" ".join(TEXTS[row:] + TEXTS[:row]) for row in range(8)]  # six pieces or so each
    recipe = tiny_recipe(tiny_base("bert"), targets=[Domain("long", texts)], unlabelled=Domain("more", TEXTS[:3]))
    material, _ = prepare(recipe, Listener())
    run = Run(material, material.corpus.targets[0], 0, None)
    text = run.text(("target",))
    assert len(text.tokens) > 24
    assert len(np.unique(text.documents)) == 8
    plain = material.plain_tokens(material.corpus.targets[0])
    for document, number in zip(dict.fromkeys(text.documents.tolist()), range(8), strict=True):
        inside = [text.tokens[row][1:-1] for row in np.flatnonzero(text.documents == document)]
        assert np.array_equal(np.concatenate(inside), plain[number])
    pool, chosen = run.pool("target"), run.pseudo_labelled("some", np.array([5, 2]), np.array([1, 0]))
    assert set(pool.documents.tolist()) == set(text.documents.tolist())
    assert chosen.documents.tolist() == pool.documents[[5, 2]].tolist()
    mixed = run.text(("source", "target"))
    assert len(np.unique(mixed.documents)) == 8 + len(run.source.tokens) + 3
    assert set(run.source.documents.tolist()) < set(mixed.documents.tolist())


def test_held_out_rows_without_a_label_are_refused():
    labels = np.full(40, -1)
    labels[:2] = 1
    stage = Stage("task", {"task": TaskLoss(dataclasses.replace(stream(40), labels=labels))}, train={})
    refused = 0
    for seed in range(9):
        out = None
        with contextlib.suppress(InputError):
            out = hold_out(stage, 0.1, seed)[1]
        if out is None:
            refused += 1
            with pytest.raises(InputError, match=r"'text' that early stopping holds out has a label"):
                hold_out(stage, 0.1, seed)
        else:
            assert (out.losses["task"].stream.labels >= 0).any()
    assert 0 < refused < 9


@pytest.mark.parametrize("per_token", [False, True])
def test_rows_of_a_stream_keep_their_labels(per_token):
    whole = stream(20)
    labels = np.arange(len(whole.tokens.ids)) if per_token else np.arange(20)
    whole = Stream(whole.name, whole.tokens, whole.owner, whole.domains, whole.ratios, labels, per_token)
    rows = np.array([7, 3, 12])
    taken = whole.take(rows)
    assert np.array_equal(taken.labels_of(np.arange(3), 9), whole.labels_of(rows, 9))
    assert taken.owner.tolist() == whole.owner[rows].tolist()


def test_when_to_stop_equals_a_loop():
    rng = np.random.default_rng(0)
    for _ in range(50):
        losses = rng.integers(0, 6, rng.integers(1, 12)).astype(float).tolist()
        best, behind = float("inf"), 0
        for loss in losses:
            behind = 0 if loss < best else behind + 1
            best = min(best, loss)
        assert waited(losses) == behind
        assert is_best(losses) == (behind == 0)
    assert waited([float("nan"), float("nan")]) == 2
    assert not is_best([float("nan")])
    assert is_best([float("nan"), 1.0])


@pytest.mark.parametrize("wrong", [{"patience": 0}, {"held_out": 0.0}, {"held_out": 1.0}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        FuseTraining(**wrong)


class Kill(Listener):
    """Ends a run at a step, as a kill would end it."""

    def __init__(self, step: int | None = None) -> None:
        self.step = step

    def advance(self, name: str, done: float, **figures: float) -> None:
        if done == self.step:
            raise KeyboardInterrupt


@pytest.fixture
def fuse(tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Train the fusion stage in a cache of its own; return it and its weights."""

    def get(cache: str, listener: Listener | None = None, **changes: Any) -> tuple[Trained, dict[str, torch.Tensor]]:
        monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / cache))
        fused = {"tokens": 1500, "learning_rate": 0.3, "patience": 2, "held_out": 0.3, **changes}
        recipe = tiny_recipe(tiny_base("bert"), train={"fuse": fused, "checkpoint_seconds": 0}, task={"dropout": 0.3})
        material, engine = prepare(recipe, listener or Listener())
        stage = next(iter(recipe.method.plan(Run(material, material.corpus.targets[0], engine.seed, None))))
        trained = engine.train_or_reuse(stage, {})
        (file,) = trained.places["domain"].glob("*.safetensors")
        return trained, load_file(file)

    return get


@pytest.mark.slow
def test_a_stage_stops_keeps_its_best_weights_and_resumes_bit_for_bit(fuse):
    trained, weights = fuse("undisturbed")
    losses = trained.figures["held_out_losses"]
    assert trained.figures["stopped_early"]
    assert waited(losses) == 2  # a learning rate this high makes the loss rise again
    best = len(losses) - 2
    for step in (2, trained.figures["steps"] - 1):
        with pytest.raises(KeyboardInterrupt):
            fuse("killed", Kill(step))
    again, same = fuse("killed")
    assert again.figures["held_out_losses"] == losses
    assert again.figures["steps"] == trained.figures["steps"]
    assert weights.keys() == same.keys()
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    every = max(1, again.figures["steps"] // len(losses))
    assert best * every < trained.figures["steps"]
    assert trained.figures["tokens"] < 1500


def test_the_best_weights_are_those_of_the_best_measurement(fuse, monkeypatch):
    seen: list[dict[str, torch.Tensor]] = []
    measure = stopping.held_out_loss

    def recorded(model, plan, *, bf16):
        seen.append({name: value.detach().clone() for name, value in model.trainable().items()})
        first, second = measure(model, plan, bf16=bf16), measure(model, plan, bf16=bf16)
        assert first == second
        assert model.training
        return first

    monkeypatch.setattr(stopping, "held_out_loss", recorded)
    trained, weights = fuse("recorded")
    best = int(np.argmin(trained.figures["held_out_losses"]))
    assert best < len(seen) - 1
    kept = sorted(value.sum().item() for value in weights.values())
    assert kept == pytest.approx(sorted(value.sum().item() for value in seen[best].values()))
    assert kept != pytest.approx(sorted(value.sum().item() for value in seen[-1].values()))


@pytest.mark.parametrize("keep", [False, True])
def test_what_is_kept_is_what_was_measured(keep, tiny_base, tmp_path, monkeypatch):
    """With `teacher.keep` the averages are measured and kept, else the trained weights; resumed or not."""
    seen: list[dict[str, torch.Tensor]] = []
    averages: list[bool] = []  # whether the averages were what was measured
    measure = stopping.held_out_loss

    def recorded(model, plan, *, bf16):
        seen.append({name: value.detach().clone() for name, value in model.trainable().items()})
        assert model.average is not None
        averages.append(all(torch.equal(value, seen[-1][name]) for name, value in model.average.values().items()))
        return measure(model, plan, bf16=bf16)

    monkeypatch.setattr(stopping, "held_out_loss", recorded)

    def train(cache: str, listener: Listener) -> tuple[Trained, dict[str, torch.Tensor]]:
        seen.clear()
        monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / cache))
        fused = {"tokens": 1500, "learning_rate": 0.3, "patience": 2, "held_out": 0.3}
        recipe = tiny_recipe(tiny_base("bert"), train={"fuse": fused, "checkpoint_seconds": 0})
        material, engine = prepare(recipe, listener)
        stage = next(iter(recipe.method.plan(Run(material, material.corpus.targets[0], engine.seed, None))))
        stage = dataclasses.replace(stage, teacher=Teacher(half_life=0.05, keep=keep))
        trained = engine.train_or_reuse(stage, {})
        (file,) = trained.places["domain"].glob("*.safetensors")
        return trained, load_file(file)

    trained, weights = train("whole", Listener())
    losses = trained.figures["held_out_losses"]
    assert trained.figures["stopped_early"]
    best = int(np.argmin(losses))
    assert best < len(seen) - 1
    assert all(averages) == keep  # after the first step, whose rate is zero, there is no difference

    def sums(values: dict[str, torch.Tensor]) -> list[float]:
        return sorted(value.double().sum().item() for value in values.values())

    assert sums(weights) == sums(seen[best])
    assert sums(weights) != sums(seen[-1])
    with pytest.raises(KeyboardInterrupt):
        train("killed", Kill(trained.figures["steps"] - 1))
    again, same = train("killed", Listener())
    assert again.figures["held_out_losses"] == losses
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_every_process_decides_by_the_first_one_s_loss(fuse, monkeypatch):
    """This process's own loss falls for ever; the first one's rises, and that is what stops the stage."""
    monkeypatch.setattr(stopping, "held_out_loss", lambda model, plan, bf16: 0.0)
    rising = iter(range(100))
    monkeypatch.setattr(stopping, "processes", SimpleNamespace(of_first=lambda value: float(next(rising))))
    trained, _ = fuse("second", patience=3)
    assert trained.figures["held_out_losses"] == [0, 1, 2, 3]
    assert len(trained.figures["curves"]["lm"]) == 4  # measuring takes no training loss out of the curve
    assert trained.figures["stopped_early"]


def test_without_patience_nothing_is_held_out(fuse):
    trained, _ = fuse("whole", patience=None, tokens=300)
    assert trained.figures["held_out_losses"] == []
    assert not trained.figures["stopped_early"]
    assert trained.figures["tokens"] >= 300
