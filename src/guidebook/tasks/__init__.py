"""Tasks: what the labels of the source domain mean. One file, one task, one line in `TASKS`."""

from __future__ import annotations

TASKS: dict[str, str] = {
    "classification": "guidebook.tasks.classification:Classification",
    "token_classification": "guidebook.tasks.token_classification:TokenClassification",
    "causal_lm": "guidebook.tasks.causal_lm:CausalLM",
}
"""Name in a recipe -> "module:class" of its settings (a frozen dataclass that fulfils `contract.Task`)."""
