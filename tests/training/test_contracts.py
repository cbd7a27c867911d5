"""What every method keeps with every kind of adapter: one training per entry, its before and after shared by all."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import guidebook.training.engine as engine_module
from guidebook import adaptation
from guidebook.adapters.host import Host
from guidebook.adapters.presets import KINDS
from guidebook.artifact import Guidebook, load
from guidebook.errors import InputError
from guidebook.methods import METHODS, WITHOUT_A_MODEL
from guidebook.training.engine import Engine
from guidebook.training.listener import Listener
from guidebook.training.run import Run
from tiny import domains, given, tiny_recipe

IDS = torch.randint(5, 150, (3, 9), generator=torch.Generator().manual_seed(0))


@dataclass
class Moved:
    """What one stage did to the module that was trained."""

    adapters: tuple[str, ...]
    kind: str
    moved: set[str]
    still: set[str]
    base_is_same: bool
    logits_off: Tensor


@dataclass
class Entry:
    """One training of one method with one kind."""

    base: Path
    book: Any = None
    recipe: Any = None
    stages: list[Moved] = field(default_factory=list)
    predictions: dict[tuple[str, str], Any] = field(default_factory=dict)


def recipe_of(base: Path, method: str, kind: str) -> Any:
    """The tiny recipe; what has few rows or large batches needs more passes to move everything."""
    adapter = {"kind": kind, **({"reduction": 4} if kind in ("houlsby", "pfeiffer") else {})}
    epochs = 4 if method == "target_oracle" else 1
    train: dict[str, Any] = {"task": {"epochs": epochs, "rows_per_batch": 6, "learning_rate": 1e-2}}
    if method == "udapter_two_step":
        train["fuse"] = {"tokens": 2500, "learning_rate": 1e-2}
    return tiny_recipe(base, method=given(method, base), adapter=adapter, train=train)


def logits_of(host: Host) -> Tensor:
    host.model.eval()
    with torch.no_grad():
        return host.model(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits


def watch(patch: pytest.MonkeyPatch, entry: Entry) -> None:
    """Note what every stage moves, and what the arms predicted."""
    now: dict[str, Engine] = {}
    train, train_plan, account = Engine._train, engine_module.train_plan, adaptation.account

    def watched_train(self: Engine, *arguments: Any) -> Path:
        now["engine"] = self
        return train(self, *arguments)

    def watched_plan(model: torch.nn.Module, plan: Any, *arguments: Any, **options: Any) -> Any:
        host = now["engine"].host
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        figures = train_plan(model, plan, *arguments, **options)
        moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
        with host.disabled():
            off = logits_of(host)
        entry.stages.append(
            Moved(
                tuple(plan.stage.train),
                now["engine"].adapter.kind,
                moved,
                set(before) - moved,
                host.measure_base() == host.fingerprint,
                off,
            )
        )
        return figures

    def watched_account(recipe: Any, material: Any, engine: Any, outcomes: Any) -> Any:
        entry.predictions = {(item.arm, item.target): item.predictions for item in outcomes}
        return account(recipe, material, engine, outcomes)

    patch.setattr(Engine, "_train", watched_train)
    patch.setattr(engine_module, "train_plan", watched_plan)
    patch.setattr(adaptation, "account", watched_account)


@pytest.fixture(scope="session")
def entry(tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """(method, kind, family) -> what its training did; trained once, with a cache that only this kind shares."""
    made: dict[tuple[str, str, str], Entry] = {}
    roots: dict[tuple[str, str], Path] = {}
    gc.collect()
    gc.freeze()  # Trainer collects garbage after every stage; what was there before the tests is not searched again

    def get(method: str, kind: str, family: str = "bert") -> Entry:
        key = (method, kind, family)
        if key not in made:
            root = roots.setdefault((kind, family), tmp_path_factory.mktemp(f"cache-{kind}-{family}"))
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("GUIDEBOOK_CACHE", str(root))
                found = Entry(tiny_base(family))
                watch(patch, found)
                found.recipe = recipe_of(tiny_base(family), method, kind)
                found.book = adaptation.adapt(found.recipe, out=root / f"book-{method}")
            made[key] = found
        return made[key]

    yield get
    gc.unfreeze()


REFUSED = {
    **{(method, kind): "have no sum" for method in ("soup", "task_arithmetic") for kind in ("dora", "compacter")},
    **{(method, "full"): "stacks adapters" for method in ("madx", "udapter_two_step")},
}
"""Methods and kinds that do not go together -> what the error says, before anything is trained."""


QUICK = ("tfidf", "zero_shot", "linear_probe", "source_only", "domain_fusion", "mixed", "dann", "mean_teacher", "soup")
"""Methods that `make check` runs: one of every form that a stage can have."""


def entries() -> Iterator[Any]:
    """Every method with one kind, every kind with one method, and the methods that treat kinds in their own way."""
    for method in METHODS:
        marks = () if method in QUICK else (pytest.mark.slow,)
        family = "llama" if method == "zero_shot" else "bert"
        yield pytest.param(method, "houlsby", family, marks=marks, id=f"{method}-houlsby")
    for kind in KINDS:
        if kind != "houlsby":
            marks = () if kind in ("lora", "full") else (pytest.mark.slow,)
            yield pytest.param("domain_fusion", kind, "bert", marks=marks, id=f"domain_fusion-{kind}")
    for method, kind in [
        ("soup", "lora"),
        ("soup", "full"),
        ("madx", "lora"),
        ("dann", "lora"),
    ]:
        yield pytest.param(method, kind, "bert", marks=pytest.mark.slow, id=f"{method}-{kind}")
    for family in ("roberta", "gpt2", "llama"):
        marks = (pytest.mark.slow,) if family == "roberta" else ()  # as bert, but for its positions
        yield pytest.param("domain_fusion", "houlsby", family, marks=marks, id=f"domain_fusion-houlsby-{family}")
        yield pytest.param("domain_fusion", "lora", family, marks=pytest.mark.slow, id=f"domain_fusion-lora-{family}")


every_entry = pytest.mark.parametrize(("method", "kind", "family"), list(entries()))


@every_entry
def test_the_base_is_bitwise_unchanged_and_adapters_off_is_the_base(
    method: str, kind: str, family: str, entry: Any
) -> None:
    found = entry(method, kind, family)
    untouched = Host.load(str(found.base))
    assert found.book.meta["base"]["fingerprint"] == untouched.fingerprint
    for stage in found.stages:
        assert stage.base_is_same
        assert torch.equal(stage.logits_off, logits_of(untouched))


@every_entry
def test_only_declared_adapters_and_heads_moved(method: str, kind: str, family: str, entry: Any) -> None:
    found = entry(method, kind, family)
    stages = found.stages
    told = [stage for stage in found.book.meta["stages"] if stage["arm"] == method and "combines" not in stage]
    assert stages or all(stage["cached"] for stage in told)  # other methods have trained the very same
    for stage in stages:
        heads = {name for name in stage.moved if name.startswith("heads.")}
        own = {name for name in stage.moved if any(f".{adapter}." in f"{name}." for adapter in stage.adapters)}
        if stage.kind == "full":
            assert stage.moved - heads  # the whole model is the adapter; the base's own tensors are parked meanwhile
            continue
        assert stage.moved == heads | own
        assert own
        assert not {name for name in stage.still if any(f".{adapter}." in f"{name}." for adapter in stage.adapters)}
        assert not {name for name in stage.still if name.startswith("heads.")}


@every_entry
def test_a_loaded_guidebook_predicts_bit_for_bit_what_the_run_predicted(
    method: str, kind: str, family: str, entry: Any
) -> None:
    found = entry(method, kind, family)
    loaded = load(found.book.path)
    for target in domains(method)["targets"]:
        arms = {"source_only": "source_only", "linear_probe": None}
        if method not in (*WITHOUT_A_MODEL, "linear_probe", "target_oracle"):
            arms[method] = target.name
        for arm, domain in arms.items():
            before = found.predictions[arm, target.name]["target"]
            after = loaded.predict_proba(target.texts, domain=domain)
            assert np.array_equal(before, after), (arm, target.name)
            assert np.allclose(after.sum(1), 1)


@pytest.mark.parametrize(("method", "kind"), list(REFUSED))
def test_what_does_not_go_together_is_refused_before_anything_is_trained(
    method: str, kind: str, tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=REFUSED[method, kind]):
        adaptation.adapt(recipe_of(tiny_base("bert"), method, kind))
    assert not list(tmp_path.glob("*/stage.json"))


def weights_of(book: Guidebook) -> dict[str, dict[str, Tensor]]:
    """Return every tensor of an artifact by file."""
    return {str(file.relative_to(book.path)): load_file(file) for file in sorted(book.path.rglob("*.safetensors"))}


def same(one: dict[str, dict[str, Tensor]], two: dict[str, dict[str, Tensor]]) -> bool:
    return one.keys() == two.keys() and all(
        one[file].keys() == two[file].keys() and all(torch.equal(one[file][key], two[file][key]) for key in one[file])
        for file in one
    )


def again_entries() -> Iterator[Any]:
    for item in entries():
        if item.values[0] not in (*WITHOUT_A_MODEL, "linear_probe"):
            marks = () if item.id == "domain_fusion-houlsby" else (pytest.mark.slow,)
            yield pytest.param(item.values, marks=marks, id=item.id)


@pytest.mark.parametrize("key", list(again_entries()))
def test_the_same_seed_gives_the_same_weights_without_the_cache_and_another_seed_others(
    key: tuple[str, str, str], entry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = entry(*key)
    first = weights_of(found.book)
    torch.manual_seed(123)  # the state that a run meets must not matter
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "again"))
    again = adaptation.adapt(found.recipe, out=tmp_path / "again" / "book")
    trained = {stage["key"] for stage in again.meta["stages"] if not stage["cached"]}
    assert {stage["key"] for stage in again.meta["stages"]} == trained  # what two arms share is trained once
    assert same(first, weights_of(again))
    assert again.meta["evaluation"] == found.book.meta["evaluation"]
    if key[1:] == ("houlsby", "bert"):
        monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "other"))
        other = adaptation.adapt(found.recipe.replace(seed=1), out=tmp_path / "other" / "book")
        assert not same(first, weights_of(other))


def test_head_and_data_order_are_the_same_in_every_arm(
    tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What two methods differ in is what is compared: equal seeds give equal heads and equal task batches."""
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path))
    engines: list[Any] = []
    base = tiny_base("bert")
    material, engine = adaptation.prepare(tiny_recipe(base), Listener())
    for arm in ("source_only", "target_mlm", "domain_fusion"):
        method = tiny_recipe(base, method=arm).method
        run = Run(material, material.corpus.targets[0], 0, None)
        stage = list(method.plan(run))[-1]
        head = engine.new_heads(stage)["head"].state_dict()
        engines.append((head, engine.plan(stage).rows))
    for head, rows in engines[1:]:
        assert all(torch.equal(head[name], engines[0][0][name]) for name in head)
        assert rows.keys() == engines[0][1].keys()
        for key, steps in rows.items():
            assert all(np.array_equal(a, b) for a, b in zip(steps, engines[0][1][key], strict=True))


def test_a_new_adapter_changes_no_bit_of_the_output(tiny_base: Callable[[str], Path]) -> None:
    for kind in ("houlsby", "lora", "full"):
        host = Host.load(str(tiny_base("bert")))
        before = logits_of(host)
        host.add("task", tiny_recipe("x", adapter=kind).adapter, seed=3)
        host.activate(("task",))
        assert torch.equal(before, logits_of(host)), kind
