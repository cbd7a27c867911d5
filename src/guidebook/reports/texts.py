"""The account of a generative model in words and cells: losses before and after, what it wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

Facts = Mapping[str, Any]
Rows = tuple[tuple[str, ...], ...]
Outcome = Literal["helped", "hurt", "noise", "mixed", "unknown", "plain"]

BASE = "base"
SHOWN = 160
"""Characters of a text in a table of the terminal."""


def text_verdict(meta: Facts, method: str) -> tuple[Outcome, str, tuple[str, ...]]:
    """The verdict over all domains, one sentence, and one per domain and per general text."""
    evaluation = meta["evaluation"]
    if not evaluation["targets"]:
        return "unknown", f"What {method} changed was not measured.", tuple(missing_pieces(meta))
    changes = {target["name"]: _change(target, meta["method"]) for target in evaluation["targets"]}
    words = {name: _word(change) for name, change in changes.items()}
    found = set(words.values())
    outcome: Outcome = "mixed" if len(found) > 1 else next(iter(found))
    parts = [
        f"{said} {', '.join(name for name, word in words.items() if word == kind)}"
        for kind, said in (
            ("helped", "predicts held-out text better in"),
            ("noise", "makes no difference that shows in"),
            ("hurt", "predicts held-out text worse in"),
        )
        if kind in found
    ]
    findings = missing_pieces(meta) + [_finding(target, meta["method"]) for target in evaluation["targets"]]
    for entry in evaluation["general"]:
        for arm, change in entry["changes"].items():
            which = f" (adapted to {arm.partition(':')[2]})" if ":" in arm else ""
            findings.append(f"{entry['name']}, general text{which}: {_forgetting(change)}")
    if not evaluation["general"]:
        findings.append("Forgetting was not measured: the recipe names no general text (general: wikipedia.txt).")
    return outcome, f"{method[:1].upper()}{method[1:]} {' and '.join(parts)}.", tuple(findings)


def missing_pieces(meta: Facts) -> list[str]:
    """One sentence that names what a run did not come to, if there is something.

    >>> missing_pieces({"missing": {"report": "MemoryError: no message"}})
    ['Not complete: report is missing (MemoryError: no message). The command that made it adds it.']
    """
    missing = meta.get("missing") or {}
    if not missing:
        return []
    why = "; ".join(dict.fromkeys(missing.values()))
    are, it = ("are", "them") if len(missing) > 1 else ("is", "it")
    return [f"Not complete: {', '.join(missing)} {are} missing ({why}). The command that made it adds {it}."]


def loss_rows(meta: Facts, name_of: Callable[[str], str]) -> tuple[tuple[str, ...], str, Rows]:
    """Columns, alignment and rows: per text and model bits per byte and perplexity with intervals, and the change."""
    rows = []
    for target in meta["evaluation"]["targets"]:
        rows += _rows(target["name"], "held out", target, name_of)
        rows += _rows(target["name"], "trained on", target["trained_on"], name_of)
    for entry in meta["evaluation"]["general"]:
        rows += _rows(entry["name"], "general", entry, name_of)
    columns = ("text", "documents", "model", "bits/byte", "95 % interval", "perplexity", "95 % interval", "change")
    return columns, "lllrrrrl", tuple(rows)


def sample_rows(meta: Facts) -> tuple[tuple[str, ...], str, Rows]:
    """Columns, alignment and rows of what was written before and after."""
    method = meta["method"]
    rows = tuple(
        (sample["prompt"], _short(sample[BASE]), _short(sample[method]))
        for sample in meta["evaluation"].get("samples", ())
    )
    return ("prompt", "before", "after"), "lll", rows


def text_notes(meta: Facts) -> tuple[tuple[str, str], ...]:
    """Words used in the tables and what they mean here."""
    saw = ", ".join(meta["base"]["saw"])
    told = f"{saw}. Gains on text that the base has seen are not gains from adapting." if saw else _UNKNOWN
    return (*_MEANING.items(), *quantised_note(meta), ("base saw", told))


def quantised_note(meta: Facts) -> list[tuple[str, str]]:
    """What a base that was unpacked from a GGUF file is, in a list; empty for other bases."""
    kind = meta["base"].get("quantised_from")
    if not kind:
        return []
    told = f"The base was unpacked from a GGUF file, most of it of type {kind}. "
    if kind in ("F32", "F16", "BF16"):
        return [("base from GGUF", told + "Its numbers are those of the file.")]
    return [
        (
            "quantised base",
            told
            + "A quantised base is another base than the original: numbers and adapters of one are not the other's.",
        )
    ]


def interval(entry: Facts, name: str, digits: int) -> str:
    """An interval of scores: "1.23 to 1.31", or that one document has none."""
    low, high = entry[f"{name}_low"], entry[f"{name}_high"]
    return "one document" if low is None else f"{low:.{digits}f} to {high:.{digits}f}"


def change_text(change: Facts) -> str:
    """A change of bits per byte: "-0.231 (-0.240 to -0.222)"."""
    if change["low"] is None:
        return f"{change['estimate']:+.3f} (one document)"
    words = f"{change['estimate']:+.3f} ({change['low']:+.3f} to {change['high']:+.3f})"
    return f"{words}, within noise" if change["within_noise"] else words


def _rows(text: str, role: str, entry: Facts, name_of: Callable[[str], str]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for arm, scores in entry["scores"].items():
        change = entry["changes"].get(arm)
        method, _, target = arm.partition(":")
        found.append(
            (
                text,
                f"{scores['documents']:,} {role}",
                name_of(method) + (f", {target}" if target else ""),
                f"{scores['bits_per_byte']:.3f}",
                interval(scores, "bits_per_byte", 3),
                f"{scores['perplexity']:.2f}",
                interval(scores, "perplexity", 2),
                change_text(change) if change else "",
            )
        )
    return found


def _change(target: Facts, method: str) -> Facts:
    found: Facts = target["changes"][method]
    return found


def _word(change: Facts) -> Outcome:
    if change["within_noise"]:
        return "noise"
    return "helped" if change["estimate"] < 0 else "hurt"


def _finding(target: Facts, method: str) -> str:
    scores = target["scores"]
    before, after = scores[BASE], scores[method]
    return (
        f"{target['name']}: on {after['documents']:,} {target['held_out']}, perplexity {before['perplexity']:.2f} "
        f"before and {after['perplexity']:.2f} after; bits per byte {change_text(_change(target, method))}."
    )


def _forgetting(change: Facts) -> str:
    if change["within_noise"]:
        return f"no forgetting that shows, bits per byte {change_text(change)}."
    word = "forgot" if change["estimate"] > 0 else "predicts it better than before"
    return f"the adapted model {word}, bits per byte {change_text(change)}."


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= SHOWN else f"{words[: SHOWN - 1]}…"


_MEANING = {
    "bits/byte": "Mean surprise at a byte of text, in bits: less is better. It compares models with different "
    "tokenizers, perplexity per token does not.",
    "95 % interval": "A bootstrap over documents: how far chance in the choice of documents may move a number. This is "
    "one run with one seed.",
    "change": "Bits per byte minus the base's on the same documents: below zero is better than the base.",
    "trained on": "Text that the adapter was trained on. A gain there that held-out text does not have is memory.",
    "general": "Text outside the domain: a change above zero is forgetting.",
}
_UNKNOWN = (
    "What the base has seen is not stated: a gain may be on text it already knew. Say it with base_saw in the recipe."
)
