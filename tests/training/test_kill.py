"""kill -9 anywhere, then the same command again: the weights are those of the undisturbed run, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

KILLS = 20


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked children")
def test_twenty_kills_end_in_the_weights_of_the_undisturbed_run(
    tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    driver = Path(__file__).parent / "kill_driver.py"
    command = [sys.executable, str(driver), str(tiny_base("bert")), str(tmp_path), str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    undisturbed, *others = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(others) == KILLS + 1
    assert undisturbed["weights"]
    for other in others:
        assert other["died"], other["moment"]
        assert other["finished"], other["moment"]
        assert not other.get("half"), other["moment"]
        assert other["weights"] == undisturbed["weights"], other["moment"]
        assert other.get("left", ["book", "cache"]) == ["book", "cache"], other["moment"]
    kinds = {other["moment"].partition(" ")[2] for other in others[:-1]}
    assert len(kinds) >= KILLS * 3 // 4, kinds  # spread over stages, saves and gaps
