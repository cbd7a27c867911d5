"""A cache that cannot be written is named before anything is read or trained."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guidebook.adaptation import adapt
from guidebook.cli.doctor import store
from guidebook.data.cache import cache_root, require_cache, scratch_folder
from guidebook.errors import InputError
from tiny import tiny_recipe


def in_the_way(folder: Path) -> Path:
    (folder / "file").write_text("a file")
    return folder / "file"


def below_a_file(folder: Path) -> Path:
    return in_the_way(folder) / "cache"


def a_part_is_a_file(folder: Path) -> Path:
    (folder / "arrays").write_text("a file")
    return folder


def not_a_real_disk(folder: Path) -> Path:
    return Path("/proc/x")


WRONG = [in_the_way, below_a_file, a_part_is_a_file] + ([not_a_real_disk] if Path("/proc/self").exists() else [])


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_a_cache_that_cannot_be_written_is_named_at_the_start_and_by_doctor(
    wrong: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(wrong(tmp_path)))
    message = r"The cache .*, which GUIDEBOOK_CACHE names, cannot be written: .*Set GUIDEBOOK_CACHE to a folder"
    for ask in (require_cache, lambda: adapt(tiny_recipe("no base is looked for"))):
        with pytest.raises(InputError, match=message):
            ask()
    assert "cannot be written" in store()["cache"]
    assert "free" in store()["disk"]
    if wrong is not a_part_is_a_file:
        with pytest.raises(InputError, match=message):
            scratch_folder()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_the_system_s_own_reason_is_in_the_message(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **settings: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path))
    assert require_cache() == tmp_path
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    with pytest.raises(InputError, match=os.strerror(number)):
        require_cache()


def test_without_the_variable_it_is_named_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GUIDEBOOK_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", lambda: in_the_way(tmp_path))
    with pytest.raises(InputError, match=r"as GUIDEBOOK_CACHE is not set"):
        require_cache()

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(InputError, match=r"no home folder.*GUIDEBOOK_CACHE"):
        cache_root()
