"""Token classification: one of C tags for every word, as in named-entity recognition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from guidebook.tasks.settings import HeadKind, check_settings

if TYPE_CHECKING:
    from guidebook.tasks.heads import Head


@dataclass(frozen=True)
class TokenClassification:
    """Settings of a task that tags words.

    Rows are lists of words (or texts cut at white space) with one tag per word, or, in a target, none. Entities may be
    spelled in IOB1, IOB2, IOBES, BILOU or BMES, with the mark before or after the type (B-PER, B_PER, PER-B). Tags
    are learned as the source has them; those of a target in another scheme are written in the source's to be scored.
    Other tags are scored word by word. What counts is entity F1, and texts are resampled for its intervals. Tags that
    are numbers want their names in `labels`. A word is read at its first token. Long rows are read in windows, so
    nothing is cut.

    Raises:
        InputError: A setting is outside its range, or a name is not one of those offered.

    >>> TokenClassification(max_length=64).pooling_on("mean")
    'tokens'
    """

    kind: Literal["token_classification"] = "token_classification"
    """Name of the task."""
    labels: tuple[str, ...] | None = None
    """Tags in the order of the classes. None: read from the source, O first, then by name."""
    max_length: int = 128
    """Tokens of a window, special tokens included; longer rows are read in several."""
    head: HeadKind = "linear"
    """linear: dropout, Linear(H, C). two_layer: dropout, Linear(H, H), tanh, dropout, Linear(H, C)."""
    dropout: float = 0.1
    """Dropout probability before each linear layer of the head, 0 <= dropout < 1."""
    dev: float = 0.2
    """Share of the source rows held out of training to measure source accuracy; 0: none."""

    template: ClassVar[None] = None
    labelled: ClassVar[bool] = True
    words: ClassVar[bool] = True
    """Labels belong to words."""
    pooling: ClassVar[str] = "tokens"
    """Rows are not pooled: every token keeps its own."""

    def __post_init__(self) -> None:
        check_settings(self, "token_classification")

    def pooling_on(self, default: str) -> str:
        """How hidden states become rows: each token its own, whatever suits the base."""
        return self.pooling

    def make_head(self, hidden: int, classes: int, seed: int) -> Head:
        """A fresh head (..., hidden) -> (..., classes), the same for the same seed. Imports torch."""
        from guidebook.tasks.heads import Head

        return Head(hidden, classes, self.head, self.dropout, seed)
