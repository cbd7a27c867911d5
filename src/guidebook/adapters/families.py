"""Which kinds of adapter work on which architectures: all on all, but for what is named here. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_SCATTERED = ("albert", "opt", "bart")
_MIXTURES = ("mixtral", "qwen3_moe")
EXCEPTIONS: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        **{("parallel", name): "the feed-forward sub-layer is no module of its own" for name in _SCATTERED},
        **{("invertible", name): "an encoder-decoder embeds two texts" for name in ("t5", "bart")},
        **{("ia3", name): "the feed-forward output of a mixture is not linear" for name in _MIXTURES},
    }
)
"""(kind, model type) -> why the kind is refused there; the contract tests check that it is."""
NOT_CHECKPOINTED = frozenset({"albert", "mpnet"})
"""Architectures for which transformers offers no gradient checkpointing."""


def why_not(kind: str, model_type: str) -> str:
    """Return why a kind is refused on an architecture with a row, or "" where it works.

    >>> why_not("houlsby", "bert")
    ''
    """
    return EXCEPTIONS.get((kind, model_type), "")
