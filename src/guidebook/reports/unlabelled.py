"""What a run says of its targets without their labels, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guidebook.evaluation.drift import drift
from guidebook.evaluation.prior import withheld

CLASSES_SHOWN = 5


def said_without_labels(scores: Mapping[str, Any], method: str, name: str) -> list[str]:
    """Return the accuracy that is guessed and the class shares, target by target.

    Args:
        scores: What stands under "scores" in guidebook.json; may be empty.
        method: The method's key.
        name: Its name for people.
    """
    lines = []
    for target in scores.get("targets", ()):
        guess = target["estimates"].get(method, {}).get("threshold_confidence")
        if doubted := target.get("doubts", {}).get(method):
            seen, allowed = (f"{100 * doubted[key]:.0f} %" for key in ("disagreement", "expected"))
            lines.append(
                f"{target['name']}: no accuracy is guessed without labels. {name} and a model of word counts "
                f"disagree on {seen} of the rows, and on about {allowed} if its confidence could be trusted there. "
                "`guidebook audit` names the rows to label."
            )
        elif guess:
            lines.append(
                f"{target['name']}, guessed without labels: {name} is right on about {_interval(guess)[0]} % (ATC; "
                f"{_interval(guess)[1]} by chance in the rows, its own error comes on top)."
            )
        if lost := drift(target.get("validators", {}), method):
            lines.append(
                f"{target['name']}: {name} tells less about the rows there than source only does (mutual information "
                f"{lost[0]:.2f} against {lost[1]:.2f}), a sign that adapting drove it off; with `predict --guard` "
                "source only answers."
            )
        if "prior" in target and (why := withheld(target["prior"], scores["source_prior"])):
            lines.append(f"{target['name']}: its class shares cannot be guessed; {why}.")
        elif "prior" in target:
            shares = ", ".join(
                f"{label} {_interval(share)[0]} % ({_interval(share)[1]}; source "
                f"{100 * scores['source_prior'][label]:.1f})"
                for label, share in list(target["prior"]["em"].items())[:CLASSES_SHOWN]
            )
            lines.append(f"{target['name']}, class shares guessed without labels: {shares}.")
            if target["prior"]["shifted"]:
                lines.append(
                    f"{target['name']}: its class shares seem to differ from the source's. Methods that align domains "
                    "or reward balanced predictions assume that they do not, and can hurt; see `predict --prior`."
                )
    return lines


def _interval(found: Mapping[str, float]) -> tuple[str, str]:
    """Return estimate and interval in percent, without the sign."""
    return f"{100 * found['estimate']:.1f}", f"{100 * found['low']:.1f} to {100 * found['high']:.1f}"
