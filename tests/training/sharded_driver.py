"""Train a stage with its module fully sharded over two gloo processes, and again in one; compare the losses.

    torchrun --nproc-per-node 2 sharded_driver.py BASE OUT.json

accelerate ignores FSDP on a CPU without a word, so torch's own `fully_shard` does it here, and what is sharded is
counted.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from guidebook.adapters.host import Host
from guidebook.adapters.presets import Houlsby
from guidebook.data.streams import Stream
from guidebook.data.tokens import chunk, read_specials, tokenise
from guidebook.losses.language_modelling import LanguageModelling
from guidebook.methods.stage import Stage
from guidebook.training.model import StageModel
from guidebook.training.plan import StagePlan
from guidebook.training.prediction import input_of
from guidebook.training.settings import FuseTraining, Training
from tiny import TEXTS

torch.set_num_threads(1)
STEPS = 4


def build(base: str, parts: int) -> tuple[StageModel, StagePlan]:
    import numpy as np

    host = Host.load(base)
    host.add("domain", Houlsby(reduction=4), seed=0)
    host.activate(("domain",), train=("domain",))
    pieces = chunk(tokenise(TEXTS * 3, host.tokenizer), 16, read_specials(host.tokenizer))
    stream = Stream("text", pieces, np.zeros(len(pieces), np.int64), ("text",), np.ones(1))
    stage = Stage("fuse", {"lm": LanguageModelling(stream)}, train={"domain": None})
    train = Training(max_length=16, tokens_per_batch=96, fuse=FuseTraining(tokens=600))
    return StageModel(host, stage, {}), StagePlan(stage, train, 0, input_of(host), parts)


def train(model: StageModel, plan: StagePlan, parts: list[int]) -> list[float]:
    """The losses of a few steps; a step's gradient is the mean over its parts, wherever they were computed."""
    moving = [value for value in model.parameters() if value.requires_grad]
    optimiser = torch.optim.AdamW(moving, lr=1e-2)
    losses = []
    for step in range(STEPS):
        total = torch.zeros(())
        for part in parts:
            loss = model(plan.batch(step, part))["loss"]
            (loss / len(parts)).backward()
            total += loss.detach() / len(parts)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(total)
    return [value.item() for value in losses]


base, out = sys.argv[1], Path(sys.argv[2])
distributed.init_process_group("gloo")
rank = distributed.get_rank()
one_model, one_plan = build(base, parts=2)
one = train(one_model, one_plan, [0, 1])
model, plan = build(base, parts=2)
mesh = init_device_mesh("cpu", (2,))
for block in model.base.transformer.h:
    fully_shard(block, mesh=mesh)
fully_shard(model, mesh=mesh)
kinds = [isinstance(value, DTensor) for value in model.parameters()]
mine = torch.tensor(train(model, plan, [rank]))
distributed.all_reduce(mine)
if rank == 0:
    facts = {"one": one, "two": (mine / 2).tolist(), "sharded": sum(kinds), "parameters": len(kinds)}
    out.write_text(json.dumps(facts))
distributed.barrier()  # neither process takes the group down while the other still speaks
distributed.destroy_process_group()
