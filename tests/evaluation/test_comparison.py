"""From records to tables: against slow loops, with gaps, failures and repeated records."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from guidebook.errors import InputError
from guidebook.evaluation.comparison import comparisons, correct_of
from guidebook.evaluation.statistics import grouped_difference
from guidebook.reports.comparison import heading, overlap_lines, tables_of

NAMES = {"source_only": 0.70, "domain_fusion": 0.75, "dann": 0.55}


def record(name: str, source: str, target: str, draw: int, right: np.ndarray, **facts: Any) -> dict[str, Any]:
    return {
        "key": f"{name} {source} {target} {draw} {facts.get('labelled_rows')} {facts.get('base')}",
        "candidate": name,
        "method": name,
        "flagship": "domain_fusion",
        "source": source,
        "target": target,
        "labelled_rows": None,
        "draw": draw,
        "seed": draw,
        "base": "mini",
        "base_fingerprint": "ab",
        "rows": len(right),
        "accuracy": float(right.mean()),
        "correct": "".join("01"[int(hit)] for hit in right),
        "source_accuracy": 0.8 + 0.01 * len(name),
        "scores": {"entropy": {"value": float(len(name)), "higher_is_better": False}},
        "megabytes_per_domain": 1.5,
        "training_seconds": 3.0,
        "memory_megabytes": 100.0,
        **facts,
    }


def records(draws: int = 2, domains: tuple[str, ...] = ("books", "dvd", "kitchen"), rows: int = 60) -> list[dict]:
    rng = np.random.default_rng(0)
    hard = {target: rng.random(rows) for target in domains}
    return [
        record(name, source, target, draw, hard[target] + rng.normal(scale=0.1, size=rows) < share)
        for draw in range(draws)
        for source in domains
        for target in domains
        if source != target
        for name, share in NAMES.items()
    ]


def test_means_ranks_and_differences_against_loops() -> None:
    made = records()
    (found,) = comparisons(made)
    assert (found.cells, found.incomplete, found.failed, found.reference, found.over) == (12, 0, {}, *WHO)
    by_name = {standing.name: standing for standing in found.candidates}
    assert [s.accuracy for s in found.candidates] == sorted((s.accuracy for s in found.candidates), reverse=True)
    cells: dict[tuple[str, str, int], dict[str, dict]] = {}
    for line in made:
        cells.setdefault((line["source"], line["target"], line["draw"]), {})[line["candidate"]] = line
    for name, standing in by_name.items():
        assert standing.accuracy == pytest.approx(np.mean([cell[name]["accuracy"] for cell in cells.values()]))
        places = []
        for cell in cells.values():
            mine = cell[name]["accuracy"]
            better = sum(other["accuracy"] > mine for other in cell.values())
            equal = sum(other["accuracy"] == mine for other in cell.values())
            places.append(better + (equal + 1) / 2)
        assert standing.rank == pytest.approx(np.mean(places))
        assert standing.costs["training_seconds"] == 3.0
        assert standing.costs["forgetting"] is None
    p_values = []
    for name in ("domain_fusion", "dann"):
        differences = [
            (
                s,
                draw,
                t,
                [int(a) - int(b) for a, b in zip(c[name]["correct"], c["source_only"]["correct"], strict=True)],
            )
            for (s, t, draw), c in cells.items()
        ]
        expected = grouped_difference(differences, "sources")
        p_values.append(expected.p_value)
        assert by_name[name].difference["estimate"] == pytest.approx(expected.estimate)
        assert by_name[name].difference["low"] == pytest.approx(expected.interval.low)
    small, large = sorted(p_values)
    adjusted = sorted(by_name[name].difference["p"] for name in ("domain_fusion", "dann"))
    assert adjusted == pytest.approx([min(1, 2 * small), min(1, max(2 * small, large))])
    assert by_name["source_only"].difference is None


WHO = ("source_only", "sources")


def test_rules_of_choice() -> None:
    (found,) = comparisons(records())
    rules = {line["rule"]: line for line in found.picks}
    assert set(rules) == {"entropy", "source accuracy", "always the flagship", "random", "oracle"}
    by_name = {standing.name: standing.accuracy for standing in found.candidates}
    assert rules["entropy"]["accuracy"] == pytest.approx(by_name["dann"])  # the shortest name has the lowest score
    assert rules["entropy"]["took"] == {"dann": 12.0}
    assert rules["source accuracy"]["accuracy"] == pytest.approx(by_name["domain_fusion"])
    assert rules["always the flagship"]["accuracy"] == pytest.approx(by_name["domain_fusion"])
    assert rules["random"]["accuracy"] == pytest.approx(np.mean(list(by_name.values())))
    for line in rules.values():
        assert line["regret"] == pytest.approx(rules["oracle"]["accuracy"] - line["accuracy"])
        assert line["low"] <= line["regret"] <= line["high"]
    assert [line["regret"] for line in found.picks] == sorted(line["regret"] for line in found.picks)


def test_scores_are_correlated_with_the_accuracy_cell_by_cell() -> None:
    from scipy import stats

    (found,) = comparisons(records())
    rules = {line["rule"]: line["correlation"] for line in found.picks}
    expected = []
    for start in range(0, 36, 3):
        cell = records()[start : start + 3]
        scores = [-line["scores"]["entropy"]["value"] for line in cell]
        expected.append(stats.spearmanr(scores, [line["accuracy"] for line in cell]).statistic)
    assert rules["entropy"] == pytest.approx(np.mean(expected))
    assert rules["source accuracy"] == pytest.approx(-np.mean(expected))  # the longest name is the best on the source
    assert rules["oracle"] is None


def test_estimates_are_held_against_the_truth() -> None:
    made = records()
    for place, line in enumerate(made):
        off = 0.1 if place % 2 else -0.04
        guess = line["accuracy"] + off
        line["estimates"] = {
            "threshold_confidence": {"estimate": guess, "low": guess - 0.05, "high": guess + 0.05},
            "same_as_source": {"estimate": 0.9, "low": 0.0, "high": 1.0},
        }
    (found,) = comparisons(made)
    by_name = {line["name"]: line for line in found.estimates}
    assert by_name["threshold_confidence"] == {
        "name": "threshold_confidence",
        "error": pytest.approx(0.07),
        "bias": pytest.approx(0.03),
        "coverage": 0.5,
        "records": 36,
    }
    assert by_name["same_as_source"]["coverage"] == 1.0
    assert [line["error"] for line in found.estimates] == sorted(line["error"] for line in found.estimates)
    assert comparisons(records())[0].estimates == ()


def test_only_complete_cells_count() -> None:
    whole = records()
    missing = [line for line in whole if (line["candidate"], line["draw"], line["source"]) != ("dann", 1, "books")]
    (found,) = comparisons(missing)
    assert (found.cells, found.incomplete) == (10, 2)
    without = [line for line in whole if (line["draw"], line["source"]) != (1, "books")]
    (expected,) = comparisons(without)
    assert found.candidates == expected.candidates
    assert found.directions["books to dvd"].keys() == set(NAMES)  # what there is of a direction is shown


def test_failures_are_counted_and_leave_their_cell_out() -> None:
    made = records()
    failed = {name: value for name, value in made[2].items() if name not in ("accuracy", "correct", "rows")}
    (found,) = comparisons([*made[:2], {**failed, "failed": "not finite"}, *made[3:]])
    assert found.failed == {"dann": 1}
    assert (found.cells, found.incomplete) == (11, 1)


def test_what_the_intervals_speak_about_follows_from_the_records() -> None:
    one_source = [line for line in records() if line["source"] == "books"]
    assert comparisons(one_source)[0].over == "draws"
    one_draw = [line for line in one_source if line["draw"] == 0]
    (found,) = comparisons(one_draw)
    assert found.over == "rows"
    assert {line["low"] for line in found.picks} == {None}
    assert found.candidates[0].difference or found.candidates[1].difference


def test_bases_and_numbers_of_rows_are_not_mixed() -> None:
    other = [{**line, "base": "big", "key": f"b{line['key']}", "base_fingerprint": "cd"} for line in records(draws=1)]
    few = [{**line, "labelled_rows": 50, "key": f"f{line['key']}"} for line in records(draws=1)]
    found = comparisons([*records(draws=1), *other, *few])
    assert [(item.base, item.labelled_rows, item.cells) for item in found] == [
        ("mini", None, 6),
        ("big", None, 6),
        ("mini", 50, 6),
    ]


def test_the_last_record_of_a_key_counts() -> None:
    made = records(draws=1)
    older = copy.deepcopy(made[0])
    older["correct"], older["accuracy"] = "0" * 60, 0.0
    assert comparisons([older, *made]) == comparisons(made)


def test_one_candidate_and_no_complete_cell() -> None:
    alone = [line for line in records(draws=1) if line["candidate"] == "dann"]
    (found,) = comparisons(alone)
    assert (found.reference, found.picks, found.cells) == ("dann", (), 6)
    (found,) = comparisons(records(draws=1)[:2] + records(draws=1)[5:6])
    assert (found.cells, found.candidates) == (0, ())
    assert comparisons([]) == []


def test_records_of_another_kind_are_refused() -> None:
    with pytest.raises(InputError, match="no records of a comparison"):
        comparisons([{"arm": "source_only"}])


def test_plain_data_and_rows() -> None:
    (found,) = comparisons(records())
    assert found.plain()["candidates"][0]["name"] in NAMES
    assert correct_of({"correct": "0110"}).tolist() == [False, True, True, False]


def test_a_comparison_without_source_only_says_what_its_differences_are_against() -> None:
    assert comparisons(records())[0].note == ""
    (found,) = comparisons([line for line in records() if line["candidate"] != "source_only"])
    assert found.reference == "domain_fusion"
    assert "no source_only among the candidates" in found.note
    assert "against domain_fusion" in found.note


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"code": "b" * 32}, "code bbbbbbbb"),
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"versions": {"torch": "2.14", "python": "3.12.1", "guidebook": "0.1"}}, "torch 2.14"),
    ],
)
def test_records_made_with_other_code_versions_or_number_type_are_not_mixed(change: dict, shown: str) -> None:
    made = {"code": "a" * 32, "dtype": "float32", "versions": {"torch": "2.13", "python": "3.12.1", "guidebook": "0.1"}}
    lines = [{**line, **made} for line in records(draws=2)]
    other = [{**line, **change, "key": f"o{line['key']}"} if line["draw"] == 1 else line for line in lines]
    (whole,) = comparisons(lines)
    assert (whole.cells, whole.others_differ_in) == (12, ())
    assert "made with" not in heading(whole)
    first, second = comparisons(other)
    assert [item.cells for item in (first, second)] == [6, 6]
    assert first.others_differ_in == second.others_differ_in == (next(iter(change)),)
    assert shown in heading(second)
    assert shown not in heading(first)
    alike = [{**line, "versions": {**made["versions"], "python": "3.12.2"}} if line["draw"] else line for line in lines]
    assert len(comparisons(alike)) == 1  # of Python itself, no number depends on it


def test_records_of_words_are_compared_by_entity_f1_of_texts() -> None:
    def record(name: str, values: list[float], accuracy: float) -> dict[str, Any]:
        return {
            "key": name,
            "candidate": name,
            "method": name,
            "source": "a",
            "target": "b",
            "labelled_rows": None,
            "draw": 0,
            "seed": 0,
            "base": "x",
            "base_fingerprint": "y",
            "flagship": "new",
            "rows": 400,
            "metric": "entity_f1",
            "score": float(np.mean(values)),
            "accuracy": accuracy,
            "by_text": values,
            "source_accuracy": 0.9,
            "source_score": 0.8,
            "overlap": {"rows": 4, "in": {"source": 1}},
        }

    twin, new = [0.1, 0.3, 0.2, 0.4], [0.5, 0.9, 0.4, 1.0]
    (found,) = comparisons([record("source_only", twin, 0.99), record("new", new, 0.5)])
    assert found.metric == "entity_f1"
    assert [(standing.name, standing.accuracy) for standing in found.candidates] == [
        ("new", pytest.approx(0.7)),
        ("source_only", pytest.approx(0.25)),
    ]
    assert found.candidates[0].source_accuracy == 0.8
    assert found.candidates[0].difference is not None
    assert found.candidates[0].difference["estimate"] == pytest.approx(0.45)
    error = np.std(np.subtract(new, twin)) / 2  # over four texts, not over their 400 words
    assert found.candidates[0].difference["high"] - 0.45 == pytest.approx(1.96 * error, rel=1e-3)
    assert found.overlap == {"a to b": {"rows": 4, "in": {"source": 1}}}
    assert tables_of(found)[0].columns[1] == "entity F1 %"
    assert overlap_lines(found)[0].startswith("a to b: 1 of 4 test rows (25 %) also stand in the labelled rows")
