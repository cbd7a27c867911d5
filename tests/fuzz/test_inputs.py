"""Whatever stands in a file, a recipe or on stdin: an answer or one clear message, and no row is lost unsaid."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import guidebook.cli.main
from fuzz.cases import broken, files, fuzzed, labels, names, odd_text, outcome, recipes, separated, texts, values
from guidebook.audit import read_labels
from guidebook.cli.predict import domain_of
from guidebook.data.columns import Columns
from guidebook.data.documents import Split, split_documents
from guidebook.data.domains import Domain, load_source, load_target, load_text
from guidebook.data.probabilities import read_probabilities
from guidebook.data.read import read_table
from guidebook.jumpstart import translate
from guidebook.recipe import load_recipe


@fuzzed
@given(
    files(),
    st.one_of(st.none(), st.just("text"), names),
    st.one_of(st.none(), st.just("label"), names),
    st.dictionaries(names, values, max_size=1),
    st.booleans(),
)
def test_files(case: Any, text: str | None, label: str | None, where: dict[str, Any], words: bool) -> None:
    name, content, rows = case
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        for documents in (False, True):
            for wanted in (Columns(), Columns(text, None, label)):
                table = outcome(
                    lambda wanted=wanted, documents=documents: read_table(path, wanted, {}, documents=documents)
                )
                if table is not None:
                    assert all(isinstance(found, str) and found.strip() for found in table.texts)
                    assert len(table.texts) == len(table.lines)
                    assert rows is None or len(table.texts) + table.empty == rows
        outcome(lambda: read_table(path, Columns(text, None, label), where, words=words))
        domain = Domain("a", path=str(path), columns=Columns(None, None, label))
        outcome(lambda: load_target(domain, words=words))
        found = outcome(lambda: load_source(domain))
        if found is not None and rows is not None:
            assert len(found[0].texts) + sum(found[0].dropped.values()) == rows


@fuzzed
@given(
    st.lists(files(), min_size=1, max_size=4),
    st.lists(st.sampled_from(["", "train", "validation", "pos", "neg"]), min_size=4),
)
def test_folders(cases: Any, places: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number, ((name, content, _), place) in enumerate(zip(cases, places, strict=False)):
            (Path(folder) / place).mkdir(exist_ok=True)
            (Path(folder) / place / f"{number}{name}").write_bytes(content)
        domain = Domain("a", path=folder)
        outcome(lambda: load_text(domain, "general"))
        outcome(lambda: load_source(domain))
        parts = outcome(lambda: split_documents(domain, "target", Split(share=0.5)))
        if parts is not None:
            assert all(len(part.texts) == len(part.lines) for part in parts)
            assert parts[0].division


@fuzzed
@given(recipes(), st.lists(st.one_of(odd_text, st.builds("{}={}".format, names, odd_text)), max_size=2))
def test_recipes(content: bytes, overrides: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_bytes(content)
        for changes in ([], overrides):
            recipe = outcome(lambda changes=changes: load_recipe(path, changes))
            if recipe is not None:
                json.dumps(recipe.resolved(), ensure_ascii=False).encode()


PLAN = {"rows": [{"row": row, "text": None} for row in range(6)]}


@fuzzed
@given(st.data())
def test_audit_files(data: Any) -> None:
    order = data.draw(st.permutations(["row", "text", "label", *data.draw(st.lists(names, max_size=1))]))
    made = [
        [str(row), data.draw(texts), data.draw(st.one_of(st.sampled_from(["a", "b", "", " a"]), labels)), "more"]
        for row in range(6)
    ]
    cells = [
        [dict(zip(["row", "text", "label"], row[:3], strict=True)).get(name, row[3]) for name in order] for row in made
    ]
    text = separated(
        [list(order), *cells], data.draw(st.sampled_from(",;\t|")), data.draw(st.sampled_from(["\n", "\r\n"])), 0
    )
    encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    content = data.draw(broken(text.encode(encoding, "replace")))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{data.draw(st.sampled_from(['.csv', '.txt', '.tsv', '', '.json', '.parquet']))}"
        path.write_bytes(content)
        found = outcome(lambda: read_labels(path, PLAN, ["a", "b"]))
        if found is not None:
            assert set(found) <= set(range(6))
            assert set(found.values()) <= {0, 1}


class Book:
    """A guidebook that calls everything positive."""

    labels, words, meta = ("negative", "positive"), False, {"serves": {"kitchen": "all"}}

    def predict_proba(self, given: Any, text_pairs: Any = None, domain: Any = "auto") -> np.ndarray:
        assert all(isinstance(text, str) and text.encode() for text in given)
        return np.array([[0.25, 0.75]] * len(given))


@fuzzed
@given(
    st.one_of(
        files().map(lambda case: case[1]),
        st.binary(max_size=60),
        st.lists(odd_text).map(lambda t: "\n".join(t).encode()),
    )
)
def test_stdin_of_predict(content: bytes) -> None:
    fake: Any = ModuleType("guidebook.artifact")
    fake.load = lambda path, *more, **options: Book()
    before, quiet = sys.modules.get("guidebook.artifact"), guidebook.cli.main.quiet_libraries
    out, said = io.StringIO(), io.StringIO()
    stdin = sys.stdin
    try:
        sys.modules["guidebook.artifact"], guidebook.cli.main.quiet_libraries = fake, lambda: None
        sys.stdin = SimpleNamespace(buffer=io.BytesIO(content), isatty=lambda: False)  # type: ignore[assignment]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
            code = outcome(lambda: guidebook.cli.main.main(["predict", "book", "-q"]))
    finally:
        sys.stdin, guidebook.cli.main.quiet_libraries = stdin, quiet
        if before is not None:
            sys.modules["guidebook.artifact"] = before
        else:
            del sys.modules["guidebook.artifact"]
    assert code in (0, 2), said.getvalue()
    assert "Traceback" not in said.getvalue()
    answers = [json.loads(line) for line in out.getvalue().split("\n")[:-1]]
    assert bool(answers) == (code == 0)
    if code == 0 and not content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        whole = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        assert len(answers) == sum(1 for line in whole.split("\n") if line and not line.isspace())


@fuzzed
@given(st.lists(st.one_of(values, st.lists(st.floats(0, 1), min_size=2, max_size=2)), max_size=4), st.data())
def test_probabilities_and_hyper_parameters(lines: list[Any], data: Any) -> None:
    content = data.draw(broken("\n".join(json.dumps(line) for line in lines).encode()))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.jsonl"
        path.write_bytes(content)
        found = outcome(lambda: read_probabilities(str(path), ["a", "b"], len(lines)))
        assert found is None or not len(lines) or np.allclose(found.sum(1), 1)
    known = st.sampled_from(
        [
            "epoch",
            "learning_rate",
            "early_stopping",
            "early_stopping_patience",
            "max_steps",
            "max_input_length",
            "bf16",
            "lora_r",
        ]
    )
    parameters = data.draw(
        st.dictionaries(
            st.one_of(known, odd_text), st.one_of(values, st.sampled_from(["1", "True", "nan", "inf"])), max_size=4
        )
    )
    outcome(lambda: translate(parameters, base="mini", targets=["train"]))


@fuzzed
@given(
    st.lists(
        st.one_of(
            odd_text,
            st.builds(
                "{}={}".format,
                st.one_of(names, st.sampled_from(["columns.text", "where.stars", "path", "columns", "test.path"])),
                odd_text,
            ),
        ),
        max_size=3,
    )
)
def test_words_of_a_domain(given: list[str]) -> None:
    domain = outcome(lambda: domain_of(Path("a.csv"), given))
    assert domain is None or isinstance(domain, Domain)
