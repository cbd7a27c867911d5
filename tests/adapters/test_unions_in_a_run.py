"""A union through the whole flow: trained, saved, served."""

from __future__ import annotations

import numpy as np
import pytest

import guidebook as gb
from guidebook.adapters.host import Host
from tiny import TEXTS, tiny_recipe


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [["invertible", "houlsby"], ["invertible", {"kind": "lora", "rank": 2}]])
def test_a_union_is_trained_saved_and_served(tiny_base, tmp_path, monkeypatch, adapter):
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    recipe = tiny_recipe(tiny_base("bert"), adapter=adapter, method="target_mlm")
    book = gb.adapt(recipe, out=tmp_path / "book")
    kinds = recipe.adapter.kind.split("+")
    (stack,) = {tuple(book.meta["variants"][name]["stack"]) for name in set(book.meta["serves"].values())
                if name.endswith(":kitchen")}  # fmt: skip
    for name in stack:
        folder = tmp_path / "book" / "adapters" / name
        assert sorted(path.name for path in folder.iterdir()) == kinds
        host = Host.load(str(tiny_base("bert")))
        host.load_adapter("one", folder)
        host.activate(["one"])
        assert host.kind_of("one") == recipe.adapter.kind
        moved = [key for key, value in host.state("one").items() if "_up." in key or "lora_B" in key if value.any()]
        assert {
            key.rpartition(".guidebook_")[2].partition("_")[0] if "guidebook" in key else "lora" for key in moved
        } == {{"houlsby": "bottleneck"}.get(kind, kind) for kind in kinds}
    again = gb.load(tmp_path / "book").predict_proba(TEXTS, domain="kitchen")
    assert np.array_equal(again, book.predict_proba(TEXTS, domain="kitchen"))
    assert {adapter["kind"] for adapter in book.meta["adapters"]} == {recipe.adapter.kind}
    assert all(adapter["megabytes"] > 0 for adapter in book.meta["adapters"])
    assert "PeftModel" not in (tmp_path / "book" / "README.md").read_text()
