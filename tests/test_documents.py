"""What the documents, the examples and the docstrings say is true."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
from pathlib import Path

import pytest

from guidebook.cli.catalogue import PAGES
from guidebook.cli.families import matrix
from guidebook.cli.fields import field_text, sections, tables
from guidebook.cli.main import main
from guidebook.methods import METHODS
from guidebook.reports.marks import filled

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "guidebook"
DOCUMENTS = [
    path
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    if path.exists()
]


def blocks(language: str) -> list:
    """Fenced blocks of a language in all documents, with the name of the document."""
    found = []
    for path in DOCUMENTS:
        pattern = rf"^```{language}\n(.*?)^```"
        for number, text in enumerate(re.findall(pattern, path.read_text(encoding="utf8"), re.DOTALL | re.MULTILINE)):
            found.append(pytest.param(text, id=f"{path.name}-{number}"))
    return found


GENERATED = {
    "recipes.md": ("fields", tables),
    "families.md": ("families", matrix),
    **{page: ("catalogue", make) for page, make in PAGES.items()},
}


@pytest.mark.parametrize("page", GENERATED)
def test_generated_parts_are_up_to_date(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf8")
    name, make = GENERATED[page]
    assert filled(text, name, make()) == text, "run `make docs-tables`"


def test_every_method_says_where_it_comes_from_or_what_it_is_for():
    page = PAGES["methods.md"]()
    assert all(f"## `{name}`\n\n" in page for name in METHODS)
    assert page.count("**Reference**") >= len(METHODS) - 6  # baselines and the oracle come from no paper


def test_every_part_of_a_recipe_is_documented():
    for heading, _, place in sections():
        assert field_text(place, "kind") if place.endswith((":Houlsby", ":LoRA", ":Full")) else heading
    with pytest.raises(KeyError):
        field_text("guidebook.recipe:Recipe", "no such field")


@pytest.mark.parametrize("text", [block for block in blocks("yaml") if "source:" in block.values[0]])
def test_recipes_in_documents_are_recipes(text, tmp_path):
    from guidebook.recipe import load_recipe

    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf8")
    assert load_recipe(path).source


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_examples_are_recipes_of_files_that_are_there(path):
    from guidebook.recipe import load_recipe

    recipe = load_recipe(path)
    for domain in (*recipe.source, *recipe.targets):
        assert Path(domain.path).is_file()


@pytest.mark.parametrize("text", blocks("python"))
def test_python_in_documents_runs(text):
    ast.parse(text)
    if "gb.Recipe(" in text and "gb.adapt(" not in text:
        exec(compile(text, "document", "exec"), {})


@pytest.mark.parametrize("text", blocks("sh"))
def test_commands_in_documents_exist(text, capsys):
    makefile = (ROOT / "Makefile").read_text(encoding="utf8")
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if words[:1] == ["make"]:
            assert all(f"\n{target}:" in makefile for target in words[1:])
        for start, word in enumerate(words):
            if word == "guidebook" and start + 1 < len(words):
                inner = words[start + 2 : start + 3] if words[start + 1] == "recipe" else []
                assert main([words[start + 1], *inner, "--help"]) == 0
                said = capsys.readouterr().out
                assert all(flag in said for flag in words[start + 2 :] if flag.startswith("--"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#\s]+)\)", path.read_text(encoding="utf8")):
        if "://" not in target and target != "design.md":  # the living design is written beside the engine
            assert (path.parent / target).exists(), f"{path.name}: {target}"


WITH_EXAMPLES = [path for path in sorted(PACKAGE.rglob("*.py")) if "    >>> " in path.read_text(encoding="utf8")]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_docstring_examples_run(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    module = importlib.import_module(".".join(part for part in parts if part != "__init__"))
    result = doctest.testmod(module)
    assert result.failed == 0
    assert result.attempted > 0
