"""Classification settings, pooling against slow loops, and the head's seed."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
import torch

from guidebook.errors import InputError
from guidebook.tasks import TASKS
from guidebook.tasks.classification import Classification
from guidebook.tasks.heads import Head, pool


def slow_pool(hidden: torch.Tensor, mask: torch.Tensor, how: str) -> torch.Tensor:
    rows = []
    for states, seen in zip(hidden, mask, strict=True):
        kept = [state for state, flag in zip(states, seen, strict=True) if flag]
        rows.append({"mean": sum(kept) / len(kept), "cls": kept[0], "last": kept[-1]}[how])
    return torch.stack(rows)


def masks() -> dict[str, torch.Tensor]:
    lengths = [1, 4, 7, 5]
    right = torch.tensor([[1] * n + [0] * (7 - n) for n in lengths])
    return {"right": right, "left": right.flip(1), "holes": torch.tensor([[0, 1, 0, 1, 1, 0, 0]] * 4)}


@pytest.mark.parametrize("how", ["mean", "cls", "last"])
@pytest.mark.parametrize("side", ["right", "left", "holes"])
def test_pool_equals_the_slow_loop_and_never_reads_padding(how: str, side: str) -> None:
    mask = masks()[side]
    hidden = torch.randn(4, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    hidden[mask == 0] = float("nan")
    hidden.requires_grad_()
    rows = pool(hidden, mask, how)
    torch.testing.assert_close(rows, slow_pool(hidden.detach(), mask, how))
    rows.sum().backward()
    assert hidden.grad is not None
    assert torch.isfinite(hidden.grad).all()
    assert (hidden.grad[mask == 0] == 0).all()


@pytest.mark.parametrize("how", ["mean", "cls", "last"])
def test_pool_gives_zeros_for_a_text_without_tokens(how: str) -> None:
    rows = pool(torch.ones(2, 3, 4), torch.tensor([[0, 0, 0], [1, 1, 0]]), how)
    assert rows.tolist() == [[0.0] * 4, [1.0] * 4]


def test_pool_reads_half_precision_in_fp32() -> None:
    hidden = torch.full((1, 1000, 1), 0.1, dtype=torch.bfloat16)
    rows = pool(hidden, torch.ones(1, 1000), "mean")
    assert rows.dtype == torch.float32
    assert rows.item() == pytest.approx(hidden[0, 0, 0].item(), rel=1e-5)


def test_pool_refuses_unknown_names() -> None:
    with pytest.raises(InputError, match="Did you mean 'mean'"):
        pool(torch.ones(1, 1, 1), torch.ones(1, 1), "maen")


@pytest.mark.parametrize("kind", ["linear", "two_layer"])
def test_head_depends_on_its_seed_alone(kind: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = Head(16, 3, kind, 0.1, seed=7)
    assert torch.equal(torch.get_rng_state(), before), "making a head moved the global random state"
    torch.manual_seed(99)
    again, other = Head(16, 3, kind, 0.1, seed=7), Head(16, 3, kind, 0.1, seed=8)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.output.weight, other.output.weight)


def test_head_stays_on_the_cpu_and_in_fp32_whatever_the_defaults() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            head = Head(4, 2, seed=0)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {(p.device.type, p.dtype) for p in head.parameters()} == {("cpu", torch.float32)}


@pytest.mark.parametrize(("kind", "layers"), [("linear", 1), ("two_layer", 2)])
def test_head_is_the_written_formula(kind: str, layers: int) -> None:
    head = Head(6, 3, kind, dropout=0.5, seed=0).eval()
    rows = torch.randn(4, 6)
    weights = head.state_dict()
    hidden = rows if kind == "linear" else torch.tanh(rows @ weights["inner.weight"].T + weights["inner.bias"])
    torch.testing.assert_close(head(rows), hidden @ weights["output.weight"].T + weights["output.bias"])
    assert len(weights) == 2 * layers
    assert head(rows.bfloat16()).dtype == torch.float32


def test_head_drops_only_while_training() -> None:
    head = Head(64, 2, "linear", dropout=0.5, seed=0)
    rows = torch.randn(1, 64)
    assert not torch.equal(head(rows), head(rows))
    head.eval()
    assert torch.equal(head(rows), head(rows))


def test_head_refuses_unknown_kinds() -> None:
    with pytest.raises(InputError, match="'linear' or 'two_layer'"):
        Head(4, 2, "mlp")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling": "maen"}, r"task\.pooling is 'maen'.*Did you mean 'mean'"),
        ({"head": "two-layer"}, r"task\.head is 'two-layer'.*Did you mean 'two_layer'"),
        ({"kind": "regression"}, r"task\.kind is 'regression'"),
        ({"labels": ("positive",)}, "two or more different names"),
        ({"labels": ("a", "b", "a")}, "two or more different names"),
        ({"labels": "ab"}, "expected a list: "),
        ({"max_length": 2}, "at least 4 tokens"),
        ({"dropout": 1.0}, "0 <= dropout < 1"),
        ({"dev": 1.0}, "0 <= dev < 1"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Classification(**settings)  # type: ignore[arg-type]


def test_auto_pooling_follows_the_base() -> None:
    assert Classification().pooling_on("last") == "last"
    assert Classification(pooling="cls").pooling_on("last") == "cls"


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_has_settings_and_a_head(name: str) -> None:
    module, cls = TASKS[name].split(":")
    task = getattr(importlib.import_module(module), cls)()
    assert task.kind == name
    if not task.labelled:
        return  # it models text: no rows, no head
    assert 0 < task.dev < 1
    assert task.make_head(hidden=8, classes=3, seed=0).eval()(torch.ones(2, 8)).shape == (2, 3)


def test_settings_import_without_torch() -> None:
    code = (
        "import sys; from guidebook.tasks.classification import Classification; Classification(); "
        "import guidebook.tasks.contract; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
