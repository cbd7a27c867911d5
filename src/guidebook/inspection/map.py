"""Rows of all domains as points in the plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guidebook.errors import InputError
from guidebook.evaluation.seen import Floats

ROWS = 200  # of each domain
TITLE = "Drawn by guidebook inspect"
"""Stands in the file, so that a map may be drawn anew in its place and another picture may not."""


def places(rows: Mapping[str, Floats]) -> dict[str, list[list[float]]]:
    """Return the first two principal components (n, 2) of the rows (n, H) of every domain, on one pair of axes."""
    every = np.concatenate(list(rows.values()))
    centred = every - every.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = (
        axes[:2] * np.sign(axes[:2, np.abs(axes[:2]).argmax(1)].diagonal())[:, None]
    )  # signs that do not depend on LAPACK
    points = centred @ axes.T  # (N, 2)
    ends = np.cumsum([len(part) for part in rows.values()])[:-1]
    return {name: part.round(4).tolist() for name, part in zip(rows, np.split(points, ends), strict=True)}


def word_rows(texts: Mapping[str, Sequence[str]], seed: int = 0) -> dict[str, Floats]:
    """Return rows of TF-IDF weights in 50 dimensions or fewer, for a sample of the texts of every domain."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    generator = np.random.default_rng(seed)
    chosen = {name: [of[row] for row in generator.permutation(len(of))[:ROWS]] for name, of in texts.items()}
    every = [text for of in chosen.values() for text in of]
    matrix = TfidfVectorizer(token_pattern=r"[^\W\d_]+", sublinear_tf=True, max_features=5_000).fit_transform(every)
    width = max(2, min(50, *(size - 1 for size in matrix.shape)))
    found = TruncatedSVD(width, random_state=0).fit_transform(matrix)
    ends = np.cumsum([len(of) for of in chosen.values()])[:-1]
    return dict(zip(chosen, np.split(found, ends), strict=True))


def is_map(path: Path) -> bool:
    """Whether a file is a map that was drawn here."""
    with path.open("rb") as file:
        return TITLE.encode() in file.read(4096)


def draw(found: Mapping[str, Any], path: Path) -> Path:
    """Draw the map, and recorded directions where there are any, into an image whose suffix says its kind.

    Raises:
        InputError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("A map needs matplotlib: pip install 'guidebook[report]'.") from error
    known = [point for point in found["directions"] if point.get("gain") is not None and point.get("error") is not None]
    figure = Figure(figsize=(10 if known else 5.5, 5), layout="constrained")
    axes = figure.subplots(1, 2 if known else 1, squeeze=False)[0]
    for name, points in found["map"].items():
        axes[0].scatter(*np.array(points).T, s=9, alpha=0.6, label=name)
    axes[0].set(title="rows", xlabel="first component", ylabel="second component")
    axes[0].legend()
    if known:
        axes[1].scatter([p["error"] for p in known], [p["gain"] for p in known], s=16, color="grey", label="recorded")
        for pair in found["pairs"]:
            axes[1].axvline(pair["content"]["error"], color="C1", linewidth=1)
            axes[1].annotate(f"{pair['source']} to {pair['target']}", (pair["content"]["error"], 0), rotation=90)
        axes[1].set(title="recorded directions; lines are yours", xlabel="error of telling the domains", ylabel="gain")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120, metadata={"Title": TITLE})
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: the map cannot be written ({error}). Choose another name, such as map.png."
        ) from error
    return path
