"""The study of trust on tiny inputs: rows looked up are the base's, its resuming, its tables against slow ways."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guidebook.compare.work import Share
from guidebook.evaluation.records import read_records
from guidebook.training.prediction import make_rows
from tiny import TEXTS

FOLDER = Path(__file__).parents[2] / "benchmarks" / "trust"


def module(name: str) -> Any:
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location(f"trust_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    sys.path[:] = before
    return made


study = module("study")
report = module("report")
guessing, picking = sys.modules["trust.guessing"], sys.modules["trust.picking"]
CELLS = (("books", "dvd", 0), ("books", "dvd", 1), ("kitchen", "books", 0))


def tiny_data() -> Any:
    rows: dict[tuple[str, str], dict[str, list[Any]]] = {}
    for number, domain in enumerate(("books", "dvd")):
        for split, count in (("train", 24), ("dev", 8)):
            texts = [f"{TEXTS[(row + number) % 8]} {domain} {split} {row}" for row in range(count)]
            rows[domain, split] = {"texts": texts, "labels": [str(row % 2) for row in range(count)]}
        rows[domain, "unlabeled"] = {"texts": [f"{text} of {domain} {row}" for row in range(5) for text in TEXTS]}
    return study.Data("amazon", ("books", "dvd"), ("train", "dev"), rows)


@pytest.fixture
def world(tiny_base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("guidebook.training.trainer.rates", lambda: None)  # float32 also where bf16 is faster
    monkeypatch.setattr(study, "DRAWS", {16: 2, None: 1})
    return study.World.of(study.Budget(str(tiny_base("bert")), 20, 10, 16), tiny_data())


def test_every_direction_is_met_in_every_world_and_shares_are_whole_cells() -> None:
    jobs = list(study.everything(("books", "dvd", "electronics", "kitchen")))
    assert len(jobs) == len(set(jobs)) == 2 * 12 * 3 * 4
    parts = [study.share_of(jobs, [job.cell for job in jobs], Share(part, 2)) for part in (1, 2)]
    assert sum(map(len, parts)) == len(jobs)
    assert not {job.cell for job in parts[0]} & {job.cell for job in parts[1]}


def test_looked_up_rows_and_predictions_are_those_of_the_engine(world: Any) -> None:
    texts = tiny_data().of("dvd", "train")["texts"][:5]
    texts = [*texts, texts[0] + " and " + texts[1] + " and " + texts[2]]
    world.looked.read(world.engine, texts[5:], 16)
    rows = make_rows(texts, None, world.engine.host.tokenizer, 16)
    assert len(rows.tokens) > len(texts)
    found = world.looked.pooled(rows)
    assert np.allclose(found, world.engine.pooled(rows), atol=1e-5)
    job = study.Job("linear_probe", "books", "dvd", 0, 16, "")
    recipe = study.recipe_for(job, world.budget, world.data)
    material = study.Material(
        study.read_recipe(recipe), world.engine.host.tokenizer, length=16, task_length=16, causal=False
    )
    run = study.PoolRun(material, material.corpus.targets[0], 0, world.looked)
    list(recipe.method.plan(run))
    assert run.head is not None
    assert np.allclose(world.looked.probe(run.head, rows), world.engine.probe(run.head, rows), atol=1e-5)


def test_a_record_holds_guesses_and_what_they_try_to_tell(world: Any) -> None:
    job = study.Job("tfidf", "books", "dvd", 1, 16, "85/15")
    found = study.run_job(job, world)
    assert set(found["estimates"]) == set(guessing.NAMES) - {"em", "confusion", "pulled"}
    assert found["estimates"]["same_as_source"]["estimate"] == found["source_accuracy"]
    assert found["pool_share"] == pytest.approx(0.85, abs=0.06)
    assert found["test_share"] == found["pool_share"]
    alone = study.run_job(replace(job, labels=None, draw=0, shift=""), world)
    assert "seed_agreement" not in alone["estimates"]
    assert alone["pool_share"] is None
    assert "prior" not in alone
    assert alone["pool_rows"] == 20
    assert alone["rows"] == 10


@pytest.mark.slow
def test_the_study_goes_on_where_it_was_stopped(
    tiny_base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(study, "DRAWS", {16: 2, None: 1})
    budget = study.Budget(str(tiny_base("bert")), 20, 10, 16)
    place, ran, run_job = tmp_path / "records.jsonl", [], study.run_job

    def counted(job: Any, *rest: Any) -> Any:
        if len(ran) == 5:
            raise KeyboardInterrupt
        ran.append(job)
        return run_job(job, *rest)

    monkeypatch.setattr(study, "run_job", counted)
    with pytest.raises(KeyboardInterrupt):
        study.work(place, Share(), budget, tiny_data())
    monkeypatch.setattr(study, "run_job", run_job)
    study.work(place, Share(), budget, tiny_data())
    records = read_records(place)
    assert len(records) == 2 * 2 * 3 * 3
    study.work(place, Share(), budget, tiny_data())
    assert "0 of 36 runs to do" in capsys.readouterr().out
    for stop in (0, 1, 7, 36):
        said = report.estimates_page(records[:stop])
        assert ("85/15" in said) == (stop > 4)
    assert "books → dvd" in report.vocabulary_page(records, [])


def scored_record(method: str, cell: tuple[str, str, int], marks: str, **scores: float) -> dict[str, Any]:
    return {
        "phase": "screening",
        "labels": 200,
        "shift": "",
        "method": method,
        "source": cell[0],
        "target": cell[1],
        "draw": cell[2],
        "budget": {"base": "mini", "adapter": "houlsby"},
        "base_fingerprint": "abc",
        "label_free": method not in picking.TAKES_LABELS,
        "label_free_scores": {
            name: {"value": value, "higher_is_better": picking.VALIDATORS[name].higher_is_better}
            for name, value in scores.items()
        },
        "correct": marks,
    }


def scored_records() -> list[dict[str, Any]]:
    generator, records = np.random.default_rng(0), []
    methods = {"source_only": 0.6, "domain_fusion": 0.7, "dann": 0.5, "mixed": 0.8, "few_target_labels": 0.99}
    for cell in CELLS:
        for method, chance in methods.items():
            marks = "".join("01"[int(hit)] for hit in generator.random(60) < chance)
            records.append(scored_record(method, cell, marks, source_accuracy=chance, entropy=1 - chance))
        records.append(scored_record("tfidf", cell, "1" * 60))
    return records


def test_regret_is_what_a_loop_over_both_halves_finds() -> None:
    (_, cells), *others = picking.cells_of(scored_records())
    assert not others
    assert len(cells) == 3
    candidates = picking.scored(cells[0])
    assert {candidate.name for candidate in candidates} == {"source_only", "domain_fusion", "dann", "mixed"}
    found = picking.regrets(candidates)
    right = {candidate.name: candidate.correct for candidate in candidates}
    halves = np.array_split(np.random.default_rng(0).permutation(60), 2)
    oracle = dict.fromkeys((*right, "random"), 0.0)
    for choose, score in (halves, halves[::-1]):
        means = {name: right[name][choose].mean() for name in right}
        best = [name for name in right if means[name] == max(means.values())]
        top = np.mean([right[name][score].mean() for name in best])
        for name in right:
            oracle[name] += (top - right[name][score].mean()) / 2
        oracle["random"] += (top - np.mean([right[name][score].mean() for name in right])) / 2
    assert found["source_accuracy"] == pytest.approx(oracle["mixed"])
    assert found["entropy"] == pytest.approx(oracle["mixed"])
    assert found["always `domain_fusion`"] == pytest.approx(oracle["domain_fusion"])
    assert found["always `source_only`"] == pytest.approx(oracle["source_only"])
    assert found["random"] == pytest.approx(oracle["random"])


def test_runs_of_several_budgets_come_once_more_together() -> None:
    records = scored_records()
    other = [{**r, "budget": {**r["budget"], "adapter": "lora"}} for r in records if r["source"] == "books"]
    *alone, (group, cells) = picking.cells_of([*records, *other])
    assert [len(found) for _, found in alone] == [3, 2]
    assert group[-1] is None
    assert len(cells) == 2  # the third has runs of one budget alone
    found = picking.scored(cells[0])
    assert len(found) == len({candidate.name for candidate in found}) == 8
    rules = picking.regrets(found)
    assert rules["always `domain_fusion, lora`"] == pytest.approx(rules["always `domain_fusion, houlsby`"])


def test_correlations_are_turned_so_that_higher_is_better_and_bad_candidates_are_named() -> None:
    (_, cells), *_ = picking.cells_of(scored_records())
    found = picking.correlations(picking.scored(cells[0]))
    assert found["entropy"] == found["source_accuracy"] > 0
    assert "dann" not in {candidate.name for candidate in picking.able(picking.scored(cells[0]))}
    said = report.picks_page(scored_records())
    assert "few_target_labels" not in said
    assert "4 (in 3 cells), which is few (under 30)" in said
    assert "`dann` in 3 cells" in said
    assert "`tfidf` trains no stage" in said
    assert "100.0" in said
    assert report.picks_page([]) == "No record yet.\n"


def test_models_that_tell_less_than_their_twin_are_counted_apart() -> None:
    marks = {"source_only": (0.3, "1110"), "dann": (0.1, "1000"), "mixed": (0.2, "1110"), "ssd": (0.3, "1111")}
    records = [scored_record(m, CELLS[0], hits, information=told) for m, (told, hits) in marks.items()]
    rows = {
        line.split(" | ")[0].strip("| "): line
        for line in report.picks_page(records).splitlines()
        if line[:3] == "| l" or "as much or" in line
    }
    half, less, more = (rows[name] for name in picking.TELLS)
    assert "| 1 | -50.0 | 100 %" in half
    assert "| 1 | +0.0 | 0 %" in less
    assert "| 1 | +25.0 | 0 %" in more


def test_fusion_is_taken_where_it_tells_as_much() -> None:
    runs = [
        scored_record(method, cell, marks, information=told)
        for cell, fused in ((CELLS[0], (0.2, "1000")), (CELLS[2], (0.4, "1111")))
        for method, told, marks in (("source_only", 0.3, "1110"), ("domain_fusion", *fused), ("ssd", 0.1, "1110"))
    ]
    said = report.picks_page(runs)
    for name, gain in (("always", -12.5), ("where it tells as much", 12.5), ("where it is better", 12.5)):
        assert f"{name} {gain:+.1f} (" in said


def test_the_chance_of_test_rows_widens_an_interval_and_never_narrows_it() -> None:
    guess = {"estimate": 0.7, "low": 0.68, "high": 0.72}
    assert guessing.held(guess, 0.71)
    assert guessing.held(guess, 0.71, 1000)
    assert not guessing.held(guess, 0.74)
    assert guessing.held(guess, 0.74, 200)
    assert not guessing.held(guess, 0.9, 200)
