"""The packaged base knows more English than word frequencies do, on a fixed text with fixed masks."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import AutoModelForMaskedLM, AutoTokenizer

BASE = Path(str(files("guidebook"))) / "bases" / "mini"
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


def test_the_base_is_small_and_says_what_it_saw() -> None:
    size = sum(path.stat().st_size for path in BASE.iterdir())
    card = (BASE / "README.md").read_text(encoding="utf8")
    assert size < 28e6
    assert "Wikipedia" in card
    assert f"{json.loads((BASE / 'training.json').read_text())['tokens']:,}" in card
