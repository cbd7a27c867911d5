"""Records survive crashes and several writers; machine and versions are plain data."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from guidebook.errors import InputError
from guidebook.evaluation import records
from guidebook.evaluation.records import append_record, machine, read_records, versions


def test_records_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "made" / "records.jsonl"
    written = [{"seed": seed, "text": "line\nbreak – ü", "nested": {"a": [1, None, True]}} for seed in range(3)]
    for record in written:
        append_record(path, record)
    assert read_records(path) == written
    assert path.read_bytes().count(b"\n") == 3


def test_a_missing_file_has_no_records(tmp_path: Path) -> None:
    assert read_records(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("torn", ['{"seed": 2, "accu', "{", '"text"', "x" * 5000])
def test_a_torn_last_line_is_left_out_and_the_next_record_is_whole(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "records.jsonl"
    append_record(path, {"seed": 1})
    with path.open("a") as file:
        file.write(torn)
    assert read_records(path) == [{"seed": 1}]
    append_record(path, {"seed": 3})
    assert read_records(path) == [{"seed": 1}, {"seed": 3}]


def test_a_whole_last_line_without_line_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"seed": 1}\n{"seed": 2}')
    assert read_records(path) == [{"seed": 1}, {"seed": 2}]
    append_record(path, {"seed": 3})
    assert [record["seed"] for record in read_records(path)] == [1, 2, 3]


def test_a_file_that_is_only_torn_starts_afresh(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"se')
    append_record(path, {"seed": 1})
    assert read_records(path) == [{"seed": 1}]


@pytest.mark.parametrize(("line", "message"), [("{broken", "line 2: not a JSON record"), ("[1]", "line 2: found list")])
def test_a_broken_line_in_the_middle_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(f'{{"seed": 1}}\n{line}\n{{"seed": 3}}\n')
    with pytest.raises(InputError, match=message):
        read_records(path)


def test_several_writers_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with ThreadPoolExecutor(4) as writers:
        list(writers.map(lambda i: append_record(path, {"i": i, "filler": "x" * 3000}), range(80)))
    assert sorted(record["i"] for record in read_records(path)) == list(range(80))


def test_numpy_paths_and_numbers_that_json_lacks(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    append_record(
        path,
        {
            "a": np.float32(0.5),
            "b": np.arange(3),
            "c": float("nan"),
            "d": np.array([np.inf, 1.0]),
            "e": Path("runs/kitchen"),
            "f": (1, np.bool_(True)),
            "g": {3: np.int64(4)},
        },
    )
    assert read_records(path) == [
        {"a": 0.5, "b": [0, 1, 2], "c": None, "d": [None, 1.0], "e": "runs/kitchen", "f": [1, True], "g": {"3": 4}}
    ]


def test_the_record_is_on_disk_before_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(records.os, "fsync", synced.append)
    append_record(tmp_path / "records.jsonl", {"seed": 1})
    assert len(synced) == 1


def test_machine_is_json_and_names_no_host() -> None:
    found = machine()
    assert json.loads(json.dumps(found)) == found
    assert found["cores"] >= 1
    assert found["torch_threads"] >= 1
    assert isinstance(found["bf16"], bool)
    assert isinstance(found["cpu"], str)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("model name : X\nflags\t\t: fpu avx512f avx512_bf16 sse\n", True),
        ("flags : fpu amx_tile amx_bf16\n", True),
        ("flags : fpu avx512f avx2\n", False),
        ("Features : fp asimd bf16 i8mm\n", True),
        ("flags : notbf16 avx512_bf16x\n", False),
        ("", False),
    ],
)
def test_bf16_is_read_from_the_cpu_flags(monkeypatch: pytest.MonkeyPatch, content: str, expected: bool) -> None:
    fields = dict(line.split(":", 1) for line in content.splitlines())
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    monkeypatch.setattr(records, "cpu_field", lambda name: fields.get(name, ""))
    assert records.cpu_has_bf16() is expected


def test_versions_name_the_packages_that_matter() -> None:
    found = versions()
    assert found["python"].startswith("3.")
    assert {"guidebook", "torch", "transformers", "peft", "numpy"} <= found.keys()


def test_evaluation_imports_without_torch() -> None:
    code = (
        "import sys, guidebook.evaluation.metrics, guidebook.evaluation.statistics; "
        "from guidebook.evaluation.records import versions; versions(); "
        "sys.exit(bool({'torch', 'sklearn', 'transformers', 'scipy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
