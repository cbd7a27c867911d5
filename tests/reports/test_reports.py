"""Summary, page and card of a realistic guidebook.json."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from guidebook.evaluation.metrics import classification_scores
from guidebook.evaluation.statistics import paired_difference, smallest_detectable
from guidebook.reports import card as card_module
from guidebook.reports.card import write_card
from guidebook.reports.intervals import Scale
from guidebook.reports.page import render, write_report
from guidebook.reports.summary import Table, arm_name, duration, listed, megabytes, percent, points, summary

LABELS = ["negative", "positive"]
ACCURACIES = {
    "kitchen": {"tfidf": 0.79, "linear_probe": 0.77, "source_only": 0.86, "domain_fusion": 0.905},
    "hotels": {"tfidf": 0.81, "linear_probe": 0.80, "source_only": 0.88, "domain_fusion": 0.884},
    "apps": {"tfidf": 0.88, "linear_probe": 0.74, "source_only": 0.87, "domain_fusion": 0.82},
}


def probabilities(labels: np.ndarray, accuracy: float, seed: int) -> np.ndarray:
    """(N, 2) whose errors stand on rows that are hard for every seed, so that models agree as real ones do."""
    hard = np.random.default_rng(0).random(len(labels))
    noise = np.random.default_rng(seed).normal(scale=0.03, size=len(labels))
    right = hard + noise < accuracy
    sure = np.random.default_rng(seed).uniform(0.55, 0.99, size=len(labels))
    chance = np.where(right == (labels == 1), sure, 1 - sure)
    return np.stack([1 - chance, chance], axis=1)


def scored(name: str, rows: int, seed: int) -> dict[str, Any]:
    labels = np.random.default_rng(seed).integers(2, size=rows)
    found = {arm: probabilities(labels, share, i + 1) for i, (arm, share) in enumerate(ACCURACIES[name].items())}
    difference = paired_difference(*(found[arm].argmax(1) == labels for arm in ("domain_fusion", "source_only")))
    return {
        "name": name,
        "rows": rows,
        "transductive": name != "hotels",
        "unknown_labels": {"neutral": 12} if name == "hotels" else {},
        "scores": {arm: classification_scores(values, labels, LABELS) for arm, values in found.items()},
        "difference": {
            "of": ["domain_fusion", "source_only"],
            "estimate": difference.estimate,
            "low": difference.low,
            "high": difference.high,
            "within_noise": difference.within_noise,
        },
    }


def domain(name: str, role: str, rows: int, **facts: Any) -> dict[str, Any]:
    return {
        "name": name,
        "role": role,
        "path": f"data/{name}.csv",
        "rows": rows,
        "duplicates": 3,
        "overlap": {},
        "texts_cut": rows // 9,
        "tokens_cut": rows * 4,
        "tokens": rows * 88,
        "fertility": 1.31,
        "classes": None,
        "dropped": {},
        "columns": {"text": "text"},
        "fingerprint": "0f" * 16,
        **facts,
    }


def stage(arm: str, name: str, **facts: Any) -> dict[str, Any]:
    return {
        "arm": arm,
        "name": name,
        "key": "ab" * 16,
        "targets": ["kitchen", "hotels", "apps"],
        "train": ["task"],
        "starts_from": {},
        "tokens": 512_000,
        "steps": 320,
        "seconds": 171.4,
        "tokens_per_second": 2987.2,
        "padding_share": 0.017,
        "cached": False,
        "losses": {"task": {"first": 0.701, "last": 0.184}},
        "mix": {"books": 1.0},
        "trainable_parameters": 297_600,
        **facts,
    }


def sample() -> dict[str, Any]:
    """A guidebook.json as a run of domain fusion with three targets writes it."""
    labels = np.random.default_rng(5).integers(2, size=400)
    meta: dict[str, Any] = {
        "format": 1,
        "created": "2026-03-01T12:30:00+00:00",
        "base": {
            "id": "mini",
            "fingerprint": "7c" * 16,
            "parameters": 11_170_560,
            "model_type": "bert",
            "saw": ["wikipedia-en"],
        },
        "task": {
            "kind": "classification",
            "labels": LABELS,
            "pairs": False,
            "pooling": "mean",
            "max_length": 128,
            "head": "two_layer",
            "dropout": 0.1,
        },
        "recipe": {
            "source": [{"name": "books", "path": "data/books.csv"}],
            "targets": [{"name": name, "path": f"data/{name}.csv"} for name in ACCURACIES],
            "base": "mini",
            "adapter": {"kind": "houlsby", "reduction": 6.0, "layers": "all"},
            "method": {"name": "domain_fusion", "scope": "all", "mixture": "proportional"},
            "train": {
                "tokens_per_batch": 4096,
                "max_length": 128,
                "dtype": "float32",
                "fuse": {"tokens": 2_000_000},
                "task": {"epochs": 5},
            },
            "seed": 0,
        },
        "method": "domain_fusion",
        "seed": 0,
        "domains": [
            domain("books", "source", 1600, classes={"negative": 790, "positive": 810}),
            domain("kitchen", "target", 2000, overlap={"hotels": 4}, dropped={"empty text": 7}),
            domain("hotels", "target", 1500, texts_cut=700, tokens_cut=60_000, fertility=1.52),
            domain("apps", "target", 300, duplicates=41),
        ],
        "stages": [
            stage("source_only", "task", cached=True),
            stage(
                "domain_fusion",
                "fuse",
                train=["domain"],
                tokens=2_000_000,
                steps=611,
                seconds=702.0,
                losses={"lm": {"first": 3.911, "last": 2.842}},
                mix={"kitchen": 0.41, "books": 0.3, "hotels": 0.25, "apps": 0.04},
            ),
            stage("domain_fusion", "task", starts_from={"task": "domain"}),
        ],
        "adapters": [
            {"name": "task", "variant": "source_only", "kind": "houlsby", "parameters": 297_600, "megabytes": 1.193},
            {
                "name": "domain",
                "variant": "domain_fusion",
                "kind": "houlsby",
                "parameters": 297_600,
                "megabytes": 1.193,
            },
            {"name": "task", "variant": "domain_fusion", "kind": "houlsby", "parameters": 297_600, "megabytes": 1.193},
        ],
        "size": {"trainable_share": 0.0266, "megabytes_per_domain": 1.193, "base_megabytes": 44.7},
        "variants": {
            "source_only": {"stack": ["task"], "folder": "source_only", "head": "source_only"},
            "domain_fusion": {"stack": ["task"], "folder": ".", "head": "domain_fusion"},
        },
        "serves": dict.fromkeys(ACCURACIES, "domain_fusion"),
        "evaluation": {
            "source": {
                "name": "books",
                "rows": 400,
                "scores": {
                    arm: classification_scores(probabilities(labels, share, 9), labels, LABELS)
                    for arm, share in {"tfidf": 0.85, "source_only": 0.91, "domain_fusion": 0.9}.items()
                },
            },
            "targets": [scored("kitchen", 2000, 1), scored("hotels", 1488, 2), scored("apps", 300, 3)],
        },
        "versions": {"python": "3.12.1", "guidebook": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        "machine": {
            "cpu": "An Example CPU",
            "cores": 2,
            "memory_gb": 15.6,
            "torch_threads": 2,
            "bf16": False,
            "gpu": None,
            "gpu_memory_gb": None,
            "system": "Linux x86_64",
        },
        "seconds": 1130.2,
    }
    return json.loads(json.dumps(meta))


@pytest.fixture(scope="module")
def shared() -> dict[str, Any]:
    return sample()


@pytest.fixture
def meta(shared: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(shared)


def only(meta: dict[str, Any], *names: str) -> dict[str, Any]:
    meta["evaluation"]["targets"] = [t for t in meta["evaluation"]["targets"] if t["name"] in names]
    meta["domains"] = [d for d in meta["domains"] if d["role"] != "target" or d["name"] in names]
    return meta


def without_labels(meta: dict[str, Any], *names: str) -> dict[str, Any]:
    for target in meta["evaluation"]["targets"]:
        if target["name"] in names:
            target["scores"] = {}
            del target["difference"]
    return meta


def source_only(meta: dict[str, Any]) -> dict[str, Any]:
    meta["method"] = "source_only"
    for target in meta["evaluation"]["targets"]:
        del target["scores"]["domain_fusion"], target["difference"]
    meta["stages"] = meta["stages"][:1]
    meta["evaluation"]["source"]["scores"].pop("domain_fusion")
    meta["variants"].pop("domain_fusion")
    meta["adapters"] = meta["adapters"][:1]
    meta["serves"] = dict.fromkeys(ACCURACIES, "source_only")
    return meta


def nothing_kept(meta: dict[str, Any]) -> dict[str, Any]:
    source_only(meta)
    meta["method"] = "tfidf"
    meta["variants"], meta["serves"], meta["adapters"], meta["stages"] = {}, {}, [], []
    meta["size"]["megabytes_per_domain"] = 0
    return meta


SHAPES = {
    "three targets": lambda meta: meta,
    "one target": lambda meta: only(meta, "hotels"),
    "no labels": lambda meta: without_labels(meta, *ACCURACIES),
    "some labels": lambda meta: without_labels(meta, "apps"),
    "source only": source_only,
    "nothing kept": nothing_kept,
}


# --- summary -----------------------------------------------------------------------------------------------------


def test_mixed_outcomes_are_said_per_target(meta: dict[str, Any]) -> None:
    found = summary(meta)
    assert found.outcome == "mixed"
    assert found.verdict == "Adapting helped on kitchen, made no difference that shows on hotels and hurt on apps."
    kitchen, hotels, labels, apps, words = found.findings
    assert kitchen.startswith("kitchen: domain fusion is better than source only (+")
    assert "hotels: domain fusion and source only are within noise" in hotels
    assert "'neutral': 12" in labels
    assert 'Keep domain="source_only" there.' in apps
    assert words.startswith("apps: TF-IDF, which trains nothing in the base, reaches")


@pytest.mark.parametrize(
    ("shape", "outcome", "verdict"),
    [
        ("one target", "noise", "Adapting did not help: domain fusion and source only are within noise on hotels."),
        ("no labels", "unknown", "Whether adapting helped is not known: no labels for kitchen, hotels and apps."),
        ("source only", "plain", "Nothing was adapted: the method is source only."),
        ("nothing kept", "plain", "Nothing was adapted: the method is TF-IDF."),
    ],
)
def test_verdicts(meta: dict[str, Any], shape: str, outcome: str, verdict: str) -> None:
    found = summary(SHAPES[shape](meta))
    assert (found.outcome, found.verdict) == (outcome, verdict)


@pytest.mark.parametrize(("name", "outcome"), [("kitchen", "helped"), ("apps", "hurt")])
def test_one_target_that_shows(meta: dict[str, Any], name: str, outcome: str) -> None:
    found = summary(only(meta, name))
    assert (found.outcome, found.verdict) == (outcome, f"Adapting {outcome} on {name}.")


def test_targets_without_labels_are_named_beside_the_others(meta: dict[str, Any]) -> None:
    found = summary(without_labels(meta, "apps"))
    assert found.verdict.endswith("on hotels. No labels for apps.")
    assert any(line.startswith("apps: no labels") for line in found.findings)
    assert ("apps", "300, transductive", "domain fusion", "no labels", "", "", "") in found.results.rows


def test_within_noise_says_what_would_have_shown(meta: dict[str, Any]) -> None:
    target = only(meta, "hotels")["evaluation"]["targets"][0]["difference"]
    error = (target["high"] - target["low"]) / (2 * 1.959964)
    assert f"under about {percent(smallest_detectable(error))} points" in summary(meta).findings[0]


def test_two_models_with_the_same_answers_are_called_that(meta: dict[str, Any]) -> None:
    meta = only(meta, "hotels")
    meta["evaluation"]["targets"][0]["difference"] |= {"estimate": 0.0, "low": 0.0, "high": 0.0, "within_noise": True}
    assert summary(meta).findings[0].startswith("hotels: domain fusion and source only are right on the same rows")
    assert "within noise on hotels" in summary(meta).verdict


def test_results_show_every_model_and_the_paired_difference(meta: dict[str, Any]) -> None:
    rows = summary(meta).results.rows
    assert len(rows) == 12
    last = {row[0]: row for row in rows if row[2] == "domain fusion"}
    scores = meta["evaluation"]["targets"][1]["scores"]["domain_fusion"]
    assert last["hotels"][3] == percent(scores["accuracy"])
    assert last["hotels"][4] == f"{percent(scores['accuracy_low'])} to {percent(scores['accuracy_high'])}"
    assert last["hotels"][1] == "1,488"
    assert last["hotels"][6].endswith("within noise")
    assert last["kitchen"][1] == "2,000, transductive"
    assert "noise" not in last["kitchen"][6]
    assert all(row[6] == "" for row in rows if row[2] != "domain fusion")


def test_costs_count_what_was_trained_now(meta: dict[str, Any]) -> None:
    costs = dict(summary(meta).costs.rows)
    assert costs["trained share of the base"] == "2.66 % of 11,170,560"
    assert costs["size per domain"] == "1.19 MB, the base has 44.7 MB"
    assert costs["stages reused"] == "1 of 3"
    assert costs["time in training"] == f"14 min 33 s, {2_512_000 / 873.4:,.0f} tokens per second"


def test_notes_stand_only_where_they_apply(meta: dict[str, Any]) -> None:
    words = dict(summary(meta).notes)
    assert {"transductive", "within noise", "several targets", "placebo", "base saw", "95 % interval"} == words.keys()
    assert words["base saw"].startswith("wikipedia-en.")
    meta["evaluation"]["targets"] = meta["evaluation"]["targets"][1:2]
    scores = meta["evaluation"]["targets"][0]["scores"]
    scores["target_oracle"] = scores["general_mlm"] = scores["source_only"]
    meta["base"]["saw"] = []
    words = dict(summary(meta).notes)
    assert {"within noise", "oracle", "base saw", "95 % interval"} == words.keys()
    assert words["base saw"].startswith("Not declared")


def test_text_is_aligned_and_complete(meta: dict[str, Any]) -> None:
    text = summary(meta).text()
    for table in summary(meta).tables():
        assert table.title in text
        assert all(cell in text for row in table.rows for cell in row)
    table = Table("Title", ("name", "n"), "lr", (("a", "1"), ("long", "10")))
    assert table.text() == "Title\n  name   n\n  a      1\n  long  10"


@pytest.mark.parametrize("shape", SHAPES)
def test_tables_are_rectangular(meta: dict[str, Any], shape: str) -> None:
    for table in summary(SHAPES[shape](meta)).tables():
        assert len(table.columns) == len(table.align)
        assert all(len(row) == len(table.columns) for row in table.rows)
        assert all(isinstance(cell, str) for row in table.rows for cell in row)


def test_words_for_numbers() -> None:
    assert [points(value) for value in (0.0231, -0.0204, 0.0004, -0.0004)] == ["+2.3", "-2.0", "0.0", "0.0"]
    assert [duration(value) for value in (0.2, 59.4, 59.6, 130, 7500)] == [
        "under 1 s",
        "59 s",
        "1 min 0 s",
        "2 min 10 s",
        "2 h 5 min",
    ]
    assert [megabytes(value) for value in (0.594, 45.26, 1340.2)] == ["0.59 MB", "45.3 MB", "1,340 MB"]
    assert [listed(value) for value in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
    assert arm_name("target_oracle") == "target oracle (reads target labels)"


# --- page --------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Collects the text of a page and checks that its tags close."""

    EMPTY = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.outside: list[str] = []
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.headings: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids.add(found.get("id") or "")
        if "href" in found:
            self.links.append(str(found["href"]))
        self.outside += [str(found[name]) for name in ("src", "srcset", "action", "data") if name in found]
        if tag == "th" and "scope" not in found:
            raise AssertionError("a table heading without scope")
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(tag)
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.mark.parametrize("shape", SHAPES)
def test_page_is_whole_and_needs_nothing_else(meta: dict[str, Any], shape: str) -> None:
    meta = SHAPES[shape](meta)
    html = render(meta)
    page = Page(html)
    assert page.outside == []
    assert not re.search(r"@import|url\(|<script|<link|https?://", html)
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert page.headings[0] == "h1"
    assert page.headings.count("h1") == 1
    assert summary(meta).verdict in page.text
    for line in summary(meta).findings:
        assert line in page.text


def test_page_holds_every_number(meta: dict[str, Any]) -> None:
    text = Page(render(meta)).text
    for table in summary(meta).tables():
        for row in table.rows:
            assert all(cell in text for cell in row)
    assert "1 of 3 stages reused" in text
    assert "2 min 51 s (reused)" in text
    for target in meta["evaluation"]["targets"]:
        for name, found in target["scores"]["domain_fusion"]["per_class"].items():
            assert f"{name} domain fusion {found['rows']:,} {percent(found['precision'])}" in text
        for row in target["scores"]["domain_fusion"]["confusion"]:
            assert all(f"{count:,}" in text for count in row)
    assert "Recipe" in text
    assert yaml.safe_load(re.search(r"<pre[^>]*>(.*?)</pre>", render(meta), re.S).group(1)) == meta["recipe"]
    assert all(version in text for version in meta["versions"].values())


def test_names_are_text_not_markup(meta: dict[str, Any]) -> None:
    evil = "<script>alert(1)</script>"
    meta["evaluation"]["targets"][0]["name"] = evil
    meta["domains"][1]["name"] = evil
    meta["recipe"]["base"] = evil
    meta["stages"][1]["mix"] = {evil: 1.0}
    html = render(meta)
    assert "<script" not in html
    assert evil in Page(html).text


def test_a_wide_confusion_matrix_is_left_out(meta: dict[str, Any]) -> None:
    names = [f"class{i}" for i in range(20)]
    labels = np.arange(200) % 20
    chances = np.eye(20)[labels]
    meta["evaluation"]["targets"][0]["scores"]["domain_fusion"] = classification_scores(chances, labels, names)
    meta["evaluation"]["targets"][0]["scores"]["source_only"] = classification_scores(chances, labels, names)
    page = Page(render(meta))
    assert "class19" in page.text
    assert page.text.count("Confusion of") == 2


def test_places_on_a_scale_are_linear_and_inside() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        low, high = np.sort(generator.uniform(-30, 100, size=2))
        scale = Scale.around([low, high])
        assert scale.low <= low <= high <= scale.high
        ticks = scale.ticks()
        assert 2 <= len(ticks) <= 8
        assert (ticks[0][0], ticks[-1][0]) == (0.0, 100.0)
        assert scale.place((scale.low + scale.high) / 2) == pytest.approx(50)
        assert all(
            abs(float(label) - (scale.low + place / 100 * (scale.high - scale.low))) < 0.01 for place, label in ticks
        )
    assert Scale.around([]).ticks()
    assert Scale.around([5.0, 5.0]).place(5.0) >= 0


def test_marks_stand_where_the_numbers_say(meta: dict[str, Any]) -> None:
    html = render(only(meta, "kitchen"))
    scores = meta["evaluation"]["targets"][0]["scores"]
    ends = [100 * found[end] for found in scores.values() for end in ("accuracy_low", "accuracy_high")]
    scale = Scale.around(ends)
    places = [float(place) for place in re.findall(r'class="dot" style="left:([\d.]+)%"', html)]
    expected = [scale.place(100 * found["accuracy"]) for found in scores.values()]
    assert places[1:] == pytest.approx(expected)  # the first dot is the difference


def test_write_report_writes_utf8(meta: dict[str, Any], tmp_path: Path) -> None:
    meta["domains"][0]["name"] = "bücher – 本"
    path = write_report(meta, tmp_path / "report.html")
    assert "bücher – 本" in path.read_text(encoding="utf-8")


# --- card --------------------------------------------------------------------------------------------------------


def card(meta: dict[str, Any], folder: Path) -> tuple[dict[str, Any], str]:
    text = write_card(meta, folder / "README.md").read_text(encoding="utf-8")
    start, front, body = text.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(front), body


def test_front_matter_is_valid_and_leaves_the_license_to_the_user(meta: dict[str, Any], tmp_path: Path) -> None:
    meta["base"]["id"] = "owner/base-model"
    front, _ = card(meta, tmp_path)
    assert front["base_model"] == "owner/base-model"
    assert front["base_model_relation"] == "adapter"
    assert front["library_name"] == "guidebook"
    assert front["pipeline_tag"] == "text-classification"
    assert {"guidebook", "peft", "domain-adaptation", "domain_fusion", "houlsby"} <= set(front["tags"])
    assert "license" not in front


def test_a_packaged_base_is_not_linked_as_a_hub_model(meta: dict[str, Any], tmp_path: Path) -> None:
    front, body = card(meta, tmp_path)
    assert "base_model" not in front
    assert "`mini`" in body


@pytest.mark.parametrize("shape", SHAPES)
def test_card_tells_how_to_load_and_what_to_expect(meta: dict[str, Any], shape: str, tmp_path: Path) -> None:
    meta = SHAPES[shape](meta)
    _, body = card(meta, tmp_path)
    found = summary(meta)
    assert found.verdict in body
    assert all(meaning in body for _, meaning in found.notes)
    assert ("guidebook.load" in body or "gb.load" in body) == bool(meta["variants"])
    for block in re.findall(r"```python\n(.*?)```", body, re.S):
        compile(block, "card", "exec")
    for item in meta["domains"]:
        assert re.search(rf"\| {item['name']} +\| {item['role']} +\| +{item['rows']:,} \|", body)


def test_card_loads_adapters_with_plain_peft_from_their_folders(meta: dict[str, Any], tmp_path: Path) -> None:
    _, body = card(meta, tmp_path)
    assert "import guidebook.peft" in body
    assert 'subfolder="adapters/task"' in body
    assert "AutoModelForMaskedLM" in body
    meta["base"]["model_type"] = "llama"
    assert "AutoModelForCausalLM" in card(meta, tmp_path)[1]


def test_a_packaged_base_is_loaded_from_the_package(
    meta: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 'from_pretrained("mini")' in card(meta, tmp_path)[1] or card_module._is_packaged("mini")
    monkeypatch.setattr(card_module, "_is_packaged", lambda base: base == "mini")
    assert 'from_pretrained(files("guidebook") / "bases/mini")' in card(meta, tmp_path)[1]


def test_a_lora_card_needs_no_import_of_guidebook(meta: dict[str, Any], tmp_path: Path) -> None:
    for adapter in meta["adapters"]:
        adapter["kind"] = "lora"
    _, body = card(meta, tmp_path)
    assert "import guidebook.peft" not in body
    assert "PeftModel.from_pretrained" in body


def test_a_full_card_has_no_adapter_to_load(meta: dict[str, Any], tmp_path: Path) -> None:
    for adapter in meta["adapters"]:
        adapter["kind"] = "full"
    assert "PeftModel" not in card(meta, tmp_path)[1]


def test_one_adapter_per_target_is_loaded_by_its_own_name(meta: dict[str, Any], tmp_path: Path) -> None:
    variant = {"stack": ["domain-kitchen", "task-kitchen"], "folder": ".", "head": "domain_fusion:kitchen"}
    meta["variants"] = {"source_only": meta["variants"]["source_only"], "domain_fusion:kitchen": variant}
    meta["serves"] = {"kitchen": "domain_fusion:kitchen"}
    _, body = card(meta, tmp_path)
    assert 'subfolder="adapters/domain-kitchen", adapter_name="domain-kitchen"' in body
    assert 'load_adapter("path/or/hub-id", subfolder="adapters/task-kitchen", adapter_name="task-kitchen")' in body
    assert 'set_adapter(["domain-kitchen", "task-kitchen"])' in body


def test_an_oracle_is_said_to_read_labels(meta: dict[str, Any], tmp_path: Path) -> None:
    meta["method"] = "target_oracle"
    assert "the labels were read too (an oracle, nothing to ship)" in card(meta, tmp_path)[1]


def test_cells_cannot_break_the_tables_of_a_card(meta: dict[str, Any], tmp_path: Path) -> None:
    meta["domains"][1]["name"] = "a|b\nc"
    _, body = card(meta, tmp_path)
    assert "| a\\|b c | target |" in body


def test_reports_import_without_torch() -> None:
    code = (
        "import sys, guidebook.reports.card, guidebook.reports.page; "
        "sys.exit(bool({'torch', 'transformers', 'peft', 'matplotlib'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
