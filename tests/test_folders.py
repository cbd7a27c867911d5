"""What a person wrote is never lost: folders that are replaced, files that are named for writing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from guidebook import folders
from guidebook.errors import InputError
from guidebook.folders import JOURNAL, free_name, is_sealed, put, recover, replace_folder, sealed


def filling(**files: str) -> Any:
    def fill(fresh: Path) -> None:
        for name, text in files.items():
            place = fresh / name.replace("__", "/").replace("_", ".")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)

    return fill


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != JOURNAL
    }


@pytest.fixture(params=["exchange", "two renames"])
def place(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param == "two renames":
        monkeypatch.setattr(folders, "_exchanged", lambda one, other: False)
    return tmp_path / "book"


PERSONS = {
    "a file": "notes.txt",
    "a hidden file": ".todo",
    "a file in a new folder": "labels/round 1/rows.csv",
    "a file among guidebook's": "sub/mine.txt",
    "a name that is not ASCII": "Überblick.txt",
}


@pytest.mark.parametrize("name", PERSONS.values(), ids=PERSONS)
def test_a_persons_file_stays(name: str, place: Path) -> None:
    replace_folder(place, filling(a_txt="1", sub__b_txt="1"))
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).write_text("years of work")
    for number in ("2", "3"):
        assert replace_folder(place, filling(a_txt=number, c_txt=number)) == [name]
        assert contents(place) == {"a.txt": number, "c.txt": number, name: "years of work"}
    assert [path.name for path in place.parent.iterdir()] == ["book"]


def test_what_a_person_changed_stays_beside_the_new(place: Path) -> None:
    replace_folder(place, filling(card_md="1", b_txt="1"))
    (place / "card.md").write_text("1, and a license")
    assert replace_folder(place, filling(card_md="2")) == ["card.2.md"]
    assert contents(place) == {"card.md": "2", "card.2.md": "1, and a license"}
    (place / "card.md").write_text("2, and another license")
    replace_folder(place, filling(card_md="3"))
    assert set(contents(place).values()) == {"3", "1, and a license", "2, and another license"}


def test_a_file_in_the_place_of_a_persons_folder(place: Path) -> None:
    replace_folder(place, filling(a_txt="1"))
    (place / "x").mkdir()
    (place / "x" / "mine.txt").write_text("years of work")
    replace_folder(place, lambda fresh: (fresh / "x").write_text("2"))
    assert contents(place) == {"x": "2", "x-mine.txt": "years of work"}


def test_links_and_what_cannot_be_read_stay(place: Path, tmp_path: Path) -> None:
    replace_folder(place, filling(a_txt="1"))
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "x").write_text("far away")
    (place / "link").symlink_to(tmp_path / "far")
    (place / "broken").symlink_to("nowhere")
    os.mkfifo(place / "pipe")
    replace_folder(place, filling(a_txt="2"))
    assert (place / "link" / "x").read_text() == "far away"
    assert os.readlink(place / "broken") == "nowhere"
    assert (place / "pipe").is_fifo()


@pytest.mark.parametrize("place_of", ["fill", "_carry", "fsync_folder", "_swap"])
@pytest.mark.parametrize("error", [OSError("torn"), MemoryError(), KeyboardInterrupt()])
def test_a_failure_leaves_the_folder_as_it_was(
    place_of: str, error: BaseException, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_folder(place, filling(a_txt="1"))
    (place / "mine.txt").write_text("years of work")

    def fail(*arguments: Any) -> Any:
        raise error

    with monkeypatch.context() as patch:
        if place_of != "fill":
            patch.setattr(folders, place_of, fail)
        with pytest.raises(type(error)):
            replace_folder(place, fail if place_of == "fill" else filling(a_txt="2"))
    assert contents(place) == {"a.txt": "1", "mine.txt": "years of work"}
    assert [path.name for path in place.parent.iterdir()] == ["book"]


def test_a_crash_between_two_renames_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, rename, calls = tmp_path / "book", Path.rename, []
    replace_folder(place, filling(a_txt="1"))
    (place / "mine.txt").write_text("years of work")
    monkeypatch.setattr(folders, "_exchanged", lambda one, other: False)

    def second_fails(self: Path, other: Path) -> Path:
        calls.append(other)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return rename(self, other)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", second_fails)
        patch.setattr(folders, "clear_leftovers", lambda folder: None)  # as after a kill
        with pytest.raises(KeyboardInterrupt):
            replace_folder(place, filling(a_txt="2"))
    assert not place.exists()
    recover(place)
    assert contents(place) == {"a.txt": "1", "mine.txt": "years of work"}
    replace_folder(place, filling(a_txt="3"))
    assert contents(place) == {"a.txt": "3", "mine.txt": "years of work"}
    assert [path.name for path in tmp_path.iterdir()] == ["book"]


def test_what_was_written_while_the_folder_was_replaced_is_kept(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A label that is saved between carrying files over and the swap."""
    replace_folder(place, filling(a_txt="1"))
    (place / "rows.csv").write_text("one label")
    swap = folders._swap

    def saving(fresh: Path, folder: Path) -> None:
        (folder / "rows.csv.tmp").write_text("two labels")
        (folder / "rows.csv.tmp").replace(folder / "rows.csv")
        (folder / "late.txt").write_text("late")
        swap(fresh, folder)

    monkeypatch.setattr(folders, "_swap", saving)
    replace_folder(place, filling(a_txt="2"))
    assert set(contents(place).values()) == {"2", "one label", "two labels", "late"}


def test_what_was_changed_while_it_was_brought_over_is_not_doubled(place: Path) -> None:
    replace_folder(place, filling(a_txt="1"))
    (place / "audit.json").write_text("a verdict")
    settle = lambda old, new: folders.replace_file(new / "audit.json", b"retired")  # noqa: E731
    replace_folder(place, filling(a_txt="2"), settle)
    assert contents(place) == {"a.txt": "2", "audit.json": "retired"}


def test_what_was_ready_and_did_not_come_to_its_place_leaves_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed just before the swap: what was changed in the new folder is no second version of a person's file."""
    replace_folder(place, filling(a_txt="1"))
    (place / "audit.json").write_text("a verdict")

    def killed(*folders: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folders, "_swap", killed)
        clear = folders.clear_leftovers
        calls: list[Path] = []
        patch.setattr(
            folders, "clear_leftovers", lambda folder: calls.append(folder) or len(calls) > 1 or clear(folder)
        )
        with pytest.raises(KeyboardInterrupt):
            replace_folder(
                place, filling(a_txt="2"), lambda old, new: folders.replace_file(new / "audit.json", b"retired")
            )
    assert (place.parent / ".book.new").is_dir()
    replace_folder(place, filling(a_txt="3"))
    assert contents(place) == {"a.txt": "3", "audit.json": "a verdict"}
    assert [path.name for path in place.parent.iterdir()] == ["book"]


def test_a_folder_from_before_the_journal(place: Path) -> None:
    replace_folder(place, filling(guidebook_json="{}", README_md="a card", adapters__x__adapter_model_safetensors="1"))
    (place / "adapters" / "x" / "adapter.model.safetensors").rename(place / "adapters" / "x" / "a.safetensors")
    (place / JOURNAL).unlink()
    replace_folder(place, filling(guidebook_json="{2}"))
    assert contents(place) == {"guidebook.json": "{2}", "README.md": "a card"}


def test_a_file_is_put_whole_and_a_changed_one_set_aside(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("not guidebook's")
    assert put(tmp_path / "a.txt", b"1") is None
    assert put(tmp_path / "a.txt", b"2") is None
    (tmp_path / "a.txt").write_text("mine")
    assert put(tmp_path / "a.txt", b"3") == tmp_path / "a.2.txt"
    assert contents(tmp_path) == {"a.txt": "3", "a.2.txt": "mine", "old.txt": "not guidebook's"}
    with (tmp_path / JOURNAL).open("a") as file:
        file.write(json.dumps({"file": "x"})[:5])  # a crash tore the last line
    assert put(tmp_path / "a.txt", b"4") is None


def test_a_free_name_and_a_sealed_page(tmp_path: Path) -> None:
    assert free_name(tmp_path / "a.csv") == tmp_path / "a.csv"
    (tmp_path / "a.csv").write_text("")
    (tmp_path / "a.2.csv").symlink_to("nowhere")
    assert free_name(tmp_path / "a.csv") == tmp_path / "a.3.csv"
    page = tmp_path / "page.html"
    page.write_text(sealed("<p>ü</p>"), encoding="utf8")
    assert is_sealed(page)
    assert folders.check_free(page, is_ours=is_sealed) == page
    page.write_text(page.read_text(encoding="utf8").replace("ü", "u"), encoding="utf8")
    assert not is_sealed(page)
    with pytest.raises(InputError, match=r"exists already, and is not overwritten\. Choose another --out"):
        folders.check_free(page, is_ours=is_sealed)
