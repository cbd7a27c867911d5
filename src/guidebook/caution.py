"""Predict with caution: what an audit or a sign of harm says, other class shares, no answer for strange rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from guidebook.artifact import Guidebook
from guidebook.artifact_files import read_tensors
from guidebook.errors import InputError, nearest
from guidebook.evaluation.abstention import Reference, strangeness
from guidebook.evaluation.drift import SCORE, TWIN, drift
from guidebook.evaluation.prior import Calibration, corrected, withheld
from guidebook.evaluation.seen import Floats
from guidebook.training.precision import dtype_of
from guidebook.training.prediction import make_rows, pooled_rows
from guidebook.writing import AUDIT, BASE_VARIANT, KNOWN_ROWS

ESTIMATED = "estimated"


@dataclass(frozen=True)
class Caution:
    """How a guidebook answers for one domain beyond the plain prediction."""

    book: Guidebook
    domain: str
    """The target that is answered for."""
    variant: str
    """What answers: the domain's own, or "source_only"."""
    prior: Floats | None = None
    """(C,) class shares to correct for."""
    abstain: float | None = None
    """Give no answer for rows that are stranger than all but this share of the known rows of source and target."""

    def __call__(self, texts: Sequence[str], text_pairs: Sequence[str] | None = None) -> tuple[Floats, Floats | None]:
        """Return probabilities (N, C), and with `abstain` how unlike the known domains each text is, (N,) 0..1."""
        found = self.book.predict_proba(texts, text_pairs, domain=self.variant)
        if self.prior is not None:
            found = with_prior(self.book, variant_of(self.book, self.variant), found, self.prior)
        return found, None if self.abstain is None else unlike(self.book, self.domain, texts, text_pairs)

    def leaves_out(self, strange: float) -> bool:
        """Whether a text that is so unlike the known domains gets no answer."""
        return self.abstain is not None and strange > 1 - self.abstain


def caution(
    book: Guidebook, domain: str, *, prior: str | None = None, abstain: float | None = None, guard: bool = False
) -> tuple[Caution, str]:
    """Return how to answer for a domain, and what of it is worth saying.

    Args:
        book: One guidebook.
        domain: A target it serves, "source_only", or "auto" where there is one.
        prior: "estimated" (as guessed when the guidebook was made), or "0.1,0.9" in the order of the labels.
        abstain: Share of known rows that may be left out as unlike source and target, 0..1.
        guard: Let the source-only twin answer where an audit found that it should, or, without an audit, where the
            adapted model tells less about the target's rows.

    Raises:
        InputError: what is asked needs something that the guidebook does not hold, or is no share.
    """
    if book.words:
        raise InputError("prior, abstain and guard are for labels of whole texts; this guidebook labels words.")
    if abstain is not None and not 0 < abstain < 1:
        raise InputError(f"--abstain {abstain} is not a share between 0 and 1. Write --abstain 0.05.")
    variant, said = guarded(book, domain) if guard else (domain, "")
    shares = None if prior is None else prior_of(book, domain, prior)
    if shares is not None:
        used = ", ".join(f"{name} {share:.1%}" for name, share in zip(book.labels, shares.tolist(), strict=True))
        said = "; ".join(filter(None, [said, f"class shares corrected for: {used}"]))
    return Caution(book, domain, variant, shares, abstain), said


def target_of(book: Guidebook, domain: str) -> str:
    """Return the target that a domain means: itself, or the only one where it is "auto".

    Raises:
        InputError: the guidebook does not serve it, or serves several.
    """
    served = list(book.meta["serves"])
    if domain in served:
        return domain
    if len(served) == 1 and domain in ("auto", book.path.resolve().name, *book.meta.get("variants", ())):
        return str(served[0])
    if domain == "auto":
        raise InputError(f"This guidebook serves {', '.join(served) or 'no target'}. Name one with --domain.")
    raise InputError(f"{domain!r} is no target here.{nearest(domain, served)} Targets: {', '.join(served)}.")


def read_audit(book: Guidebook) -> dict[str, dict[str, Any]]:
    """Return what audit.json holds: target -> plan, labels and, once there are labels, the verdict.

    Raises:
        InputError: the file is there and is damaged.
    """
    place = book.path / AUDIT
    try:
        entries = json.loads(place.read_text(encoding="utf8")) if place.exists() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{place}: cannot be read ({error}). Move it away and begin the audit again.") from error
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise InputError(f"{place}: not what an audit wrote. Move it away and begin the audit again.")
    return entries


def guarded(book: Guidebook, domain: str) -> tuple[str, str]:
    """Return the variant that should answer for a domain, and why: by its audit, else by what it tells of the target.

    Raises:
        InputError: the domain was not audited, and nothing was said of it without labels.
    """
    target = target_of(book, domain)
    found = read_audit(book).get(target, {})
    if "verdict" not in found:
        return by_drift(book, domain, target)
    if found["verdict"] == "keep_source_only":
        return TWIN, f"the audit of {target} says: keep source-only"
    words = "ship" if found["verdict"] == "ship" else f"label {found['more']} more rows; until then the adapted model"
    return domain, f"the audit of {target} says: {words}"


def by_drift(book: Guidebook, domain: str, target: str) -> tuple[str, str]:
    """Return the variant that should answer for a domain that was not audited, and why.

    Raises:
        InputError: nothing was said of the domain without labels.
    """
    entries = {entry["name"]: entry for entry in book.meta.get("scores", {}).get("targets", ())}
    scores, method = entries.get(target, {}).get("validators", {}), book.meta["method"]
    if any(scores.get(arm, {}).get(SCORE) is None for arm in (method, TWIN)):
        raise InputError(
            f"{target} was not audited, so there is nothing to guard by. Label some rows first: "
            f"guidebook audit {book.path} --label 100."
        )
    lost = drift(scores, method)
    if lost is None:
        return domain, f"{target} was not audited; no sign that adapting drove the model off"
    told = f"it tells less about its rows than the twin does ({lost[0]:.2f} against {lost[1]:.2f})"
    return TWIN, f"{target} was not audited, and {told}: source-only answers"


def prior_of(book: Guidebook, domain: str, prior: str) -> Floats:
    """Return the class shares (C,) that "estimated" or "0.1,0.9" stands for.

    Raises:
        InputError: no estimate is stored, or it says nothing, or the numbers are not one share per label that sum to 1.
    """
    labels = book.labels
    if prior == ESTIMATED:
        target = target_of(book, domain)
        entries = {entry["name"]: entry for entry in book.meta.get("scores", {}).get("targets", ())}
        guessed = entries.get(target, {}).get("prior")
        intervals = guessed["em"].values() if guessed else ()
        if not guessed or None in [*guessed["pulled"].values(), *(v for ends in intervals for v in ends.values())]:
            raise InputError(
                f"No class shares were estimated for {target}: that needs held-out source rows of every class "
                "(task.dev). Give them: --prior 0.1,0.9."
            )
        if why := withheld(guessed, book.meta["scores"]["source_prior"]):
            raise InputError(f"The class shares guessed for {target} say nothing: {why}. Give them: --prior 0.1,0.9.")
        return np.array([guessed["pulled"][name] for name in labels])
    try:
        shares = np.array([float(part) for part in prior.split(",")])
    except ValueError:
        shares = np.zeros(0)
    if len(shares) != len(labels) or (shares < 0).any() or abs(float(shares.sum()) - 1) > 0.01:
        raise InputError(
            f"--prior {prior!r} is neither 'estimated' nor {len(labels)} shares that sum to 1, one for each of "
            f"{', '.join(labels)}. Write for example --prior {','.join([f'{1 / len(labels):.2f}'] * len(labels))}."
        )
    return np.asarray(shares / shares.sum())


def with_prior(book: Guidebook, variant: str, probabilities: Floats, prior: Floats) -> Floats:
    """Return probabilities (N, C) of a variant, calibrated on source rows and corrected for class shares (C,).

    Raises:
        InputError: the guidebook holds no calibration of the variant.
    """
    found: dict[str, Any] = book.meta.get("scores", {})
    arm = "linear_probe" if variant == BASE_VARIANT else variant.partition(":")[0]
    stored, shares = found.get("calibration", {}).get(arm), found.get("source_prior", {})
    if stored is None or not shares or None in (stored["scale"], *stored["bias"], *shares.values()):
        raise InputError(
            f"No calibration of {arm} is stored, and without one no class shares can be corrected for. Hold out source "
            "rows (task.dev) and adapt again."
        )
    fit = Calibration(stored["scale"], np.array(stored["bias"]))
    source = np.array([shares[name] for name in book.labels])
    return corrected(fit(probabilities), source, prior)


def variant_of(book: Guidebook, domain: str) -> str:
    """Return the variant that answers for a domain."""
    if domain in book.meta.get("variants", ()):
        return domain
    return str(book.meta["serves"][target_of(book, domain)])


def unlike(book: Guidebook, domain: str, texts: Sequence[str], text_pairs: Sequence[str] | None = None) -> Floats:
    """Return how unlike the source and the target each text is, (N,) 0..1; see `strangeness`.

    Raises:
        InputError: the guidebook keeps no known rows.
    """
    place = book.path / KNOWN_ROWS
    stored = read_tensors(book.path, book.meta, KNOWN_ROWS) if place.exists() else {}
    names = ("source", f"target {target_of(book, domain if domain != TWIN else 'auto')}")
    known = [
        Reference(stored[f"{name}/rows"].double().numpy(), stored[f"{name}/distances"].double().numpy())
        for name in names
        if f"{name}/rows" in stored
    ]
    if not known:
        raise InputError("This guidebook keeps no known rows to tell strange ones by: adapt again, with more rows.")
    task = book.meta["task"]
    rows = make_rows(texts, text_pairs, book.host.tokenizer, task["max_length"], template=task.get("template"))
    with book.lock, book.host.disabled():
        return strangeness(pooled_rows(book.host, rows, task["pooling"], dtype_of(book.meta)), known)
