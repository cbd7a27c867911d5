"""The account of a run without labels: how well text is predicted before and after, in the domain and outside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from guidebook.data.domains import Population, select_rows
from guidebook.data.tokens import prompt_ids
from guidebook.evaluation.likelihood import likelihood_change, likelihood_scores
from guidebook.training.engine import Engine, Outcome, Trained
from guidebook.training.generation import Sampling, write
from guidebook.training.run import Material
from guidebook.training.scoring import per_document

BASE = "base"
"""The arm that is the untouched base."""
TRAINED_ON = 50
"""Documents of the training text that are measured beside the held-out ones."""
SAMPLES = 3
PROMPT_WORDS = 6
SAMPLE_TOKENS = 60


def text_evaluation(
    material: Material, engine: Engine, outcomes: Sequence[Outcome], group: str | None
) -> dict[str, Any]:
    """Return the loss of the base and of every arm on held-out text of each domain, on training text, on general text.

    Args:
        material: The documents.
        engine: Measures.
        outcomes: What was trained.
        group: The column whose values were held out as a whole, for words.
    """
    corpus = material.corpus
    served = {(outcome.arm, outcome.target): outcome.stages[-1] for outcome in outcomes if outcome.stages}
    targets = []
    for population in corpus.targets:
        models = {arm: trained for (arm, target), trained in served.items() if target == population.name}
        seen = f"values of {group!r} it never saw" if group else "documents it never saw"
        some = select_rows(population, range(min(TRAINED_ON, len(population.texts))))
        targets.append(
            {
                "name": population.name,
                "held_out": seen,
                **_measured(engine, material, corpus.tests[population.name], models),
                "trained_on": _measured(engine, material, some, models),
            }
        )
    general = []
    for population in corpus.general:
        models = {f"{arm}:{target}": trained for (arm, target), trained in served.items()}
        if len({trained.key for trained in models.values()}) == 1:
            models = {next(iter(served))[0]: next(iter(models.values()))}
        held = corpus.tests[population.name]
        general.append({"name": population.name, **_measured(engine, material, held, models)})
    return {"targets": targets, "general": general}


def text_samples(
    material: Material, engine: Engine, outcomes: Sequence[Outcome], prompts: Sequence[str]
) -> list[dict[str, Any]]:
    """Return what the base and the adapted model write after each prompt, one entry per target and prompt."""
    found = []
    for outcome in outcomes:
        held = material.corpus.tests[outcome.target].texts
        chosen = list(prompts) or [" ".join(text.split()[:PROMPT_WORDS]) for text in held[:SAMPLES]]
        lengths = [len(prompt_ids(engine.host.tokenizer, prompt)) for prompt in chosen]
        for prompt, length in zip(chosen, lengths, strict=True):
            sampling = Sampling(max_length=_room(engine, length))
            engine.attach(outcome.stages[-1])
            with engine.host.disabled():
                before = write(engine.host, [prompt], sampling)[0]
            after = write(engine.host, [prompt], sampling)[0]
            found.append({"target": outcome.target, "prompt": prompt, BASE: before, outcome.arm: after})
    return found


def _room(engine: Engine, prompt: int) -> int:
    """Return the tokens of a prompt and the text after it, within the base's positions."""
    positions = getattr(engine.host.config, "max_position_embeddings", None) or prompt + SAMPLE_TOKENS
    return max(prompt + 1, min(prompt + SAMPLE_TOKENS, positions))


def _measured(
    engine: Engine, material: Material, population: Population, models: Mapping[str, Trained]
) -> dict[str, Any]:
    """Return {"scores": model -> scores, "changes": model -> change against the base} on a population's documents."""
    tokens = material.plain_tokens(population)
    sizes = [len(text.encode()) for text in population.texts]
    nats = {BASE: engine.token_nats(None, tokens, material.length)}
    nats |= {arm: engine.token_nats(trained, tokens, material.length) for arm, trained in models.items()}
    return compared({arm: per_document(values, tokens) for arm, values in nats.items()}, tokens.lengths, sizes)


def compared(
    nats: Mapping[str, np.ndarray], tokens: np.ndarray, sizes: Sequence[int], first: str = BASE
) -> dict[str, Any]:
    """Return the scores of every model and the paired change of each against the first."""
    return {
        "scores": {arm: likelihood_scores(values, tokens, sizes) for arm, values in nats.items()},
        "changes": {arm: likelihood_change(nats[first], v, sizes) for arm, v in nats.items() if arm != first},
    }


def text_records(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one record per arm and domain: losses before and after, on general text too."""
    general = facts["evaluation"]["general"]
    found = []
    for target in facts["evaluation"]["targets"]:
        for arm, change in target["changes"].items():
            stages = [s["key"] for s in facts["stages"] if s["arm"] == arm and target["name"] in s["targets"]]
            forgotten = {
                entry["name"]: entry["changes"].get(f"{arm}:{target['name']}", entry["changes"].get(arm))
                for entry in general
            }
            found.append(
                {
                    "arm": arm,
                    "target": target["name"],
                    "before": target["scores"][BASE],
                    "after": target["scores"][arm],
                    "change": change,
                    "trained_on": target["trained_on"]["changes"][arm],
                    "general": forgotten,
                    "stages": stages,
                }
            )
    return found
