"""What a loss is: streams it reads and how, modules it brings, and a sum over items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor, nn

from guidebook.data.streams import Stream

How = Literal["plain", "masked", "teacher"]
"""plain: rows as they are. masked: corrupted, and run through the language-modelling head where they were (a causal
base reads them as they are and predicts every next token). teacher: plain, through the stage's teacher, without
gradient and without dropout."""
Counts = Literal["positions", "labels", "rows", "batches"]
"""What the sum of a loss runs over: predicted positions, known labels, rows, or nothing finer than a whole batch."""


@dataclass(frozen=True)
class Reads:
    """One stream and how a loss wants to see its rows.

    All losses of a stage see the same rows of one stream in one step, whichever way they look at them.
    """

    stream: Stream
    how: How = "plain"
    rows: int | None = None
    """Rows of every step, exactly; None: as many as the stage's first stream has on average."""
    copy: int = 0
    """Another number: the same rows once more, under other masks or other dropout."""

    @property
    def key(self) -> str:
        """Name of the view that losses share when they read the same thing in the same way."""
        return f"{self.stream.name} {self.how} {self.copy}"


@dataclass(frozen=True)
class View:
    """The rows of one stream in one step, as a loss sees them after the forward pass."""

    hidden: Tensor
    """(B, T, H) last hidden state. T is that of the rows padded together: a teacher's view may be narrower or wider."""
    mask: Tensor
    """(B, T) True where there is a token."""
    logits: Tensor
    """(M, V) of the language-modelling head, only at the positions that are predicted; (0, V) beside `summed`."""
    targets: Tensor
    """(M,) token ids to predict."""
    labels: Tensor
    """(B,) class ids, or (B, T) where the task labels words; -1 where none are known."""
    owner: Tensor
    """(B,) index of every row's domain in its stream."""
    states: tuple[Tensor, ...]
    """(L + 1) hidden states (B, T, H), embeddings first, of a loss that asks for `layers`; else empty."""
    modules: Mapping[str, Callable[..., Tensor]]
    """The stage's modules by name, with the weights that made this view (the teacher's own in a teacher's view)."""
    fraction: float
    """Share of the stage's steps that are done, 0..1."""
    summed: Callable[[], Tensor] | None = None
    """The summed cross-entropy at the predicted positions, computed in chunks; None: it is taken from `logits`."""


@dataclass(frozen=True)
class Facts:
    """What a loss may know when it builds its modules."""

    hidden_size: int
    layers: int
    pooling: str
    classes: int
    head: str
    head_dropout: float
    head_seed: int
    seed: int


class Loss(Protocol):
    """A part of a stage's objective: a frozen dataclass; every field that is not a stream is a hyper-parameter.

    The value is a *sum*; `StageModel` divides by the number of items of the whole optimiser step, so that a step
    in several micro-batches or on several devices has the same gradient as in one. A loss that counts "batches"
    compares sets of rows: it is averaged over the parts of a step, and does change with their size.
    """

    @property
    def reads(self) -> Sequence[Reads]:
        """What it reads, in the order of the views it is given."""

    @property
    def counts(self) -> Counts:
        """What its sum runs over, in its first view."""

    @property
    def length_in(self) -> Literal["tokens", "rows"]:
        """What a stage's length is counted in when this loss is its first: tokens (train.fuse) or rows (train.task)."""

    @property
    def layers(self) -> bool:
        """True if it needs the hidden states of all layers."""

    def modules(self, facts: Facts) -> Mapping[str, nn.Module]:
        """New trainable modules by name; two losses that name the same module share it."""

    @property
    def rates(self) -> Mapping[str, float]:
        """Factor of the stage's learning rate for a module; 1 where nothing is said."""

    def __call__(self, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return {"loss": the sum over items, a scalar}, and other scalars to log beside it (means)."""
