"""Guidebooks with something wrong in them: the right answer or one clear error, never a traceback or a wrong answer.

`make fuzz` tries many more cases.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.cases import fuzzed
from guidebook import InputError, adapt, load
from guidebook.adapters.host import Host
from guidebook.artifact import Guidebook
from guidebook.artifact_schema import facts_from, with_digest
from tiny import TEXTS, tiny_recipe

DOMAINS = ("kitchen", "source_only")
SOME = TEXTS[:2]
USED = ("head.safetensors", "adapters/task-kitchen/", "source_only/adapters/")
"""What the answers that are tried are computed from, beside guidebook.json."""

Made = tuple[Path, Host, dict[Any, np.ndarray]]


def answers(book: Guidebook) -> dict[Any, np.ndarray]:
    return {domain: book.predict_proba(SOME, domain=domain) for domain in DOMAINS}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_base: Any) -> Iterator[Made]:
    """A guidebook with an adapter for each target, its host, and what it answers."""
    root = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUIDEBOOK_CACHE", str(root / "cache"))
        book = adapt(tiny_recipe(tiny_base("bert"), method="target_mlm", adapter="lora"), root / "book")
        yield book.path, book.host, answers(book)


@pytest.fixture(scope="module")
def one_host(made: Made) -> Iterator[None]:
    """The base is loaded once: what is tried here is the guidebook, and loading bases takes the time."""
    found: list[Host] = [made[1]]

    def host(folder: Path, facts: Any, base: Any) -> Host:
        for name in found[0].names:
            found[0].remove(name)
        return found[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("guidebook.artifact.load_host", host)
        yield


def check(folder: Path, expected: dict[Any, np.ndarray]) -> str:
    """Return "right" or "refused"; anything else is a failure."""
    try:
        found = answers(load(folder))
    except InputError as error:
        return "refused" if len(str(error)) < 1500 else "a library's report"
    for domain, values in expected.items():
        np.testing.assert_array_equal(found[domain], values)
    return "right"


# Every field of guidebook.json

Path_ = tuple[str | int, ...]


def places(value: Any, start: Path_ = ()) -> Iterator[Path_]:
    """Yield the place of every value inside."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*start, key)
        yield from places(item, (*start, key))


REMOVED = object()
WORDS = st.sampled_from(
    ["", ".", "..", "../..", "/", "base", "source_only", "mean", "tokens", "float16", "4bit", "\ud800"]
)
VALUES = st.one_of(
    st.just(REMOVED),
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([10**9, -(10**18), 10**400, 1e308, float("nan"), float("inf"), -float("inf")]),
    st.floats(),
    st.text(max_size=8),
    WORDS,
    st.just("x" * 100_000),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=4), st.none() | st.text(max_size=4) | st.integers(), max_size=3),
    st.integers(1, 3000).map(lambda depth: json.loads("[" * min(depth, 900) + "]" * min(depth, 900))),
)


def changed(facts: Any, place: Path_, value: Any) -> Any:
    facts = copy.deepcopy(facts)
    inside = facts
    for key in place[:-1]:
        inside = inside[key]
    if value is REMOVED:
        del inside[place[-1]]
    else:
        inside[place[-1]] = value
    return facts


def write(folder: Path, facts: Any) -> None:
    (folder / "guidebook.json").write_bytes(json.dumps(facts).encode())


@pytest.fixture(scope="module")
def copied(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the guidebook whose guidebook.json may be changed."""
    folder = tmp_path_factory.mktemp("copied") / made[0].name
    shutil.copytree(made[0], folder)
    return folder


def stored(made: Made) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((made[0] / "guidebook.json").read_text(encoding="utf8"))
    return found


@fuzzed
@given(data=st.data())
def test_a_changed_field_is_refused_or_changes_no_answer(data: Any, made: Made, copied: Path, one_host: None) -> None:
    facts = stored(made)
    place = data.draw(st.sampled_from(list(places(facts))))
    write(copied, changed(facts, place, data.draw(VALUES)))
    check(copied, made[2])


OLDER = ("digest", "files")
"""What guidebooks from before there were digests do not have."""


@fuzzed
@given(data=st.data())
def test_a_changed_field_of_an_older_guidebook_is_no_traceback(
    data: Any, made: Made, copied: Path, one_host: None
) -> None:
    facts = {key: value for key, value in stored(made).items() if key not in OLDER}
    used = ("base", "task", "variants", "serves", "recipe", "format", "method", "scores", "seed", "domains")
    top = data.draw(st.sampled_from(used))
    inside = [place for place in places(facts) if place[0] == top and (top != "recipe" or len(place) < 4)]
    write(copied, changed(facts, data.draw(st.sampled_from(inside)), data.draw(VALUES)))
    with suppress(InputError):
        answers(load(copied))


def test_no_field_changes_unseen_and_those_that_are_used_are_typed(made: Made, copied: Path, one_host: None) -> None:
    """Not by chance: each place once, removed, null or of another type."""
    facts = stored(made)
    place = copied / "guidebook.json"
    for where, value in zip(places(facts), cycle((REMOVED, None, [{}], -1.5, "other")), strict=False):
        after = changed(facts, where, value)
        if after != facts:
            with pytest.raises(InputError):
                facts_from(json.dumps(after).encode(), place)
    for where in [("base", "id"), ("base", "fingerprint"), ("task", "kind"), ("task", "labels"), ("task", "pairs"),
                  ("task", "pooling"), ("task", "max_length"), ("variants",), ("serves",), ("method",), ("seed",),
                  ("variants", "source_only", "stack"), ("variants", "source_only", "folder"),
                  ("variants", "source_only", "head"), ("recipe", "train", "dtype"), ("recipe", "train", "max_length"),
                  ("recipe", "adapter"), ("recipe", "adapter", "kind"), ("recipe", "targets")]:  # fmt: skip
        for value in (REMOVED, {"a": {"b": 1}}, [{}], -1.5, float("nan")):
            older = {key: item for key, item in changed(facts, where, value).items() if key not in OLDER}
            with pytest.raises(InputError, match="not the description of a guidebook"):
                facts_from(json.dumps(older).encode(), place)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not the description"),
        (b"[]", "has no format"),
        (b"null", "has no format"),
        (b"{}", "has no format"),
        (b'{"format": 2}', "format 2, this guidebook reads 1. Install another version"),
        (b'{"format": true}', "format True"),
        (b'{"format": "1"}', "format '1'"),
        (b'{"format": NaN}', "NaN stands where a number should"),
        (b'{"format": 1, "a": Infinity}', "Infinity stands"),
        (b'{"format": 1', "not the description"),
        (b'{"format": 1' + b"0" * 6000 + b"}", "not the description"),
        (b"[" * 100_000, "not the description"),
        (b"\xff\xfe", "not the description"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n", "Git LFS pointer.*git lfs pull"),
    ],
)
def test_what_is_no_description_is_refused(raw: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "guidebook.json").write_bytes(raw)
    with pytest.raises(InputError, match=message):
        load(tmp_path)


@fuzzed
@given(raw=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf8", "surrogatepass")))
def test_any_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(InputError):
        facts_from(raw, Path("guidebook.json"))


def test_the_layout_of_the_file_is_free(made: Made, copied: Path, one_host: None) -> None:
    facts = dict(reversed(stored(made).items()))
    (copied / "guidebook.json").write_text("\ufeff" + json.dumps(facts, indent=7, ensure_ascii=True), encoding="utf8")
    assert check(copied, made[2]) == "right"
    assert json.loads(with_digest(json.dumps(facts))) == stored(made)


# Every file

JUNK = {
    "an adapter's weights": "adapters/task-kitchen/more/adapter_model.safetensors",
    "an adapter's configuration": "adapters/task-kitchen/more/adapter_config.json",
    "a whole model": "adapters/task-kitchen/model.safetensors",
}


def damaged(raw: bytes, data: Any) -> bytes:
    """Return other bytes: fewer, none, one flipped, some changed, more."""
    at = data.draw(st.integers(0, max(len(raw) - 1, 0)))
    kind = data.draw(st.sampled_from(["cut", "empty", "flip", "change", "append", "pointer", "insert"]))
    if kind == "cut":
        return raw[:at]
    if kind == "flip":
        return raw[:at] + bytes([raw[at] ^ (1 << data.draw(st.integers(0, 7)))]) + raw[at + 1 :]
    if kind == "change":
        return raw[:at] + data.draw(st.binary(min_size=1, max_size=8)) + raw[at + 8 :]
    if kind == "append":
        return raw + data.draw(st.binary(min_size=1, max_size=8))
    if kind == "insert":
        return raw[:at] + data.draw(st.binary(min_size=1, max_size=8)) + raw[at:]
    return b"version https://git-lfs.github.com/spec/v1\n" if kind == "pointer" else b""


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def swapped(folder: Path, name: str, raw: bytes | None, body: Callable[[], Any]) -> Any:
    """Run something while a file has other bytes, None: while it is not there."""
    place = folder / name
    before = place.read_bytes() if place.exists() else None
    try:
        if raw is None:
            place.unlink()
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(raw)
        return body()
    finally:
        if before is None:
            place.unlink(missing_ok=True)
            if place.parent.name == "more":
                place.parent.rmdir()
        else:
            place.write_bytes(before)


@pytest.fixture(scope="module", params=["sealed", "older"])
def with_files(request: Any, made: Made, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A copy whose files may be changed: with digests, and as guidebooks were before there were any."""
    folder = tmp_path_factory.mktemp("files") / made[0].name
    shutil.copytree(made[0], folder)
    if request.param == "older":
        write(folder, {key: value for key, value in stored(made).items() if key not in OLDER})
    return folder, request.param


@fuzzed
@given(data=st.data())
def test_a_damaged_file_is_refused_or_changes_no_answer(
    data: Any, made: Made, with_files: tuple[Path, str], one_host: None
) -> None:
    folder, kind = with_files
    name = data.draw(st.sampled_from(files_of(folder)))
    before = (folder / name).read_bytes()
    raw = None if data.draw(st.integers(0, 9)) == 0 else damaged(before, data)

    def body() -> None:
        if kind == "sealed":
            end = check(folder, made[2])
            assert end == "refused" or raw == before or not name.startswith(USED)
            return
        with suppress(InputError):
            answers(load(folder))

    swapped(folder, name, raw, body)


@pytest.mark.parametrize("name", JUNK)
def test_a_file_more_that_would_be_loaded_is_refused(
    name: str, made: Made, with_files: tuple[Path, str], one_host: None
) -> None:
    folder, kind = with_files
    raw = (folder / "adapters" / "task-kitchen" / Path(JUNK[name]).name.replace("model.", "adapter_model.", 1)
           if Path(JUNK[name]).name == "model.safetensors"
           else folder / "adapters" / "task-kitchen" / Path(JUNK[name]).name).read_bytes()  # fmt: skip
    end = swapped(folder, JUNK[name], raw, lambda: check(folder, made[2]))
    assert end == "refused" or kind == "older"


def test_files_that_nobody_reads_may_lie_beside(made: Made, with_files: tuple[Path, str], one_host: None) -> None:
    folder, _ = with_files
    for name in (".DS_Store", "adapters/.DS_Store", "adapters/task-kitchen/notes.txt", "audit-kitchen.csv"):
        assert swapped(folder, name, b"?", lambda: check(folder, made[2])) == "right"


@pytest.mark.parametrize(
    "name", ["head.safetensors", "source_only", "adapters", "adapters/task-hotels", "guidebook.json"]
)
def test_a_missing_part_is_named_when_the_guidebook_is_loaded(
    name: str, made: Made, with_files: tuple[Path, str], one_host: None
) -> None:
    folder, _ = with_files
    away = folder.with_name("away")
    (folder / name).rename(away)
    try:
        with pytest.raises(InputError, match=rf"{name}.*Copy the guidebook again"):
            load(folder)
    finally:
        away.rename(folder / name)


def test_a_folder_in_place_of_a_file_is_refused(made: Made, with_files: tuple[Path, str], one_host: None) -> None:
    folder, _ = with_files
    for name in ("head.safetensors", "guidebook.json", "adapters/task-kitchen/adapter_model.safetensors"):
        away = folder.with_name("away")
        (folder / name).rename(away)
        (folder / name).mkdir()
        try:
            assert check(folder, made[2]) == "refused"
        finally:
            (folder / name).rmdir()
            away.rename(folder / name)
