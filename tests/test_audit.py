"""An audit from the rows to label to the verdict, and predictions that heed it."""

from __future__ import annotations

import csv
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest

import guidebook as gb
from guidebook.adaptation import adapt
from guidebook.audit import judge, plan_audit, pool_of, read_labels, write_rows
from guidebook.caution import caution, guarded, read_audit
from guidebook.cli.main import main
from guidebook.errors import InputError
from guidebook.evaluation.drift import TWIN
from guidebook.reports.unlabelled import said_without_labels
from tiny import LABELS, TEXTS, tiny_recipe


@pytest.fixture(scope="module")
def book(tiny_base, tmp_path_factory):
    root = tmp_path_factory.mktemp("audit")
    path = root / "kitchen.csv"
    with path.open("w", newline="") as stream:
        rows = [[f"the {text} {n}", LABELS[i]] for n in range(12) for i, text in enumerate(TEXTS)]
        csv.writer(stream).writerows([["text", "label"], *rows])
    source = gb.Domain("books", [f"{text} {n}" for n in range(6) for text in TEXTS], labels=LABELS * 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUIDEBOOK_CACHE", str(root / "cache"))
        recipe = tiny_recipe(tiny_base("bert"), source=source, targets=[str(path)], task={"dev": 0.3})
        yield adapt(recipe, out=root / "book")


def fill(path, how):
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows({**row, "label": how(row)} for row in rows)
    return rows


def truth(row):
    return LABELS[int(row["row"]) % len(TEXTS)]


def test_rows_are_written_labelled_and_judged(book, tmp_path, capsys):
    assert main(["predict", str(book.path), str(book.path.parent / "kitchen.csv"), "--guard", "-q"]) == 0
    capsys.readouterr()
    file = tmp_path / "rows.csv"
    assert main(["audit", str(book.path), "--label", "40", "--out", str(file), "-q"]) == 0
    rows = fill(file, truth)
    assert len(rows) == 40
    assert len({row["row"] for row in rows}) == 40
    assert {"row", "text", "label"} == set(rows[0]), "the file does not show what the models say"
    assert all(row["label"] == "" for row in rows)
    capsys.readouterr()
    assert main(["audit", str(book.path), "--labelled", str(file), "--json", "-q"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["labelled"] == 40
    assert found["verdict"] in ("ship", "keep_source_only", "label_more")
    texts = pool_of(book, "kitchen").texts
    gold = np.array(LABELS * 12)
    for name, domain in (("adapted", "kitchen"), ("source_only", TWIN)):
        right = book.predict_proba(texts, domain=domain).argmax(1) == gold
        assert found[name]["low"] <= right.mean() <= found[name]["high"]
    assert found["looks"] == 1
    assert main(["audit", str(book.path), "-q"]) == 0
    said = capsys.readouterr().out
    assert "rows labelled" in said
    assert "on one question" not in said  # the same labels again are no new look

    more = tmp_path / "more.csv"
    assert main(["audit", str(book.path), "--label", "10", "--out", str(more), "-q"]) == 0
    added = fill(more, truth)
    assert len(added) == 10
    assert {row["row"] for row in added}.isdisjoint(row["row"] for row in rows)
    capsys.readouterr()
    assert main(["audit", str(book.path), "--labelled", str(more), "-q"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "This is verdict 2 on one question." in said
    assert "one or more of the 2 in up to 10 of 100" in said
    assert main(["audit", str(book.path), "--labelled", str(more), "--json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out)["labelled"] == 50


@pytest.mark.parametrize(("verdict", "variant"), [("keep_source_only", TWIN), ("ship", "kitchen")])
def test_a_guarded_prediction_heeds_the_verdict(book, monkeypatch, verdict, variant):
    place = book.path / "audit.json"
    before = place.read_text() if place.exists() else None
    place.write_text(json.dumps({"kitchen": {"verdict": verdict, "more": 0}}))
    try:
        careful, said = caution(book, "kitchen", guard=True)
        assert careful.variant == variant
        assert "audit of kitchen" in said
        assert np.array_equal(careful(TEXTS)[0], book.predict_proba(TEXTS, domain=variant))
    finally:
        if before is None:
            place.unlink()
        else:
            place.write_text(before)


@pytest.mark.parametrize(("adapted", "variant"), [(0.1, TWIN), (0.3, "kitchen"), (0.4, "kitchen")])
def test_without_an_audit_the_guard_goes_by_what_the_model_tells_of_the_target(book, monkeypatch, adapted, variant):
    monkeypatch.setattr("guidebook.caution.AUDIT", "no-audit.json")
    scores = {"domain_fusion": {"information": adapted}, TWIN: {"information": 0.3}}
    monkeypatch.setitem(book.meta["scores"]["targets"][0], "validators", scores)
    careful, said = caution(book, "kitchen", guard=True)
    assert careful.variant == variant
    assert said.startswith("kitchen was not audited")
    assert ("less about its rows" in said) == (variant == TWIN)
    lines = said_without_labels(book.meta["scores"], "domain_fusion", "domain fusion")
    assert any("a sign that adapting drove it off" in line for line in lines) == (variant == TWIN)
    monkeypatch.setitem(book.meta["scores"]["targets"][0], "validators", {})
    with pytest.raises(InputError, match="nothing to guard by"):
        caution(book, "kitchen", guard=True)


def plan(agree: int = 60, apart: int = 40, labelled: int = 30):
    rows = [
        {"row": i, "stratum": int(i >= agree), "adapted": 1, "twin": int(i < agree), "guesses": [0.8, 0.5, 0.3]}
        for i in [*range(labelled), *range(agree, agree + labelled)]
    ]
    sizes = [agree, apart]
    return {"sizes": sizes, "settled": [1, 0], "rows": rows, "means": [[0.8, 0.8], [0.5, 0.5], [0.0, 0.3]]}


@pytest.mark.parametrize(("right", "verdict"), [(1.0, "ship"), (0.0, "keep_source_only"), (0.6, "label_more")])
def test_verdicts_follow_the_difference(right, verdict):
    made = plan()
    labels = {row["row"]: int(row["row"] < 60 or (row["row"] - 60) < 30 * right) for row in made["rows"]}
    found = judge(made, labels)
    assert found["verdict"] == verdict
    assert found["difference"]["estimate"] == pytest.approx(0.4 * (2 * right - 1))
    assert (found["more"] > 0) == (verdict == "label_more")
    assert found["more"] <= 10, "no more than there are rows of disagreement"


def test_where_no_label_could_settle_it_the_simpler_model_stays():
    made = plan(apart=30)
    labels = {row["row"]: int(row["row"] < 60 or row["row"] % 2) for row in made["rows"]}
    assert judge(made, labels)["verdict"] == "keep_source_only"


def test_half_of_the_rows_lie_where_the_models_disagree(book):
    made = plan_audit(book, "kitchen", pool_of(book, "kitchen"), 30)
    settled = np.array(made["settled"])
    apart = sum(settled[row["stratum"]] == 0 for row in made["rows"])
    disagreeing = int(np.array(made["sizes"])[settled == 0].sum())
    assert len(made["rows"]) >= 30
    assert apart >= min(15, disagreeing)
    again = plan_audit(book, "kitchen", pool_of(book, "kitchen"), 30)
    assert again == made


def test_mistakes_are_named_with_their_place(book, tmp_path):
    made = plan()
    path = tmp_path / "rows.csv"
    path.write_text("row,text,label\n0,a,1\n1,b,meh\n999,c,1\n")
    with pytest.raises(InputError, match=r"(?s)line 3: label 'meh'.*line 4: row '999' was not drawn"):
        read_labels(path, made, ["0", "1"])
    path.write_text("row,label\n0,1\n1,0\n0,0\n")
    with pytest.raises(InputError, match="line 4: row 0 has two different labels"):
        read_labels(path, made, ["0", "1"])
    path.write_text("row,text,label\n0,a,\n")
    with pytest.raises(InputError, match="no row has a label"):
        read_labels(path, made, ["0", "1"])
    with pytest.raises(InputError, match="fewer than 10 rows"):
        plan_audit(book, "kitchen", pool_of(book, "kitchen"), 3)


def saved(rows, *, mark=",", end="\n", order=("row", "text", "label"), encoding="utf-8", quote=csv.QUOTE_MINIMAL):
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=mark, lineterminator=end, quoting=quote)
    writer.writerow(order)
    writer.writerows([row[name] for name in order] for row in rows)
    return stream.getvalue().encode(encoding)


AS_SAVED = {
    "as written": {},
    "semicolons": {"mark": ";"},
    "tabs": {"mark": "\t"},
    "a mark": {"encoding": "utf-8-sig"},
    "semicolons, a mark, carriage returns": {"mark": ";", "end": "\r\n", "encoding": "utf-8-sig"},
    "other order": {"order": ("label", "text", "row")},
    "quotes": {"quote": csv.QUOTE_ALL, "mark": ";"},
    "no texts": {"order": ("row", "label")},
    "other case": {"order": ("Row", "TEXT", " Label ")},
    "more columns": {"order": ("row", "text", "label", "note")},
}


@pytest.mark.parametrize("suffix", ["csv", "txt", "labelled"])
@pytest.mark.parametrize("how", AS_SAVED)
def test_a_file_that_a_spreadsheet_saved_gives_the_same_labels(book, tmp_path, how, suffix):
    made = plan_audit(book, "kitchen", pool_of(book, "kitchen"), 20)
    texts = pool_of(book, "kitchen").texts
    rows = [{"row": str(row), "text": f"{texts[row]}  ", "label": str(row % 2), "note": "sure"} for row in made["new"]]
    rows = [{**row, "Row": row["row"], "TEXT": row["text"], " Label ": row["label"]} for row in rows[::-1]]
    path = tmp_path / f"audit.{suffix}"
    path.write_bytes(saved(rows, **AS_SAVED[how]))
    assert read_labels(path, made, ["0", "1"]) == {row: row % 2 for row in made["new"]}
    path.write_bytes(b"sep=;\r\n" + saved(rows, mark=";"))
    assert read_labels(path, made, ["0", "1"]) == {row: row % 2 for row in made["new"]}


def test_the_file_of_another_audit_and_unreadable_files_are_refused(book, tmp_path):
    made = plan_audit(book, "kitchen", pool_of(book, "kitchen"), 20)
    rows = [{"row": row, "text": f"another text {row}", "label": "1"} for row in made["new"]]
    path = tmp_path / "audit.csv"
    path.write_bytes(saved(rows, mark=";"))
    with pytest.raises(InputError, match=r"audit\.csv line 2: row \d+ has another text in this audit"):
        read_labels(path, made, ["0", "1"])
    path.write_bytes(saved(rows, mark="\t", encoding="utf-16"))
    with pytest.raises(InputError, match=r"audit\.csv: UTF-16, expected UTF-8"):
        read_labels(path, made, ["0", "1"])
    path.write_bytes(b"PK\x03\x04\x14\x00\x06\x00\xff\xfe")
    with pytest.raises(InputError, match="spreadsheet"):
        read_labels(path, made, ["0", "1"])
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no columns row and label"):
        read_labels(path, made, ["0", "1"])


def test_the_rows_to_label_begin_with_a_mark_for_spreadsheets(book, tmp_path):
    path = tmp_path / "rows.csv"
    population = pool_of(book, "kitchen")
    write_rows(population, plan_audit(book, "kitchen", population, 20), path)
    assert path.read_bytes().startswith(b"\xef\xbb\xbfrow,text,label")


@pytest.mark.parametrize("content", [b'{"kitchen": {', b"[]", b'{"kitchen": 1}', b"\xff", b"[" * 100_000])
def test_an_audit_that_cannot_be_read_says_so(tmp_path, content):
    (tmp_path / "audit.json").write_bytes(content)
    book = SimpleNamespace(path=tmp_path, meta={"serves": {"kitchen": "all"}, "variants": {"all": {}}})
    for use in (read_audit, lambda book: guarded(book, "kitchen")):
        with pytest.raises(InputError, match="begin the audit again"):
            use(book)


def estimate(low, high, monkeypatch, book):
    """Put class shares of 0.2 and 0.8 with an interval into what the guidebook says."""
    shares = {
        "0": {"estimate": 0.2, "low": low, "high": high},
        "1": {"estimate": 0.8, "low": 1 - high, "high": 1 - low},
    }
    prior = book.meta["scores"]["targets"][0]["prior"]
    monkeypatch.setitem(prior, "em", shares)
    monkeypatch.setitem(prior, "pulled", {"0": 0.3, "1": 0.7})
    monkeypatch.setitem(prior, "withheld", "")


def test_class_shares_and_strange_rows(book, monkeypatch):
    careful, said = caution(book, "kitchen", prior="0.05,0.95")
    moved = careful(TEXTS)[0]
    assert "0 5.0%, 1 95.0%" in said
    assert moved.sum(1) == pytest.approx(1)
    flat, _ = caution(book, "kitchen", prior="0.5,0.5")
    odds = [found[:, 1] / found[:, 0] for found in (moved, flat(TEXTS)[0])]
    assert odds[0] / odds[1] == pytest.approx(19), "the odds move as the shares do"
    estimate(0.15, 0.3, monkeypatch, book)
    estimated, _ = caution(book, "kitchen", prior="estimated")
    assert estimated.prior == pytest.approx([0.3, 0.7]), "those drawn to the source"
    estimate(0.0, 0.9, monkeypatch, book)
    with pytest.raises(InputError, match="from 0% to 90%"):
        caution(book, "kitchen", prior="estimated")
    unsure, _ = caution(book, "kitchen", abstain=0.1)
    strange = unsure([*TEXTS, "zzz qqq xxx vvv 7 7 7 7 7 7"])[1]
    assert strange.shape == (9,)
    assert unsure.leaves_out(0.95)
    assert not unsure.leaves_out(0.5)
    for wrong in ("0.3", "a,b", "0.9,0.9"):
        with pytest.raises(InputError, match="2 shares that sum to 1"):
            caution(book, "kitchen", prior=wrong)
    with pytest.raises(InputError, match="not a share"):
        caution(book, "kitchen", abstain=1.5)


def test_predict_writes_no_label_where_it_abstains(book, capsys, monkeypatch):
    monkeypatch.setattr(
        "guidebook.caution.unlike", lambda book, domain, texts, pairs=None: np.linspace(0, 1, len(texts))
    )
    file = book.path.parent / "kitchen.csv"
    assert main(["predict", str(book.path), str(file), "--abstain", "0.25", "--prior", "0.3,0.7", "-q"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    left_out = [line["label"] is None for line in lines]
    assert left_out == [line["unlike"] > 0.75 for line in lines]
    assert sum(left_out) == 24
