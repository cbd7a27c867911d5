"""Threads that wait asleep: who sets it, who does not, and that a choice of the user's stands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

from guidebook.threads import PASSIVE, children_wait_asleep, waiting

SHOW = f"import os, json; print(json.dumps({{k: v for k, v in os.environ.items() if k in {sorted(PASSIVE)}}}))"
CALL = "import sys; from guidebook.cli.main import main; main(['--version']); assert 'torch' not in sys.modules"
COMMAND = f"{CALL}; {SHOW}"
LIBRARY = f"import guidebook, guidebook.threads, guidebook.cli.main, guidebook.compare.processes; {SHOW}"


def settings(code: str, given: Mapping[str, str] | None = None) -> dict[str, str]:
    """What the variables are after code has run in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name not in PASSIVE} | dict(given or {})
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_the_command_line_lets_threads_wait_asleep_before_torch_is_loaded() -> None:
    assert settings(COMMAND) == PASSIVE


CHOICES = [("OMP_WAIT_POLICY", "ACTIVE"), ("GOMP_SPINCOUNT", "5"), ("KMP_BLOCKTIME", "9")]


@pytest.mark.parametrize(("name", "value"), CHOICES)
def test_what_the_user_has_set_stands(name: str, value: str) -> None:
    assert settings(COMMAND, {name: value}) == {name: value}


def test_importing_the_library_sets_nothing() -> None:
    assert settings(LIBRARY) == {}


def test_processes_that_are_started_wait_asleep_and_the_starter_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PASSIVE:
        monkeypatch.delenv(name, raising=False)
    with children_wait_asleep():
        shown = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True, check=True).stdout
    assert json.loads(shown) == PASSIVE
    assert not set(PASSIVE) & set(os.environ)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    with children_wait_asleep():
        assert {name: os.environ[name] for name in PASSIVE if name in os.environ} == {"OMP_WAIT_POLICY": "ACTIVE"}
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "spinning"),
        (PASSIVE, "asleep"),
        ({"OMP_WAIT_POLICY": "passive"}, "asleep"),
        ({"GOMP_SPINCOUNT": "0"}, "asleep"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "as set"),
        ({"OMP_WAIT_POLICY": "ACTIVE", "KMP_BLOCKTIME": "0"}, "as set"),
    ],
)
def test_doctor_says_how_threads_wait(given: dict[str, str], said: str) -> None:
    assert waiting(given).startswith(said)
