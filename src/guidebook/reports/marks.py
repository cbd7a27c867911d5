"""Generated parts of hand-written pages, between marks that name them."""

from __future__ import annotations

from pathlib import Path

from guidebook.errors import InputError


def fill(page: Path, name: str, content: str) -> None:
    """Replace what stands between `<!-- generated: NAME -->` and `<!-- end of generated: NAME -->`.

    Raises:
        InputError: the page does not have the two marks.
    """
    start, end = f"<!-- generated: {name} -->", f"<!-- end of generated: {name} -->"
    text = page.read_text(encoding="utf8")
    if text.count(start) != 1 or text.count(end) != 1:
        raise InputError(f"{page}: expected one {start!r} and one {end!r}. Put both where the generated part belongs.")
    before, rest = text.split(start)
    after = rest.split(end)[1]
    page.write_text(f"{before}{start}\n{content.strip()}\n{end}{after}", encoding="utf8")
