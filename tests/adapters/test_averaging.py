"""Sums of adapters: against slow loops, and what has no sum is refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from guidebook.adapters.averaging import check_ancestor, sum_folders, sum_linear, sum_low_rank
from guidebook.adapters.host import Host
from guidebook.errors import InputError
from tiny import small_adapter


def stored(host: Host, kind: str, folder: Path, seeds: tuple[int, ...]) -> list[Path]:
    """Adapters with random values, one after the other."""
    places = []
    for seed in seeds:
        host.add("a", small_adapter(kind), seed=0)
        generator = torch.Generator().manual_seed(seed)
        state = {
            name: torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
            for name, value in host.state("a").items()
        }
        host.load_state("a", small_adapter(kind), state)
        host.save("a", folder / f"{kind}-{len(places)}-{seed}")
        host.remove("a")
        places.append(folder / f"{kind}-{len(places)}-{seed}")
    return places


def outputs(host: Host, place: Path) -> torch.Tensor:
    host.load_adapter("a", place)
    host.activate(("a",))
    host.model.eval()
    with torch.no_grad():
        found = host.model(input_ids=torch.arange(5, 17).reshape(2, 6)).logits
    host.remove("a")
    return found


@pytest.mark.parametrize("kind", ["houlsby", "pfeiffer", "parallel", "invertible", "ia3", "full"])
def test_the_average_of_an_adapter_with_itself_is_that_adapter_bit_for_bit(kind, tiny_base, tmp_path) -> None:
    host = Host.load(str(tiny_base("bert")))
    one, two = stored(host, kind, tmp_path, (1, 1))
    sum_folders({one: 0.5, two: 0.5}, tmp_path / "mean", type(host.model))
    assert torch.equal(outputs(host, one), outputs(host, tmp_path / "mean"))


def test_three_equal_states_give_that_state_though_a_third_is_no_float() -> None:
    state = {"w": torch.randn(7, generator=torch.Generator().manual_seed(0)), "n": torch.tensor([3])}
    found = sum_linear([state] * 3, [1 / 3] * 3)
    assert torch.equal(found["w"], state["w"])
    assert torch.equal(found["n"], state["n"])


def test_a_linear_sum_is_a_slow_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    states = [{"w": torch.randn(2, 3, generator=generator)} for _ in range(3)]
    weights = [1.0, 0.5, -0.5]
    found = sum_linear(states, weights)["w"]
    for row, column in itertools.product(range(2), range(3)):
        slow = sum(w * float(state["w"][row, column]) for w, state in zip(weights, states, strict=True))
        assert float(found[row, column]) == pytest.approx(slow, abs=1e-6)


def test_lora_adds_updates_and_not_factors() -> None:
    generator = torch.Generator().manual_seed(0)
    names = [f"base_model.model.layer.{module}" for module in ("query", "value")]
    states = [
        {
            **{f"{name}.lora_A.weight": torch.randn(2, 5, generator=generator) for name in names},
            **{f"{name}.lora_B.weight": torch.randn(4, 2, generator=generator) for name in names},
        }
        for _ in range(3)
    ]
    weights, scales = [0.5, 0.3, 0.2], [2.0, 2.0, 1.0]
    found, rank = sum_low_rank(states, weights, scales)
    assert rank == 4  # three times 2, but no update of a 4 x 5 module has more
    for name in names:
        slow = torch.zeros(4, 5)
        for state, weight, scale in zip(states, weights, scales, strict=True):
            slow += weight * scale * state[f"{name}.lora_B.weight"] @ state[f"{name}.lora_A.weight"]
        update = found[f"{name}.lora_B.weight"] @ found[f"{name}.lora_A.weight"]
        torch.testing.assert_close(update, slow, rtol=1e-5, atol=1e-5)
        factors = [sum_linear(states, weights)[f"{name}.lora_{factor}.weight"] for factor in "BA"]
        assert not torch.allclose(factors[0] @ factors[1], slow, atol=1e-2)


def test_the_average_of_a_lora_with_itself_has_its_rank_and_its_outputs(tiny_base, tmp_path) -> None:
    host = Host.load(str(tiny_base("bert")))
    one, two = stored(host, "lora", tmp_path, (1, 1))
    sum_folders({one: 0.5, two: 0.5}, tmp_path / "mean", type(host.model))
    torch.testing.assert_close(outputs(host, one), outputs(host, tmp_path / "mean"), rtol=1e-4, atol=1e-5)
    host.load_adapter("mean", tmp_path / "mean")
    ranks = {value.shape[0] for name, value in host.state("mean").items() if ".lora_A." in name}
    assert ranks == {small_adapter("lora").rank}


@pytest.mark.parametrize("kind", ["dora", "compacter"])
def test_kinds_without_a_sum_are_refused(kind, tiny_base, tmp_path) -> None:
    host = Host.load(str(tiny_base("bert")))
    one, two = stored(host, kind, tmp_path, (1, 2))
    with pytest.raises(InputError, match=f"of kind {kind} have no sum"):
        sum_folders({one: 0.5, two: 0.5}, tmp_path / "mean", type(host.model))


def test_kinds_and_shapes_do_not_mix(tiny_base, tmp_path) -> None:
    host = Host.load(str(tiny_base("bert")))
    (one,), (two,) = (stored(host, kind, tmp_path, (1,)) for kind in ("houlsby", "lora"))
    with pytest.raises(InputError, match="different kinds"):
        sum_folders({one: 0.5, two: 0.5}, tmp_path / "mean", type(host.model))
    with pytest.raises(InputError, match="different shapes"):
        sum_linear([{"w": torch.ones(2)}, {"w": torch.ones(3)}], [0.5, 0.5])


def test_strangers_are_refused_and_why() -> None:
    check_ancestor({"a": ("start", "x"), "b": ("start", "y")}, {"a": 0.5, "b": 0.5})
    with pytest.raises(InputError, match="no common ancestor"):
        check_ancestor({"a": ("one start", "x"), "b": ("another", "y")}, {"a": 0.5, "b": 0.5})
    with pytest.raises(InputError, match=r"sum to 1\.1"):
        check_ancestor({"a": ("start",), "b": ("start",)}, {"a": 0.5, "b": 0.6})


def test_permuted_hidden_units_are_one_function_and_average_to_another(tiny_base, tmp_path) -> None:
    """Why the ancestor matters: the same function twice, its units in another order, does not average to itself."""
    host = Host.load(str(tiny_base("bert")))
    (one,) = stored(host, "houlsby", tmp_path, (1,))
    host.load_adapter("a", one)
    turned = {}
    for name, value in host.state("a").items():
        inner = value.flip(0) if "down" in name else value
        turned[name] = inner.flip(1) if "up.weight" in name else inner
    host.load_state("a", small_adapter("houlsby"), turned)
    host.save("a", tmp_path / "turned")
    host.remove("a")
    sum_folders({one: 0.5, tmp_path / "turned": 0.5}, tmp_path / "mean", type(host.model))
    torch.testing.assert_close(outputs(host, one), outputs(host, tmp_path / "turned"), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(outputs(host, one), outputs(host, tmp_path / "mean"), atol=1e-2)
