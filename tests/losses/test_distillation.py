"""Distillation, soft labels and contrast against slow loops written from the papers."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from guidebook.losses.contrastive import contrastive
from guidebook.losses.distillation import Distillation, distillation
from guidebook.losses.soft_task import Chances, SoftTaskLoss, soft_cross_entropy

GENERATOR = torch.Generator().manual_seed(0)
STUDENT, TEACHER = (torch.randn(5, 3, generator=GENERATOR) for _ in range(2))


def softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_distillation_is_the_divergence_times_the_squared_temperature(temperature: float) -> None:
    found = distillation(STUDENT, TEACHER, temperature)
    for row in range(5):
        goal, mine = (softmax(logits[row].tolist(), temperature) for logits in (TEACHER, STUDENT))
        slow = sum(g * math.log(g / m) for g, m in zip(goal, mine, strict=True))
        assert float(found[row]) == pytest.approx(temperature**2 * slow, abs=1e-5)
    assert torch.allclose(distillation(TEACHER, TEACHER, temperature), torch.zeros(5), atol=1e-6)


def test_its_gradient_is_that_of_soft_cross_entropy() -> None:
    ours, theirs = (STUDENT.clone().requires_grad_() for _ in range(2))
    distillation(ours, TEACHER).sum().backward()
    soft_cross_entropy(theirs, TEACHER.softmax(-1)).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_soft_cross_entropy_is_a_slow_loop_and_hard_labels_are_its_corner() -> None:
    chances = TEACHER.softmax(-1)
    found = soft_cross_entropy(STUDENT, chances)
    for row in range(5):
        mine = softmax(STUDENT[row].tolist(), 1.0)
        assert float(found[row]) == pytest.approx(
            -sum(float(p) * math.log(m) for p, m in zip(chances[row], mine, strict=True)), abs=1e-5
        )
    labels = torch.tensor([0, 2, 1, 1, 0])
    hard = soft_cross_entropy(STUDENT, torch.eye(3)[labels])
    torch.testing.assert_close(hard, nn.functional.cross_entropy(STUDENT, labels, reduction="none"))


def views(student: torch.Tensor, teacher: torch.Tensor) -> list[Any]:
    mask = torch.ones(student.shape[:-1] if student.dim() == 3 else (len(student), 2), dtype=torch.bool)
    return [
        SimpleNamespace(hidden=logits, mask=mask, modules={"head": lambda hidden, mask: hidden})
        for logits in (student, teacher)
    ]


def test_unsure_rows_count_nothing_and_the_share_of_sure_ones_is_told() -> None:
    sure = TEACHER.softmax(-1).amax(-1)
    threshold = float(sure.median())
    found = Distillation(stream=None, threshold=threshold)(views(STUDENT, TEACHER))  # type: ignore[arg-type]
    each = distillation(STUDENT, TEACHER)
    assert float(found["loss"]) == pytest.approx(float(each[sure >= threshold].sum()))
    assert float(found["sure"]) == pytest.approx(0.6)


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher = STUDENT.clone().requires_grad_(), TEACHER.clone().requires_grad_()
    Distillation(stream=None)(views(student, teacher))["loss"].backward()  # type: ignore[arg-type]
    assert student.grad is not None
    assert teacher.grad is None


def test_where_words_are_labelled_a_row_counts_with_the_mean_of_its_tokens() -> None:
    student, teacher = (torch.randn(2, 4, 3, generator=GENERATOR) for _ in range(2))
    given = views(student, teacher)
    given[0].mask[1, 2:] = False
    found = Distillation(stream=None)(given)["loss"]  # type: ignore[arg-type]
    slow = distillation(student[0], teacher[0]).mean() + distillation(student[1, :2], teacher[1, :2]).mean()
    assert float(found) == pytest.approx(float(slow), abs=1e-5)


def test_views_of_words_may_be_padded_to_different_widths() -> None:
    student, teacher = (torch.randn(2, 4, 3, generator=GENERATOR) for _ in range(2))
    same = views(student, teacher)
    wide = [views(torch.nn.functional.pad(student, (0, 0, 0, 2)), teacher)[0], same[1]]
    for given in (same, wide):
        given[0].mask[:, 3:] = False
    found, slow = (Distillation(stream=None)(given) for given in (wide, same))  # type: ignore[arg-type]
    assert float(found["loss"]) == pytest.approx(float(slow["loss"]))


def test_given_chances_are_looked_up_by_row_and_their_hash_is_in_the_key() -> None:
    chances = Chances(np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5], [1.0, 0.0, 0.0]]))
    view = SimpleNamespace(
        hidden=STUDENT[:2], mask=None, labels=torch.tensor([1, 0]), modules={"head": lambda hidden, mask: hidden}
    )
    found = SoftTaskLoss(stream=None, chances=chances)([view])["loss"]  # type: ignore[arg-type,list-item]
    slow = soft_cross_entropy(STUDENT[:2], torch.tensor(chances.values[[1, 0]]).float()).sum()
    assert float(found) == pytest.approx(float(slow))
    assert chances.on(torch.device("cpu")) is chances.on(torch.device("cpu"))  # copied once, not in every step
    changed = chances.values.copy()
    changed[2, 0] = 0.99
    assert repr(Chances(changed)) != repr(chances) == repr(Chances(chances.values.copy()))


def test_contrast_is_a_slow_loop() -> None:
    one, two = (torch.randn(4, 6, generator=GENERATOR) for _ in range(2))
    temperature, slow = 0.2, 0.0
    for i in range(4):
        cosines = [float(one[i] @ two[j]) / float(one[i].norm() * two[j].norm()) for j in range(4)]
        slow -= math.log(math.exp(cosines[i] / temperature) / sum(math.exp(c / temperature) for c in cosines)) / 4
    assert float(contrastive(one, two, temperature)) == pytest.approx(slow, abs=1e-5)
