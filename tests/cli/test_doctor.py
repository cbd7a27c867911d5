from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from guidebook.cli import doctor
from guidebook.cli.main import main
from guidebook.training.precision import Rates


def test_everything_is_named(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "not" / "yet"))
    assert main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {"guidebook", "python", "library", "cores", "gpu", "bf16", "extra", "cache", "disk"} <= set(facts)
    assert facts["cores"] >= 1
    assert str(tmp_path) in facts["cache"]
    assert "GB free" in facts["disk"]
    assert main(["doctor"]) == 0
    assert "library torch" in capsys.readouterr().out


def test_a_missing_extra_comes_with_its_command(monkeypatch):
    wanted = [
        "numpy>=2",
        'nothing-of-the-sort>=1; extra == "report"',
        'numpy; extra == "test"',
        'guidebook[test]; extra == "dev"',
    ]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: wanted)
    assert doctor.extras() == {
        "report": "missing nothing-of-the-sort: pip install 'guidebook[report]'",
        "test": "complete (runs the tests)",
    }


def test_an_extra_of_another_python_is_not_missing(monkeypatch):
    wanted = [
        "nothing-of-the-sort; python_version < '3.0' and extra == 'zst'",
        "numpy; python_version < '9.0' and extra == 'zst'",
    ]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: wanted)
    assert doctor.extras() == {"zst": "complete (reads .zst files)"}


def test_every_extra_of_the_project_says_what_it_is_for():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf8"))["project"]
    ours = {"parquet", "zst", "hub", "tensorboard", "mlflow", "wandb"}
    assert ours <= set(project["optional-dependencies"])
    assert ours <= set(doctor.PURPOSES)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (None, "not in hardware"),
        (Rates(160.0, 90.0), "one thread multiplies 90 GFLOP/s in bf16, 160 in float32"),
    ],
)
def test_the_two_rates_are_shown(monkeypatch, found, expected):
    monkeypatch.setattr("guidebook.training.precision.rates", lambda: found)
    assert doctor.bf16_state(gpu=False) == expected


def test_the_cache_is_measured(monkeypatch, tmp_path):
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path))
    (tmp_path / "key").mkdir()
    (tmp_path / "key" / "weights").write_bytes(b"0" * 3_000_000)
    assert "(3 MB)" in doctor.store()["cache"]
