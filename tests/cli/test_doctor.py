from __future__ import annotations

import json

from guidebook.cli import doctor
from guidebook.cli.main import main


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
        "test": "complete",
    }


def test_the_cache_is_measured(monkeypatch, tmp_path):
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path))
    (tmp_path / "key").mkdir()
    (tmp_path / "key" / "weights").write_bytes(b"0" * 3_000_000)
    assert "(3 MB)" in doctor.store()["cache"]
