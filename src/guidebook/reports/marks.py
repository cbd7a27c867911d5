"""Generated parts of hand-written pages, between marks that name them."""

from __future__ import annotations

from pathlib import Path

from guidebook.errors import InputError


def filled(text: str, name: str, content: str) -> str:
    """Return a page with what stands between its marks replaced.

    The marks are `<!-- generated: NAME -->` and `<!-- end of generated: NAME -->`.

    Raises:
        InputError: the page does not have the two marks.
    """
    start, end = f"<!-- generated: {name} -->", f"<!-- end of generated: {name} -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise InputError(f"expected one {start!r} and one {end!r}. Put both where the generated part belongs.")
    before, rest = text.split(start)
    return f"{before}{start}\n{content.strip()}\n{end}{rest.split(end)[1]}"


def fill(page: Path, name: str, content: str) -> None:
    """Replace what stands between a file's marks, see `filled`.

    Raises:
        InputError: the page does not have the two marks.
    """
    try:
        new = filled(page.read_text(encoding="utf8"), name, content)
    except InputError as error:
        raise InputError(f"{page}: {error}") from error
    page.write_text(new, encoding="utf8")
