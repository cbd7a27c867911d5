"""What this GPU can do: matrix products, large and of a base's own shapes, and copying; one JSON object.

python benchmarks/base/ceilings.py --kind mini > benchmarks/base/ceilings.json
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
from pretrain import SETTINGS, Setting


def ceilings(setting: Setting) -> dict[str, Any]:
    """Return TFLOP/s of bf16 products (rows x inside x columns) and TB/s of copying, both ways counted, with device."""

    def seconds(work: Any, count: int = 10) -> float:
        for _ in range(3):
            work()
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(count):
            work()
        last.record()
        last.synchronize()
        return float(first.elapsed_time(last)) / count / 1000

    tokens, width, inner = setting.rows * setting.length, setting.hidden, setting.inner
    shapes = [(8192, 8192, 8192), (tokens, width, width), (tokens, width, inner), (tokens, inner, width)]
    found: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    for rows, inside, columns in [*shapes, (tokens, width, setting.vocabulary)]:
        one = torch.randn(rows, inside, device="cuda", dtype=torch.bfloat16)
        other = torch.randn(inside, columns, device="cuda", dtype=torch.bfloat16)
        rate = 2 * rows * inside * columns / seconds(lambda one=one, other=other: one @ other)
        found[f"matmul_{rows}x{inside}x{columns}_tflops"] = rate / 1e12
    much = torch.randn(2**30, device="cuda")
    found["copy_tb_s"] = 2 * much.nbytes / seconds(much.clone) / 1e12
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=SETTINGS, default="mini")
    print(json.dumps(ceilings(SETTINGS[parser.parse_args().kind]), indent=2))


if __name__ == "__main__":
    main()
