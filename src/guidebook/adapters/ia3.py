"""IA3: factors for keys, values and inner feed-forward activations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from guidebook.adapters.choice import chosen, placed, require_modules
from guidebook.adapters.modules import is_transposed, linear_features, matched
from guidebook.adapters.placement import Placement

KEYS_AND_VALUES = (
    "(?:.*\\.)?(?:key|value|k_proj|v_proj|k_lin|v_lin|key_proj|value_proj|k|v|c_attn|query_key_value|Wqkv|qkv_proj)"
)
"""What architectures call the projections to keys and values; where queries share a projection, they are scaled too."""


@dataclass(frozen=True)
class IA3:
    """One trained factor for every key, value and inner feed-forward feature: the smallest kind.

    Reference:
        Liu et al. 2022, Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning,
        section 3.3.

    Differs:
        Where one projection makes queries, keys and values (GPT-2, GPT-NeoX, ModernBERT), all three are scaled.
    """

    kind: Literal["ia3"] = "ia3"
    """Trained factors, by PEFT."""
    layers: str | tuple[int, ...] = "all"
    """Layers that get an adapter: all, all but last, top N, bottom N, or a list counted from 0."""
    modules: Mapping[str, str] = field(default_factory=dict)
    """Module names by hand, for an architecture without a row: layers, attention, feed_forward, lm_head."""
    learning_rate: ClassVar[float] = 3e-3

    def targets(self, model: Any, placement: Placement) -> tuple[str, str]:
        """Return the expressions for the projections whose output is scaled, and for those whose input is.

        Raises:
            InputError: the base names its projections otherwise, or its feed-forward output is not linear.
        """
        row, indices = placed(self, placement), chosen(self, model, placement)
        inputs = row.pattern(row.feed_forward, indices)
        outputs = row.pattern(KEYS_AND_VALUES, indices)
        for pattern in (inputs, outputs):
            require_modules(self.kind, model, pattern, "no projection has a name that it knows. Choose lora.")
        for name, module in matched(model, f"{inputs}|{outputs}"):
            if linear_features(module) is None:
                require_modules(self.kind, model, "(?!)", f"{name} is not a linear module. Choose lora.")
        return outputs, inputs

    def peft_config(self, model: Any, placement: Placement) -> Any:
        """Return PEFT's IA3Config for this base.

        Raises:
            InputError: the layers or modules do not exist in the base.
        """
        from peft import IA3Config

        outputs, inputs = self.targets(model, placement)
        return IA3Config(
            target_modules=f"{outputs}|{inputs}",
            feedforward_modules=inputs,
            fan_in_fan_out=any(is_transposed(module) for _, module in matched(model, inputs)),
        )
