"""Train a stage, or take it from the store; put a trained model back on the base."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file
from torch import nn

from guidebook.adapters.host import Host
from guidebook.data.streams import seed_for
from guidebook.data.tokens import Tokens
from guidebook.errors import InputError
from guidebook.losses.contract import Facts
from guidebook.methods.stage import Stage
from guidebook.tasks.classification import Classification
from guidebook.training import processes
from guidebook.training.combination import HEADS, check_combination, combine, lineage_of
from guidebook.training.dropout import base_dropout
from guidebook.training.keys import stage_key
from guidebook.training.layers import running
from guidebook.training.listener import Listener
from guidebook.training.memory import memory_explained
from guidebook.training.model import StageModel
from guidebook.training.packing import PACKS, only_predicts
from guidebook.training.plan import StagePlan
from guidebook.training.prediction import Rows, input_of, pooled_rows, predict_probabilities
from guidebook.training.random_state import global_random_state_kept
from guidebook.training.requirements import require_lm_head
from guidebook.training.scoring import token_nats
from guidebook.training.settings import Training
from guidebook.training.setup import Setup
from guidebook.training.stopping import EarlyStopping
from guidebook.training.store import Store, code_digest, key_of
from guidebook.training.trackers import deciding
from guidebook.training.trainer import chosen_dtype, train_plan, training_arguments


@dataclass(frozen=True)
class Trained:
    """What a stage made: its folder in the store and how the model is put together."""

    key: str
    folder: Path
    stage: Stage
    stack: tuple[str, ...]
    """Adapters from the base upwards."""
    places: Mapping[str, Path]
    """Adapter -> folder of its weights."""
    figures: Mapping[str, Any]
    cached: bool
    lineage: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Adapter that the stage leaves -> keys of what it grew out of, its initialisation first."""


@dataclass
class Outcome:
    """What one arm made of one target."""

    arm: str
    target: str
    stages: list[Trained] = field(default_factory=list)
    predictions: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Probabilities (N, C): "target" on the rows of the final evaluation, "source" on held-out source rows."""
    head: Mapping[str, Any] | None = None
    """A head on the untouched base, where the method made one."""
    notes: list[str] = field(default_factory=list)
    """What the method says beside its results."""


@dataclass
class Engine:
    """One frozen base and everything needed to train stages on it."""

    host: Host
    adapter: Any
    task: Classification
    classes: int
    train: Training
    seed: int
    store: Store
    trainer: Mapping[str, Any] = field(default_factory=dict)
    listener: Listener = field(default_factory=Listener)
    _said: set[str] = field(default_factory=set)
    _attached: str | None = None
    """Key of the trained model that is on the base."""

    @property
    def parts(self) -> int:
        """Parts of a step: every process takes its share of them."""
        return self.train.micro_batches * processes.count()

    @property
    def pooling(self) -> str:
        """How rows are pooled: as the task says, else as suits the architecture."""
        return self.host.placement.pooling if self.task.pooling == "auto" else self.task.pooling

    @property
    def setup(self) -> Setup:
        """What stages are built from, with the number type that this machine chooses."""
        facts = Facts(
            hidden_size=self.host.hidden_size,
            layers=self.host.layers,
            pooling=self.pooling,
            classes=self.classes,
            head=self.task.head,
            head_dropout=self.task.dropout,
            head_seed=seed_for(self.seed, "head"),
            seed=self.seed,
        )
        dtype: Any = chosen_dtype(self.train.dtype)
        train = dataclasses.replace(self.train, dtype=dtype)
        return Setup(self.host, self.adapter, train, facts, self.seed, self.parts)

    def key(self, stage: Stage, made: Mapping[str, Trained]) -> str:
        """Return the hash of everything that decides a stage's result; only what the stage reads is in it.

        Raises:
            InputError: the stage stacks adapters of a kind that cannot be stacked.
        """
        return self._key(stage, made, self.setup.reads(stage))

    def _key(self, stage: Stage, made: Mapping[str, Trained], read: Mapping[str, Any]) -> str:
        if stage.below and self.adapter.kind == "full":
            raise InputError(
                f"The stage {stage.name!r} of this method stacks adapters ({', '.join((*stage.below, *stage.train))}), "
                "and kind full is a whole model, one at a time. Choose adapter: houlsby or lora, or another method."
            )
        common: dict[str, Any] = {"base": self.host.fingerprint, "modules": self.host.modules, "seed": self.seed}
        if stage.losses:  # only weights that are trained depend on how
            common |= {"feed": input_of(self.host), "parts": self.parts, "trainer": deciding(self.trainer)}
        return stage_key(stage, {name: trained.key for name, trained in made.items()}, read, common)

    def planned(self, stage: Stage, made: Mapping[str, Trained]) -> Trained:
        """Return what is known of a stage before it is trained.

        Raises:
            InputError: it adds adapters that have no sum, or models text on a base without a trained head for that.
        """
        check_combination(stage, made, self.adapter.kind)
        require_lm_head(self.host, stage)
        key = self.key(stage, made)
        lineage = lineage_of(stage, made, key, root=key_of({"of": repr(self.adapter), "seed": self.seed}))
        return Trained(key, Path(), stage, (), {}, {}, self.store.find(key) is not None, lineage)

    def plan(self, stage: Stage) -> StagePlan:
        """Return every batch of a stage."""
        feed, train = input_of(self.host), self.train
        if feed.causal and train.packing and only_predicts(stage) and feed.model_type not in PACKS:
            self._note(
                f"{feed.model_type} is not known to keep packed texts apart: rows are grouped by length instead."
            )
        return self.setup.plan(stage)

    def _note(self, text: str) -> None:
        """Say something once."""
        if text not in self._said:
            self._said.add(text)
            self.listener.note(text)

    def train_or_reuse(self, stage: Stage, made: Mapping[str, Trained]) -> Trained:
        """Return the trained stage: from the store if it is there, else trained (on from its last checkpoint)."""
        planned = self.planned(stage, made)
        key = planned.key
        if not stage.losses and not stage.combine:
            return self._restacked(stage, made, key)
        lock = self.store.lock(key, f"stage {stage.name}", self.listener.note)
        with lock if processes.is_first() else nullcontext():
            processes.wait()  # the others train along while the first one holds the lock
            folder = self.store.find(key)
            cached = folder is not None
            if folder is None:
                if what := self.store.damage(key):
                    self.listener.note(f"{stage.name}: the stored stage is damaged, so it is made again ({what})")
                folder = self._train(stage, made, key)
        figures = json.loads((folder / "stage.json").read_text(encoding="utf8"))
        places = {name: made[name].places[name] for name in stage.below}
        places |= {name: folder / "adapters" / name for name in stage.makes}
        stack = (*stage.below, *stage.makes)
        return Trained(key, folder, stage, stack, places, figures, cached, planned.lineage)

    def _restacked(self, stage: Stage, made: Mapping[str, Trained], key: str) -> Trained:
        """Return earlier adapters in the stack that a stage without losses declares, under the head of the top one."""
        places = {name: made[name].places[name] for name in stage.below}
        return Trained(key, made[stage.below[-1]].folder, stage, stage.below, places, {}, cached=True)

    @global_random_state_kept()
    def _train(self, stage: Stage, made: Mapping[str, Trained], key: str) -> Path:
        self._attached = None
        if stage.combine:
            return self._written(key, lambda folder: combine(self.host, stage, made, folder))
        self.build(stage, made)
        setup = self.setup.only(self.setup.reads(stage))  # nothing that is not in the key
        heads = self._heads(setup.heads(stage), stage, made)
        plan, settings = setup.plan(stage), setup.settings(stage)
        model = StageModel(self.host, stage, heads, plan.steps)
        arguments = training_arguments(
            self.store.work(key),
            setup.train,
            settings,
            steps=plan.steps,
            rate=setup.rate(stage),
            extra=dict(self.trainer),
        )
        arguments.seed = seed_for(self.seed, "trainer") % 2**32
        self.listener.start(stage.name, plan.steps)
        held_out = setup.held_out(stage)
        stopping = EarlyStopping(model, held_out, settings.patience or 1, plan.steps) if held_out else None
        seconds = self.train.checkpoint_seconds
        dropout = base_dropout(self.host.model, stage.base_dropout)
        with memory_explained(stage.name, self.train), running(self.host, setup.train), dropout:
            figures = train_plan(model, plan, arguments, self.listener, seconds, stopping=stopping)
        figures["trainable_parameters"] = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.listener.finish(stage.name, seconds=figures["seconds"])

        def write(folder: Path) -> None:
            for name in stage.train:
                self.host.save(name, folder / "adapters" / name)
            if heads:
                tensors = {f"{name}.{part}": v for name, head in heads.items() for part, v in head.state_dict().items()}
                save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, folder / HEADS)
            (folder / "stage.json").write_text(json.dumps(figures, indent=1), encoding="utf8")

        return self._written(key, write)

    def _written(self, key: str, write: Callable[[Path], None]) -> Path:
        """Let the first process write a stage's folder while the others wait, and return it."""
        if processes.is_first():
            self.store.put(key, write)
        processes.wait()
        return self.store.root / key

    def build(self, stage: Stage, made: Mapping[str, Trained]) -> None:
        """Put a stage's adapters on the base: frozen ones below, new ones or copies on top."""
        self.clear()
        for name in stage.below:
            self.host.load_adapter(name, made[name].places[name])
        for name, start in stage.train.items():
            if start is None:
                self.host.add(name, self.adapter, seed_for(self.seed, "adapter"))
            else:
                self.host.load_adapter(name, made[start].places[start])
        self.host.activate((*stage.below, *stage.train), train=tuple(stage.train))

    def clear(self) -> None:
        """Take every adapter off the base."""
        self._attached = None
        self.host.activate((), train=())
        for name in list(self.host.names):
            self.host.remove(name)

    def new_heads(self, stage: Stage) -> dict[str, nn.Module]:
        """Return the modules that a stage's losses bring, freshly initialised."""
        return self.setup.heads(stage)

    def _heads(self, heads: dict[str, nn.Module], stage: Stage, made: Mapping[str, Trained]) -> dict[str, nn.Module]:
        """Return a stage's heads, going on from those of the stage that is copied, if it has any."""
        for start in stage.train.values():
            place = made[start].folder / HEADS if start else None
            if place is not None and place.exists():
                load_heads(place, heads)
        return heads

    def attach(self, trained: Trained) -> nn.Module | None:
        """Put a trained model on the base, unless it is there already, and return its task head, if it has one."""
        head = self.head(trained.folder / HEADS)
        if self._attached == trained.key and self.host.stack == trained.stack:
            return head.to(next(self.host.model.parameters()).device) if head is not None else None
        self._attached = None
        head = attach(self.host, trained.stack, trained.places, head)
        self._attached = trained.key
        return head

    def head(self, place: Path) -> nn.Module | None:
        """Return the stored task head of a stage, if it has one."""
        stored = load_file(place) if place.exists() else {}
        if not any(name.startswith("head.") for name in stored):
            return None
        return head_from({n.removeprefix("head."): v for n, v in stored.items() if n.startswith("head.")}, self.pooling)

    def predict(self, trained: Trained, rows: Rows) -> np.ndarray:
        """Return probabilities (N, C) of a trained model."""

        def run() -> np.ndarray:
            head = self.attach(trained)
            assert head is not None
            return predict_probabilities(self.host, head, rows, self.train.dtype, self.listener)

        return self._once((trained.key, "probabilities"), rows, run)

    def token_nats(self, trained: Trained | None, documents: Tokens, width: int) -> np.ndarray:
        """Return the loss of every token of documents (total,) under a trained model, or under the untouched base."""
        model = trained.key if trained is not None else self.host.fingerprint
        where = (model, str(width), chosen_dtype(self.train.dtype), code_digest(), "nats")

        def run() -> np.ndarray:
            if trained is not None:
                self.attach(trained)
                return token_nats(self.host, documents, width, self.train.dtype, self.listener)
            with self.host.disabled():
                return token_nats(self.host, documents, width, self.train.dtype, self.listener)

        return self.store.array(key_of({"model": where, "rows": documents.fingerprint}), run)

    def pooled(self, rows: Rows) -> np.ndarray:
        """Return pooled rows (N, H) of the untouched base."""

        def run() -> np.ndarray:
            with self.host.disabled():
                return pooled_rows(self.host, rows, self.pooling, self.train.dtype, self.listener)

        where = (self.host.fingerprint, self.pooling, chosen_dtype(self.train.dtype), code_digest(), "pooled")
        return self._once(where, rows, run)

    def probe(self, tensors: Mapping[str, Any], rows: Rows) -> np.ndarray:
        """Return probabilities (N, C) of a head on the untouched base."""
        with self.host.disabled():
            head = head_from(tensors, self.pooling)
            return predict_probabilities(self.host, head, rows, self.train.dtype, self.listener)

    def _once(self, model: tuple[str, ...], rows: Rows, run: Callable[[], np.ndarray]) -> np.ndarray:
        """Run a prediction unless the same model has read the same rows before, in this run or an earlier one."""
        return self.store.array(key_of({"model": model, "rows": rows.fingerprint}), run)


def attach(host: Host, stack: Sequence[str], places: Mapping[str, Path], head: nn.Module | None) -> nn.Module | None:
    """Put adapters on a base in order, nothing trainable, and return the head moved beside them."""
    host.activate((), train=())
    for name in list(host.names):
        host.remove(name)
    for name in stack:
        host.load_adapter(name, places[name])
    host.activate(tuple(stack), train=())
    return head.to(next(host.model.parameters()).device) if head is not None else None


def load_heads(place: Path, heads: Mapping[str, nn.Module]) -> None:
    """Load stored heads into modules of the same names."""
    stored = load_file(place)
    for name, head in heads.items():
        tensors = {key.removeprefix(f"{name}."): v for key, v in stored.items() if key.startswith(f"{name}.")}
        if tensors:
            head.load_state_dict(tensors)


def head_from(tensors: Mapping[str, Any], pooling: str) -> nn.Module:
    """Return a task head rebuilt from its tensors."""
    from guidebook.losses.task import PooledHead
    from guidebook.tasks.heads import Head

    classes, hidden = tensors["head.output.weight"].shape
    kind = "two_layer" if "head.inner.weight" in tensors else "linear"
    head = PooledHead(Head(hidden, classes, kind, dropout=0.0, seed=0), pooling)
    head.load_state_dict(dict(tensors))
    return head.eval()
