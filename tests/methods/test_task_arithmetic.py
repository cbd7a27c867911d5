"""Task arithmetic against a slow loop over the stored tensors."""

from __future__ import annotations

import torch
from safetensors.torch import load_file

from guidebook.adaptation import follow, prepare
from guidebook.training.listener import Listener
from tiny import tiny_recipe


def test_the_sum_is_the_task_plus_the_domains_difference(tiny_base, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path))
    recipe = tiny_recipe(tiny_base("bert"), method={"name": "task_arithmetic", "scale": 0.25})
    material, engine = prepare(recipe, Listener())
    outcome = follow("task_arithmetic", recipe.method, material.corpus.targets[0], material, engine)
    file = "adapter_model.safetensors"
    parts = {name: load_file(stage.places[name] / file) for stage in outcome.stages for name in stage.stage.makes}
    assert len({stage.key for stage in outcome.stages}) == 4
    for name, value in parts["adapted"].items():
        difference = parts["target_domain"][name].double() - parts["source_domain"][name].double()
        assert torch.equal(value, (parts["task"][name].double() + 0.25 * difference).float())
    heads = [load_file(stage.folder / "heads.safetensors") for stage in outcome.stages[-2:]]
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[1])  # the task's, the only one there is
