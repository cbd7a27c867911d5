"""Plots as SVG inside the page: matplotlib draws, the page's own style sheet colours, so they follow light and dark.

matplotlib is the extra `report`. Every figure is as wide as a phone; wider screens place several side by side.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from markupsafe import Markup

WIDTH, SIZE = 4.3, 10.0  # inches of 72 units, and the font's size in these units
COLOURS = {
    "#010101": "var(--ink)",
    "#020202": "var(--soft)",
    "#030303": "var(--line)",
    "#040404": "var(--accent)",
    "#050505": "var(--other)",
    "#060606": "var(--noise)",
    "#070707": "var(--card)",
}
"""What matplotlib is given -> what the page's style sheet makes of it."""
INK, SOFT, LINE, ACCENT, OTHER, NOISE, CARD = COLOURS
MARKERS = "o^sDvP"
JOINED = 5
"""Rows a bin needs for a line to go through it."""
HOW_TO = "pip install 'guidebook[report]'"

Curve = tuple[str, Sequence[float], Sequence[float]]
"""(label, x, y)."""


def can_draw() -> bool:
    """Whether the plotting library is there, without importing it."""
    return find_spec("matplotlib") is not None


def curves(lines: Sequence[Curve], name: str, horizontal: str) -> Markup:
    """Lines with their labels at their ends; the last one is drawn on top, in the accent colour."""
    figure, axes = _axes(2.3)
    for number, (_, x, y) in enumerate(lines):
        colour = ACCENT if number == len(lines) - 1 else OTHER
        axes.plot(x, y, color=colour, linewidth=1.8 if colour == ACCENT else 1.4, clip_on=False, zorder=3 + number)
    _label_ends(axes, lines)
    axes.set_xlabel(horizontal, color=SOFT, fontsize=SIZE)
    axes.set_xlim(left=0)
    return _svg(figure, name)


def reliability(models: Sequence[Sequence[Mapping[str, float]]], name: str, low: float) -> Markup:
    """Accuracy against confidence, a dot per bin whose area is its share of the rows; on the diagonal: calibrated.

    The last model is drawn in the accent colour. A line joins the bins that have rows enough for an accuracy.
    """
    figure, axes = _axes(3.1)
    axes.plot([low, 1], [low, 1], color=SOFT, linewidth=0.9, dashes=(3, 3), clip_on=False)
    for number, bins in enumerate(models):
        colour = ACCENT if number == len(models) - 1 else OTHER
        rows = sum(b["rows"] for b in bins)
        sizes = [max(9.0, 420 * b["rows"] / rows) for b in bins]
        points = [(b["confidence"], b["accuracy"]) for b in bins]
        look = {"color": colour, "alpha": 0.55, "linewidth": 0, "clip_on": False, "zorder": 3}
        axes.scatter(*zip(*points, strict=True), s=sizes, **look)
        joined = [point for point, b in zip(points, bins, strict=True) if b["rows"] >= JOINED] or points
        axes.plot(*zip(*joined, strict=True), color=colour, linewidth=1.5, clip_on=False, zorder=3 + number)
    axes.set_xlim(low, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("confidence", color=SOFT, fontsize=SIZE)
    axes.set_title("accuracy", loc="left", color=SOFT, fontsize=SIZE)
    return _svg(figure, name)


def scatter(groups: Sequence[tuple[Sequence[Sequence[float]], str, Sequence[int] | None]], name: str) -> Markup:
    """Points (x, y) by group (points, colour name, classes): a group has a colour, a class a marker."""
    colours = {"other": OTHER, "accent": ACCENT}
    figure, axes = _axes(3.6, bare=True)
    for points, colour, classes in groups:
        known = classes if classes is not None else [0] * len(points)
        for number in sorted(set(known)):
            chosen = [point for point, found in zip(points, known, strict=True) if found == number]
            marker = MARKERS[number % len(MARKERS)]
            x, y = [point[0] for point in chosen], [point[1] for point in chosen]
            axes.plot(
                x, y, marker, color=colours[colour], markersize=5.2, alpha=0.7, markeredgewidth=0.5,
                markeredgecolor=CARD, clip_on=False,
            )  # fmt: skip
    axes.set_aspect("equal", adjustable="datalim")
    return _svg(figure, name)


def _axes(height: float, bare: bool = False) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom" and not bare)
        spine.set_color(SOFT)
        spine.set_linewidth(0.8)
    if bare:
        axes.set_xticks([])
        axes.set_yticks([])
    axes.tick_params(colors=SOFT, labelsize=SIZE - 1, length=0, pad=5)
    axes.locator_params(nbins=4)
    axes.grid(axis="y", color=LINE, linewidth=0.8, clip_on=False)
    axes.set_axisbelow(True)
    return figure, axes


def _label_ends(axes: Any, lines: Sequence[Curve]) -> None:
    """Write every line's label behind its end, spread so that they do not lie on each other."""
    low, high = axes.get_ylim()
    gap = (high - low) * 0.11
    ends = sorted(((y[-1], number) for number, (_, _, y) in enumerate(lines) if len(y)), reverse=True)
    places: list[tuple[float, int]] = []
    for value, number in ends:
        place = value if not places else min(value, places[-1][0] - gap)
        places.append((place, number))
    over = low - places[-1][0] if places else 0.0
    right = max((max(x) for _, x, _ in lines if len(x)), default=1.0)
    for place, number in places:
        label = lines[number][0]
        colour = ACCENT if number == len(lines) - 1 else SOFT
        axes.annotate(
            label, (right, place + max(over, 0.0)), xytext=(7, 0), textcoords="offset points", va="center",
            color=colour, fontsize=SIZE, annotation_clip=False,
        )  # fmt: skip


def _svg(figure: Any, name: str) -> Markup:
    """Return a figure as an element of the page: no size, no fonts, no colours and no links of its own."""
    import matplotlib

    settings = {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": SIZE}
    file = io.StringIO()
    with matplotlib.rc_context(settings):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"| version="[^"]*"', "", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"| height="[^"]*pt"', r"\1", text)
    text = re.sub(r"font:\s*([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r"font-family:[^;\"]*;?\s*", "", text)
    text = re.sub(r'clip-path="[^"]*"', "", text)
    for given, wanted in COLOURS.items():
        text = text.replace(given, wanted)
    unique = re.sub(r"\W", "-", name)
    text = re.sub(r'id="([^"]+)"', rf'id="{unique}-\1"', text).replace('href="#', f'href="#{unique}-')
    return Markup(text.replace("<svg", '<svg aria-hidden="true"', 1))
