"""Only what has no record runs; killed anywhere, the same call completes the same table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import guidebook.evaluation.records as records_module
import guidebook.training.trainer as trainer_module
from compare.conftest import write_comparison
from guidebook.compare import grid as grid_module
from guidebook.compare import work as work_module
from guidebook.compare.grid import Comparison, load_comparison, made_with
from guidebook.compare.work import RECORDS, Share, work
from guidebook.errors import InputError, MachineError, OutOfMemory, RunError
from guidebook.evaluation.records import Keys, append_record, read_records
from guidebook.training.engine import Engine
from tiny import TEXTS

DRIVER = Path(__file__).parent / "kill_driver.py"
PASSING = ("created", "seconds", "training_seconds", "memory_megabytes", "stages", "machine")
"""Fields that differ from run to run."""


def lasting(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Records by key without what differs from run to run; a record that is there twice is an error."""
    assert len({record["key"] for record in records}) == len(records)
    return {r["key"]: {name: value for name, value in r.items() if name not in PASSING} for r in records}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_base: Callable[[str], Path]) -> Any:
    """An undisturbed comparison: (comparison, folder of records)."""
    folder = tmp_path_factory.mktemp("compare")
    path = write_comparison(folder, tiny_base("bert"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUIDEBOOK_CACHE", str(folder / "cache"))
        comparison = load_comparison(path)
        work(comparison, folder / "out")
        yield comparison, folder / "out"


def test_every_job_has_one_record_with_everything_in_it(done: Any) -> None:
    comparison, folder = done
    records = read_records(folder / RECORDS)
    assert [record["key"] for record in records] == [job.key for job in comparison.jobs()]
    for record in records:
        right = np.array([mark == "1" for mark in record["correct"]])
        assert record["rows"] == len(right) == 8
        assert record["accuracy"] == right.mean()
        assert np.trace(record["confusion"]) == right.sum()
        assert record["source_rows"] == 6
        assert record["flagship"] == "domain_fusion"
        assert (record["megabytes_per_domain"] > 0) == (record["method"] != "tfidf")
        assert len(record["stages"]) == {"tfidf": 0, "source_only": 1, "domain_fusion": 2}[record["method"]]
        assert record["recipe"]["source"][0]["path"].endswith(f"{record['source']}.csv")  # re-run from here
        assert record["recipe"]["method"]["name"] == record["method"]
        assert record["memory_megabytes"] > 0


def test_records_hold_what_was_said_without_target_labels(done: Any) -> None:
    _, folder = done
    for record in read_records(folder / RECORDS):
        scores = record["scores"]
        expected = {"source_loss", "source_accuracy", "entropy", "information", "nuclear_norm", "neighbourhood"}
        assert expected <= set(scores)
        assert ("mixed_loss" in scores) == (record["method"] != "tfidf")
        assert scores["source_accuracy"]["value"] == pytest.approx(record["source_accuracy"])
        assert {name for name, score in scores.items() if not score["higher_is_better"]} >= {"entropy", "source_loss"}
        assert {"same_as_source", "threshold_confidence"} <= set(record["estimates"])
        assert record["forgetting"] is None  # no general text


@pytest.mark.slow
def test_forgetting_is_measured_where_there_is_general_text(
    tmp_path: Path, tiny_base: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    path = write_comparison(tmp_path, tiny_base("bert"), methods=["tfidf", "general_mlm"], draws=1)
    (tmp_path / "general.txt").write_text("\n\n".join(f"it is said that {text}" for text in TEXTS))
    work(load_comparison(path, ["general=" + str(tmp_path / "general.txt")]), tmp_path / "out")
    found = {record["method"]: record["forgetting"] for record in read_records(tmp_path / "out" / RECORDS)}
    assert found["tfidf"] is None
    assert found["general_mlm"] != 0


def test_nothing_runs_twice(done: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison, folder = done
    monkeypatch.setattr(work_module, "prepare", None)  # nothing may be loaded
    before = (folder / RECORDS).read_bytes()
    work(comparison, folder)
    assert (folder / RECORDS).read_bytes() == before


def test_what_is_missing_is_run_and_nothing_else(done: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison, folder = done
    records = read_records(folder / RECORDS)
    for record in records[:3] + records[5:]:
        append_record(tmp_path / RECORDS, record)
    trained = []
    original = Engine._train
    monkeypatch.setattr(Engine, "_train", lambda *args: trained.append(1) or original(*args))
    work(comparison, tmp_path)
    assert lasting(read_records(tmp_path / RECORDS)) == lasting(records)
    assert not trained  # the stages were in the store


@pytest.mark.slow
def test_shares_are_the_whole_and_overlap_nowhere(done: Any, tmp_path: Path) -> None:
    comparison, folder = done
    for part in (1, 2, 3):
        work(comparison, tmp_path / str(part), Share(part, 3))
    parts = [read_records(tmp_path / str(part) / RECORDS) for part in (1, 2, 3)]
    assert all(parts)
    assert lasting([record for part in parts for record in part]) == lasting(read_records(folder / RECORDS))


def test_a_group_that_another_process_has_is_left_to_it(
    done: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison, folder = done
    first, others = comparison.jobs()[0], read_records(folder / RECORDS)
    key = work_module._group_key(first.group)
    waited = []

    def other_process(seconds: float) -> None:  # while this one waits, the other one finishes its group
        waited.append(len(read_records(tmp_path / RECORDS)))
        for record in others[:3]:
            append_record(tmp_path / RECORDS, record)

    monkeypatch.setattr(time, "sleep", other_process)
    with work_module.claim(tmp_path, key) as mine:
        assert mine
        with work_module.claim(tmp_path, key) as second:
            assert not second
        work(comparison, tmp_path)
    assert waited == [len(others) - 3]
    assert lasting(read_records(tmp_path / RECORDS)) == lasting(others)
    with work_module.claim(tmp_path, key) as free:
        assert free


@pytest.mark.slow
def test_a_candidate_that_diverges_is_a_result(done: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison, _ = done
    original = work_module.follow

    def follow(arm: str, *rest: Any) -> Any:
        if arm == "source_only":
            raise RunError("The loss is not finite at step 3")
        return original(arm, *rest)

    monkeypatch.setattr(work_module, "follow", follow)
    work(comparison, tmp_path)
    records = read_records(tmp_path / RECORDS)
    assert len(records) == 12
    assert {"not finite" in record.get("failed", "") for record in records if record["method"] == "source_only"} == {
        True
    }
    assert all("accuracy" in record for record in records if record["method"] != "source_only")


def test_another_base_under_the_same_name_is_refused(done: Any, tmp_path: Path) -> None:
    comparison, folder = done
    record = read_records(folder / RECORDS)[0]
    append_record(tmp_path / RECORDS, {**record, "base_fingerprint": "f" * 32})
    with pytest.raises(InputError, match=r"records of .* with other weights"):
        work(comparison, tmp_path)


def test_targets_without_labels_cannot_be_compared_on(
    tmp_path: Path, tiny_base: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    path = write_comparison(tmp_path, tiny_base("bert"), methods=["tfidf"], draws=1)
    (tmp_path / "kitchen-pool.csv").write_text("text\nthe pan warped\nit boils fast\n")
    monkeypatch.setattr("guidebook.compare.work.follow", None)  # before anything is trained
    with pytest.raises(InputError, match=r"kitchen-pool\.csv: no labels"):
        work(load_comparison(path), tmp_path / "out")


def test_a_comparison_can_be_sent_to_a_process(done: Any) -> None:
    import pickle

    comparison, _ = done
    copied: Comparison = pickle.loads(pickle.dumps(comparison))
    assert [job.key for job in copied.jobs()] == [job.key for job in comparison.jobs()]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked children")
def test_kills_anywhere_end_in_the_table_of_the_undisturbed_run(
    tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    path = write_comparison(tmp_path, tiny_base("bert"), draws=1, methods=["source_only", "domain_fusion"])
    command = [sys.executable, str(DRIVER), str(path), str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    undisturbed, *others = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    assert len(others) >= 8
    expected = lasting(undisturbed["records"])
    assert len(expected) == 4
    for other in others:
        assert other["died"], other["moment"]
        assert lasting(other["records"]) == expected, other["moment"]
    kinds = {other["moment"].partition(" ")[2] for other in others[:-1]}
    assert len(kinds) == len(others) - 1, kinds


def children_of(process: int) -> list[str]:
    return Path(f"/proc/{process}/task/{process}/children").read_text(encoding="utf8").split()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for the workers in /proc")
def test_a_killed_command_with_two_processes_goes_on(
    tiny_base: Callable[[str], Path], tmp_path: Path, done: Any
) -> None:
    path = write_comparison(tmp_path, tiny_base("bert"))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "guidebook.cli.main", "compare", str(path), "--out", str(out), "--processes", "2"]
    environment = {**os.environ, "GUIDEBOOK_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while running.poll() is None and len(read_records(out / RECORDS)) < 3:
        time.sleep(0.05)
    workers = children_of(running.pid)
    running.kill()
    running.wait()
    assert len(read_records(out / RECORDS)) < 12
    assert len(workers) >= 2
    until = time.monotonic() + 30
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < until:
        time.sleep(0.1)
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr[-3000:]
    _, folder = done
    wanted = {key: record["accuracy"] for key, record in lasting(read_records(folder / RECORDS)).items()}
    made = lasting(read_records(out / RECORDS))
    assert {key: record["accuracy"] for key, record in made.items()} == wanted
    assert "p (Holm)" in again.stdout


def test_too_little_memory_is_no_result_and_is_tried_again(
    done: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a stage says so or torch does, anywhere: the others are done, and the next run does what is missing."""
    comparison, folder = done
    original = work_module.follow
    failures: list[Exception] = [OutOfMemory("in stage task"), torch.OutOfMemoryError("CUDA out of memory.")]

    def follow(arm: str, *rest: Any) -> Any:
        if failures and arm == "source_only":
            raise failures.pop()
        return original(arm, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(work_module, "follow", follow)
        with pytest.raises(OutOfMemory, match=r"2 of the runs had too little memory.*same command tries them again"):
            work(comparison, tmp_path)
    records = read_records(tmp_path / RECORDS)
    assert len(records) == len(comparison.jobs()) - 2
    assert not [record for record in records if "failed" in record]
    work(comparison, tmp_path)
    assert lasting(read_records(tmp_path / RECORDS)) == lasting(read_records(folder / RECORDS))


def test_another_failure_of_the_machine_is_no_result_either(
    done: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def follow(*arguments: Any) -> Any:
        raise MachineError("The disk is full")

    monkeypatch.setattr(work_module, "follow", follow)
    with pytest.raises(MachineError, match="disk is full"):
        work(done[0], tmp_path)
    assert not read_records(tmp_path / RECORDS)


@pytest.mark.parametrize(
    ("name", "value"), [("code_digest", "0" * 32), ("deciding_versions", {"torch": "99"}), ("dtype", "bfloat16")]
)
def test_other_code_versions_or_number_type_make_other_keys(
    name: str, value: Any, done: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison, folder = done
    before = {job.key for job in comparison.jobs()}
    recorded = read_records(folder / RECORDS)[0]
    assert made_with(comparison.recipe) == {part: recorded[part] for part in ("code", "dtype")} | {
        "versions": {n: v for n, v in recorded["versions"].items() if n not in ("guidebook", "python")}
    }
    place, attribute = (trainer_module, "chosen_dtype") if name == "dtype" else (grid_module, name)
    monkeypatch.setattr(place, attribute, lambda *arguments: value)
    assert not before & {job.key for job in comparison.jobs()}


def test_records_are_read_once_while_others_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / RECORDS
    keys = Keys(path)
    assert keys.now() == set()
    parsed: list[bytes] = []
    original = records_module._parsed
    monkeypatch.setattr(records_module, "_parsed", lambda line, place: parsed.append(line) or original(line, place))
    for number in range(20):
        append_record(path, {"key": number})
        assert keys.now() == set(range(number + 1)) == keys.now()
    assert len(parsed) == 20
    with path.open("ab") as file:
        file.write(b'{"key": 20}')  # without its line end
    assert keys.now() == set(range(21))
    append_record(path, {"key": 21})
    assert keys.now() == set(range(22))
    with path.open("ab") as file:
        file.write(b'{"key": 2')  # torn
    assert keys.now() == set(range(22))
    path.write_bytes(b'{"key": "new"}\n')
    assert keys.now() == {"new"}


@pytest.mark.slow
def test_processes_start_from_a_program_that_has_no_file(tmp_path: Path, done: Any, tiny_base: Any) -> None:
    """Such as one that is read from standard input."""
    path = write_comparison(tmp_path, tiny_base("bert"), methods=["tfidf"], draws=1)
    out = tmp_path / "out"
    program = (
        "from guidebook.cli.main import main\n"
        f"raise SystemExit(main(['compare', {str(path)!r}, '--out', {str(out)!r}, '--processes', '2']))\n"
    )
    environment = {**os.environ, "GUIDEBOOK_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-"], input=program, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert len(read_records(out / RECORDS)) == 2
