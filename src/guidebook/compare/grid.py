"""What is compared: the cells of a comparison and their keys, as data, before anything is trained."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import xxhash

from guidebook.data.domains import Domain, domain_from
from guidebook.data.fingerprints import hash_texts
from guidebook.errors import InputError
from guidebook.evaluation.records import deciding_versions
from guidebook.evaluation.task_scores import ENTITY_F1
from guidebook.methods import METHODS
from guidebook.recipe import Recipe, change, name_of, read_content, recipe_from, validated
from guidebook.training.store import CODE, code_digest, key_of

RESULTS = (*CODE, "methods", "evaluation", "compare", "adaptation.py", "preparation.py", "label_free.py")
"""Parts of the package's code that a record depends on."""
OF_THE_RUN = ("source", "targets", "unlabelled", "general", "seed", "method")
"""Fields of a recipe that a key holds in another form: by content, not by path."""


@dataclass(frozen=True)
class Section:
    """The section `compare:` of a recipe; what is left out comes from the recipe itself."""

    sources: Any = ()
    """Labelled domains, each a source of its own. Empty: the recipe's `source`."""
    targets: Any = ()
    """Domains to adapt to; one with the name of a source is that source's unlabelled text, not its target."""
    methods: tuple[Any, ...] = ()
    """Names, or mappings {name, …}. Empty: the baselines and the recipe's own method."""
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Settings to vary, such as train.task.learning_rate: [1.0e-4, 1.0e-3]; every method is run with each."""
    rows: tuple[int | None, ...] = (None,)
    """Numbers of labelled source rows to draw; null: all of them."""
    draws: int = 1
    """How many times the labelled rows are drawn."""
    seeds: tuple[int, ...] = ()
    """Seeds of every draw. Empty: each draw has one seed, its own number."""

    def __post_init__(self) -> None:
        for name, fits in (("draws", self.draws >= 1), ("rows", all(n is None or n >= 2 for n in self.rows))):
            if not fits or not self.rows:
                raise InputError(f"compare.{name} is {getattr(self, name)!r}, expected numbers from 1 (rows: 2) on.")


@dataclass(frozen=True)
class Candidate:
    """A method with its settings, under the name that tables give it."""

    name: str
    recipe: Recipe
    """Everything but the domains and the seed."""


@dataclass(frozen=True)
class Group:
    """Runs that share labelled rows, seed and targets; one process works on it at a time."""

    source: Domain
    rows: int | None
    draw: int
    seed: int
    targets: tuple[Domain, ...]
    unlabelled: tuple[Domain, ...]


@dataclass(frozen=True)
class Job:
    """One method on one direction with one draw: one record."""

    candidate: Candidate
    group: Group
    target: str
    key: str


@dataclass(frozen=True)
class Comparison:
    """Everything that is compared."""

    recipe: Recipe
    """The recipe without its domains' roles; its method is the flagship."""
    sources: tuple[Domain, ...]
    targets: tuple[Domain, ...]
    candidates: tuple[Candidate, ...]
    section: Section

    @property
    def flagship(self) -> str:
        """Name of the candidate that "always the flagship" takes: the recipe's own method."""
        own = [c.name for c in self.candidates if c.recipe.method == self.recipe.method]
        return own[0] if own else name_of(self.recipe.method)

    def groups(self) -> Iterator[Group]:
        """Yield the groups, first draws of every source first."""
        section = self.section
        draws = [(draw, seed) for draw in range(section.draws) for seed in section.seeds or (draw,)]
        for rows, (draw, seed), source in itertools.product(section.rows, draws, self.sources):
            pool = [replace(t, name=f"{t.name} pool", labels=None, test=None) for t in self._named(source.name)]
            others = tuple(target for target in self.targets if target.name != source.name)
            yield Group(source, rows, draw, seed, others, (*self.recipe.unlabelled, *pool))

    def jobs(self) -> list[Job]:
        """Return every job, in the order in which they are done."""
        prints = _Prints()
        return [
            Job(candidate, group, target.name, self._key(candidate, group, target, prints))
            for group in self.groups()
            for candidate in self.candidates
            for target in group.targets
        ]

    def _named(self, name: str) -> list[Domain]:
        return [target for target in self.targets if target.name == name]

    def _key(self, candidate: Candidate, group: Group, target: Domain, prints: _Prints) -> str:
        settings = {name: value for name, value in candidate.recipe.resolved().items() if name not in OF_THE_RUN}
        # records of words from before entity F1 was what counts have another key, so they are made again
        metric = {"metric": ENTITY_F1} if candidate.recipe.task.words else {}
        return key_of(
            {
                **metric,
                "made with": made_with(candidate.recipe),
                "settings": settings,
                "method": candidate.recipe.resolved()["method"],
                "source": prints.of(group.source),
                "target": prints.of(target),
                "targets": [prints.of(domain) for domain in group.targets],
                "unlabelled": [prints.of(domain) for domain in group.unlabelled],
                "general": [prints.of(domain) for domain in candidate.recipe.general],
                "drawn": [group.rows, group.draw, group.seed],
            }
        )


def made_with(recipe: Recipe) -> dict[str, Any]:
    """Return what has to agree for two records to stand in one table: code, number type, versions of the libraries."""
    from guidebook.training.trainer import chosen_dtype  # imports torch

    return {
        "code": code_digest(RESULTS),
        "dtype": chosen_dtype(recipe.train.dtype),
        "versions": deciding_versions(),
    }


class _Prints:
    """Fingerprints of domains by content, every file read once."""

    def __init__(self) -> None:
        self._files: dict[str, str] = {}

    def of(self, domain: Domain) -> list[Any]:
        """Return name, content and what is chosen of it; labels in memory are not read."""
        test = self.of(domain.test) if domain.test is not None else None
        if domain.texts is not None:
            return [domain.name, hash_texts(domain.texts, domain.text_pairs), test]
        path = cast(str, domain.path)
        if path not in self._files:
            if not Path(path).is_file():
                raise InputError(f"{path}: there is no such file. Correct the path of the domain {domain.name!r}.")
            self._files[path] = xxhash.xxh3_128_hexdigest(Path(path).read_bytes())
        return [domain.name, self._files[path], dict(domain.where), vars(domain.columns), test]


def load_comparison(path: Path | None, overrides: Sequence[str] = ()) -> Comparison:
    """Return the comparison of a recipe file, changed by `a.b=c` overrides (`compare.draws=3` among them).

    Raises:
        InputError: an unknown key, a name twice, no direction to run.
    """
    content = read_content(path, overrides)
    place = f"{path}: " if path is not None else ""
    try:
        section: Section = validated(Section, content.pop("compare", None) or {}, "compare")
        own = {name: _domains(content.pop(name, None), name) for name in ("source", "targets")}
        sources = _domains(section.sources, "sources") or own["source"]
        targets = _domains(section.targets, "targets") or own["targets"]
        _check(sources, targets)
        recipe = recipe_from(content)
        candidates = tuple(_candidates(content, section, recipe))
    except InputError as error:
        raise InputError(f"{place}{error}") from error
    return Comparison(recipe, sources, targets, candidates, section)


def _candidates(content: Mapping[str, Any], section: Section, recipe: Recipe) -> Iterator[Candidate]:
    """Yield every method with every combination of the grid's values."""
    names: set[str] = set()
    for entry in section.methods or _default_methods(recipe):
        method = recipe.method if entry == name_of(recipe.method) else entry
        if isinstance(entry, Mapping) and "name" not in entry:
            raise InputError(f"compare.methods: {dict(entry)!r} has no name. Known: {', '.join(METHODS)}.")
        label = entry if isinstance(entry, str) else _label(entry)
        for values in itertools.product(*section.grid.values()):
            chosen = dict(zip(section.grid, values, strict=True))
            changed = copy.deepcopy({key: value for key, value in content.items() if key != "method"})
            for key, value in chosen.items():
                change(changed, f"{key}={json.dumps(value)}")
            name = ", ".join([label, *(f"{key.rpartition('.')[2]} {value}" for key, value in chosen.items())])
            if name in names:
                raise InputError(f"compare.methods: {name!r} is there twice. Leave one out.")
            names.add(name)
            yield Candidate(name, recipe_from({**changed, "method": method}))


def _label(entry: Mapping[str, Any]) -> str:
    return " ".join([str(entry["name"]), *(f"{key}={value}" for key, value in entry.items() if key != "name")])


def _default_methods(recipe: Recipe) -> list[str]:
    chosen = ["tfidf", "linear_probe", "source_only", *(["general_mlm"] if recipe.general else [])]
    return list(dict.fromkeys([*chosen, name_of(recipe.method)]))


def _domains(value: Any, name: str) -> tuple[Domain, ...]:
    items = [value] if isinstance(value, str | Path | Mapping | Domain) else list(value or ())
    return tuple(domain_from(item, f"{name}{number}") for number, item in enumerate(items))


def _check(sources: Sequence[Domain], targets: Sequence[Domain]) -> None:
    for role, domains in (("sources", sources), ("targets", targets)):
        names = [domain.name for domain in domains]
        if not domains:
            raise InputError(f"compare: no {role}. Name some under compare.{role}, or in the recipe itself.")
        if twice := [name for name in names if names.count(name) > 1]:
            raise InputError(f"compare.{role}: two domains are named {twice[0]!r}. Give each its own `name:`.")
    for source in sources:
        if all(target.name == source.name for target in targets):
            raise InputError(f"compare: {source.name} has no target but itself. Add another one under compare.targets.")
