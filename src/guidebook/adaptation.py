"""The whole flow, top to bottom.

read -> hide the targets' labels -> tokens -> frozen base -> for every stage of the method: plan batches, train or
reuse -> save what predicts -> evaluate and add the rest. Every other file is one idea whose name you meet here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from guidebook.account import account, essentials
from guidebook.artifact import Guidebook, load
from guidebook.assessment import evaluate
from guidebook.completion import CLOSER_LOOK, MISSING, Completion
from guidebook.data.domains import Population
from guidebook.errors import InputError
from guidebook.evidence import evidence
from guidebook.label_free import broken_assumptions, label_free
from guidebook.losses.divergences import collapse
from guidebook.preparation import prepare
from guidebook.recipe import Recipe, name_of
from guidebook.strict_json import plain
from guidebook.training import processes
from guidebook.training.choices import stored_answers
from guidebook.training.disk import disk_explained
from guidebook.training.engine import Engine, Outcome, Trained
from guidebook.training.estimate import estimate_stages
from guidebook.training.listener import Listener
from guidebook.training.memory import available_megabytes, memory_needed
from guidebook.training.prediction import Rows
from guidebook.training.run import Material, Run
from guidebook.training.store import key_of
from guidebook.training.trainer import bf16_is_fast
from guidebook.writing import check_out, write_guidebook

__all__ = ["BASELINES", "adapt", "arms", "estimate", "evaluate", "follow", "plan_ahead", "prepare"]

Figures = Literal["all", "none"]
BASELINES = ("tfidf", "zero_shot", "linear_probe", "source_only")


@disk_explained()
def adapt(
    recipe: Recipe, out: str | Path | None = None, listener: Listener | None = None, *, figures: Figures = "all"
) -> Guidebook:
    """Adapt the recipe's base to its targets without their labels and return the guidebook.

    Args:
        recipe: What to adapt, to what, how.
        out: Folder of the artifact; it must be new, empty, or a guidebook, which is then replaced as a whole; files in
            it that a person wrote or changed are kept.
            Without it the guidebook stands in the cache.
        listener: Hears of the progress.
        figures: "none" leaves out the report's closer look (maps, disagreements, words), for which the base has to read
            rows again; scores stay. The same call without it adds them.

    Raises:
        InputError: the data or the recipe is wrong; nothing was trained.
        RunError: the run failed; the same call goes on from the last complete checkpoint. Where only what comes after
            the training failed, the guidebook is in its place and predicts.
    """
    began = time.monotonic()
    processes.join()
    listener = (listener if processes.is_first() else None) or Listener()
    folder = check_out(Path(out)) if out is not None else None
    try:
        plain(recipe.resolved(), "recipe")
    except TypeError as error:  # guidebook.json could not say it, and nobody could run it again
        raise InputError(f"{error} Give numbers, texts, lists and mappings.") from error
    if processes.is_first():
        bf16_is_fast()  # a race of two products whose verdict is kept: run once, or processes could disagree
    processes.wait()
    material, engine = prepare(recipe, listener)
    listener.announce(plan_ahead(recipe, material, engine))

    targets = material.corpus.targets
    runs = [trained(*arm, target, material, engine) for arm in arms(recipe, material) for target in targets]
    outcomes = [outcome for outcome, _ in runs]
    engine.clear()
    engine.host.check_base()
    folder = folder or engine.store.root / "guidebooks" / recipe_key(recipe, material, outcomes)
    facts = {**essentials(recipe, material, engine, outcomes), MISSING: Completion.nothing_yet(recipe.task.labelled)}
    if processes.is_first() and (kept := write_guidebook(folder, facts, outcomes)):
        listener.note(f"{folder}: kept what is not guidebook's own: {', '.join(kept)}.")

    rest = Completion(folder, facts, listener)  # the guidebook predicts; nothing from here on can cost it
    for outcome, run in runs:
        with rest.piece(f"predictions of {outcome.arm} for {outcome.target}"):
            outcome.predictions = run.predict()
    with rest.piece("evaluation"):
        facts |= account(recipe, material, engine, outcomes)
    if recipe.task.labelled:
        with rest.piece("scores without labels"):
            facts["scores"], known = label_free(material, engine, outcomes)
            _say_what_is_broken(recipe, facts, listener)
            rest.add_known_rows(known)
    look = recipe.task.labelled and figures == "all"
    closer = _closer_look(rest, figures, lambda: evidence(recipe, material, engine, outcomes) if look else None)
    with rest.piece("check of the base"):
        engine.clear()
        engine.host.check_base()
    facts["seconds"] = round(time.monotonic() - began, 1)
    with rest.piece("records"):
        rest.add_records()
    with rest.piece("model card"):
        rest.add_card()
    with rest.piece("report"):
        rest.add_report(closer)
    processes.wait()
    rest.end()
    return load(folder)


def _closer_look(rest: Completion, figures: Figures, look: Callable[[], Any]) -> Any:
    """Add what the report shows beyond guidebook.json, or say that nobody asked for it; return it."""
    closer = None
    with rest.piece(CLOSER_LOOK):
        closer = look()
        rest.add_evidence(closer)
    if figures == "none":
        rest.leave_out(CLOSER_LOOK, "left out by --figures none")
    return closer


def _say_what_is_broken(recipe: Recipe, facts: dict[str, Any], listener: Listener) -> None:
    """Keep and tell which assumptions of the method the scores speak against."""
    for name, notes in broken_assumptions(recipe.method, facts["scores"]).items():
        facts["notes"].setdefault(f"{facts['method']} for {name}", []).extend(notes)
        listener.note(f"{name}: {notes[0]}")


def arms(recipe: Recipe, material: Material) -> Iterator[tuple[str, Any]]:
    """Yield the baselines that are in every table (without labels there is but the base), then the recipe's method.

    Raises:
        InputError: the method cannot work with this base or task; a baseline that cannot is left out.
    """
    chosen = name_of(recipe.method)
    for name in BASELINES if recipe.task.labelled else ():
        method = recipe.replace(method=name).method
        if name != chosen and obstacle(method, material) is None:
            yield name, method
    if reason := obstacle(recipe.method, material):
        raise InputError(reason)
    yield chosen, recipe.method


def obstacle(method: Any, material: Material) -> str | None:
    """Return why a method cannot work with this base or task, where it says so itself."""
    asks = getattr(method, "obstacle", None)
    return asks(Run(material, material.corpus.targets[0], 0, None)) if asks else None


def follow(arm: str, method: Any, target: Population, material: Material, engine: Engine) -> Outcome:
    """Run one method for one target: its plan, stage by stage, then its predictions."""
    outcome, run = trained(arm, method, target, material, engine)
    outcome.predictions = run.predict()
    return outcome


def trained(arm: str, method: Any, target: Population, material: Material, engine: Engine) -> tuple[Outcome, Run]:
    """Train one method for one target, stage by stage; return what was made, and the run that predicts with it."""
    outcome = Outcome(arm, target.name)
    asked = _Predictions(engine, outcome)
    run = Run(material, target, engine.seed, asked)
    made: dict[str, Trained] = {}
    for stage in method.plan(run):
        found = engine.train_or_reuse(stage, made)
        made |= dict.fromkeys(stage.makes, found)
        outcome.stages.append(found)
        if said := collapse(found.figures.get("losses", {})):
            asked.note(f"{stage.name}: {said}")
    if run.has_task and not run.submitted and outcome.stages:
        run.submit(asked.latest)
    outcome.head = run.head
    return outcome, run


@dataclass
class _Predictions:
    """What a run may ask of the engine."""

    engine: Engine
    outcome: Outcome

    def pooled(self, rows: Rows) -> np.ndarray:
        return self.engine.pooled(rows)

    def probe(self, tensors: Mapping[str, Any], rows: Rows) -> np.ndarray:
        return self.engine.probe(tensors, rows)

    def latest(self, rows: Rows) -> np.ndarray:
        return self.model()(rows)

    def model(self) -> Callable[[Rows], np.ndarray]:
        last = self.outcome.stages[-1]
        return lambda rows: self.engine.predict(last, rows)

    def answers(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> np.ndarray:
        return stored_answers(self.engine, prompts, answers)

    def note(self, text: str) -> None:
        self.outcome.notes.append(text)
        self.engine.listener.note(f"{self.outcome.arm} for {self.outcome.target}: {text}")


def plan_ahead(recipe: Recipe, material: Material, engine: Engine) -> dict[str, Any]:
    """Return what the run will do before it does it: stages, tokens, seconds, parameters, memory."""
    plans = []
    for arm, method in arms(recipe, material):
        if not getattr(method, "trains", True):
            continue
        for target in material.corpus.targets:
            made: dict[str, Trained] = {}
            for stage in method.plan(Run(material, target, engine.seed, None)):
                planned = engine.planned(stage, made)
                made |= dict.fromkeys(stage.makes, planned)
                if stage.losses or stage.combine:
                    plans.append((arm, target.name, planned))
    return estimate_stages(engine, plans)


def estimate(recipe: Recipe, listener: Listener | None = None) -> dict[str, Any]:
    """Return what `adapt` would do, without training: the `--dry-run`.

    A causal base's memory is told first, from its configuration; where there is too little, nothing is loaded.

    Raises:
        InputError: the data or the recipe is wrong.
    """
    needed = memory_needed(recipe.base, recipe.adapter, recipe.train, recipe.base_dtype, recipe.quantise)
    there = available_megabytes()
    if needed is not None and there is not None and needed["total"] > there:
        return {"stages": [], "seconds": 0.0, "tokens": 0, "memory": needed, "available_megabytes": round(there, 1)}
    plan = plan_ahead(recipe, *prepare(recipe, listener or Listener()))
    return plan if needed is None else {**plan, "memory": needed}


def recipe_key(recipe: Recipe, material: Material, outcomes: list[Outcome]) -> str:
    """Return a folder name for a guidebook that was given no `out`: a hash of what was asked, read and trained."""
    stages = [[outcome.arm, outcome.target, [stage.key for stage in outcome.stages]] for outcome in outcomes]
    texts = [population.fingerprint for population in (*material.corpus.targets, *material.corpus.tests.values())]
    return key_of({"recipe": recipe.resolved(), "stages": stages, "texts": texts})
