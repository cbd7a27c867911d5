"""Tiny models and a tokenizer, built locally: tests need no network."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # tests are of the processor's arithmetic, also beside a GPU

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tiny import TEXTS, build_model, build_tokenizer


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def plain_reports() -> Iterator[None]:
    """Reports of tested runs are written without figures, as where matplotlib is missing: drawing takes its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("guidebook.reports.page.can_draw", lambda: False)
        patch.setattr("guidebook.reports.closer.can_draw", lambda: False)
        yield


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return list(TEXTS)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """family -> folder of a saved tiny base with its tokenizer."""
    made: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in made:
            folder = tmp_path_factory.mktemp(f"tiny-{family}")
            tokenizer = build_tokenizer(family)
            build_model(family, len(tokenizer)).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            made[family] = folder
        return made[family]

    return get
