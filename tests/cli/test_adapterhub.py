from __future__ import annotations

from pathlib import Path

from guidebook.cli.main import main

FOLDER = str(Path(__file__).parent.parent / "fixtures" / "adapterhub" / "bert" / "houlsby_invertible")


def test_there_and_back(tmp_path, capsys):
    ours, theirs = str(tmp_path / "ours"), str(tmp_path / "theirs")
    assert main(["import-adapterhub", FOLDER, "--out", ours]) == 0
    assert "an adapter of kind houlsby+invertible" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == ["houlsby", "invertible"]
    assert main(["export-adapterhub", ours, "--out", theirs, "--name", "again"]) == 0
    assert "use_safetensors=True" in capsys.readouterr().err
    assert (tmp_path / "theirs" / "adapter.safetensors").is_file()


def test_a_wrong_folder_is_the_users_mistake(tmp_path, capsys):
    assert main(["import-adapterhub", str(tmp_path), "--out", str(tmp_path / "ours")]) == 2
    assert "not the configuration of an AdapterHub adapter" in capsys.readouterr().err
    assert main(["import-adapterhub", FOLDER, "--out", str(Path(FOLDER))]) == 2
    assert "there is something already" in capsys.readouterr().err
