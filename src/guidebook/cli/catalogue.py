"""The pages of methods and of papers, read from the docstrings where both are written once.

`python -m guidebook.cli.catalogue docs` writes them between the marks of `docs/methods.md` and `docs/papers.md`.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from pathlib import Path

from guidebook.cli.fields import class_source
from guidebook.methods import METHODS
from guidebook.reports.marks import fill

SECTION = re.compile(r"^(Reference|Differs|Reads|Assumes):\s*(.*(?:\n[ ]{4,}.*)*)", re.MULTILINE)
PACKAGE = Path(__file__).parents[1]


def parts_of(docstring: str) -> dict[str, str]:
    r"""Return the first line of a docstring ("") and its sections by name, each on one line.

    >>> parts_of("Do it.\n\nReference: A 2020,\n    a title.\nReads: text.")
    {'': 'Do it.', 'Reference': 'A 2020, a title.', 'Reads': 'text.'}
    """
    found = {"": docstring.partition("\n")[0]}
    for name, text in SECTION.findall(docstring):
        found[name] = " ".join(text.split())
    return found


def sections_of(place: str) -> dict[str, str]:
    """Return the parts of the docstring of `module:Class`; see `parts_of`."""
    node = class_source(place)
    return parts_of(ast.get_docstring(node) or "" if node is not None else "")


def methods_page() -> str:
    """Return one section per method: what it does, its paper, what it reads, assumes, and where it differs."""
    lines = []
    for name, place in METHODS.items():
        parts = sections_of(place)
        lines += [f"## `{name}`", "", parts[""], ""]
        lines += [f"- **{key}**: {parts[key]}" for key in ("Reference", "Reads", "Assumes", "Differs") if key in parts]
        lines.append("")
    return "\n".join(lines)


def papers_page() -> str:
    """Return every reference of the package with the files that name it."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf8"))
        nodes = (ast.Module, ast.ClassDef, ast.FunctionDef)
        for node in ast.walk(tree):
            text = ast.get_docstring(node) if isinstance(node, nodes) else None
            reference = parts_of(text).get("Reference") if text else None
            for paper in reference.split("; ") if reference else ():
                found[paper.rstrip(".")].add(str(path.relative_to(PACKAGE)))
    rows = [f"| {paper} | {', '.join(f'`{file}`' for file in sorted(files))} |" for paper, files in found.items()]
    return "\n".join(["| paper | named in |", "|---|---|", *sorted(rows)])


PAGES = {"methods.md": methods_page, "papers.md": papers_page}

if __name__ == "__main__":
    for file, make in PAGES.items():
        fill(Path(sys.argv[1]) / file, "catalogue", make())
