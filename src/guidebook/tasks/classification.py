"""Classification of texts or text pairs into one of C labels: its settings, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from guidebook.errors import InputError, nearest

if TYPE_CHECKING:
    from guidebook.tasks.heads import Head

Pooling = Literal["auto", "cls", "mean", "last"]
HeadKind = Literal["linear", "two_layer"]


@dataclass(frozen=True)
class Classification:
    """Settings of a classification task.

    Raises:
        InputError: A setting is outside its range, or a name is not one of those offered.

    >>> Classification(max_length=64).pooling_on("mean")
    'mean'
    """

    kind: Literal["classification"] = "classification"
    """Name of the task."""
    labels: tuple[str, ...] | None = None
    """Label names in the order of the classes. None: read from the source, numbers in order, else alphabetically."""
    max_length: int = 128
    """Tokens a row keeps, special tokens included. Longer texts are cut for training; the run says how much was cut."""
    pooling: Pooling = "auto"
    """Row of a text from its tokens: mean, cls (first token), last (last token). auto: mean, or last on a causal LM."""
    head: HeadKind = "two_layer"
    """linear: dropout, Linear(H, C). two_layer: dropout, Linear(H, H), tanh, dropout, Linear(H, C)."""
    dropout: float = 0.1
    """Dropout probability before each linear layer of the head, 0 <= dropout < 1."""
    dev: float = 0.2
    """Share of the source rows held out of training, by label, to measure source accuracy; 0: none."""

    def __post_init__(self) -> None:
        for name, value, known in (
            ("kind", self.kind, ("classification",)),
            ("pooling", self.pooling, get_args(Pooling)),
            ("head", self.head, get_args(HeadKind)),
        ):
            if value not in known:
                raise InputError(f"task.{name} is {value!r}, expected one of {list(known)}.{nearest(value, known)}")
        if self.labels is not None:
            self._check_labels(self.labels)
        if self.max_length < 4:
            raise InputError(f"task.max_length is {self.max_length}, expected at least 4 tokens. 128 is the default.")
        if not 0 <= self.dropout < 1:
            raise InputError(f"task.dropout is {self.dropout}, expected 0 <= dropout < 1. 0.1 is the default.")
        if not 0 <= self.dev < 1:
            raise InputError(f"task.dev is {self.dev}, expected 0 <= dev < 1. 0.2 is the default.")

    @staticmethod
    def _check_labels(labels: tuple[str, ...]) -> None:
        if isinstance(labels, str):
            raise InputError(f"task.labels is the text {labels!r}, expected a list: [negative, positive].")
        if len(labels) < 2 or len(set(labels)) != len(labels):
            raise InputError(f"task.labels is {list(labels)}, expected two or more different names. Name each once.")

    def pooling_on(self, default: str) -> str:
        """How hidden states become one row: `pooling`, or `default` (the placement's choice) where it is "auto"."""
        return default if self.pooling == "auto" else self.pooling

    def make_head(self, hidden: int, classes: int, seed: int) -> Head:
        """A fresh head (B, hidden) -> (B, classes), the same for the same seed. Imports torch."""
        from guidebook.tasks.heads import Head

        return Head(hidden, classes, self.head, self.dropout, seed)
