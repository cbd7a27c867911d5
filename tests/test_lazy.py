"""Importing guidebook, asking for help and listing cost no import of torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "peft", "accelerate", "sklearn", "scipy", "matplotlib")

COMMANDS = [
    [],
    ["--help"],
    ["--version"],
    *(["adapt", "--help"], ["predict", "--help"], ["evaluate", "--help"], ["doctor", "--help"]),
    ["import-adapterhub", "--help"],
    *(["recipe"], ["recipe", "--help"], ["ls"], ["ls", "methods", "--json"], ["ls", "architectures"], ["ls", "bases"]),
    *(["compare", "--help"], ["report", "--help"]),
    *(["audit", "--help"], ["inspect", "--help"]),
]


def heavy_modules(code: str) -> list[str]:
    """What of HEAVY a fresh interpreter has imported after running the code."""
    report = f"\nimport sys, json\nprint('\\n' + json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_import_loads_nothing_heavy():
    assert heavy_modules("import guidebook; dir(guidebook); guidebook.InputError") == []


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_that_only_tell_load_nothing_heavy(words):
    assert heavy_modules(f"from guidebook.cli.main import main; assert main({words!r}) in (0, 2)") == []


def test_the_check_sees_a_heavy_import():
    assert heavy_modules("import scipy") == ["scipy"]


def test_import_changes_nothing_outside():
    code = "import os, warnings, logging; before = (dict(os.environ), list(warnings.filters), logging.root.level)\n"
    code += "import guidebook, guidebook.cli.main\n"
    code += "assert before == (dict(os.environ), list(warnings.filters), logging.root.level)"
    assert heavy_modules(code) == []


def test_public_names_are_there():
    import guidebook

    for name in guidebook.__all__:
        assert getattr(guidebook, name) is not None
    assert set(guidebook.__all__) <= set(dir(guidebook))
    assert guidebook.adapt is guidebook.adapt, "a module of the same name would take its place on second access"
    assert callable(guidebook.adapt)


def test_an_unknown_name_suggests_the_nearest():
    import guidebook

    with pytest.raises(AttributeError, match="Did you mean 'Houlsby'"):
        guidebook.Houlsbi  # noqa: B018


def test_no_colour_when_not_a_terminal():
    environment = {**os.environ, "PYTHONIOENCODING": "utf8"}
    environment.pop("FORCE_COLOR", None)
    words = [sys.executable, "-m", "guidebook.cli.main", "ls", "nonsense"]
    done = subprocess.run(words, capture_output=True, env=environment, check=False)
    assert done.returncode == 2
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"There is no list of 'nonsense'" in done.stderr
