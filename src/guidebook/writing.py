"""Writing the artifact: a folder of adapters and heads that predicts, never half of one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from guidebook.artifact_files import HEAD, base_places, digests
from guidebook.artifact_schema import FACTS, with_digest
from guidebook.errors import InputError
from guidebook.evaluation.drift import TWIN
from guidebook.evaluation.task_scores import recorded
from guidebook.folders import digest, recover, replace_file, replace_folder
from guidebook.methods import WITHOUT_A_MODEL
from guidebook.strict_json import dumps, undefined
from guidebook.text_account import text_records
from guidebook.training.combination import HEADS
from guidebook.training.engine import Outcome

EVIDENCE = "evidence.json"
REPORT = "report.html"
CARD = "README.md"
RECORDS = "records.jsonl"
AUDIT = "audit.json"
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
    recover(folder)
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / FACTS).exists())):
        raise InputError(f"{folder}: exists and is not a guidebook. Choose another --out, or empty it first.")
    return folder


def write_guidebook(folder: Path, facts: dict[str, Any], outcomes: Sequence[Outcome]) -> list[str]:
    """Write what a guidebook needs to predict, in the place of the one before; return what was kept of that one.

    Files that a person wrote into the folder, an audit's labels among them, move into the new one. Everything else
    that a guidebook holds is added afterwards, piece by piece, see `completion.Completion`.

    Args:
        folder: The place, as `check_out` returns it.
        facts: What guidebook.json says; "variants", "serves", "files" and where the base is are added.
        outcomes: What was trained.
    """

    def fill(fresh: Path) -> None:
        facts.update(_write_variants(fresh, facts["method"], outcomes))
        facts["files"] = digests(fresh)
        facts["base"] |= base_places(facts["base"]["path"], folder)
        (fresh / FACTS).write_bytes(facts_json(facts))
        for path in fresh.rglob("*.safetensors"):
            path.chmod(0o644)  # safetensors makes its files private

    return replace_folder(folder, fill, retire_audit)


def facts_json(facts: Mapping[str, Any]) -> bytes:
    """Return guidebook.json with its digest; numbers that JSON cannot hold are null, and "undefined" says which.

    Raises:
        TypeError: a value that JSON cannot hold; the message names its place.
    """
    facts = {key: value for key, value in facts.items() if key != "undefined"}
    if lost := dict(undefined(facts)):
        facts["undefined"] = lost
    return with_digest(dumps(facts)).encode()


def retire_audit(old: Path, new: Path) -> None:
    """Where the models are others than before, keep the audit's rows and labels, but not its verdict on the models.

    An entry of audit.json becomes the last of its target's list "earlier"; the files with labels stay as they are.
    """
    place = new / AUDIT
    if not place.exists() or _models(old) == _models(new):
        return
    try:
        entries = dict(json.loads(place.read_text(encoding="utf8")))
        replace_file(place, (dumps({t: retired(entry) for t, entry in entries.items()}, indent=1) + "\n").encode())
    except (ValueError, TypeError, AttributeError):
        return  # a person changed the file: it stays as it is


def retired(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry of a target in audit.json after its rows or models have changed: all it said is "earlier".

    >>> retired({"verdict": "ship", "earlier": [{"verdict": "label_more"}]})
    {'earlier': [{'verdict': 'label_more'}, {'verdict': 'ship'}]}
    """
    last = {key: value for key, value in entry.items() if key != "earlier"}
    return {"earlier": [*entry.get("earlier", ()), *([last] if last else [])]}


def _models(folder: Path) -> dict[str, str]:
    """Return the digests of the tensors that a guidebook predicts with."""
    places = [folder / HEAD, *folder.glob("adapters/**/*.safetensors"), *folder.glob("source_only/**/*.safetensors")]
    return {path.relative_to(folder).as_posix(): digest(path) for path in places if path.exists()}


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
            on_source = facts["evaluation"]["source"]["scores"].get(arm, {})
            found.append(
                {
                    "arm": arm,
                    "label_free": facts["label_free"] or arm != facts["method"],
                    "target": target["name"],
                    "rows": target["rows"],
                    "transductive": target["transductive"],
                    "overlap": target.get("overlap"),
                    "without_label": target.get("without_label", 0),
                    **brief,
                    **recorded(values, on_source),
                    "source_accuracy": on_source.get("accuracy"),
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
