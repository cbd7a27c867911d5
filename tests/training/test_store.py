"""Nothing half-written is ever taken for finished."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from guidebook import locks
from guidebook.errors import MachineError
from guidebook.training.store import (
    COMPLETE,
    Store,
    code_digest,
    complete_checkpoint,
    key_of,
    mark_complete,
    without_words,
)


def test_a_key_depends_on_every_value_and_not_on_the_order() -> None:
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})


def test_put_then_find(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.find("k") is None
    (store.work("k") / "checkpoint-1").mkdir()
    folder = store.put("k", lambda place: (place / "x").write_text("1") and None)
    assert store.find("k") == folder
    assert (folder / "x").read_text() == "1"
    assert not (tmp_path / "k.work").exists()


def test_a_failed_write_leaves_nothing_to_find(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(place: Path) -> None:
        (place / "x").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.put("k", fail)
    assert store.find("k") is None
    assert (store.put("k", lambda place: None) / COMPLETE).exists()


def test_a_finished_folder_without_its_marker_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "k").mkdir()
    assert Store(tmp_path).find("k") is None


def test_the_newest_complete_checkpoint_is_kept_and_the_rest_goes(tmp_path: Path) -> None:
    for step, complete in [(9, True), (10, True), (11, True), (100, False)]:
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "weights").write_text(str(step))
        if complete:
            mark_complete(folder)
    (tmp_path / "checkpoint-11" / "weights").write_text("")  # damaged after it was complete
    found = complete_checkpoint(tmp_path)
    assert found is not None
    assert found.name == "checkpoint-10"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-10"]
    assert complete_checkpoint(tmp_path / "nowhere") is None


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


DAMAGE: list[Callable[[Path], None]] = [emptied, cut, flipped, Path.unlink]


@pytest.mark.parametrize("harm", DAMAGE, ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("name", ["stage.json", "inner/weights", COMPLETE])
def test_a_damaged_folder_is_not_found_and_says_what_is_wrong(
    name: str, harm: Callable[[Path], None], tmp_path: Path
) -> None:
    def write(folder: Path) -> None:
        (folder / "inner").mkdir()
        for file in ("stage.json", "inner/weights"):
            (folder / file).write_text("0123456789" * 3)

    store = Store(tmp_path)
    store.put("k", write)
    assert store.find("k") is not None
    assert store.damage("k") == store.damage("another") == ""
    harm(tmp_path / "k" / name)
    assert store.find("k") is None
    assert name in store.damage("k")
    assert store.put("k", write) == store.find("k")


def test_something_else_in_the_place_of_a_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("a file")
    store = Store(tmp_path)
    assert store.find("k") is None
    assert store.damage("k")
    assert store.put("k", lambda folder: None) == store.find("k")


@pytest.mark.parametrize("harm", [emptied, cut], ids=lambda harm: harm.__name__)
def test_a_damaged_array_is_made_again(harm: Callable[[Path], None], tmp_path: Path) -> None:
    store, made = Store(tmp_path), []

    def make() -> np.ndarray:
        made.append(1)
        return np.arange(3)

    for _ in range(2):
        assert store.array("k", make).tolist() == [0, 1, 2]
    assert len(made) == 1
    (stored,) = (tmp_path / "arrays").iterdir()
    harm(stored)
    assert store.array("k", make).tolist() == [0, 1, 2]
    assert len(made) == 2


def test_whoever_waits_for_a_stage_is_told_for_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "SOON", 0.1)
    store, said = Store(tmp_path), []
    with store.lock("k", "stage fuse", lambda text: None):
        waiting = threading.Thread(target=lambda: enter(store, said))
        waiting.start()
        until = time.monotonic() + 30
        while not said and time.monotonic() < until:
            time.sleep(0.01)
    waiting.join(30)
    assert f"stage fuse: waiting for process {os.getpid()} on" in said[0]
    assert said[-1] == "entered"


def enter(store: Store, said: list[str]) -> None:
    with store.lock("k", "stage fuse", said.append):
        said.append("entered")


def test_waiting_ends_with_a_message(tmp_path: Path) -> None:
    place = tmp_path / "lock"
    with locks.locked(place, "stage fuse", print), locks.claimed(place) as mine:
        assert not mine
        with pytest.raises(
            MachineError, match=rf"stage fuse: waited .* for process {os.getpid()} on .*GUIDEBOOK_CACHE"
        ):
            locks.locked(place, "stage fuse", limit=0.1).__enter__()
    with locks.claimed(place) as mine:
        assert mine


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_process_that_dies_lets_go(tmp_path: Path) -> None:
    place = tmp_path / "lock"
    child = os.fork()
    if child == 0:
        with locks.locked(place, "x", print):
            os._exit(1)
    os.waitpid(child, 0)
    with locks.locked(place, "x", limit=5.0):
        pass


def test_a_lock_that_cannot_be_made_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match=r"cannot be locked.*GUIDEBOOK_CACHE"):
        locks.locked(tmp_path / "file" / "lock", "x").__enter__()


def test_words_change_no_key_and_code_does() -> None:
    code = "def double(x):\n    return 2 * x\n"
    words = '"""Module."""\n\ndef double(x):  # why\n    """Return twice x."""\n    return (2 * x)\n'
    assert without_words(code) == without_words(words)
    assert without_words(code) != without_words(code.replace("2", "3"))
    assert without_words("class A:\n    x: int = 1\n    '''Doc.'''\n") == without_words("class A:\n    x: int = 1\n")
    assert without_words("f('a')") != without_words("f('b')")
    assert code_digest() != code_digest(("losses",))
