"""Fused attention for GPT-J, which transformers has of its own from 5.24 on: the scaled dot product of torch."""

from __future__ import annotations

from functools import cache

from torch import Tensor
from torch.nn import functional

NAME = "guidebook_fused"
"""Value of `attn_implementation`. Not with "sdpa" in it: transformers refuses that for families without its own."""


def fused_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """Return softmax(query key^T / sqrt(D) + mask) value, causal where there is no mask and several queries.

    Args:
        query: (B, N, T, D) of N heads.
        key: (B, N, S, D).
        value: (B, N, S, D).
        mask: (B, 1, T, S), boolean (True: seen) or floating point (added); None: causal.
        dropout: Probability with which an attention weight is dropped.

    Returns:
        (B, N, T, D) in the dtype of `value`.

    Differs:
        GPT-J's eager attention multiplies query and key in fp32. Here they stay in the dtype of the value, so in bf16
        the result differs from eager by the rounding of bf16 products; in fp32 by less than 1e-5.
    """
    same = value.dtype
    if mask is not None and mask.is_floating_point():
        mask = mask.to(same)
    causal = mask is None and query.shape[2] > 1
    return functional.scaled_dot_product_attention(
        query.to(same), key.to(same), value, attn_mask=mask, dropout_p=dropout, is_causal=causal
    )


@cache
def register() -> str:
    """Make the fused attention known to transformers and return the name that asks for it: "sdpa" where it has its own.

    Attention and mask functions are registered in transformers' two interfaces. GPT-J does not look there for its
    attention but in a table of classes of its own, so the class goes into that table as well.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask
    from transformers.models.gptj import modeling_gptj

    if modeling_gptj.GPTJPreTrainedModel._supports_sdpa:
        return "sdpa"

    class GPTJFusedAttention(modeling_gptj.GPTJAttention):  # type: ignore[misc]
        """GPT-J's attention with its one inner function replaced."""

        def _attn(
            self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None
        ) -> tuple[Tensor, None]:
            dropout = self.attn_dropout.p if self.training else 0.0
            return fused_attention(query, key, value, attention_mask, dropout), None

    AttentionInterface.register(NAME, sdpa_attention_forward)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    modeling_gptj.GPTJ_ATTENTION_CLASSES[NAME] = GPTJFusedAttention
    return NAME


def attention_for(model_type: str) -> str | None:
    """Return the attention implementation to load an architecture with; None: transformers' own choice."""
    return register() if model_type == "gptj" else None
