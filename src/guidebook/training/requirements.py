"""What a stage needs of its base, asked before anything is trained."""

from __future__ import annotations

from guidebook.adapters.host import Host
from guidebook.errors import InputError
from guidebook.methods.stage import Stage


def require_lm_head(host: Host, stage: Stage) -> None:
    """Raise InputError if a stage models text on a base without a trained head for that."""
    if not host.has_lm_head and any(loss.counts == "positions" for loss in stage.losses.values()):
        raise InputError(
            f"The stage {stage.name!r} models text, and base {host.base_id!r} has no trained language-modelling head. "
            "Choose a method that needs none (sentence_fusion, source_only), or a base with one."
        )
