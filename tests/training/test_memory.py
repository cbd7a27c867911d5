"""What is told from the configuration is what training takes."""

from __future__ import annotations

import pytest
import torch

from guidebook.adapters.host import Host
from guidebook.adapters.presets import Full, Houlsby, LoRA
from guidebook.errors import InputError, RunError
from guidebook.training import memory
from guidebook.training.memory import available_megabytes, empty_base, memory_explained, memory_needed, saved_bytes
from guidebook.training.settings import Training
from tiny_causal import save

TRAIN = Training(max_length=32, tokens_per_batch=256, dtype="float32")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    made = {}

    def get(family: str) -> str:
        if family not in made:
            made[family] = str(save(family, tmp_path_factory.mktemp(family)))
        return made[family]

    return get


@pytest.mark.parametrize("family", ["gptj", "gpt2", "llama", "gpt_neox"])
@pytest.mark.parametrize("kind", [Houlsby(reduction=4), LoRA(rank=2)], ids=lambda kind: kind.kind)
def test_parts_equal_the_loaded_model(base, family, kind):
    told = memory_needed(base(family), kind, TRAIN)
    host = Host.load(base(family))
    host.add("domain", kind, seed=0)
    host.activate(("domain",), train=("domain",))
    assert told["parameters"] == host.base_parameters
    assert told["trainable_parameters"] == host.parameters_of("domain")
    assert told["optimiser"] == pytest.approx(8 * host.parameters_of("domain") / 1e6, abs=0.1)
    assert told["rows"] == 8
    real = saved_bytes(host.model.train(), host.lm_head, 8, 32) / 1e6
    assert told["activations"] == pytest.approx(real, abs=0.051)  # told to a tenth of a megabyte
    assert told["activations"] > 0.3


def test_smaller_parts_of_a_step_need_less(base):
    whole, parted = (
        memory_needed(
            base("gptj"), Houlsby(reduction=4), Training(max_length=32, tokens_per_batch=256, micro_batches=m)
        )
        for m in (1, 4)
    )
    assert parted["activations"] == pytest.approx(whole["activations"] / 4, rel=0.1, abs=0.1)
    checked = Training(max_length=32, tokens_per_batch=256, gradient_checkpointing=True)
    assert memory_needed(base("gptj"), Houlsby(reduction=4), checked)["activations"] < whole["activations"]
    full = memory_needed(base("gptj"), Full(), TRAIN)
    assert full["trainable_parameters"] == full["parameters"]
    assert full["weights"] == pytest.approx(2 * whole["weights"], abs=0.2)


def test_a_model_of_six_billion_weights_is_told_without_loading_any(tmp_path):
    from transformers import GPTJConfig

    GPTJConfig(architectures=["GPTJForCausalLM"]).save_pretrained(tmp_path)  # its defaults are GPT-J 6B's
    told = memory_needed(str(tmp_path), Houlsby(), Training(max_length=1024, tokens_per_batch=4096, micro_batches=4))
    assert told["parameters"] == pytest.approx(6.05e9, rel=0.01)
    assert told["weights"] == pytest.approx(24_200, rel=0.01)  # megabytes in float32
    assert told["trainable_parameters"] == 28 * 2 * (2 * 4096 * 256 + 4096 + 256)
    assert told["total"] > told["weights"]
    half, quarter = (
        memory_needed(str(tmp_path), Houlsby(), TRAIN, "bfloat16", quantise)["weights"] for quantise in (None, "4bit")
    )
    assert half == pytest.approx(told["weights"] / 2, abs=0.1)
    assert 3_000 < quarter < 4_000  # embeddings and head stay in bf16


def test_other_bases_are_left_out(tiny_base, base):
    assert memory_needed(base("bloom"), Houlsby(reduction=4), TRAIN) is None
    assert empty_base(str(tiny_base("bert"))) is None
    assert memory_needed(str(tiny_base("bert")), Houlsby(), TRAIN) is None
    with pytest.raises(InputError, match="no such folder"):
        memory_needed("./nowhere", Houlsby(), TRAIN)
    assert available_megabytes() > 100


def test_what_is_available_is_what_is_free(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal:  4000 kB\nMemFree: 10 kB\nMemAvailable:   1000 kB\n")
    assert memory._system_bytes(tmp_path / "meminfo") == 1_024_000
    assert memory._system_bytes(tmp_path / "none") is None
    for name, text in (("max", "900\n"), ("current", "700\n"), ("stat", "anon 5\ninactive_file 50\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert memory._container_bytes(tmp_path) == 250
    (tmp_path / "memory.max").write_text("max\n")  # no limit
    assert memory._container_bytes(tmp_path) is None
    monkeypatch.setattr(memory, "_system_bytes", lambda: 3e6)
    monkeypatch.setattr(memory, "_container_bytes", lambda: 2e6)
    assert available_megabytes() == 2.0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (5_000_000, 80_000_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 3_000_000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 1_000_000)
    assert available_megabytes() == 7.0


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried"), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
def test_out_of_memory_says_what_to_change_first(error):
    with pytest.raises(RunError, match=r"micro_batches=4.*halves"), memory_explained("fuse", Training(micro_batches=2)):
        raise error
    with pytest.raises(RuntimeError, match="something else"), memory_explained("fuse", Training()):
        raise RuntimeError("something else")
