"""Generated parts are replaced, everything else stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from guidebook.errors import InputError
from guidebook.reports.marks import fill

PAGE = "before\n<!-- generated: x -->\nold\n<!-- end of generated: x -->\nafter\n"


def test_only_what_is_between_the_marks_changes_and_twice_is_the_same(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    fill(page, "x", "| new |")
    once = page.read_text()
    fill(page, "x", "| new |\n")
    assert once == page.read_text() == PAGE.replace("old", "| new |")


@pytest.mark.parametrize("text", ["no marks", PAGE + PAGE])
def test_missing_or_doubled_marks_are_refused(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(InputError, match=r"page\.md: expected one"):
        fill(page, "x", "new")
    assert page.read_text() == text
