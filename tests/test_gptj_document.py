"""docs/gpt-j.md from its first command to its last, on the packaged GPT-J."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

import guidebook as gb
from guidebook.cli.main import main

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "gpt-j.md").read_text(encoding="utf8")
COMMANDS = [
    line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) for line in block.splitlines()
]
LARGE = "EleutherAI/gpt-j-6b"


def test_for_the_large_model_one_word_changes():
    large = [line for line in COMMANDS if LARGE in line]
    assert large
    for line in large:
        assert line.replace(LARGE, "mini-gptj") in COMMANDS


@pytest.mark.slow
def test_every_command_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("guidebook.cli.main.quiet_libraries", lambda: None)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    said = {}
    for line in COMMANDS:
        if LARGE in line:
            continue
        command, _, file = line.partition(" > ")
        if not command.startswith("guidebook "):
            subprocess.run(line, shell=True, check=True)
            continue
        words = shlex.split(command)[1:]
        if words[0] == "adapt":
            words += ["train.fuse.tokens=null", "train.fuse.epochs=0.2", "train.dtype=float32"]  # a fifth of a pass
        assert main(words) == 0, line
        out = capsys.readouterr().out
        said.setdefault(words[0], []).append(out)
        if file:
            Path(file.strip()).write_text(out)
    assert "Memory " in said["adapt"][0]
    assert "How well text is predicted" in said["adapt"][1]
    assert "hotels" in said["adapt"][1]
    assert all(word in said["generate"][0] for word in ("before", "after", "Our vision is"))
    assert "novel parts" in said["evaluate"][0]
    assert "reproduced" in said["evaluate"][0]
    meta = json.loads(Path("runs/translated/guidebook.json").read_text())
    assert meta["recipe"]["train"]["tokens_per_batch"] == 512
    assert meta["recipe"]["train"]["fuse"]["learning_rate"] == pytest.approx(3.6e-5)
    code = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[0]
    scope: dict = {}
    exec(compile(code, "gpt-j.md", "exec"), scope)
    before, after = scope["before_and_after"]("runs/filings")
    assert before == gb.load("runs/filings").generate(["Our vision is"], gb.Sampling(max_length=60), domain=None)[0]
    assert before != after
