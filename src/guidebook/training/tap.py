"""One hook that taps the last hidden state and gathers the rows the language-modelling head is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Tapped:
    """What one forward pass gave."""

    hidden: Tensor
    """(B, T, H) last hidden state."""
    logits: Tensor
    """(M, V) at the chosen positions."""
    states: tuple[Tensor, ...] = ()
    """(L + 1) hidden states (B, T, H), embeddings first, if they were asked for."""


class Tap:
    """A pre-hook on the first module of the LM head.

    The module is handed only the chosen positions, (M, H) in place of (B, T, H), so that the head never runs where
    no loss is taken; zero positions are legal. The full hidden state is kept for pooling, divergences and critics.

    Use it as a context manager around anything that calls `run`.
    """

    def __init__(self, lm_head: nn.Module) -> None:
        self.lm_head = lm_head
        self._positions: Tensor | None = None
        self._hidden: Tensor | None = None

    def __enter__(self) -> Tap:
        self._handle = self.lm_head.register_forward_pre_hook(self._gather)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.remove()
        self._hidden = self._positions = None

    def _gather(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._positions is None:
            return None
        hidden: Tensor = inputs[0]
        self._hidden = hidden
        return (hidden.flatten(0, 1)[self._positions], *inputs[1:])  # (B, T, H) -> (M, H)

    def run(
        self, model: Callable[..., Any], inputs: dict[str, Tensor], positions: Tensor, *, layers: bool = False
    ) -> Tapped:
        """Return what a forward pass gives, the logits at flat positions (M,) of B * T; all layers' states if asked."""
        self._positions = positions
        try:
            out = model(**inputs, output_hidden_states=True) if layers else model(**inputs)
            if self._hidden is None:
                raise RuntimeError("the base's forward never reached its language-modelling head")
            states = getattr(out, "decoder_hidden_states", None) or getattr(out, "hidden_states", None)
            return Tapped(self._hidden, out.logits, tuple(states) if layers and states else ())
        finally:
            self._positions = self._hidden = None
