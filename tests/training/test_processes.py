"""Two processes give what one gives: under torchrun with gloo (DDP), and with torch's fully_shard on a gloo mesh."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from guidebook.training import processes
from tiny_causal import save

HERE = Path(__file__).parent


def launch(driver: str, count: int, *arguments: object, micro: int = 1) -> None:
    command = [sys.executable, str(HERE / driver), *map(str, arguments)]
    if count > 1:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        command = [*torchrun, *command[1:]]
    environment = {**os.environ, "MICRO": str(micro), "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr  # whole: the launcher's own words come last


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save("gptj", tmp_path_factory.mktemp("base"))


@pytest.mark.slow
def test_two_processes_train_what_one_does(base, tmp_path):
    found = {}
    for count, micro in ((1, 1), (2, 1)):
        folder = tmp_path / f"{count}x{micro}"
        folder.mkdir()
        launch("several_driver.py", count, base, folder, micro=micro)
        ranks = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(count)]
        assert all(rank["world"] == count for rank in ranks)
        assert all(rank["weights"] == ranks[0]["weights"] for rank in ranks)  # all load the one artifact
        assert len(list((folder / "out" / "adapters").iterdir())) == 1
        found[count] = ranks
    one, (first, second) = found[1][0], found[2]
    assert len(one["history"]) == len(first["history"]) > 5
    for here, there in zip(one["history"], first["history"], strict=True):
        assert there["trainer"] == pytest.approx(here["trainer"], rel=1e-4)
        assert there["lm"] == pytest.approx(here["lm"], rel=1e-5)  # the mean over the processes
    assert [entry["lm"] for entry in second["history"]] == [entry["lm"] for entry in first["history"]]
    for name, values in one["weights"].items():
        np.testing.assert_allclose(first["weights"][name], values, rtol=2e-3, atol=2e-5)
    assert first["bits"] == pytest.approx(one["bits"], rel=1e-4)
    states = [name for names in first["checkpoints"] for name in names if name.startswith("rng_state")]
    assert first["checkpoints"]
    assert states.count("rng_state_0.pth") == states.count("rng_state_1.pth") == len(first["checkpoints"])
    assert not second["checkpoints"]  # one process marks them complete, when both have written


@pytest.mark.slow
def test_processes_that_measure_other_losses_stop_at_the_same_step(base, tmp_path, monkeypatch):
    """Each by its own loss, one would go on and wait for the other for ever."""
    monkeypatch.setenv("STOPS", "1")
    launch("several_driver.py", 2, base, tmp_path)
    one, two = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert len(one["history"]) == len(two["history"]) == one["steps"] == 3  # the best, and two that are worse


@pytest.mark.slow
def test_fully_sharded_training_equals_one_process(base, tmp_path):
    launch("sharded_driver.py", 2, base, tmp_path / "losses.json")
    found = json.loads((tmp_path / "losses.json").read_text())
    assert found["sharded"] > 10
    assert found["sharded"] == found["parameters"]  # every parameter was a DTensor, base and adapters
    assert len(found["two"]) == 4
    assert found["two"] == pytest.approx(found["one"], rel=1e-5)
    assert found["two"][0] != found["two"][-1]


def test_one_process_agrees_with_itself():
    import torch

    assert processes.count() == 1
    assert processes.is_first()
    assert processes.agree(True)
    assert not processes.agree(False)
    values = torch.ones(2)
    assert processes.mean(values) is values
    processes.join()
    processes.wait()
