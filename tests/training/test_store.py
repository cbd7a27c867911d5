"""Nothing half-written is ever taken for finished."""

from __future__ import annotations

from pathlib import Path

import pytest

from guidebook.training.store import COMPLETE, Store, complete_checkpoint, key_of


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
    for step, complete in [(9, True), (10, True), (100, False)]:
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if complete:
            (folder / COMPLETE).touch()
    found = complete_checkpoint(tmp_path)
    assert found is not None
    assert found.name == "checkpoint-10"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-10"]
    assert complete_checkpoint(tmp_path / "nowhere") is None
