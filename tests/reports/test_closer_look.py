"""The closer look of the report: figures as themed SVG, sections that appear with what there is to show."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guidebook.errors import InputError
from guidebook.evaluation.closer import calibration_bins
from guidebook.evaluation.comparison import comparisons
from guidebook.reports import closer as closer_module
from guidebook.reports import page as page_module
from guidebook.reports.comparison import heading, render_comparison, tables_of, verdict, write_comparison
from guidebook.reports.figures import COLOURS, curves, reliability, scatter
from guidebook.reports.page import read_run, render
from reports.test_reports import Page, sample

EVIL = "<script>alert(1)</script>"


def with_curves() -> dict[str, Any]:
    meta = sample()
    for stage in meta["stages"]:
        steps = list(range(10, 110, 10))
        stage["curves"] = {part: [[s, 3.0 - s / 50] for s in steps] for part in stage["losses"]}
    return meta


def seen(labels: bool = True) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    gold = rng.integers(2, size=80)
    chances = rng.dirichlet([1, 1], size=80)
    arms = ("tfidf", "source_only", "domain_fusion")
    quote = {"line": 7, "text": f"fine pan {EVIL}", "ours": ["positive", 0.9], "twin": ["negative", 0.6]}
    return {
        "calibration": {arm: calibration_bins(chances, gold) for arm in arms} if labels else {},
        "map": {
            "source": ["books", 20],
            "target": ["kitchen", 30],
            "before": rng.normal(size=(50, 2)).tolist(),
            "after": rng.normal(size=(50, 2)).tolist(),
            "explained": [0.31, 0.54],
            "predicted": rng.integers(2, size=50).tolist(),
            "labels": ["negative", "positive"],
        },
        "disagreement": {
            "rows": 80,
            "differ": 9,
            "ours_right": 5 if labels else None,
            "twin_right": 4 if labels else None,
            "examples": [{**quote, "truth": "positive" if labels else None}] * 2,
        },
        "words": {
            "stage": "fuse",
            "guessed": 412,
            "loss": [3.1, 2.4],
            "gained": [{"word": "pan", "times": 9, "change": 1.4}, {"word": "lid", "times": 3, "change": 0.7}],
            "lost": [{"word": "novel", "times": 4, "change": -0.5}],
        },
    }


def evidence(labels: bool = True) -> dict[str, Any]:
    targets = {"kitchen": seen(labels), "hotels": {**seen(labels), "map": None, "words": None}, "apps": seen(labels)}
    return {"format": 1, "targets": targets, "general": {"guessed": 300, "loss": [2.0, 2.25]}}


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(page_module, "can_draw", lambda: True)
    monkeypatch.setattr(closer_module, "can_draw", lambda: True)


def test_with_matplotlib_everything_is_drawn(drawing: None) -> None:
    html = render(with_curves(), evidence())
    page = Page(html)
    for place in ("disagreement", "words", "map", "calibration", "forgetting", "losses"):
        assert place in page.ids
        assert f"#{place}" in page.links
    assert html.count("<svg") == 2 + 3 + 2 * 2  # stages' parts, calibrations, two maps before and after
    assert page.outside == []
    assert not re.search(r"@import|url\(|<script|<link|https?://|DejaVu", html)
    assert EVIL in page.text  # quoted, not run
    assert "9 of 80 rows" in page.text
    assert "is right on 5 and source only on 4" in page.text
    assert "adapting was right" in page.text
    assert "pan +1.40 9" in page.text
    assert "2.000 nats per token" in page.text
    assert "+0.250, worse than before" in page.text
    assert "pip install" not in page.text


def test_without_matplotlib_the_numbers_stay_and_the_way_to_the_plots_is_said() -> None:
    html = render(with_curves(), evidence())
    page = Page(html)
    assert "<svg" not in html
    assert "pip install 'guidebook[report]'" in page.text
    assert "domain fusion from 2.800 to 1.000" in page.text
    for bin_ in evidence()["targets"]["kitchen"]["calibration"]["domain_fusion"]:
        assert f"{100 * bin_['confidence']:.1f}" in page.text
    assert "map" not in page.ids
    assert {"disagreement", "words", "calibration"} <= page.ids


def test_without_labels_nothing_is_said_about_right_and_wrong(drawing: None) -> None:
    page = Page(render(with_curves(), evidence(labels=False)))
    assert "calibration" not in page.ids
    assert "adapting was" not in page.text
    assert "is right on" not in page.text


def test_a_run_without_evidence_still_has_its_page(drawing: None) -> None:
    meta = sample()  # of an earlier version: no curves either
    for nothing in (None, {}):
        page = Page(render(meta, nothing))
        assert not {"losses", "words", "map", "calibration", "disagreement", "forgetting"} & page.ids


def test_many_stages_of_one_name_are_not_all_drawn(drawing: None) -> None:
    meta = with_curves()
    stage = meta["stages"][2]
    meta["stages"] += [{**stage, "targets": [f"t{number}"]} for number in range(8)]
    page = Page(render(meta, evidence()))
    assert "4 more are not drawn" in page.text  # ten task stages of two models, six curves


# --- figures -----------------------------------------------------------------------------------------------------


def test_figures_are_coloured_by_the_page_alone(drawing: None) -> None:
    bins = seen()["calibration"]
    figures = [
        curves([("one", [1, 2, 3], [3.0, 2.0, 1.0]), ("two", [1, 2, 3], [3.0, 2.5, 2.0])], "a", "step"),
        reliability([bins["source_only"], bins["domain_fusion"]], "b", 0.5),
        scatter([([[0, 1], [2, 3]], "other", None), ([[1, 1]], "accent", [2])], "c"),
    ]
    for text in figures:
        Page(f"<h1></h1>{text}")  # every tag closes
        assert not re.search(r"#[0-9a-f]{6}\b", text), "a colour that does not follow light and dark"
        assert "var(--accent)" in text
        assert "font-family" not in text
        assert text.startswith('<svg aria-hidden="true" viewBox=')
    ids = [set(re.findall(r'id="([^"]+)"', text)) for text in figures]
    assert not ids[0] & ids[1] | ids[1] & ids[2]  # several figures share one page
    for text, known in zip(figures, ids, strict=True):
        assert set(re.findall(r'href="#([^"]+)"', text)) <= known


def test_the_same_figure_is_the_same_text(drawing: None) -> None:
    lines = [("one", [1, 2, 3], [3.0, 2.0, 1.0])]
    assert curves(lines, "a", "step") == curves(lines, "a", "step")


def test_labels_at_the_ends_do_not_lie_on_each_other(drawing: None) -> None:
    lines = [(f"line {number}", [0, 10], [1.0, 0.5 + number / 1000]) for number in range(5)]
    text = curves(lines, "labels", "step")
    heights = sorted(float(y) for y in re.findall(r'<text [^>]*y="([\d.-]+)"[^>]*>line \d</text>', text))
    assert len(heights) == 5
    assert min(np.diff(heights)) > 9  # the font has ten units


def test_labels_are_text_not_markup(drawing: None) -> None:
    assert "<script" not in curves([(EVIL, [1, 2], [1.0, 2.0])], EVIL, "step")


def test_colours_are_different() -> None:
    assert len(set(COLOURS.values())) == len(COLOURS)


# --- files -------------------------------------------------------------------------------------------------------


def test_what_a_run_kept_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no guidebook\.json"):
        read_run(tmp_path)
    (tmp_path / "guidebook.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match=r"guidebook\.json: not the description of a guidebook"):
        read_run(tmp_path)
    (tmp_path / "guidebook.json").write_text(json.dumps(sample()))
    assert read_run(tmp_path) == (sample(), None)
    (tmp_path / "evidence.json").write_text("{}")
    assert read_run(tmp_path) == (sample(), None)
    (tmp_path / "evidence.json").write_text("{")
    with pytest.raises(InputError, match=r"evidence\.json: not valid JSON"):
        read_run(tmp_path)


# --- comparison --------------------------------------------------------------------------------------------------


def compared() -> list[dict[str, Any]]:
    from evaluation.test_comparison import records

    facts = {"created": "2026-03-01T10:00:00", "recipe": {"base": "mini"}, "versions": {"guidebook": "0.1.0"}}
    return [{**line, **facts, "machine": {"cpu": "An Example CPU", "bf16": True, "gpu": None}} for line in records()]


def test_the_page_of_a_comparison_is_whole(tmp_path: Path) -> None:
    made = compared()
    (found,) = comparisons(made)
    html = write_comparison(made, tmp_path / "report.html").read_text(encoding="utf8")
    page = Page(html)
    assert not re.search(r"@import|url\(|<script|<link|https?://", html)
    assert verdict(found) in page.text
    assert heading(found) in page.text
    assert "3 candidates, 3 sources, 3 targets" in page.text
    for part in tables_of(found):
        for row in part.rows:
            assert all(cell in page.text for cell in row)
    assert page.text.count("oracle") > 1
    with pytest.raises(InputError, match="no records yet"):
        render_comparison([])


def test_verdicts_of_a_comparison() -> None:
    (found,) = comparisons(compared())
    assert verdict(found) == "Worse than source only: dann (p below 0.05 after Holm's correction for 2 tests)."
    assert 'class="verdict hurt"' in render_comparison(compared())
    same = [{**line, "correct": "01" * 30, "accuracy": 0.5} for line in compared()]
    assert verdict(comparisons(same)[0]) == (
        "No candidate shows a difference to source only, after Holm's correction for 2 tests."
    )
    assert verdict(comparisons(compared()[:1])[0]) == "One candidate: nothing to compare."
    assert verdict(comparisons([*compared()[:2], compared()[5]])[0]) == "No cell is complete yet."


# --- a browser ---------------------------------------------------------------------------------------------------

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"),
    *("--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--v=0", "--hide-scrollbars"),
)


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="opens the page in Chromium")
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("kind", ["run", "comparison"])
def test_a_browser_opens_it_without_a_complaint(drawing: None, tmp_path: Path, width: int, kind: str) -> None:
    path, shot = tmp_path / "report.html", tmp_path / "shot.png"
    html = render(with_curves(), evidence()) if kind == "run" else render_comparison(compared())
    probe = (
        "<script>addEventListener('load', () => { const wide = document.documentElement.scrollWidth;"
        "console.log(`width ${wide} of ${innerWidth}`);"
        "for (const e of document.querySelectorAll('figure, table.plot, blockquote, .words'))"
        "  if (e.getBoundingClientRect().right > innerWidth + 1) console.log(`beyond the edge ${e.className}`); })"
        "</script></body>"
    )
    path.write_text(html.replace("</body>", probe), encoding="utf8")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},2000"]
    done = subprocess.run(
        [*command, f"--screenshot={shot}", path.as_uri()], capture_output=True, timeout=120, check=True
    )
    said = [line for line in done.stderr.decode(errors="replace").splitlines() if "CONSOLE" in line]
    widths = [re.search(r"width (\d+) of (\d+)", line) for line in said]
    assert len([found for found in widths if found]) == 1, said
    found = next(found for found in widths if found)
    assert int(found[1]) <= int(found[2]), "the page scrolls sideways"
    assert len(said) == 1, said
    assert shot.stat().st_size > 20_000
