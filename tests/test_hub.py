"""Guidebooks on the Hub: one small file is asked for first, and whatever goes wrong is one clear message.

The Hub is a server of this test that speaks the few routes which the client asks for; nothing of ours is replaced.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from guidebook import adapt
from tiny import tiny_recipe

COMMIT = "c" * 40
REFUSED = {  # repository -> status and the Hub's error code
    "ann/missing": (404, "RepoNotFound"),
    "ann/a-dataset": (404, "RepoNotFound"),
    "ann/private": (401, "RepoNotFound"),
    "ann/gated": (403, "GatedRepo"),
    "ann/forbidden": (403, ""),
    "ann/gone": (410, ""),
    "ann/broken": (500, ""),
    "ann/disabled": (403, "disabled"),
}
DRIVER = """
import json, sys
from guidebook.artifact import load
from guidebook.errors import InputError
for line in sys.stdin:
    items = json.loads(line)
    try:
        book = load(*items)
        said = {"labels": book.labels, "path": str(book.path), "domains": book.domains}
    except InputError as error:
        said = {"error": str(error)}
    print("::" + json.dumps(said), flush=True)
"""


class Hub(ThreadingHTTPServer):
    """Serves folders as repositories, and remembers which files were asked for."""

    def __init__(self, folders: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.folders = folders
        self.fetched: list[str] = []


class _Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[0] == "api":
            return self.describe(parts)
        repo, revision, name = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        if not self.known(repo, revision):
            return None
        place = self.server.folders[repo] / name
        if not place.is_file():
            return self.say(404, {"X-Error-Code": "EntryNotFound"})
        content = place.read_bytes()
        if body:
            self.server.fetched.append(f"{repo}/{name}")
        headers = {
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
            "Content-Length": str(len(content)),
        }
        return self.say(200, headers, content if body else b"")

    def describe(self, parts: list[str]) -> None:
        kind, repo, revision = parts[1], "/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main"
        if kind != "models":
            found = kind == "datasets" and repo == "ann/a-dataset"
            content = json.dumps({"id": repo, "sha": COMMIT, "siblings": []}).encode() if found else b""
            return self.say(200 if found else 404, {"X-Error-Code": "" if found else "RepoNotFound"}, content)
        if not self.known(repo, revision):
            return None
        folder = self.server.folders[repo]
        files = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
        if len(parts) > 4 and parts[4] == "tree":
            sizes = {name: (folder / name).stat().st_size for name in files}
            entries = [{"type": "file", "path": name, "size": size, "oid": "0" * 40} for name, size in sizes.items()]
            return self.say(200, {}, json.dumps(entries).encode())
        siblings = [{"rfilename": name} for name in files]
        return self.say(200, {}, json.dumps({"id": repo, "sha": COMMIT, "siblings": siblings}).encode())

    def known(self, repo: str, revision: str) -> bool:
        status, code = REFUSED.get(repo, (200, "") if repo in self.server.folders else (404, "RepoNotFound"))
        if status == 200 and revision in ("main", "v1", COMMIT):
            return True
        if code == "disabled":
            self.say(status, {"X-Error-Message": "Access to this resource is disabled."})
        else:
            missing = status == 200
            self.say(404 if missing else status, {"X-Error-Code": "RevisionNotFound" if missing else code})
        return False

    def say(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


class Client:
    """A process of its own, since the Hub's client reads its address when it is imported."""

    def __init__(self, endpoint: str, home: Path, offline: bool) -> None:
        environment = {
            **os.environ,
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": str(int(offline)),
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": "",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", DRIVER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def load(self, *items: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(items) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("::"):
                found: dict[str, Any] = json.loads(line[2:])
                return found
        raise AssertionError("the process ended")

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_base: Any) -> Iterator[tuple[Hub, Client, Path]]:
    """The Hub, a client of it, and the root of what is on it."""
    root = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUIDEBOOK_CACHE", str(root / "cache"))
        book = adapt(tiny_recipe(tiny_base("bert"), method="source_only"), root / "book")
    (book.path / "pytorch_model.bin").write_bytes(b"large")  # whatever else a repository holds
    (book.path / "checkpoints").mkdir()
    (book.path / "checkpoints" / "model.safetensors").write_bytes(b"large")
    shutil.copytree(book.path, root / "older")
    facts = json.loads((book.path / "guidebook.json").read_text(encoding="utf8"))
    old = {key: value for key, value in facts.items() if key not in ("files", "digest")}
    (root / "older" / "guidebook.json").write_text(json.dumps(old))
    folders = {
        "ann/book": book.path,
        "ann/older": root / "older",
        "ann/base": Path(tiny_base("bert")),
    }
    hub = Hub(folders)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    client = Client(f"http://127.0.0.1:{hub.server_address[1]}", root / "home", offline=False)
    yield hub, client, root
    client.end()
    hub.shutdown()


@pytest.mark.parametrize("name", ["ann/book", "ann/older", "ann/book@v1"])
def test_only_what_predicting_needs_is_fetched(world: tuple[Hub, Client, Path], name: str) -> None:
    hub, client, _ = world
    hub.fetched.clear()
    said = client.load(name)
    assert said.get("labels") == ["0", "1"], said
    assert said["domains"][0] == name.partition("@")[0].rpartition("/")[2]
    fetched = {file.rpartition("/")[2] for file in hub.fetched}
    assert not fetched & {"pytorch_model.bin", "report.html", "evidence.json", "README.md", "records.jsonl"}
    if name == "ann/book":
        assert hub.fetched[0] == "ann/book/guidebook.json"
        assert not any("checkpoints" in file for file in hub.fetched)


def test_a_base_is_asked_for_one_small_file_only(world: tuple[Hub, Client, Path]) -> None:
    hub, client, _ = world
    hub.fetched.clear()
    said = client.load("ann/base")
    assert "ann/base" in said["error"]
    assert "is not a guidebook: it has no guidebook.json" in said["error"]
    assert hub.fetched == []  # not even that: it is not there
    assert client.load("ann/base", "ann/book")["labels"] == ["0", "1"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ann/missing", "no repository of that name can be seen"),
        ("ann/private", "it is private. Correct it, or: hf auth login"),
        ("ann/a-dataset", "that name belongs to a dataset"),
        ("ann/gated", "conditions to be accepted"),
        ("ann/forbidden", "the Hub refuses it (status 403)"),
        ("ann/gone", "the Hub refuses it (status 410). It is gone"),
        pytest.param("ann/broken", "the Hub refuses it (status 500). Try again", marks=pytest.mark.slow),  # it does try
        ("ann/disabled", "disabled"),
        ("ann/book@v9", "no such revision"),
    ],
)
def test_whatever_the_hub_refuses_is_one_message(world: tuple[Hub, Client, Path], name: str, message: str) -> None:
    _, client, _ = world
    said = client.load(name)
    assert name in said["error"]
    assert message in said["error"]
    assert "\n" not in said["error"]


@pytest.mark.slow  # the client tries again a few times
def test_without_a_connection_a_kept_copy_is_used_and_what_is_not_kept_is_named(
    world: tuple[Hub, Client, Path],
) -> None:
    _, client, root = world
    client.load("ann/book")
    offline = Client("http://127.0.0.1:9", root / "home", offline=True)
    unreachable = Client("http://127.0.0.1:9", root / "nothing", offline=False)
    try:
        assert offline.load("ann/book")["labels"] == ["0", "1"]
        for found in (offline.load("ann/never"), unreachable.load("ann/book")):
            assert "there is no such folder here, and the Hub cannot be reached" in found["error"]
            assert "\n" not in found["error"]
    finally:
        offline.end()
        unreachable.end()
