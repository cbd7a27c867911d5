"""Whole runs on every architecture, on one without a row, on a multilingual base, and on bases held in other ways."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from guidebook import Domain, InputError, adapt, estimate, load
from guidebook.adapters.host import Host
from guidebook.adapters.placement import PLACEMENTS
from tiny import FAMILIES, LABELS, TEXTS, build_model, build_tokenizer, domains, tiny_recipe


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))


def probabilities(book: Any) -> np.ndarray:
    found: np.ndarray = book.predict_proba(domains()["targets"][0].texts, domain="kitchen")
    return found


def moved(book: Any) -> dict[str, torch.Tensor]:
    """Weights of the adapter that the method trained last."""
    files = (book.path / "adapters").rglob("adapter_model.safetensors")
    return {f"{path.parent.name}/{key}": value for path in files for key, value in load_file(path).items()}


@pytest.mark.slow
@pytest.mark.parametrize("family", [name for name in PLACEMENTS if name not in FAMILIES])
def test_every_architecture_is_adapted_and_its_guidebook_loads(family: str, tiny_base: Any, tmp_path: Path) -> None:
    book = adapt(tiny_recipe(tiny_base(family), adapter={"kind": "houlsby", "reduction": 4}), out=tmp_path / "book")
    stages = {(stage["arm"], stage["name"]): stage for stage in book.meta["stages"]}
    assert {("domain_fusion", "fuse"), ("domain_fusion", "task"), ("source_only", "task")} <= set(stages)
    assert np.isfinite(stages["domain_fusion", "fuse"]["losses"]["lm"]["last"])
    assert book.meta["base"]["model_type"] == family
    up = {key: value for key, value in moved(book).items() if "bottleneck_up.weight" in key}
    assert up
    assert all(value.any() for value in up.values())  # zero at first
    again = load(book.path)
    assert np.array_equal(probabilities(again), probabilities(book))
    assert again.meta["base"]["fingerprint"] == Host.load(str(tiny_base(family))).fingerprint


# modules by hand

BY_HAND = {
    "ernie": {
        "layers": r"ernie\.encoder\.layer\.(\d+)",
        "attention": "attention.output.dense",
        "feed_forward": "output.dense",
        "lm_head": "cls",
    },
    "stablelm": {
        "layers": r"model\.layers\.(\d+)",
        "attention": "self_attn.o_proj",
        "feed_forward": "mlp.down_proj",
        "lm_head": "lm_head",
    },
}


def by_hand(family: str, folder: Path) -> Path:
    """A tiny base of an architecture without a row."""
    import transformers

    tokenizer = build_tokenizer("bert" if family == "ernie" else "llama")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    ends = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    heads = {"num_key_value_heads": 2} if family == "stablelm" else {}
    config = transformers.AutoConfig.for_model(family, vocab_size=len(tokenizer), **sizes, **heads, **ends)
    made = transformers.AutoModelForMaskedLM if family == "ernie" else transformers.AutoModelForCausalLM
    torch.manual_seed(0)
    made.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("family", BY_HAND)
@pytest.mark.parametrize("kind", ["houlsby", "lora"])
def test_any_architecture_is_adapted_by_modules_named_by_hand(family: str, kind: str, tmp_path: Path) -> None:
    base = by_hand(family, tmp_path / "base")
    assert family not in PLACEMENTS
    with pytest.raises(InputError, match=rf"Architecture '{family}' has no row.*adapter\.modules\.layers"):
        estimate(tiny_recipe(base))
    book = adapt(tiny_recipe(base, adapter={"kind": kind, "modules": BY_HAND[family]}), out=tmp_path / "book")
    assert book.meta["base"]["modules"] == BY_HAND[family]
    assert book.meta["task"]["pooling"] in (("mean",) if family == "ernie" else ("last", "mean"))  # chosen on decoders
    assert {key for key, value in moved(book).items() if value.any()}
    assert np.array_equal(probabilities(load(book.path)), probabilities(book))


# a language is a domain

GERMAN = [
    "die handlung war ein langsames feuer aber das ende hat sich gelohnt",
    "eine langweilige geschichte mit flachen figuren und ohne ende",
    "der kessel kocht schnell und der griff bleibt kalt",
    "die pfanne hat sich nach zwei wochen verzogen",
    "dünne wände und eine laute straße aber das personal war freundlich",
    "das zimmer war sauber und das bett war weich und warm",
]


@pytest.mark.slow
def test_a_language_is_a_domain_of_a_multilingual_base(tmp_path: Path) -> None:
    """The adapter reads both languages; labels exist in one of them only."""
    base = tmp_path / "base"
    tokenizer = build_tokenizer("xlm-roberta", [*TEXTS, *GERMAN])
    build_model("xlm-roberta", len(tokenizer)).save_pretrained(base)
    tokenizer.save_pretrained(base)
    recipe = tiny_recipe(
        base,
        source=Domain("english", TEXTS * 3, labels=LABELS * 3),
        targets=[Domain("german", GERMAN, labels=[1, 0, 1, 0, 0, 1])],
        adapter={"kind": "houlsby", "width": 32},
        train={"tokens_per_batch": 512, "fuse": {"tokens": 100_000, "learning_rate": 2e-2}},
        method={"name": "domain_fusion", "mixture": "equal"},
    )
    book = adapt(recipe, out=tmp_path / "book")
    fuse = next(stage for stage in book.meta["stages"] if stage["name"] == "fuse")
    assert fuse["mix"] == pytest.approx({"english": 0.5, "german": 0.5}, abs=0.05)
    assert fuse["losses"]["lm"]["last"] < fuse["losses"]["lm"]["first"] - 0.1
    assert {domain["name"] for domain in book.meta["domains"]} >= {"english", "german"}
    found = book.predict_proba([*GERMAN, *TEXTS], domain="german")
    assert np.allclose(found.sum(1), 1)
    assert np.array_equal(load(book.path).predict_proba([*GERMAN, *TEXTS], domain="german"), found)


# bases held in other ways


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_guidebook_on_a_half_precision_base_loads_the_same_way(
    family: str, dtype: str, tiny_base: Any, tmp_path: Path
) -> None:
    book = adapt(tiny_recipe(tiny_base(family), base_dtype=dtype, train={"dtype": "auto"}), out=tmp_path / "book")
    facts = json.loads((tmp_path / "book" / "guidebook.json").read_text(encoding="utf8"))
    assert (facts["base"]["dtype"], facts["base"]["quantise"]) == (dtype, None)
    assert {value.dtype for value in moved(book).values()} == {torch.float32}
    again = load(tmp_path / "book")
    assert again._host.dtype == dtype
    assert np.array_equal(probabilities(again), probabilities(book))
    plain = adapt(tiny_recipe(tiny_base(family)), out=tmp_path / "plain")
    with pytest.raises(InputError, match=f"in {dtype}.*in float32|in float32.*in {dtype}"):
        load(tmp_path / "plain", tmp_path / "book")
    assert facts["base"]["fingerprint"] != plain.meta["base"]["fingerprint"]


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [{"kind": "houlsby", "reduction": 4, "dropout": 0.1}, {"kind": "lora"}, "full"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_checkpointed_layers_train_the_same_weights_bit_for_bit(
    adapter: Any, family: str, tiny_base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for checkpointing in (False, True):
        monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / f"cache-{checkpointing}"))
        train = {"gradient_checkpointing": checkpointing, "base_dropout": True}
        book = adapt(tiny_recipe(tiny_base(family), adapter=adapter, train=train), out=tmp_path / f"{checkpointing}")
        found.append({path.name: load_file(path) for path in sorted(book.path.rglob("*.safetensors"))})
    assert found[0].keys() == found[1].keys()
    for file, tensors in found[0].items():
        assert all(torch.equal(tensors[key], found[1][file][key]) for key in tensors), file


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_layers_train_the_same_weights_within_rounding(
    checkpointing: bool, tiny_base: Any, tmp_path: Path
) -> None:
    """Two Adam steps away from zero an adapter's weights are some 1e-2; sums taken in another order move them by less
    than a thousandth of that."""
    found = []
    for compiled in (False, True):
        train = {"compile": compiled, "gradient_checkpointing": checkpointing and compiled, "max_grad_norm": 0.0}
        recipe = tiny_recipe(tiny_base("bert"), method="source_only", train=train)
        book = adapt(recipe, out=tmp_path / f"{compiled}")
        assert not any(stage["cached"] for stage in book.meta["stages"])  # compiling is in the key
        found.append((moved(book), probabilities(book)))
    assert any(not torch.equal(found[0][0][key], found[1][0][key]) for key in found[0][0])  # it did run compiled
    for key, value in found[0][0].items():
        torch.testing.assert_close(found[1][0][key], value, rtol=1e-3, atol=2e-5)
    np.testing.assert_allclose(found[1][1], found[0][1], atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_dtype": "float64"}, "base_dtype is 'float64', expected one of float32"),
        ({"base_dtype": "bfloat"}, "Did you mean 'bfloat16'"),
        ({"quantise": 4}, "quantise is 4, expected one of 8bit, 4bit"),
        ({"quantise": "4bits"}, "Did you mean '4bit'"),
        ({"quantise": "8bit", "adapter": "full"}, "rounding of quantise: 8bit"),
        ({"base_dtype": "float16", "adapter": "full"}, "rounding of base_dtype: float16"),
        ({"base_dtype": "float16", "train": {"dtype": "bfloat16"}}, "round every weight twice"),
        ({"quantise": "4bit", "train": {"compile": True}}, r"train\.compile does not work on quantised layers"),
        ({"trainer": {"gradient_checkpointing": True}}, r"Use train\.gradient_checkpointing instead"),
        ({"trainer": {"torch_compile": True}}, r"Use train\.compile instead"),
    ],
)
def test_what_cannot_work_is_refused_in_the_recipe(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny_recipe("mini", **changes)


def test_what_this_base_or_machine_cannot_do_is_refused_before_training(
    tiny_base: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from guidebook.training import layers

    with pytest.raises(InputError, match="transformers offers none for albert"):
        estimate(tiny_recipe(tiny_base("albert"), train={"gradient_checkpointing": True}))
    monkeypatch.setattr(layers, "shutil", type("none", (), {"which": lambda name: None}))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r"there is no g\+\+ or clang\+\+"):
            estimate(tiny_recipe(tiny_base("bert"), train={"compile": True}))


def test_fp16_bases_train_without_autocast_to_bf16() -> None:
    assert tiny_recipe("mini", base_dtype="float16", train={"dtype": "auto"}).train.dtype == "float32"
    assert tiny_recipe("mini", base_dtype="bfloat16", train={"dtype": "auto"}).train.dtype == "auto"


def test_rows_longer_than_a_base_counts_are_refused(tiny_base: Any) -> None:
    host = Host.load(str(tiny_base("mpnet")))  # 66 positions, two of them below the first
    host.check_length(64)
    with pytest.raises(InputError, match="longer than the 64 positions"):
        host.check_length(65)
    ids = torch.tensor([[random.Random(0).randrange(5, 100) for _ in range(64)]])
    assert host.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.shape[1] == 64
