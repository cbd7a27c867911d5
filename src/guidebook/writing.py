"""Writing the artifact: a folder of adapters, head, card and records, never half of one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file as save_rows
from safetensors.torch import load_file, save_file

from guidebook.errors import InputError
from guidebook.evaluation.drift import TWIN
from guidebook.evaluation.records import append_record
from guidebook.methods import WITHOUT_A_MODEL
from guidebook.reports.card import write_card
from guidebook.reports.page import write_report
from guidebook.text_account import text_records
from guidebook.training.combination import HEADS
from guidebook.training.engine import Outcome
from guidebook.training.store import fsync_folder

FACTS = "guidebook.json"
EVIDENCE = "evidence.json"
REPORT = "report.html"
FORMAT = 1
HEAD = "head.safetensors"
KNOWN_ROWS = "known_rows.safetensors"  # by which `predict --abstain` tells strange rows
BASE_VARIANT = "base"


def check_out(folder: Path) -> Path:
    """Return the folder, made absolute, if an artifact may be written there.

    Raises:
        InputError: it holds something that is not a guidebook, or nothing can be written there.
    """
    folder = folder.expanduser().resolve()
    above = next(parent for parent in folder.parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(f"{folder}: no folder can be made in {above}. Choose another --out.")
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / FACTS).exists())):
        raise InputError(f"{folder}: exists and is not a guidebook. Choose another --out, or empty it first.")
    return folder


def write_guidebook(
    folder: Path,
    facts: dict[str, Any],
    outcomes: Sequence[Outcome],
    evidence: Mapping[str, Any] | None = None,
    known: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write the artifact to a temporary sibling and rename it: never half a guidebook."""
    temporary, old = (folder.with_name(f".{folder.name}.{end}") for end in ("new", "old"))
    shutil.rmtree(temporary, ignore_errors=True)  # what a run that was killed here left behind
    temporary.mkdir(parents=True)
    try:
        facts |= _write_variants(temporary, facts["method"], outcomes)
        if known:
            save_rows(dict(known), temporary / KNOWN_ROWS)
        (temporary / FACTS).write_text(json.dumps(facts, indent=1, default=str) + "\n", encoding="utf8")
        for record in records(facts):
            append_record(temporary / "records.jsonl", record)
        write_card(facts, temporary / "README.md")
        (temporary / EVIDENCE).write_text(json.dumps(evidence or {}) + "\n", encoding="utf8")
        write_report(facts, temporary / REPORT, evidence)
        for path in temporary.rglob("*.safetensors"):
            path.chmod(0o644)  # safetensors makes its files private
        fsync_folder(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    temporary.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder


def records(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one record per arm and target: the scores with everything needed to run it again."""
    shared = {
        "created": facts["created"],
        "base": facts["base"]["id"],
        "base_fingerprint": facts["base"]["fingerprint"],
        "base_saw": facts["base"]["saw"],
        "base_quantised_from": facts["base"].get("quantised_from"),
        "method": facts["method"],
        "seed": facts["seed"],
        "recipe": facts["recipe"],
        "versions": facts["versions"],
        "machine": facts["machine"],
    }
    if "general" in facts["evaluation"]:
        return [{**record, **shared} for record in text_records(facts)]
    found = []
    for target in facts["evaluation"]["targets"]:
        for arm, values in target["scores"].items():
            stages = [
                stage["key"] for stage in facts["stages"] if stage["arm"] == arm and target["name"] in stage["targets"]
            ]
            brief = {key: values[key] for key in ("accuracy", "accuracy_low", "accuracy_high", "macro_f1")}
            source = facts["evaluation"]["source"]["scores"].get(arm, {}).get("accuracy")
            found.append(
                {
                    "arm": arm,
                    "label_free": facts["label_free"] or arm != facts["method"],
                    "target": target["name"],
                    "rows": target["rows"],
                    "transductive": target["transductive"],
                    **brief,
                    "source_accuracy": source,
                    "stages": stages,
                    **shared,
                }
            )
    return found


def _write_variants(folder: Path, method: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Copy adapters and heads into the artifact; return {"variants", "serves"}."""
    variants: dict[str, Any] = {}
    serves: dict[str, str] = {}
    heads: dict[str, Any] = {}
    for outcome in outcomes:
        if outcome.arm == "linear_probe" and outcome.head is not None:
            variants[BASE_VARIANT] = {"stack": [], "folder": ".", "head": BASE_VARIANT}
            heads |= {f"{BASE_VARIANT}.{name}": value for name, value in outcome.head.items()}
    for arm in dict.fromkeys((TWIN, method)):
        made = [outcome for outcome in outcomes if outcome.arm == arm and outcome.stages]
        one_for_all = len({outcome.stages[-1].key for outcome in made}) == 1
        for outcome in made:
            variant = arm if one_for_all else f"{arm}:{outcome.target}"
            serves[outcome.target] = variant
            if variant not in variants:
                variants[variant], tensors = _write_variant(folder, outcome, variant, in_twin=arm == TWIN != method)
                heads |= tensors
    if method == "linear_probe":
        serves = dict.fromkeys(serves, BASE_VARIANT)
    if method in WITHOUT_A_MODEL:
        serves = {}
    if heads:
        save_file(heads, folder / HEAD)
    return {"variants": variants, "serves": serves}


def _write_variant(
    folder: Path, outcome: Outcome, variant: str, in_twin: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    last = outcome.stages[-1]
    place = folder / "source_only" if in_twin else folder
    suffix = f"-{_folder_name(variant.partition(':')[2])}" if ":" in variant else ""
    trained = {name: stage.places[name] for stage in outcome.stages for name in stage.stage.makes}  # the last one wins
    for name, made in trained.items():
        target = place / "adapters" / f"{name}{suffix}"
        if not target.exists():
            shutil.copytree(made, target)
    stored = load_file(last.folder / HEADS) if (last.folder / HEADS).exists() else {}
    head = {f"{variant}.{n.removeprefix('head.')}": value for n, value in stored.items() if n.startswith("head.")}
    if in_twin and head:
        save_file(head, place / HEAD)
    stack = [f"{name}{suffix}" for name in last.stack]
    return {"stack": stack, "folder": "source_only" if in_twin else ".", "head": variant if head else None}, head


def _folder_name(domain: str) -> str:
    """Return a domain's name as part of a folder's: what is not a letter, digit, - or _ by its number.

    >>> _folder_name("kitchen/2.0")
    'kitchen~2f2~2e0'
    """
    return "".join(mark if mark.isalnum() or mark in "-_" else f"~{ord(mark):x}" for mark in domain)
