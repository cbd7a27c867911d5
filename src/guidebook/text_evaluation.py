"""A generative guidebook on texts it has not met yet: losses, what of the text is copied, what it learned by heart."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from guidebook.adapters.host import Host
from guidebook.artifact import Guidebook
from guidebook.data.documents import Split, first_documents, in_folder, read_documents, split_documents
from guidebook.data.domains import Domain, Population, domain_from
from guidebook.data.tokeniser import tokenise, whole_text
from guidebook.data.tokens import Tokens, prompt_ids
from guidebook.errors import InputError
from guidebook.evaluation.likelihood import likelihood_scores
from guidebook.evaluation.memorisation import copied_characters, memorisation, word_ids
from guidebook.text_account import BASE, compared
from guidebook.training.generation import Sampling, continue_tokens, require_causal
from guidebook.training.precision import dtype_of
from guidebook.training.scoring import per_document, token_nats


@dataclass(frozen=True)
class _Text:
    """Documents and the loss of each of their tokens, by model."""

    documents: Population
    tokens: Tokens
    nats: Mapping[str, np.ndarray]


def evaluate_text(
    book: Guidebook,
    on: Sequence[Domain] = (),
    general: Sequence[Domain] = (),
    *,
    domain: str = "auto",
    prompts: int = 100,
    most: int | None = 200,
) -> dict[str, Any]:
    """Return how a generative guidebook and its base predict texts, and what it reproduces of its training text.

    Args:
        book: One guidebook of the task causal_lm.
        on: Texts of the domain that it was not trained on: other companies, later years.
        general: Texts outside the domain, to see what was forgotten.
        domain: The target whose adapters are measured.
        prompts: Prompts from the training text, and from `on` as a control, for memorisation; 0: none.
        most: Documents of each text that are measured at most.

    Returns:
        {"on": name -> documents and what divides them, scores and changes, for copied and novel parts apart;
        "general": name -> the same without parts;
        "memorisation": base and guidebook, or why there is none}.

    Raises:
        InputError: not a generative guidebook, or nothing to evaluate on.
    """
    if book.meta["task"]["labels"]:
        raise InputError("This guidebook has a task with labels. Evaluate it on labelled rows: evaluate(book, domain).")
    if not on and not general:
        raise InputError("There is nothing to evaluate on. Name texts: --on other.txt, --general wiki.txt.")
    require_causal(book.wear(None))
    training, why = training_documents(book)
    known = [word_ids(text) for text in training]
    texts = {place.name: _measure(book, place, domain, most) for place in (*on, *general)}
    names = [place.name for place in on]
    return {
        "on": {name: {**_scores(texts[name]), "spans": _spans(book, texts[name], known)} for name in names},
        "general": {place.name: _scores(texts[place.name]) for place in general},
        "memorisation": _learned(book, training, [texts[name] for name in names], domain, prompts) or {"left_out": why},
    }


def training_documents(book: Guidebook) -> tuple[list[str], str]:
    """Return the documents a guidebook was trained on, read again from where they were; else none and why."""
    recipe = book.meta["recipe"]
    task = recipe["task"]
    split = Split(task["validation_split_ratio"], task["split_seed"], task["group"], task["max_train_documents"])
    known = {entry["name"]: entry["fingerprint"] for entry in book.meta["domains"] if entry["role"] == "target"}
    found: list[str] = []
    for target in recipe["targets"]:
        if not target.get("path") or not os.path.exists(target["path"]):
            return (
                [],
                f"the training text of {target['name']} is not where it was ({target.get('path') or 'in memory'}).",
            )
        given = {key: value for key, value in target.items() if value is not None}
        kept, _ = split_documents(domain_from(given), "target", split)
        if kept.fingerprint != known[target["name"]]:
            return [], f"{target['path']} has changed since the guidebook was trained."
        found += kept.texts
    return found, ""


def _measure(book: Guidebook, place: Domain, domain: str, most: int | None) -> _Text:
    if place.path is not None and os.path.isdir(place.path):
        place = in_folder(place, Path(place.path))
    documents, _ = read_documents(place, "target", None)
    documents = first_documents(documents, most, seed=0)
    width, dtype = book.meta["task"]["max_length"], dtype_of(book.meta)
    nats = {}
    for arm, name in ((BASE, None), (book.meta["method"], domain)):
        host = book.wear(name)
        tokens = tokenise(documents.texts, host.tokenizer)
        nats[arm] = token_nats(host, tokens, width, dtype)
    return _Text(documents, tokens, nats)


def _scores(text: _Text) -> dict[str, Any]:
    sizes = [len(document.encode()) for document in text.documents.texts]
    found = compared({a: per_document(v, text.tokens) for a, v in text.nats.items()}, text.tokens.lengths, sizes)
    return {"documents": len(sizes), "division": text.documents.division, **found}


def _spans(book: Guidebook, text: _Text, known: Sequence[np.ndarray]) -> dict[str, Any]:
    """Return the losses of the parts that stand in the training text (13 words in a row) and of the rest, apart."""
    if not known:
        return {}
    backend = whole_text(book.wear(None).tokenizer)
    marks, sizes = [], []
    for document in text.documents.texts:
        characters = copied_characters(document, known)
        weights = np.array([len(character.encode()) for character in document])
        for start, end in backend.encode(document, add_special_tokens=False).offsets:
            marks.append(bool(characters[max(end - 1, start)]) if end > start else False)
            sizes.append(int(weights[start:end].sum()))
    copied, weight = np.array(marks), np.array(sizes)
    found: dict[str, Any] = {"copied_share": float(weight[copied].sum() / max(weight.sum(), 1))}
    for name, chosen in (("copied", copied), ("novel", ~copied)):
        if weight[chosen].sum():
            parts = [[float(v[chosen].sum())] for v in text.nats.values()]
            scores = [likelihood_scores(p, [int(chosen.sum())], [int(weight[chosen].sum())]) for p in parts]
            found[name] = dict(zip(text.nats, scores, strict=True))
    return found


def _continued(
    host: Host, before: Sequence[int], sampling: Sampling, starts: Sequence[Sequence[int]]
) -> list[list[int]]:
    return continue_tokens(host, [[*before, *start] for start in starts], sampling)


def _learned(
    book: Guidebook, training: Sequence[str], control: Sequence[_Text], domain: str, prompts: int
) -> dict[str, Any]:
    if not training or not prompts:
        return {}
    found = {}
    for arm, name in ((BASE, None), (book.meta["method"], domain)):
        host = book.wear(name)
        width = book.meta["task"]["max_length"]
        trained = tokenise(list(training), host.tokenizer)
        documents = [trained[row].tolist() for row in range(len(trained))]
        unseen = [text.tokens[row].tolist() for text in control for row in range(len(text.tokens))]
        before = prompt_ids(host.tokenizer, "")  # in training too, it stands before every text
        answer = min(50, width - 50 - len(before))
        if answer < 1:
            return {"left_out": f"prompts of 50 tokens do not fit into {width}: train with a larger train.max_length."}

        longest = Sampling(max_length=len(before) + 50 + answer, temperature=0)
        continued = partial(_continued, host, before, longest)

        found[arm] = memorisation(continued, documents, unseen, count=prompts, answer=answer)
    return found
