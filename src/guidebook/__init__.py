"""Unsupervised domain adaptation of pre-trained language models with adapters.

One frozen base model, one few-megabyte guidebook per domain. The public names load what they need when they are
first used, so `import guidebook` costs no import of torch.

>>> "adapt" in dir(), __version__.count(".")
(True, 2)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from guidebook.errors import GuidebookError, InputError, RunError, nearest

if TYPE_CHECKING:
    from guidebook.adaptation import adapt, estimate, evaluate
    from guidebook.adapters.compacter import Compacter
    from guidebook.adapters.dora import DoRA
    from guidebook.adapters.ia3 import IA3
    from guidebook.adapters.invertible import Invertible
    from guidebook.adapters.parallel import Parallel
    from guidebook.adapters.pfeiffer import Pfeiffer
    from guidebook.adapters.presets import Full, Houlsby, LoRA
    from guidebook.artifact import Guidebook, load
    from guidebook.data.domains import Domain
    from guidebook.data.read import Columns
    from guidebook.recipe import Recipe, load_recipe
    from guidebook.tasks.causal_lm import CausalLM
    from guidebook.tasks.classification import Classification
    from guidebook.text_evaluation import evaluate_text
    from guidebook.training.generation import Sampling
    from guidebook.training.listener import Listener

__version__ = "0.1.0"

__all__ = [
    "IA3",
    "CausalLM",
    "Classification",
    "Columns",
    "Compacter",
    "DoRA",
    "Domain",
    "Full",
    "Guidebook",
    "GuidebookError",
    "Houlsby",
    "InputError",
    "Invertible",
    "Listener",
    "LoRA",
    "Parallel",
    "Pfeiffer",
    "Recipe",
    "RunError",
    "Sampling",
    "__version__",
    "adapt",
    "estimate",
    "evaluate",
    "evaluate_text",
    "load",
    "load_recipe",
]

_PLACES = {
    "CausalLM": "guidebook.tasks.causal_lm",
    "Classification": "guidebook.tasks.classification",
    "Columns": "guidebook.data.read",
    "Compacter": "guidebook.adapters.compacter",
    "DoRA": "guidebook.adapters.dora",
    "Domain": "guidebook.data.domains",
    "Full": "guidebook.adapters.presets",
    "Guidebook": "guidebook.artifact",
    "Houlsby": "guidebook.adapters.presets",
    "IA3": "guidebook.adapters.ia3",
    "Invertible": "guidebook.adapters.invertible",
    "Listener": "guidebook.training.listener",
    "LoRA": "guidebook.adapters.presets",
    "Parallel": "guidebook.adapters.parallel",
    "Pfeiffer": "guidebook.adapters.pfeiffer",
    "Recipe": "guidebook.recipe",
    "Sampling": "guidebook.training.generation",
    "adapt": "guidebook.adaptation",
    "estimate": "guidebook.adaptation",
    "evaluate": "guidebook.adaptation",
    "evaluate_text": "guidebook.text_evaluation",
    "load": "guidebook.artifact",
    "load_recipe": "guidebook.recipe",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    if name not in _PLACES:
        raise AttributeError(f"module 'guidebook' has no attribute {name!r}.{nearest(name, __all__)}")
    value = getattr(import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
