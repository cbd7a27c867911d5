"""Training stops and goes on: bit-equal resume, equal gradients in parts, and failures that lose nothing."""

from __future__ import annotations

import errno
import gc
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import guidebook.training.engine as engine_module
import guidebook.training.trainer as trainer_module
import guidebook.writing as writing_module
from guidebook.adaptation import adapt, prepare
from guidebook.errors import InputError, MachineError, RunError
from guidebook.methods.stage import Stage
from guidebook.training import processes
from guidebook.training.disk import disk_explained
from guidebook.training.engine import HEADS, Engine, Trained
from guidebook.training.listener import Listener
from guidebook.training.run import Run
from guidebook.training.store import COMPLETE, Store
from guidebook.training.trainer import WEIGHTS, StageTrainer, _only, _Progress
from tiny import tiny_recipe


class Stop(Exception):
    """A run that ends at a step, as a kill would end it."""


class Stopper(Listener):
    def __init__(self, stage: str, step: int) -> None:
        self.stage, self.step = stage, step

    def advance(self, name: str, done: float, **figures: float) -> None:
        if (name, done) == (self.stage, self.step):
            raise Stop


@pytest.fixture(scope="module", autouse=True)
def quick_garbage() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def train(tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Train both stages of domain fusion in a cache of its own; return (weights, figures) of the task stage."""

    def get(cache: str, listener: Listener | None = None, family: str = "bert", **changes: Any) -> dict[str, Tensor]:
        monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / cache))
        material, engine = prepare(tiny_recipe(tiny_base(family), **changes), listener or Listener())
        run = Run(material, material.corpus.targets[0], engine.seed, None)
        made: dict[str, Trained] = {}
        for stage in tiny_recipe("x", **changes).method.plan(run):
            trained = engine.train_or_reuse(stage, made)
            made |= dict.fromkeys(stage.train, trained)
        engine.host.check_base()
        return weights(trained)

    return get


def weights(trained: Trained) -> dict[str, Tensor]:
    found = {f"head {name}": value for name, value in load_file(trained.folder / HEADS).items()}
    for name, place in trained.places.items():
        for file in place.glob("*.safetensors"):
            found |= {f"{name} {key}": value for key, value in load_file(file).items()}
    return found


def equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    assert one.keys() == two.keys()
    return all(torch.equal(one[name], two[name]) for name in one)


SLOW_RESUMES = [("full", "bert"), ("lora", "bert"), ("houlsby", "gpt2")]


@pytest.mark.parametrize(
    ("kind", "family"),
    [("houlsby", "bert"), *(pytest.param(*item, marks=pytest.mark.slow) for item in SLOW_RESUMES)],
)
def test_a_stopped_run_goes_on_bit_for_bit(kind: str, family: str, train: Any, tmp_path: Path) -> None:
    """Two stops, accumulation, dropout in head (and base, for full), batches of varying shape."""
    settings = {"adapter": {"kind": kind}, "task": {"dropout": 0.2}}
    shared = {"micro_batches": 2, "task": {"epochs": 2, "rows_per_batch": 5, "learning_rate": 1e-2}}
    undisturbed = train("undisturbed", family=family, train=shared, **settings)
    often = {**shared, "checkpoint_seconds": 0}
    for stage, step in (("fuse", 2), ("task", 3), ("task", 6)):
        with pytest.raises(Stop):
            train("stopped", Stopper(stage, step), family, train=often, **settings)
    checkpoints = list((tmp_path / "stopped").glob("*.work/checkpoint-*"))
    assert [path.name for path in checkpoints] == ["checkpoint-5"]
    assert (checkpoints[0] / COMPLETE).exists()
    seen: list[int] = []
    listener = Listener()
    listener.advance = lambda name, done, **figures: seen.append(int(done))  # type: ignore[method-assign,assignment]
    assert equal(undisturbed, train("stopped", listener, family, train=often, **settings))
    assert seen[0] == 6, "the run began again instead of going on"


def test_a_checkpoint_without_its_marker_is_ignored_and_deleted(train: Any, tmp_path: Path) -> None:
    often = {"checkpoint_seconds": 0, "task": {"epochs": 2, "rows_per_batch": 5, "learning_rate": 1e-2}}
    undisturbed = train("undisturbed", train=often)
    with pytest.raises(Stop):
        train("stopped", Stopper("task", 4), train=often)
    newest = next((tmp_path / "stopped").glob("*.work/checkpoint-3"))
    files = {path.name for path in newest.iterdir()}
    assert files >= {COMPLETE, WEIGHTS, "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"}
    assert "training_args.bin" not in files
    torn = newest.with_name("checkpoint-9")
    newest.rename(torn)
    (torn / COMPLETE).unlink()
    (torn / "optimizer.pt").unlink()
    seen: list[str] = []

    class Looks(Listener):
        def advance(self, name: str, done: float, **figures: float) -> None:
            seen.append(f"{done:.0f} {torn.exists()}")

    assert equal(undisturbed, train("stopped", Looks(), train=often))
    assert seen[0] == "1 False"


def test_a_checkpoint_holds_only_what_moves(train: Any, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train("stopped", Stopper("task", 3), train={"checkpoint_seconds": 0, "task": {"rows_per_batch": 5}})
    saved = load_file(next((tmp_path / "stopped").glob("*.work/checkpoint-2")) / WEIGHTS)
    assert saved
    assert all(".task." in name or name.startswith("heads.") for name in saved)


@pytest.mark.parametrize("family", ["bert", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_accumulation_changes_no_weight(family: str, train: Any) -> None:
    """One, two and three parts a step, through the real Trainer, in both stages, with plain SGD.

    Adam would hide a gradient that is too large by a constant factor; SGD without clipping does not.
    """
    settings: dict[str, Any] = {"trainer": {"optim": "sgd"}, "task": {"dropout": 0.0}, "family": family}
    shared = {"max_grad_norm": 0.0, "task": {"epochs": 1, "rows_per_batch": 5, "learning_rate": 0.5}}
    one, two, three = (train(f"{n}", train={**shared, "micro_batches": n}, **settings) for n in (1, 2, 3))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(three[name], value, rtol=1e-4, atol=1e-6)


def test_more_parts_than_rows_is_no_error(train: Any) -> None:
    shared = {"task": {"epochs": 1, "rows_per_batch": 2, "learning_rate": 1e-2}, "max_grad_norm": 0.0}
    settings: dict[str, Any] = {"trainer": {"optim": "sgd"}, "task": {"dropout": 0.0}}
    one = train("1", train={**shared, "micro_batches": 1}, **settings)
    many = train("3", train={**shared, "micro_batches": 3}, **settings)
    for name, value in one.items():
        torch.testing.assert_close(many[name], value, rtol=1e-4, atol=1e-6)


def test_a_stage_of_one_step_is_trained(train: Any) -> None:
    """A warm-up that takes the only step would leave everything as it was."""
    trained = train("once", train={"task": {"epochs": 1, "rows_per_batch": 64}, "fuse": {"tokens": 250}})
    assert any(value.any() for name, value in trained.items() if "bottleneck_up" in name)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    often = {"checkpoint_seconds": 0, "task": {"epochs": 2, "rows_per_batch": 5, "learning_rate": 1e-2}}
    undisturbed = train("undisturbed", train=often)
    steps: list[int] = []
    loss = engine_module.StageModel.forward

    def broken(self: Any, batch: dict[str, Any]) -> dict[str, Any]:
        out = loss(self, batch)
        steps.append(1)
        return {**out, "loss": out["loss"] * float("nan")} if "task" in out["parts"] and len(steps) > 6 else out

    with monkeypatch.context() as patch:
        patch.setattr(engine_module.StageModel, "forward", broken)
        with pytest.raises(RunError, match=r"not finite at step \d+ .*[Ll]ower"):
            train("broken", train=often)
    kept = list((tmp_path / "broken").glob("*.work/checkpoint-*"))
    assert len(kept) == 1
    assert (kept[0] / COMPLETE).exists()
    assert all(torch.isfinite(value).all() for value in load_file(kept[0] / WEIGHTS).values())
    assert equal(undisturbed, train("broken", train=often))


FULL = {
    "system": OSError(errno.ENOSPC, "No space left on device"),
    "torch": RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
    "safetensors": Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
}
"""What a full disk makes them say."""


@pytest.mark.parametrize(
    ("who", "where"),
    [("torch", "checkpoint"), ("safetensors", "stage"), pytest.param("system", "artifact", marks=pytest.mark.slow)],
)
def test_a_full_disk_says_what_to_do_and_loses_nothing(
    who: str,
    where: str,
    tiny_base: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    recipe = tiny_recipe(tiny_base("bert"), method="source_only", train={"checkpoint_seconds": 0})
    out = tmp_path / "book"

    def full(*arguments: Any, **settings: Any) -> None:
        raise FULL[who]

    target = {
        "checkpoint": (StageTrainer, "_save_optimizer_and_scheduler"),
        "stage": (engine_module, "save_file"),
        "artifact": (writing_module, "_write_variants"),
    }[where]
    with monkeypatch.context() as patch:
        patch.setattr(*target, full)
        with pytest.raises(RunError, match=r"disk is full.*free some space"):
            adapt(recipe, out=out)
    assert not out.exists()
    assert not list(tmp_path.glob(".book*"))
    assert not list((tmp_path / "cache").glob("*.new"))
    book = adapt(recipe, out=out)
    assert [stage["cached"] for stage in book.meta["stages"]] == [where == "artifact"]


def torch_refused(place: Path) -> Exception:
    try:
        torch.save({"a": torch.zeros(9)}, place)
    except RuntimeError as error:
        return error
    raise AssertionError(f"{place} was written")


def test_another_error_of_the_disk_is_not_called_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path))
    place = str(tmp_path / "k")
    refused = [torch_refused(tmp_path), torch_refused(tmp_path / "no" / "folder")]
    refused += [
        PermissionError(errno.EACCES, "Permission denied", place),
        IsADirectoryError(21, "Is a directory", place),
    ]
    refused += [OSError(errno.EROFS, "Read-only file system", place)]
    for error in refused:
        with (
            pytest.raises(MachineError, match=r"could not be read or written.*GUIDEBOOK_CACHE") as found,
            disk_explained(),
        ):
            raise error
        assert "full" not in str(found.value)
    for elsewhere in (PermissionError(errno.EACCES, "Permission denied"), FileNotFoundError(2, "No", "/elsewhere.csv")):
        with pytest.raises(type(elsewhere)), disk_explained():  # no file of the cache: whoever opened it knows more
            raise elsewhere


def test_trainer_arguments_reach_the_trainer_and_unknown_ones_are_refused_first(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    original = trainer_module.StageTrainer.__init__

    def look(self: Any, model: Any, arguments: Any, *rest: Any) -> None:
        seen.append(arguments)
        original(self, model, arguments, *rest)

    monkeypatch.setattr(trainer_module.StageTrainer, "__init__", look)
    train("passed", trainer={"adam_beta2": 0.9, "lr_scheduler_type": "cosine"})
    assert {arguments.adam_beta2 for arguments in seen} == {0.9}
    for wrong, message in (
        ({"adam_beta3": 0.9}, "Did you mean 'adam_beta"),
        ({"optim": "adamm"}, "adamm"),
    ):
        with pytest.raises(InputError, match=message):
            train("refused", trainer=wrong)
    assert not list((tmp_path / "refused").glob("*.work"))


def test_what_does_not_decide_the_result_is_not_in_the_key(train: Any, tmp_path: Path) -> None:
    train("shared")
    count = len(list((tmp_path / "shared").iterdir()))
    train("shared", train={"checkpoint_seconds": 1})
    assert len(list((tmp_path / "shared").iterdir())) == count
    train("shared", train={"micro_batches": 2})
    assert len(list((tmp_path / "shared").iterdir())) == count + 2


def test_a_weight_over_time_is_in_the_key_by_its_values(
    tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path))
    material, engine = prepare(tiny_recipe(tiny_base("bert")), Listener())
    run = Run(material, material.corpus.targets[0], 0, None)
    stage: Stage = next(iter(tiny_recipe("x", method="source_only").method.plan(run)))

    def key(weight: Callable[[float], float]) -> str:
        return Engine.key(engine, replace(stage, weights={"task": weight}), {})

    assert key(lambda done: done) == key(lambda share: share)
    assert key(lambda done: done) != key(lambda done: 1 - done)


def test_no_part_of_a_step_waits_for_the_device(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a number from a tensor makes a GPU be waited for: a step's loss is read once, that of a part never."""
    asked: list[str] = []
    inside: list[str] = []  # a base's own forward may look at its masks on a processor
    loss, check = StageTrainer.compute_loss, StageTrainer._check_finite
    forward = engine_module.StageModel.forward

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten._local_scalar_dense.default and not inside:
                asked.append("read")
            return func(*args, **(kwargs or {}))

    def model(self: Any, batch: Any) -> Any:
        inside.append("model")
        found = forward(self, batch)
        inside.clear()
        return found

    def computed(self: StageTrainer, *args: Any, **kwargs: Any) -> Any:
        asked.append("part")
        with Watch():
            return loss(self, *args, **kwargs)

    def checked(self: StageTrainer) -> None:
        asked.append("check")
        with Watch():
            check(self)

    monkeypatch.setattr(engine_module.StageModel, "forward", model)
    monkeypatch.setattr(StageTrainer, "compute_loss", computed)
    monkeypatch.setattr(StageTrainer, "_check_finite", checked)
    train("watched", train={"micro_batches": 3, "task": {"epochs": 1, "rows_per_batch": 6}, "fuse": {"tokens": 250}})
    assert asked.count("part") > 6
    assert asked == ["part", "part", "part", "check", "read"] * (len(asked) // 5)


def test_batches_go_to_workers() -> None:
    assert pickle.loads(pickle.dumps(_only))([{"a": 1}]) == {"a": 1}


class Whole(Listener):
    """Keeps how many tokens a second were told, and of how many in all."""

    def __init__(self) -> None:
        self.told: list[float] = []

    def advance(self, name: str, done: float, **figures: float) -> None:
        self.told.append(figures["tokens_per_second"])


def test_the_tokens_of_a_stage_are_counted_step_by_step() -> None:
    """What is told is what a sum over all steps so far would give, also after a resume; a step reads one number."""
    reads: list[int] = []

    class Tokens(list[int]):
        def __getitem__(self, item: Any) -> Any:
            reads.append(1 if isinstance(item, int) else len(range(*item.indices(len(self)))))
            return super().__getitem__(item)

    tokens, listener = Tokens(range(10, 60)), Whole()
    plan = SimpleNamespace(step_tokens=tokens, stage=SimpleNamespace(name="s"))
    progress = _Progress(SimpleNamespace(average=None), plan, listener)
    state, control = SimpleNamespace(global_step=20, max_steps=50), SimpleNamespace()
    progress.on_train_begin(None, state, control)
    for state.global_step in range(21, 51):
        progress._began = time.monotonic() - 1e6  # so long ago that a moment more does not show
        progress.on_step_end(None, state, control)
    assert listener.told == pytest.approx([sum(range(30, 30 + done)) / 1e6 for done in range(1, 31)], rel=1e-4)
    assert sum(reads) == 30


class Heard(Listener):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def test_a_damaged_stage_is_made_again_bit_for_bit_and_it_is_said(train: Any, tmp_path: Path) -> None:
    first = {name: value.clone() for name, value in train("damaged", method="source_only").items()}  # not the file's
    (stage,) = [place for place in (tmp_path / "damaged").iterdir() if (place / "stage.json").exists()]
    weights_file = next((stage / "adapters").rglob("*.safetensors"))
    for damaged, left in ((weights_file, 40), (stage / "stage.json", 0), (stage / HEADS, None)):
        whole = damaged.read_bytes()
        if left is None:
            damaged.unlink()
        else:
            damaged.write_bytes(whole[:left])
        listener = Heard()
        assert equal(train("damaged", listener, method="source_only"), first)
        assert [line for line in listener.said if "damaged, so it is made again" in line and damaged.name in line]
    listener = Heard()
    train("damaged", listener, method="source_only")
    assert not [line for line in listener.said if "damaged" in line]


def test_of_several_processes_the_first_one_alone_writes_a_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained or combined: the others wait until it is there."""
    store, wrote = Store(tmp_path), []
    engine = cast(Any, SimpleNamespace(store=store))
    monkeypatch.setattr(processes, "is_first", lambda: False)
    monkeypatch.setattr(processes, "wait", lambda: store.put("k", lambda folder: wrote.append("first")))
    assert Engine._written(engine, "k", lambda folder: wrote.append("second")) == store.find("k")
    assert wrote == ["first"]
    stage = Stage("soup", {}, {}, combine={"adapted": {"one": 1.0}})
    engine = cast(Any, SimpleNamespace(store=store, host=None, _written=lambda key, write: f"written {key}"))
    assert Engine._train(engine, stage, {}, "k") == "written k"
