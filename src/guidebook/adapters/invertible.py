"""Invertible adapters: the embeddings of a domain, as a function of those of the base that can be undone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from guidebook.adapters.choice import check_range
from guidebook.adapters.modules import bare_modules, matched
from guidebook.adapters.placement import Placement
from guidebook.errors import InputError


@dataclass(frozen=True)
class Invertible:
    """A coupling after the embeddings, and its inverse before the output embeddings where the two are tied.

    It moves the domain's words in the base's space, and is meant to stand beside another kind:
    `adapter: [invertible, houlsby]`.

    Reference:
        Pfeiffer et al. 2020, MAD-X: An Adapter-Based Framework for Multi-Task Cross-Lingual Transfer, section 3.3.

    Differs:
        The second projections start at exactly zero, so a new adapter changes no bit of the output. Where embeddings
        are one block (token, position, layer norm), the coupling comes after the block, as in AdapterHub.
    """

    kind: Literal["invertible"] = "invertible"
    """A coupling at the embeddings and its inverse at the output."""
    reduction: float = 2.0
    """Half the embedding size divided by the hidden units of each of the two functions."""
    activation: Literal["gelu", "relu", "silu", "tanh"] = "relu"
    """Non-linearity inside the two functions."""
    modules: Mapping[str, str] = field(default_factory=dict)
    """Module names by hand, for an architecture without a row: embeddings and what the other kinds need."""
    learning_rate: ClassVar[float] = 3e-4

    def __post_init__(self) -> None:
        check_range("reduction", self.reduction, self.reduction >= 1, "at least 1")

    def targets(self, model: Any, placement: Placement) -> str:
        """Return the expression for the module that returns the embedded text.

        Raises:
            InputError: there is none, or there are two, as in an encoder-decoder.
        """
        if placement.kind == "seq2seq":
            raise InputError(
                f"The adapter kind invertible does not fit {type(model).__name__}: an encoder-decoder embeds two texts."
            )
        row = replace(placement, **self.modules)  # type: ignore[arg-type]
        found = [name for name, _ in matched(model, row.embeddings)]
        if len(found) != 1:
            raise InputError(
                f"{type(model).__name__} has {len(found)} modules named {row.embeddings!r}, expected one. Name the "
                "token embeddings by hand: adapter.modules.embeddings."
            )
        block = found[0].rpartition(".")[0]
        return re.escape(block if block.rpartition(".")[2] == "embeddings" else found[0])

    def peft_config(self, model: Any, placement: Placement) -> Any:
        """Return the configuration of the invertible tuner for this base.

        Raises:
            InputError: the embeddings are not found.
        """
        from guidebook.peft import InvertibleConfig

        return InvertibleConfig(
            target_modules=self.targets(model, placement),
            inverse_modules=output_embeddings(model) if _are_tied(model) else None,
            reduction=self.reduction,
            activation=self.activation,
        )


def output_embeddings(model: Any) -> str | None:
    """Return the expression for the module that turns hidden states into logits, None where there is none."""
    output = model.get_output_embeddings()
    output = output.base_layer if hasattr(output, "base_layer") else output
    return next((re.escape(name) for name, module in bare_modules(model) if module is output), None)


def _are_tied(model: Any) -> bool:
    output = model.get_output_embeddings()
    return output is not None and output.weight is model.get_input_embeddings().weight
