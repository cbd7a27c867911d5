"""The account of a run as plain data: a verdict in words and tables of finished cells.

Terminal, model card and page all show these, so they never disagree.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, get_args

from guidebook.data.overlap import said_of_overlap
from guidebook.evaluation.drift import TWIN
from guidebook.evaluation.statistics import Interval, smallest_detectable
from guidebook.evaluation.task_scores import ACCURACY, METRICS, primary
from guidebook.reports.numbers import duration, listed, megabytes, percent, points
from guidebook.reports.scored import counted, named_otherwise, score_columns, scored, tested
from guidebook.reports.texts import (
    Outcome,
    loss_rows,
    missing_pieces,
    quantised_note,
    sample_rows,
    text_notes,
    text_verdict,
)
from guidebook.reports.unlabelled import said_without_labels

Facts = Mapping[str, Any]

UNTRAINED = {"tfidf": "TF-IDF", "zero_shot": "zero-shot prompt", "linear_probe": "linear probe"}
"""Baselines that train nothing in the base -> their names for people."""
__all__ = ["Summary", "Table", "arm_name", "duration", "listed", "megabytes", "percent", "points", "summary"]

ARM_NAMES = {**UNTRAINED, TWIN: "source only"}


@dataclass(frozen=True)
class Table:
    """A table of finished cells."""

    title: str
    """What it shows."""
    columns: tuple[str, ...]
    """Headings, one per column."""
    align: str
    """One letter per column: l for words, r for numbers."""
    rows: tuple[tuple[str, ...], ...]
    """Cells, as many per row as columns."""

    def text(self) -> str:
        """The table in a fixed-width font, columns two blanks apart."""
        widths = [max(len(row[i]) for row in (self.columns, *self.rows)) for i in range(len(self.columns))]
        lines = [
            "  ".join(
                cell.rjust(w) if side == "r" else cell.ljust(w)
                for cell, w, side in zip(row, widths, self.align, strict=True)
            )
            for row in (self.columns, *self.rows)
        ]
        return "\n".join([self.title, *(f"  {line}".rstrip() for line in lines)])


@dataclass(frozen=True)
class Summary:
    """What the terminal shows at the end of a run, in this order."""

    outcome: Outcome
    """Over all targets: helped, hurt, noise (nothing that shows), mixed, unknown (no labels), plain (not adapted)."""
    verdict: str
    """One sentence: did adapting help?"""
    findings: tuple[str, ...]
    """One sentence per target, and whatever else must be known to read the numbers right."""
    results: Table
    """Per target and model: accuracy with interval, and the paired difference to source only."""
    source: Table
    """Per model: accuracy on held-out rows of the source."""
    stages: Table
    """Per stage: tokens, time, losses."""
    costs: Table
    """What was trained, what it weighs, how long it took."""
    domains: Table
    """Per domain: rows, tokens, what was cut."""
    notes: tuple[tuple[str, str], ...]
    """Words used above and what they mean here, and what the numbers do not say."""
    samples: Table = Table("", (), "", ())
    """What a generative model wrote before and after."""

    def tables(self) -> list[Table]:
        """The tables that have rows, in order."""
        values = [getattr(self, field.name) for field in fields(self)]
        return [value for value in values if isinstance(value, Table) and value.rows]

    def text(self, width: int = 100) -> str:
        """The whole summary as text; sentences are wrapped at `width`, tables are not."""
        words = [textwrap.fill(self.verdict, width)]
        words += [textwrap.fill(line, width, initial_indent="- ", subsequent_indent="  ") for line in self.findings]
        return "\n\n".join([*(table.text() for table in self.tables()), "\n".join(words)]) + "\n"


def summary(meta: Facts) -> Summary:
    """The summary of what guidebook.json says."""
    if "general" in meta["evaluation"]:
        return _of_text(meta)
    outcome, verdict, findings = _verdict(meta)
    return Summary(
        outcome,
        verdict,
        findings,
        results=_results(meta),
        source=_source(meta),
        stages=_stages(meta),
        costs=_costs(meta),
        domains=_domains(meta),
        notes=_notes(meta),
    )


def _of_text(meta: Facts) -> Summary:
    """The summary of a model that was adapted to raw text, without a task."""
    outcome, verdict, findings = text_verdict(meta, arm_name(meta["method"]))
    columns, align, rows = loss_rows(meta, arm_name)
    shown, sides, texts = sample_rows(meta)
    return Summary(
        outcome,
        verdict,
        findings,
        results=Table("How well text is predicted", columns, align, rows),
        source=Table("", (), "", ()),
        stages=_stages(meta),
        costs=_costs(meta),
        domains=_domains(meta),
        notes=text_notes(meta),
        samples=Table("Before and after", shown, sides, texts),
    )


def arm_name(arm: str) -> str:
    """A model's name for people; those that read target labels say so.

    >>> arm_name("domain_fusion"), arm_name("target_oracle")
    ('domain fusion', 'target oracle (reads target labels)')
    """
    return ARM_NAMES.get(arm, arm.replace("_", " ")) + (" (reads target labels)" if "oracle" in arm else "")


def difference_of(target: Facts) -> Interval | None:
    """The paired difference of a target's entry, None where there are no labels."""
    found = target.get("difference")
    return Interval(found["estimate"], found["low"], found["high"]) if found else None


def outcome_of(difference: Interval | None) -> Outcome:
    """What one difference says."""
    if difference is None:
        return "unknown"
    if difference.within_noise:
        return "noise"
    return "helped" if difference.estimate > 0 else "hurt"


def _verdict(meta: Facts) -> tuple[Outcome, str, tuple[str, ...]]:
    targets, method = meta["evaluation"]["targets"], meta["method"]
    compared = [(target, outcome_of(difference_of(target))) for target in targets]
    findings = missing_pieces(meta) + [line for target in targets for line in _findings(target, method)]
    findings += [f"{of}: {note}" for of, notes in meta.get("notes", {}).items() for note in notes]
    findings += said_without_labels(meta.get("scores") or {}, method, arm_name(method))
    named = {word: [target["name"] for target, found in compared if found == word] for word in get_args(Outcome)}
    known = {found for _, found in compared} - {"unknown"}
    if method == TWIN or (not known and any(target["scores"] for target in targets)):
        return "plain", f"Nothing was adapted: the method is {arm_name(method)}.", tuple(findings)
    if not known:
        return "unknown", f"Whether adapting helped is not known: {_unlabelled(targets)}.", tuple(findings)
    outcome = known.pop() if len(known) == 1 else "mixed"
    parts = [
        f"helped on {listed(named['helped'])}" if named["helped"] else "",
        f"made no difference that shows on {listed(named['noise'])}" if named["noise"] else "",
        f"hurt on {listed(named['hurt'])}" if named["hurt"] else "",
    ]
    verdict = f"Adapting {listed([part for part in parts if part])}."
    if outcome == "noise":
        verdict = (
            f"Adapting did not help: {arm_name(method)} and source only are within noise on {listed(named['noise'])}."
        )
    if named["unknown"]:
        said = _unlabelled(targets)
        verdict += f" {said[0].upper()}{said[1:]}."
    return outcome, verdict, tuple(findings)


def _unlabelled(targets: Sequence[Facts]) -> str:
    """Return which targets have no labels, and which have others than the source."""
    bare = [target for target in targets if not target.get("difference")]
    others = listed([target["name"] for target in bare if named_otherwise(target)])
    none = listed([target["name"] for target in bare if not named_otherwise(target)])
    parts = [f"no labels for {none}"] if none else []
    return ", and ".join([*parts, *([f"the labels of {others} are none of the source's"] if others else [])])


def _findings(target: Facts, method: str) -> list[str]:
    name, scores, difference = target["name"], target["scores"], difference_of(target)
    lines = []
    unknown = ", ".join(f"{label!r}: {rows:,}" for label, rows in target.get("unknown_labels", {}).items())
    if named_otherwise(target):
        lines.append(
            f"{name}: its labels ({unknown}) are none of the source's, so nothing here says how well it works. Name "
            "them as the source does, or name another column under columns.label."
        )
    elif not scores:
        lines.append(f"{name}: no labels, so nothing here says how well it works. Label a hundred rows to know.")
    if scores and target.get("without_label"):
        lines.append(f"{name}: {target['without_label']:,} rows without labels are not scored.")
    lines += [f"{name}: {line}." for line in said_of_overlap(target.get("overlap") or {"rows": 0, "in": {}})]
    if difference is not None:
        metric = METRICS[target["difference"].get("metric", ACCURACY)]
        lines.append(f"{name}: {_said(difference, arm_name(method), metric)}")
    reached = {arm: primary(found).estimate for arm, found in scores.items()}
    best = max((arm for arm in scores if arm in UNTRAINED), key=lambda arm: reached[arm], default="")
    if best and method in scores and best != method and reached[best] >= reached[method]:
        simple, ours = (percent(reached[arm]) for arm in (best, method))
        lines.append(
            f"{name}: {arm_name(best)}, which trains nothing in the base, reaches {simple} %, no less than "
            f"{arm_name(method)} with {ours} %."
        )
    if scores and unknown:
        lines.append(f"{name}: rows with labels that the source does not have are not scored ({unknown}).")
    return lines


def _said(difference: Interval, method: str, metric: str) -> str:
    if difference.low == difference.high == 0:
        return f"{method} and source only are right on the same rows; nothing here tells them apart."
    unit = "points" if metric == METRICS[ACCURACY] else f"points of {metric}"
    interval = (
        f"{points(difference.estimate)} {unit}, 95 % interval {points(difference.low)} to {points(difference.high)}"
    )
    if difference.within_noise:
        smallest = percent(smallest_detectable(difference.standard_error))
        return (
            f"{method} and source only are within noise ({interval}). A true difference under about {smallest} points "
            f"is likely to stay hidden with this many rows."
        )
    if difference.estimate > 0:
        return f"{method} is better than source only ({interval})."
    return f'{method} is worse than source only ({interval}). Keep domain="source_only" there.'


def _results(meta: Facts) -> Table:
    rows = []
    for target in meta["evaluation"]["targets"]:
        rows_tested = tested(target)
        for arm, scores in target["scores"].items():
            rows.append((target["name"], rows_tested, arm_name(arm), *scored(scores), _against(target, arm)))
        if not target["scores"]:
            why = "other labels" if named_otherwise(target) else "no labels"
            rows.append((target["name"], rows_tested, arm_name(meta["method"]), why, "", "", ""))
    columns = ("target", "test rows", "model", *score_columns(meta), "against source only")
    return Table("Results on the targets", columns, "lllrrrl", tuple(rows))


def _against(target: Facts, arm: str) -> str:
    difference = difference_of(target)
    if difference is None or target["difference"]["of"][0] != arm:
        return ""
    words = f"{points(difference.estimate)} ({points(difference.low)} to {points(difference.high)})"
    return f"{words}, within noise" if difference.within_noise else words


def _source(meta: Facts) -> Table:
    source = meta["evaluation"]["source"]
    rows = tuple(
        (source["name"], counted(source), arm_name(arm), *scored(scores)) for arm, scores in source["scores"].items()
    )
    columns = ("source", "held-out rows", "model", *score_columns(meta))
    return Table("Results on the source", columns, "lrlrrr", rows)


def _stages(meta: Facts) -> Table:
    rows = []
    for stage in meta["stages"]:
        losses = (f"{name} {loss['first']:.3f} to {loss['last']:.3f}" for name, loss in stage["losses"].items())
        rows.append(
            (
                arm_name(stage["arm"]),
                stage["name"],
                f"{stage['tokens']:,}",
                f"{stage['steps']:,}",
                duration(stage["seconds"]) + (" (reused)" if stage["cached"] else ""),
                f"{stage['tokens_per_second']:,.0f}",
                ", ".join(losses),
            )
        )
    columns = ("model", "stage", "tokens", "steps", "time", "tokens/s", "loss, first to last")
    return Table("Stages", columns, "llrrrrl", tuple(rows))


def _costs(meta: Facts) -> Table:
    size, stages = meta["size"], meta["stages"]
    trained = [stage for stage in stages if not stage["cached"]]
    seconds = sum(stage["seconds"] for stage in trained)
    rows = [("trained share of the base", f"{100 * size['trainable_share']:.2f} % of {meta['base']['parameters']:,}")]
    per_domain, base = size["megabytes_per_domain"], size["base_megabytes"]
    if per_domain:
        rows.append(("size per domain", f"{megabytes(per_domain)}, the base has {megabytes(base)}"))
    rows.append(("time in all", duration(meta["seconds"])))
    if trained:
        speed = sum(stage["tokens"] for stage in trained) / max(seconds, 1e-9)
        rows.append(("time in training", f"{duration(seconds)}, {speed:,.0f} tokens per second"))
    if len(trained) < len(stages):
        rows.append(("stages reused", f"{len(stages) - len(trained)} of {len(stages)}"))
    return Table("Costs", ("what", "how much"), "ll", tuple(rows))


def _domains(meta: Facts) -> Table:
    rows = []
    for domain in meta["domains"]:
        overlap = ", ".join(f"{count:,} in {name}" for name, count in domain["overlap"].items() if count)
        rows.append(
            (
                domain["name"],
                domain["role"],
                f"{domain['rows']:,}",
                f"{domain['tokens']:,}",
                f"{domain['fertility']:.2f}",
                f"{100 * domain['texts_cut'] / max(domain['rows'], 1):.0f} %",
                f"{100 * domain['tokens_cut'] / max(domain['tokens'], 1):.0f} %",
                f"{domain['duplicates']:,}",
                overlap or "none",
            )
        )
    columns = ("domain", "role", "rows", "tokens", "tokens/word", "texts cut", "text cut", "repeated", "also elsewhere")
    return Table("Domains", columns, "llrrrrrrl", tuple(rows))


def _notes(meta: Facts) -> tuple[tuple[str, str], ...]:
    targets, method = meta["evaluation"]["targets"], meta["method"]
    arms = {arm for target in targets for arm in target["scores"]}
    compared = [target for target in targets if target.get("difference")]
    reads_text = any(stage["arm"] == method and "lm" in stage["losses"] for stage in meta["stages"])
    saw = listed(meta["base"]["saw"])
    applies = {
        "transductive": any(target["transductive"] for target in targets),
        "95 % interval": bool(arms),
        "within noise": bool(compared),
        "several targets": len(compared) > 1,
        "oracle": any("oracle" in arm for arm in arms),
        "placebo": bool(compared) and reads_text and "general_mlm" not in {method, *arms},
    }
    notes = [(word, _MEANING[word]) for word, holds in applies.items() if holds]
    notes += quantised_note(meta)
    if saw:
        return *notes, ("base saw", f"{saw}. Gains on text that the base has seen are not gains from adapting.")
    return *notes, ("base saw", _MEANING["base saw"])


_MEANING = {
    "transductive": "The rows tested, or a share of them, are rows whose text was adapted to, with their labels "
    "hidden. New rows of the domain may do worse; give some as the target's test rows to know.",
    "95 % interval": "How far chance in the test rows may move a number. This is one run with one seed: another seed "
    "or another sample of source labels moves it too, and the interval does not know.",
    "within noise": "The interval of the paired difference covers zero: these rows do not show which model is better.",
    "several targets": "Every interval misses the truth one time in twenty; among many, one that does is likely.",
    "oracle": "Reads the labels of the target. It shows what labels would give; nothing to ship or to choose by.",
    "placebo": "Better than source only does not yet mean that the domain's text did it: more training of an adapter "
    "may help by itself. Only a comparison with general_mlm, the same stages on general text, tells them apart.",
    "base saw": "Not declared. If the base read these domains or their labels, the numbers flatter it.",
}
