"""The catalogue's study on tiny inputs: its jobs, its choice, its resuming, and tables that are right at any time."""

from __future__ import annotations

import argparse
import importlib.util
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guidebook.compare.work import Share
from guidebook.evaluation.records import read_records
from guidebook.methods import METHODS
from tiny import TEXTS

FOLDER = Path(__file__).parents[2] / "benchmarks" / "catalogue"


def module(name: str) -> Any:
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    sys.path[:] = before
    return made


study = module("study")
report = module("report")


def record(
    method: str, cell: tuple[str, str, int], right: float, phase: str = "screening", **more: Any
) -> dict[str, Any]:
    source, target, draw = cell
    marks = "".join("01"[int(hit)] for hit in np.random.default_rng(len(target)).random(200) < right)
    return {
        "phase": phase,
        "data": "amazon",
        "method": method,
        "source": source,
        "target": target,
        "draw": draw,
        "labels": 200,
        "shift": "",
        "budget": asdict(study.Budget(adapter="lora", fuse_tokens=1, epochs=1, test_rows=200, task_rate=1e-3)),
        "rows": 200,
        "correct": marks,
        "accuracy": marks.count("1") / 200,
        "macro_f1": 0.5,
        "label_free_scores": {},
        "label_free": method not in study.TAKES_LABELS,
        "base_fingerprint": "abc",
        "base_saw": [],
        "seconds": 60.0,
        **more,
    }


def screening(accuracies: dict[str, float]) -> list[dict[str, Any]]:
    return [
        record(method, (source, target, draw), right)
        for draw in range(2)
        for source, target in study.SCREENED
        for method, right in accuracies.items()
    ]


def test_every_method_is_screened_twice_in_four_directions_and_on_shifted_targets() -> None:
    jobs = list(study.everything(list(METHODS)))
    for method in METHODS:
        assert sum(job.phase == "screening" and job.method == method for job in jobs) == 8
        assert sum(job.phase == "shifted" and job.method == method for job in jobs) == 8
    assert {job.phase for job in jobs if job.method == study.TOLD} == {"shifted"}
    assert study.TOLD not in {job.method for job in study.everything(["source_only"])}
    assert set(study.ON_GENRES) == {study.WORDS, study.TWIN, "domain_fusion", "mixed", "udapter_joint", study.FLAGSHIP}
    assert sum(job.phase == "mnli" for job in jobs) == 2 * 3 * len(study.ON_GENRES)
    assert len(set(jobs)) == len(jobs)


def test_nothing_of_the_screening_is_in_the_finals() -> None:
    jobs = list(study.finals(["ssd", "mixed", "dann"], ("books", "dvd", "electronics", "kitchen")))
    assert not {(job.source, job.target) for job in jobs} & set(study.SCREENED)
    assert len({(job.source, job.target) for job in jobs}) == 8
    assert {job.method for job in jobs} == {
        "tfidf",
        "source_only",
        "general_mlm",
        "ssd",
        "mixed",
        "dann",
        "co_training",
    }
    assert {job.draw for job in jobs if job.phase == "finalists"} == {0, 1, 2}


def test_finalists_are_chosen_by_scores_that_need_no_target_label_and_only_when_all_is_there() -> None:
    methods = ["source_only", "co_training", "few_target_labels", "dann", "mixed", "ssd", "joint"]
    records = screening(dict.fromkeys(methods, 0.5))
    better = {"ssd": 4.0, "joint": 3.0, "mixed": 2.0, "dann": 1.0}
    for entry in records:
        value = better.get(entry["method"], 9.0)
        entry["accuracy"] = 1 - value / 10  # the choice must not look at this
        entry["label_free_scores"] = {
            "nuclear_norm": {"value": value, "higher_is_better": True},
            "source_accuracy": {"value": -value, "higher_is_better": False},
        }
    assert study.finalists(records, methods) == ["ssd", "joint", "mixed"]
    assert study.finalists(records[:-1], methods) == []


def test_a_shifted_target_has_its_shares_and_shares_no_row() -> None:
    labels = ["0"] * 100 + ["1"] * 100
    sizes = set()
    for name, share in study.SHIFTS.items():
        pool, test = study.shifted_rows(labels, share)
        assert not set(pool.tolist()) & set(test.tolist()), name
        for rows in (pool, test):
            assert np.mean([labels[row] == "1" for row in rows]) == pytest.approx(share, abs=0.01)
            sizes.add(len(rows))
    assert len(sizes) == 1


def test_shifted_targets_are_told_beside_those_that_are_not_best_first() -> None:
    rights = {"85/15": {"source_only": 0.6, "mixed": 0.5, "dann": 0.8}, "50/50": {"source_only": 0.6, "mixed": 0.7}}
    records = [
        record(method, (source, target, 0), right, phase="shifted", shift=shift)
        for shift, methods in rights.items()
        for source, target in study.SCREENED
        for method, right in methods.items()
    ]
    accuracy = {
        (shift, method): np.mean([r["accuracy"] for r in records if (r["shift"], r["method"]) == (shift, method)])
        for shift, methods in rights.items()
        for method in methods
    }
    rows = [line.split(" | ") for line in report.shifted(records)[2:]]
    assert [row[0].strip("| ") for row in rows] == ["`dann`", "`mixed`"]
    for row in rows:
        for column, shift in ((1, "85/15"), (3, "50/50")):
            if (ours := accuracy.get((shift, row[0].strip("| `")))) is None:
                assert row[column] == "—"
            else:
                gain = 100 * (ours - accuracy[shift, "source_only"])
                assert float(row[column]) == pytest.approx(gain, abs=0.0501)  # one decimal, either way at a half


def test_shares_of_the_work_are_whole_cells_and_together_everything() -> None:
    jobs = list(study.everything(list(METHODS)))
    parts = [study.share_of(jobs, [job.cell for job in jobs], Share(part, 3)) for part in (1, 2, 3)]
    assert sum(map(len, parts)) == len(jobs)
    cells = [{(job.data, job.source, job.draw, job.labels, job.shift) for job in part} for part in parts]
    assert not cells[0] & cells[1]
    assert not cells[1] & cells[2]
    assert all(cells)


def test_several_processes_run_the_same_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, pathlib\n"
        "place, *rest, claims = sys.argv[1:]\n"
        "assert pathlib.Path(claims).is_dir()\n"
        "pathlib.Path(place, f'said_{os.getpid()}').write_text(' '.join(rest))\n"
        "try:\n    open(claims + '/first', 'x')\nexcept FileExistsError:\n    sys.exit(1)\n",
        encoding="utf8",
    )
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path), "--processes", "3"])
    assert study.in_processes(3) == 2
    said = [place.read_text(encoding="utf8") for place in tmp_path.glob("said_*")]
    assert said == 3 * ["--processes 3 --processes 1 --claims"]


CELLS = [
    study.Job("screening", "amazon", method, source, "dvd", 0, 200)
    for source in ("books", "kitchen")
    for method in ("source_only", "mixed", "dann")
]


def test_processes_take_a_cell_each_then_help_from_its_end(tmp_path: Path) -> None:
    one, two, three = (study.Claims(tmp_path) for _ in range(3))
    assert [one.next_of(CELLS), two.next_of(CELLS), three.next_of(CELLS)] == [CELLS[0], CELLS[3], CELLS[5]]
    assert one.next_of(CELLS[1:]) == CELLS[1]
    assert three.next_of(CELLS[1:]) == CELLS[4]
    assert one.next_of(CELLS[1:]) == CELLS[2]
    assert two.next_of(CELLS) is None
    assert study.Claims(None).next_of(CELLS[2:]) == CELLS[2]


def test_what_a_dead_process_claimed_is_free_and_a_failed_run_is_not_tried_again(tmp_path: Path) -> None:
    one, two = study.Claims(tmp_path), study.Claims(tmp_path)
    assert one.next_of(CELLS[:1]) == CELLS[0]
    assert two.next_of(CELLS[:1]) is None
    for held in one.held.values():
        held.close()  # as the system does for a process that ends, however it ends
    assert two.next_of(CELLS[:1]) == CELLS[0]
    assert not one.given_up(CELLS[0])
    two.give_up(CELLS[0])
    assert one.given_up(CELLS[0])
    assert not study.Claims(None).given_up(CELLS[0])


def test_hours_are_of_this_kind_of_processor() -> None:
    one = {"cpu": "a", "gpu": None, "torch_threads": 1, "memory_gb": 8}
    assert study.processor(one) == study.processor({**one, "memory_gb": 16})
    for other in ({"cpu": "b"}, {"gpu": "c"}, {"torch_threads": 2}):
        assert study.processor(one) != study.processor({**one, **other})


def test_the_page_counts_what_was_not_run() -> None:
    records = screening({"source_only": 0.6, "mixed": 0.7})
    every = 8 * len(study.SIDE_BY_SIDE)
    budget = study.Budget(**records[0]["budget"])
    assert next(report.missing(records, budget, [])) == f"{every - 16} of {every} in screening"
    assert next(report.missing(records[1:], budget, [])) == f"{every - 15} of {every} in screening"
    assert not [said for said in report.missing(records, budget, []) if "finalists" in said]
    assert [said for said in report.missing(records, budget, ["ssd"]) if "finalists" in said]


def test_a_table_is_right_wherever_the_study_was_stopped() -> None:
    records = screening({"source_only": 0.6, "mixed": 0.9, "dann": 0.6, "few_target_labels": 0.95})
    for stop in (0, 1, 3, 9, len(records) - 1, len(records)):
        said = report.page(records[:stop])
        free = said.partition("Given labels of the target")[0]
        assert "few_target_labels" not in free
        for line in free.splitlines():
            if line.startswith("| `mixed`") and "+" in line:
                both = report.by_cell(records[:stop])
                common = both["mixed"].keys() & both["source_only"].keys()
                slow = np.mean([both["mixed"][c]["accuracy"] - both["source_only"][c]["accuracy"] for c in common])
                assert f"{100 * slow:+.1f}" in line
                assert f"| {len(common)} |" in line
    assert "Better than `source_only` beyond noise: `mixed`." in report.page(records)
    assert "No difference to `source_only` that shows: `dann`." in report.page(records)


def test_one_trained_model_against_one_says_nothing_of_methods() -> None:
    records = screening({"source_only": 0.5, "mixed": 0.95})[:2]
    said = report.page(records)
    assert "Too few cells to say: `mixed`" in said
    assert "Better than `source_only` beyond noise: none." in said


def test_where_a_method_hurts_is_said() -> None:
    records = screening({"source_only": 0.8, "mixed": 0.5})
    said = report.page(records)
    assert "`mixed` hurts on" in said
    assert "books → electronics" in said


def test_p_values_are_adjusted_over_the_comparisons_of_the_table() -> None:
    records = screening({"source_only": 0.6, "a": 0.7, "b": 0.65, "c": 0.6})
    found = {d.better: d for d in report.compare(records, [(m, "source_only") for m in "abc"])}
    raw = {name: difference.found.p_value for name, difference in found.items()}
    smallest = min(raw, key=lambda name: raw[name])
    assert found[smallest].p == pytest.approx(min(3 * raw[smallest], 1.0))


def test_the_front_page_shows_the_flagship_against_each_on_the_directions_nothing_was_chosen_on() -> None:
    cells = [("books", "dvd", 0), ("books", "kitchen", 0), ("dvd", "books", 0), ("dvd", "electronics", 0)]
    records = [
        record(method, cell, right + number / 100, phase="finalists")
        for method, right in {"source_only": 0.6, "co_training": 0.7, "tfidf": 0.65}.items()
        for number, cell in enumerate(cells)
    ]
    told = report.brief([*records, *screening({"mixed": 0.9, "co_training": 0.1})]).splitlines()
    rows = {line.split(" | ")[2]: line for line in told[2:]}
    assert rows.keys() == {"`co_training`", "`tfidf`", "`source_only`"}
    found = {name: 100 * np.mean([r["accuracy"] for r in records if f"`{r['method']}`" == name]) for name in rows}
    assert rows["`co_training`"].endswith(f"| 4 | {found['`co_training`']:.1f} | | | |")
    gain = found["`co_training`"] - found["`source_only`"]
    assert f"| 4 | {found['`source_only`']:.1f} | {gain:+.1f} |" in rows["`source_only`"]
    assert "tfidf" not in report.brief(records[:-1])
    both = report.brief([*records, *({**one, "phase": "many", "labels": None} for one in records[:8])]).splitlines()
    assert both[: len(told)] == told
    assert [line.split(" | ")[1:3] for line in both[len(told) :]] == [
        ["1,700", "`co_training`"],
        ["1,700", "`source_only`"],
    ]
    assert report.brief(screening({"mixed": 0.9, "co_training": 0.1})) == ""


def test_bases_and_budgets_are_not_mixed() -> None:
    records = screening({"source_only": 0.6, "mixed": 0.7})
    other = [{**entry, "base_fingerprint": "other", "base_saw": ["amazon"]} for entry in records]
    assert report.page([*records, *other]).count("### Base") == 2


def tiny_data() -> Any:
    rows: dict[tuple[str, str], dict[str, list[Any]]] = {}
    for number, domain in enumerate(("books", "dvd", "electronics", "kitchen")):
        for split, count in (("train", 24), ("dev", 8)):
            texts = [f"{TEXTS[(row + number) % 8]} {domain} {split} {row}" for row in range(count)]
            rows[domain, split] = {"texts": texts, "labels": [str(row % 2) for row in range(count)]}
        rows[domain, "unlabeled"] = {"texts": [f"{text} of {domain} {row}" for row in range(5) for text in TEXTS]}
    return study.Data("amazon", ("books", "dvd", "electronics", "kitchen"), ("train", "dev"), rows)


@pytest.mark.slow
def test_the_study_goes_on_where_it_was_stopped_and_its_records_name_no_folder(
    tiny_base, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(study, "SCREENED", (("books", "electronics"),))
    monkeypatch.setattr(study, "draw_rows", lambda labels, count, draw: np.arange(16))
    budget = study.Budget(str(tiny_base("bert")), "lora", 200, 1, 10, 4, 1e-2, 1e-2, 32)
    methods = ["source_only", "tfidf", "co_training", "teacher", "few_target_labels", "mixed"]
    options = argparse.Namespace(
        records=tmp_path / "records.jsonl",
        methods=methods,
        phases=["screening"],
        share=Share(),
        claims=None,
        saw=["reviews"],
        hours=math.inf,
    )
    ran, run_job = [], study.run_job

    def counted(job: Any, *rest: Any, **more: Any) -> Any:
        if len(ran) == 3:
            raise KeyboardInterrupt
        ran.append(job)
        return run_job(job, *rest, **more)

    monkeypatch.setattr(study, "run_job", counted)
    general = [f"it is said that {text}" for text in TEXTS]
    with pytest.raises(KeyboardInterrupt):
        study.work(options, budget, {"amazon": tiny_data()}, general)
    monkeypatch.setattr(study, "run_job", run_job)
    late = argparse.Namespace(**{**vars(options), "hours": -1.0})
    study.work(late, budget, {"amazon": tiny_data()}, general)
    assert len(read_records(options.records)) == 3
    study.work(options, budget, {"amazon": tiny_data()}, general)
    records = read_records(options.records)
    assert len(records) == 12
    assert len({(entry["method"], entry["draw"]) for entry in records}) == 12
    assert "0 of 12 runs to do, 0.0 hours left" in capsys.readouterr().out
    for entry in records:
        assert entry["rows"] == 10
        assert entry["base_saw"] == ["reviews"]
        assert entry["label_free"] == (entry["method"] not in study.TAKES_LABELS)
        assert str(entry["recipe"]["method"].get("path", "")) in ("", f"{entry['method']}.jsonl")
        assert entry["method"] == "tfidf" or entry["label_free_scores"]
    assert "co_training" in report.page(records)


@pytest.mark.slow
def test_a_cell_that_is_prepared_once_gives_what_fresh_ones_give(tiny_base, tmp_path, monkeypatch) -> None:
    budget = study.Budget(str(tiny_base("bert")), "lora", 200, 1, 10, 4, 1e-2, 1e-2, 32)
    monkeypatch.setattr(study, "draw_rows", lambda labels, count, draw: np.arange(16))
    general, found = [f"it is said that {text}" for text in TEXTS], {}
    for way in ("together", "alone"):
        monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / way))
        shared = study.Prepared()
        for method in ("mixed", "tfidf", "dann", "domain_fusion", "source_only"):
            job = study.Job("screening", "amazon", method, "books", "electronics", 0, 200)
            prepared = shared if way == "together" else study.Prepared()
            entry = study.run_job(job, budget, tiny_data(), general, prepared)
            found[way, method] = (
                entry["label_free_scores"],
                entry["correct"],
                [stage["key"] for stage in entry["stages"]],
            )
    for method in ("mixed", "tfidf", "dann", "domain_fusion", "source_only"):
        assert found["together", method] == found["alone", method]


def test_the_flagship_that_is_told_gets_the_shares_of_the_target(tmp_path) -> None:
    source = study.Domain("books", ["a", "b"], labels=["1", "0"])
    job = study.Job("shifted", "amazon", study.TOLD, "books", "dvd", 0, 200, "85/15")
    method = study.method_of(job, tiny_data(), source, source, tmp_path)
    assert method["name"] == "co_training"
    assert method["shares"] == pytest.approx({"0": 0.15, "1": 0.85})
