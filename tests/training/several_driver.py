"""Train on tiny texts in as many processes as torchrun started; each writes what it saw.

torchrun --nproc-per-node 2 several_driver.py BASE FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ["OMP_NUM_THREADS"] = "1"

import torch
from safetensors.torch import load_file

import guidebook as gb
from guidebook.training import processes, stopping, trainer
from tiny import TEXTS

torch.set_num_threads(1)
base, folder = sys.argv[1], Path(sys.argv[2])
os.environ["GUIDEBOOK_CACHE"] = str(folder / "cache")
history: list[dict[str, float]] = []
checkpoints: list[list[str]] = []
log, save = trainer.StageTrainer.log, trainer.mark_complete


def keep(self, logs, start_time=None):
    log(self, logs, start_time)
    if "loss" in logs:
        history.append({"trainer": logs["loss"], "lm": logs["loss/lm"]})


def look(place):
    if place.name.startswith("checkpoint-"):
        checkpoints.append(sorted(path.name for path in place.iterdir()))
    save(place)


trainer.StageTrainer.log, trainer.mark_complete = keep, look
stops = os.environ.get("STOPS") == "1"
if stops:  # in the first process the loss only rises, in the second it only falls
    told = iter(range(100))
    sign = 1 if processes.is_first() else -1
    stopping.held_out_loss = lambda model, plan, bf16: float(sign * next(told))
fuse = {"tokens": 700, "learning_rate": 1e-2, **({"patience": 2, "held_out": 0.3} if stops else {})}
recipe = gb.Recipe(
    base=base,
    task="causal_lm",
    targets=[gb.Domain("filings", [f"{one} and {other}" for one in TEXTS for other in TEXTS[:4]])],
    adapter={"kind": "houlsby", "reduction": 4},
    train={
        "max_length": 16, "tokens_per_batch": 96, "dtype": "float32", "checkpoint_seconds": 0,
        "micro_batches": int(os.environ.get("MICRO", "1")), "fuse": fuse,
    },
    trainer={"logging_steps": 1},
)  # fmt: skip
book = gb.adapt(recipe, out=folder / "out")
weights = {}
for name, value in load_file(book.path / "adapters" / "domain" / "adapter_model.safetensors").items():
    weights[name] = value.flatten().tolist()
facts = {
    "world": processes.count(),
    "history": history,
    "checkpoints": checkpoints,
    "weights": weights,
    "bits": book.meta["evaluation"]["targets"][0]["scores"]["domain_fusion"]["bits_per_byte"],
    "losses": book.meta["stages"][0]["losses"],
    "steps": book.meta["stages"][0]["steps"],
}
(folder / f"rank{os.environ.get('RANK', '0')}.json").write_text(json.dumps(facts))
