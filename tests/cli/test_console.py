from __future__ import annotations

import io
import os
import warnings

import pytest
from rich.console import Console

from guidebook import __version__
from guidebook.cli import console
from guidebook.cli.main import main


def listener_on(monkeypatch, terminal: bool) -> tuple[console.Terminal, io.StringIO]:
    text = io.StringIO()
    monkeypatch.setattr(
        console, "stderr", lambda: Console(file=text, force_terminal=terminal, width=100, highlight=False)
    )
    return console.Terminal(), text


def test_what_is_short_leaves_no_line_and_what_is_long_does(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    listener, text = listener_on(monkeypatch, terminal=False)
    with listener:
        listener.start("tokens", 10)
        now[0] += 1.0
        listener.finish("tokens")
        assert text.getvalue() == ""
        listener.start("fuse", 100)
        now[0] += 5.0
        listener.advance("fuse", 10, tokens_per_second=3412.0, loss=2.5)
        assert text.getvalue() == ""
        now[0] += 15.0
        listener.advance("fuse", 25, tokens_per_second=3412.0, loss=2.5)
        assert text.getvalue() == "fuse: 25%, 1 min 0 s left, 3,412 tokens/s · loss 2.5\n"
        now[0] += 60.0
        listener.finish("fuse", seconds=80.0)
    assert text.getvalue().splitlines()[-1] == "fuse: done in 1 min 20 s"


def test_a_terminal_gets_a_bar_with_speed_and_loss(monkeypatch):
    listener, text = listener_on(monkeypatch, terminal=True)
    with listener:
        listener.start("fuse", 100)
        listener.advance("fuse", 50, tokens_per_second=3412.0, loss=2.5)
        listener.bars.refresh()
    assert "50%" in text.getvalue()
    assert "3,412 tokens/s · loss 2.5" in text.getvalue()


def test_what_was_not_opened_does_no_harm(monkeypatch):
    listener, _ = listener_on(monkeypatch, terminal=False)
    listener.advance("never opened", 3)
    listener.finish("never opened")
    listener.finish("nor this")


@pytest.mark.parametrize("variable", [None, "NO_COLOR"])
def test_no_colour(capsys, monkeypatch, variable):
    if variable:
        monkeypatch.setenv(variable, "1")
    console.fail("the message")
    assert capsys.readouterr().err == "Error: the message\n"


def test_quieting_leaves_what_the_user_set(monkeypatch):
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    with warnings.catch_warnings():
        console.quiet_libraries()
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "info"
    assert os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "1"
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS")


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"guidebook {__version__}\n"


@pytest.mark.parametrize("command", ["adapt", "predict", "evaluate", "ls"])
def test_help_shows_an_example(capsys, command):
    assert main([command, "--help"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert any(line.startswith(f"guidebook {command} ") for line in lines), "the usage line alone teaches nothing"


def test_an_unknown_command_is_an_input_error(capsys):
    assert main(["adpt"]) == 2
    assert "adapt" in capsys.readouterr().err
