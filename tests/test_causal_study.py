"""The study of generative bases on tiny inputs: runs, resumes, and writes its page from records alone."""

from __future__ import annotations

import json
import lzma
import shutil
import sys
from pathlib import Path

import pytest

from guidebook.evaluation.records import read_records
from tiny import TEXTS
from tiny_causal import save

FOLDER = Path(__file__).parent.parent / "benchmarks" / "causal"


@pytest.fixture(autouse=True)
def importable(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    for name in ("study", "report"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def point(kind: str, rate: float, gain: float, forgetting: float, general: float = 0.0):
    def change(value):
        return {"estimate": value, "low": value - 0.01, "high": value + 0.01, "within_noise": False}

    run = {
        "domain": "calls",
        "kind": kind,
        "learning_rate": rate,
        "general": general,
        "tokens": 100,
        "base": "b",
        "seed": 0,
    }
    return {
        "run": run,
        "before": {"bits_per_byte": 2.0, "documents": 9},
        "after": {"bits_per_byte": 2.0 - gain},
        "gain": change(-gain),
        "trained_on": change(-gain),
        "forgetting": change(forgetting),
        "megabytes": 1.5,
        "tokens_per_second": 99.0,
        "base": {"saw": ["wikipedia-en"]},
    }


def test_forgetting_at_equal_gain_is_read_between_runs():
    import report

    records = [
        point("houlsby", 1, 0.1, 0.01), point("houlsby", 2, 0.3, 0.03), point("full", 1, 0.2, 0.10),
        point("full", 2, 0.4, 0.20),
    ]  # fmt: skip
    rows = report.at_equal_gain(records)
    assert [gain for gain, _ in rows] == pytest.approx([0.2, 0.25, 0.3])
    assert rows[0][1] == pytest.approx({"houlsby": 0.02, "full": 0.10})
    assert rows[-1][1] == pytest.approx({"houlsby": 0.03, "full": 0.15})
    assert "houlsby forgets less than full fine-tuning (+0.080 to +0.120" in report.answer(records)
    worse = [point("houlsby", 1, 0.1, 0.9), point("houlsby", 2, 0.3, 0.9), *records[2:]]
    assert "more than full" in report.answer(worse)
    assert "not known yet" in report.answer(records[:2])
    apart = [*records[:2], point("full", 1, 0.5, 0.1), point("full", 2, 0.6, 0.2)]
    assert "not known yet" in report.answer(apart)


def test_the_page_is_generated(tmp_path, monkeypatch):
    import report

    shutil.copy(FOLDER / "README.md", tmp_path / "README.md")
    records = [point("houlsby", 1e-3, 0.1, 0.01), point("full", 1e-5, 0.2, 0.1, 0.1)]
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    arguments = ["report.py", "--records", str(tmp_path / "records.jsonl"), "--page", str(tmp_path / "README.md")]
    monkeypatch.setattr(sys, "argv", arguments)
    report.main()
    text = (tmp_path / "README.md").read_text()
    assert "| houlsby | 0.001 | 0% | 2.000 to 1.900 | -0.100 (-0.110 to -0.090) | -0.100 | +0.010" in text
    assert "tradeoff.svg" in text
    first = (tmp_path / "tradeoff.svg").read_bytes()
    report.main()
    assert (tmp_path / "tradeoff.svg").read_bytes() == first


@pytest.mark.slow
def test_the_study_runs_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    import report
    import study

    base = save("gptj", tmp_path / "base")
    monkeypatch.setattr(study, "NOT_READ", 4)
    data = tmp_path / "data"
    data.mkdir()
    calls = [{"text": f"{t}. call {n}", "split": "train" if n % 3 else "test"} for n in range(4) for t in TEXTS]
    filings = [{"id": f"year{n}", "text": " ".join([*TEXTS, f"of year {n}"] * 3)} for n in range(3)]
    general = [{"text": f"it is said that {t} often"} for t in TEXTS]
    for name, rows in ((study.CALLS, calls), (study.FILINGS, filings), (study.GENERAL, general)):
        with lzma.open(data / name, "wt", encoding="utf8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    arguments = [
        "study.py", "--data", str(data), "--base", str(base), "--tokens", "300", "--length", "64",
        "--tokens-per-batch", "128", "--prompts", "2", "--records", str(tmp_path / "records.jsonl"),
        "--work", str(tmp_path / "runs"),
    ]  # fmt: skip
    for most in (1, 4):
        monkeypatch.setattr(sys, "argv", [*arguments, "--most", str(most)])
        study.main()
    records = read_records(tmp_path / "records.jsonl")
    assert [(r["run"]["domain"], r["run"]["kind"]) for r in records] == [
        ("calls", "houlsby"), ("calls", "lora"), ("calls", "full"), ("filings", "houlsby"), ("filings", "lora"),
    ]  # fmt: skip
    assert records[0]["gain"]["low"] is not None
    assert records[2]["megabytes"] > 10 * records[0]["megabytes"]
    assert records[3]["spans"]["copied_share"] > 0.5  # the years repeat each other
    shutil.copy(FOLDER / "README.md", tmp_path / "README.md")
    monkeypatch.setattr(
        sys, "argv",
        ["report.py", "--records", str(tmp_path / "records.jsonl"), "--page", str(tmp_path / "README.md")],
    )  # fmt: skip
    report.main()
    assert "copied parts" in (tmp_path / "README.md").read_text()
