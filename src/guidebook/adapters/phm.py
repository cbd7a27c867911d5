"""Parametrised hypercomplex multiplication: a matrix from a few small ones."""

from __future__ import annotations

import torch
from torch import Tensor


def phm_matrix(rule: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return the sum over n of the Kronecker products of rule[n] with left[n] · right[n].

    rule (N, N, N), left (N, I / N, R), right (N, R, O / N) -> (I, O).

    Reference:
        Mahabadi et al. 2021, Compacter: Efficient Low-Rank Hypercomplex Adapter Layers, equations 4 and 5.

    >>> phm_matrix(torch.ones(1, 1, 1), torch.ones(1, 2, 1), torch.ones(1, 1, 3)).shape
    torch.Size([2, 3])
    """
    blocks = torch.einsum("nab,nir,nro->aibo", rule, left, right)
    rows, inside, columns, across = blocks.shape
    return blocks.reshape(rows * inside, columns * across)
