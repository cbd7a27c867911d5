"""The packaged bases know more English than word frequencies do, on a fixed text with fixed masks."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

BASES = Path(str(files("guidebook"))) / "bases"
BASE = BASES / "mini"
TEXT = Path(__file__).parent / "general.txt"  # written for this test, in nobody's corpus


def test_masked_loss_is_clearly_below_the_unigram_entropy() -> None:
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    model = AutoModelForMaskedLM.from_pretrained(BASE).float().eval()
    total, count = 0.0, 0
    for number, line in enumerate(TEXT.read_text(encoding="utf8").splitlines()):
        ids = torch.tensor([tokenizer(line)["input_ids"]])
        places = torch.arange(1 + number % 6, ids.shape[1] - 1, 6)  # every sixth token, starting elsewhere each line
        masked = ids.clone()
        masked[0, places] = tokenizer.mask_token_id
        with torch.no_grad():
            logits = model(input_ids=masked).logits[0, places]
        total += float(F.cross_entropy(logits, ids[0, places], reduction="sum"))
        count += len(places)
    facts = json.loads((BASE / "training.json").read_text(encoding="utf8"))
    assert count > 50
    assert total / count < facts["unigram_entropy"] - 1.5


def test_causal_loss_is_clearly_below_the_unigram_entropy() -> None:
    tokenizer = AutoTokenizer.from_pretrained(BASES / "mini-gptj")
    model = AutoModelForCausalLM.from_pretrained(BASES / "mini-gptj").float().eval()
    ids = tokenizer(TEXT.read_text(encoding="utf8"), return_tensors="pt")["input_ids"][:, :256]
    with torch.no_grad():
        loss = float(F.cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:]))
    facts = json.loads((BASES / "mini-gptj" / "training.json").read_text(encoding="utf8"))
    assert ids.shape[1] > 100
    assert loss < facts["unigram_entropy"] - 1.5


@pytest.mark.parametrize("name", ["mini", "mini-gptj"])
def test_a_base_is_small_and_says_what_it_saw(name: str) -> None:
    size = sum(path.stat().st_size for path in (BASES / name).iterdir())
    card = (BASES / name / "README.md").read_text(encoding="utf8")
    assert size < 28e6
    assert "Wikipedia" in card
    assert f"{json.loads((BASES / name / 'training.json').read_text())['tokens']:,}" in card
