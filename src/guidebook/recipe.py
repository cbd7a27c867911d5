"""A recipe: everything that decides a run, read from YAML, flags or Python, with strict keys."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from guidebook.adapters.feasible import check_base, check_training
from guidebook.adapters.known import anchored_base, saw_of
from guidebook.adapters.presets import KINDS
from guidebook.adapters.union import Union
from guidebook.data.domains import Domain, domain_from, require_source
from guidebook.data.hub import HUB
from guidebook.data.in_memory import refuse_broken
from guidebook.errors import InputError, nearest
from guidebook.methods import METHODS
from guidebook.tasks import TASKS
from guidebook.training.settings import Training

TABLES = {"task": "classification", "adapter": "houlsby", "method": "domain_fusion"}
"""Field that is configured by a name in a table -> the name it has by default."""
DOMAINS = ("source", "targets", "unlabelled", "general")
"""Fields that hold domains."""
STRICT = ConfigDict(extra="forbid", coerce_numbers_to_str=True)  # labels: [0, 1] are names
EXPONENT = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?[eE][+-]?[0-9]+")
OWNED_BY_GUIDEBOOK = {
    "output_dir": "--out",
    "seed": "seed",
    "data_seed": "seed",
    "max_steps": "train.fuse.tokens or train.task.epochs",
    "num_train_epochs": "train.task.epochs",
    "learning_rate": "train.fuse.learning_rate and train.task.learning_rate",
    "per_device_train_batch_size": "train.tokens_per_batch and train.task.rows_per_batch",
    "gradient_accumulation_steps": "train.micro_batches",
    "bf16": "train.dtype",
    "fp16": "train.dtype",
    "save_strategy": "train.checkpoint_seconds",
    "save_steps": "train.checkpoint_seconds",
    "save_only_model": "nothing: a stage resumes bit for bit",
    "save_total_limit": "nothing: one complete checkpoint is kept",
    "ignore_data_skip": "nothing: a stage resumes bit for bit",
    "resume_from_checkpoint": "nothing: the same command resumes",
    "max_grad_norm": "train.max_grad_norm",
    "gradient_checkpointing": "train.gradient_checkpointing",
    "torch_compile": "train.compile",
    "label_smoothing_factor": "nothing: losses are the method's",
    "eval_strategy": "nothing: target labels are read once, at the end",
    "load_best_model_at_end": "nothing: the last step of a schedule is what is kept",
    "remove_unused_columns": "nothing: batches are planned",
    "train_sampling_strategy": "nothing: batches are planned",
    "warmup_ratio": "train.fuse.warmup and train.task.warmup",
    "warmup_steps": "train.fuse.warmup and train.task.warmup",
    "weight_decay": "train.fuse.weight_decay and train.task.weight_decay",
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What to adapt, to what, how.

    Loose values are accepted and made strict: a path for a domain, a name for a method, a mapping for a kind.

    Raises:
        InputError: an unknown key or name, a value of the wrong type.

    >>> Recipe(source="books.csv", targets=["kitchen.csv"]).targets[0].name
    'kitchen'
    """

    source: Any = ()
    """Labelled domain, or a list of several: a path, or {name, path, where, columns, test}."""
    targets: Any = ()
    """Domains to adapt to; their labels, if any, are held back until the final evaluation."""
    unlabelled: Any = ()
    """More raw text of the source domain."""
    general: Any = ()
    """General text, for the placebo `general_mlm` and for mixing in against forgetting."""
    base: str = "mini"
    """The frozen base: a name of `guidebook bases`, a folder, a GGUF file, or a model id of the Hub."""
    base_saw: Any = None
    """What the base has seen of the task or the domains, noted in every record. Known for bases with a name."""
    base_dtype: str = "float32"
    """Number type of the base's weights in memory: float32, bfloat16 or float16. Adapters are float32 all the same."""
    quantise: Literal["8bit", "4bit"] | None = None
    """Hold the base's linear layers in 8bit or 4bit: pip install 'guidebook[quant]'. Empty: as they are."""
    task: Any = "classification"
    """What is learned from the source's labels: a kind, or {kind, labels, max_length, pooling, template, …}."""
    adapter: Any = "houlsby"
    """What is trained inside the base: a kind, or {kind, …}, or a list of kinds that are trained as one."""
    method: Any = "domain_fusion"
    """How it is adapted: a method's name, or {name, …}."""
    train: Any = None
    """Settings of the stages."""
    trainer: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """More transformers.TrainingArguments, passed through; those that guidebook owns are refused by name."""
    seed: int = 0
    """Fixes initialisation, data order and masks, the same across methods."""

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        for name in DOMAINS:
            items = _listed(getattr(self, name))
            put(name, tuple(domain_from(item, f"{name}{index or ''}") for index, item in enumerate(items)))
        put("base", _base(self.base))
        put("seed", _seed(self.seed))
        put("base_saw", tuple(_listed(self.base_saw if self.base_saw is not None else saw_of(self.base))))
        put("task", _configured(self.task, TASKS, "task", "kind"))
        put("adapter", _adapter(self.adapter))
        put("method", _configured(self.method, METHODS, "method", "name"))
        put("train", validated(Training, self.train if self.train is not None else {}, "train"))
        put("trainer", _trainer(self.trainer))
        check_base(self.base_dtype, self.quantise, self.adapter.kind)
        if self.base_dtype == "float16" and self.train.dtype == "auto":
            put("train", dataclasses.replace(self.train, dtype="float32"))  # autocast would be to bf16
        check_training(self.base_dtype, self.quantise, self.train.dtype, compiled=self.train.compile)
        names = [domain.name for domain in (*self.source, *self.targets, *self.unlabelled, *self.general)]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"Two domains are named {name!r}. Give each its own `name:`.")

    def resolved(self) -> dict[str, Any]:
        """Return the recipe as plain data; texts given in memory are replaced by their number."""
        found: dict[str, Any] = _plain(self)
        return found

    def replace(self, **changes: Any) -> Recipe:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def name_of(method: object) -> str:
    """Return the table name of a configured method."""
    return next(name for name, place in METHODS.items() if place.endswith(f":{type(method).__name__}"))


def load_recipe(path: Path | None, overrides: Sequence[str] = (), flags: Mapping[str, object] | None = None) -> Recipe:
    """Return the recipe of a YAML file (or none), changed by flags and then by `a.b=c` overrides.

    Paths inside the file are relative to the file's folder.

    Raises:
        InputError: not a recipe; the message names the file, the key and the nearest known key.
    """
    content = read_content(path, overrides, flags)
    place = f"{path}: " if path is not None else ""
    if "compare" in content:
        raise InputError(f"{place}`compare:` is for many runs: guidebook compare. Leave it out to adapt once.")
    recipe = recipe_from(content, place)
    if recipe.task.labelled:
        require_source(recipe.source, place)
    return recipe


def read_content(
    path: Path | None, overrides: Sequence[str] = (), flags: Mapping[str, object] | None = None
) -> dict[str, Any]:
    """Return what a recipe file says, changed by flags and overrides, its keys not yet checked."""
    content = _read_yaml(path) if path is not None else {}
    for key, value in (flags or {}).items():
        content[key] = _merged(content.get(key), value)
    for override in overrides:
        change(content, override)
    return content


def recipe_from(content: Mapping[str, Any], place: str = "") -> Recipe:
    """Return the recipe of a file's content; `place` stands before the messages.

    Raises:
        InputError: an unknown key, or a value that is refused.
    """
    refuse_broken(content, f"{place}the recipe")
    known = [field.name for field in dataclasses.fields(Recipe)]
    for key in content:
        if key not in known:
            raise InputError(
                f"{place}unknown key {key!r} in the recipe.{nearest(key, known)} Known: {', '.join(known)}."
            )
    try:
        return Recipe(**content)
    except InputError as error:
        raise InputError(f"{place}{error}") from error


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf8"))
    except FileNotFoundError as error:
        known = [item.name for item in path.parent.glob("*.y*ml")] if os.path.isdir(path.parent) else []
        raise InputError(f"{path}: there is no such recipe.{nearest(path.name, known)}") from error
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        raise InputError(f"{path}: not a YAML file: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected `key: value` lines at the top, found {type(content).__name__}.")
    for part in (content, content.get("compare")):
        for key in (*DOMAINS, "sources"):
            if isinstance(part, dict) and key in part:
                part[key] = [_anchored(item, path.parent) for item in _listed(part[key])]
    if isinstance(method := content.get("method"), dict) and isinstance(method.get("path"), str):
        content["method"] = {**method, "path": str(path.parent / method["path"])}
    if isinstance(base := content.get("base"), str):
        content["base"] = anchored_base(base, path.parent)
    return content


def _anchored(item: Any, folder: Path) -> Any:
    if isinstance(item, str):
        return item if item.startswith(HUB) else str(folder / item)
    if isinstance(item, dict):
        changed = dict(item)
        if isinstance(changed.get("path"), str):
            changed["path"] = _anchored(changed["path"], folder)
        if "test" in changed:
            changed["test"] = _anchored(changed["test"], folder)
        return changed
    return item


def change(content: dict[str, Any], override: str) -> None:
    """Put the value of `a.b=c` into a recipe's content."""
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise InputError(f"{override!r} is not an override. Write key=value: seed=1, or adapter.reduction=8.")
    *path, last = key.split(".")
    place = content
    for part in path:
        inner = place.get(part)
        if place is content and part in TABLES and isinstance(inner, str):
            inner = {"name" if part == "method" else "kind": inner}
        if place is content and part in DOMAINS:
            inner = _single(inner)
        if not isinstance(inner, dict | None):
            raise InputError(f"{override!r}: {part} is {inner!r}, without settings. Change it as a whole: {part}=…")
        place[part] = dict(inner or {})
        place = place[part]
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{override!r}: {text!r} is not a YAML value.") from error
    place[last] = _number(value)


def _single(domains: Any) -> Any:
    """Return the settings of a part that holds one domain; anything else as it is."""
    only = domains[0] if isinstance(domains, list) and len(domains) == 1 else domains
    return {"path": only} if isinstance(only, str) else only


def _number(value: Any) -> Any:
    """YAML 1.1 reads 5e-4 as text; people mean the number."""
    return float(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value


def _merged(old: object, new: object) -> object:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **new}
    return new


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, str | Path | Mapping | Domain):
        return [value]
    if not isinstance(value, Iterable) or getattr(value, "ndim", 1) != 1:
        raise InputError(f"{value!r} is neither a domain nor a list of domains. Give a path, or {{path: …}}.")
    return list(value)


def _base(value: Any) -> str:
    if not isinstance(value, str | Path) or not str(value):
        raise InputError(f"base: expected a name (guidebook bases), a folder, a file or a Hub id, found {value!r}.")
    return str(value)


def _seed(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
        raise InputError(f"seed: expected a whole number from 0 on, found {value!r}.")
    return int(value)


def _trainer(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping | None):
        raise InputError(f"trainer: expected `key: value` settings, found {value!r}.")
    known = {str(name): _number(inner) for name, inner in (value or {}).items()}
    for name in known:
        if hint := OWNED_BY_GUIDEBOOK.get(name):
            _, _, why = hint.partition("nothing: ")
            raise InputError(f"trainer.{name} is set by guidebook" + (f": {why}." if why else f". Use {hint} instead."))
    return known


def _adapter(value: Any) -> Any:
    """Return a kind of adapter, or the union of several."""
    if isinstance(value, Union):
        return value
    if isinstance(value, str) and "+" in value:
        value = value.split("+")
    if isinstance(value, list | tuple):
        parts = tuple(_configured(item, KINDS, "adapter", "kind") for item in value)
        return parts[0] if len(parts) == 1 else Union(parts)
    return _configured(value, KINDS, "adapter", "kind")


def _configured(value: Any, table: Mapping[str, str], field: str, key: str) -> Any:
    """Return the configuration object that a name, a mapping or an object of the table stands for."""
    if f"{type(value).__module__}:{type(value).__name__}" in table.values():
        return value
    if not isinstance(value, str | Mapping | None):
        raise InputError(
            f"{field}: expected a {key}, or a mapping with one, found {value!r}. Known: {', '.join(table)}."
        )
    settings = {key: value} if isinstance(value, str) else dict(value or {})
    name = settings.get(key, TABLES[field])
    if not isinstance(name, str) or name not in table:
        raise InputError(f"{field}: unknown {key} {name!r}.{nearest(str(name), table)} Known: {', '.join(table)}.")
    module, _, class_name = table[name].partition(":")
    kind = getattr(import_module(module), class_name)
    if not any(item.name == key for item in dataclasses.fields(kind)):
        settings.pop(key, None)
    return validated(kind, settings, field)


def validated(kind: type, settings: Any, field: str) -> Any:
    """Return the dataclass that a mapping of its fields stands for, unknown keys refused."""
    if isinstance(settings, kind):
        return settings
    if not isinstance(settings, Mapping):
        raise InputError(f"{field}: expected `key: value` settings, found {settings!r}.")
    try:
        return _adapter_of(kind).validate_python(_numbers(settings))
    except ValidationError as error:
        raise InputError(_explained(error, kind, field)) from error


def _adapter_of(kind: type) -> TypeAdapter[Any]:
    kind.__pydantic_config__ = STRICT  # type: ignore[attr-defined]
    for item in dataclasses.fields(kind):
        if item.default_factory is not dataclasses.MISSING and dataclasses.is_dataclass(item.default_factory):
            item.default_factory.__pydantic_config__ = STRICT  # type: ignore[attr-defined]
    return TypeAdapter(kind)


def _numbers(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _numbers(inner) for key, inner in value.items()}
    return _number(value)


def _explained(error: ValidationError, kind: type, field: str) -> str:
    lines = []
    for problem in error.errors()[:5]:
        place = ".".join([field, *(str(part) for part in problem["loc"])])
        if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            known = _known_keys(kind, [str(part) for part in problem["loc"][:-1]])
            lines.append(f"unknown key {place!r}.{nearest(str(problem['loc'][-1]), known)} Known: {', '.join(known)}.")
        else:
            lines.append(f"{place}: {problem['msg']}, found {problem.get('input')!r}.")
            if problem["type"] == "string_type" and isinstance(problem.get("input"), bool):
                lines.append("YAML reads a bare yes or no as true or false: quote it.")
    return " ".join(lines)


def _known_keys(kind: type, path: list[str]) -> list[str]:
    for part in path:
        for item in dataclasses.fields(kind):
            if item.name == part and dataclasses.is_dataclass(item.default_factory):
                kind = item.default_factory  # type: ignore[assignment]
    return [item.name for item in dataclasses.fields(kind)]


def _plain(value: Any) -> Any:
    if isinstance(value, Domain) and value.texts is not None:
        inner = dataclasses.replace(value, texts=None, text_pairs=None, labels=None)
        return {**_plain(inner), "texts": f"{len(value.texts)} rows given in memory"}
    if isinstance(value, Union):
        return [_plain(part) for part in value.parts]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        plain = {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
        if type(value).__module__.startswith("guidebook.methods."):
            plain = {"name": name_of(value), **plain}
        return plain
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value
