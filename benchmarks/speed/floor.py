"""What a training step takes at least: its products of matrices, at the rate at which this machine multiplies."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import torch
from peers import MASK_RATE, RANK
from torch import nn

from guidebook.adapters.host import Host
from guidebook.adapters.modules import bare_modules


def tokens_per_second(host: Host, kind: str, *, tokens: int, length: float, bf16: bool) -> dict[str, Any]:
    """Return tokens per second, operations per token and the matmul rate of a step of LoRA.

    A frozen matrix is multiplied twice (forward, gradient of the input), a low-rank one three times; the LM head at the
    predicted positions. Attention's two products of (T, T) are multiplied three times, at the mean rate of the rest.

    Args:
        host: The base with its adapter.
        kind: "causal", "masked" or "task".
        tokens: Of a step.
        length: Mean length of a row.
        bf16: Whether products are in bf16.
    """
    predicted = {"causal": 1.0, "masked": MASK_RATE, "task": 0.0}[kind]
    shapes: Counter[tuple[int, int, float]] = Counter()
    for name, module in bare_modules(host.model):
        if isinstance(module, nn.Linear):
            shapes[module.in_features, module.out_features, 1.0 if ".layer" in name else predicted] += 1
    operations = seconds = 0.0
    for (inputs, outputs, share), count in shapes.items():
        if share:
            low_rank = 3 * RANK * (inputs + outputs) if share == 1.0 and outputs < host.config.vocab_size else 0
            work = 2.0 * count * share * (2 * inputs * outputs + low_rank)
            operations += work
            seconds += work / rate_of(inputs, outputs, max(1, int(tokens * share)), bf16)
    attention = 2.0 * 2 * 3 * length * host.hidden_size * host.layers
    rate = operations / seconds
    seconds += attention / rate
    return {"rate": 1 / seconds, "operations_per_token": operations + attention, "matmul_rate": rate}


def rate_of(inputs: int, outputs: int, rows: int, bf16: bool, least: float = 0.3) -> float:
    """Return the rate of one product's shape in FLOP/s, in processor time where there is one thread."""
    now = time.process_time if torch.get_num_threads() == 1 and not torch.cuda.is_available() else time.perf_counter
    dtype = torch.bfloat16 if bf16 else torch.float32
    device = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = (torch.randn(*size, device=device, dtype=dtype) for size in ((rows, inputs), (outputs, inputs)))
    nn.functional.linear(left, right)
    best, began = float("inf"), now()
    while now() - began < least:
        start = now()
        float(nn.functional.linear(left, right)[0, 0])
        best = min(best, now() - start)
    return 2.0 * rows * inputs * outputs / best
