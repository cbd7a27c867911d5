"""Classification of texts or text pairs into one of C labels: its settings, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from guidebook.data.template import Template
from guidebook.tasks.settings import HeadKind, check_choice, check_settings

if TYPE_CHECKING:
    from guidebook.tasks.heads import Head

Pooling = Literal["auto", "cls", "mean", "last"]


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
    """Row of a text from its tokens: mean, cls (first token), last (last token). auto: mean; on a decoder last or mean,
    whichever a linear probe on held-out source rows does better with."""
    head: HeadKind = "two_layer"
    """linear: dropout, Linear(H, C). two_layer: dropout, Linear(H, H), tanh, dropout, Linear(H, C)."""
    dropout: float = 0.1
    """Dropout probability before each linear layer of the head, 0 <= dropout < 1."""
    dev: float = 0.2
    """Share of the source rows held out of training, by label, to measure source accuracy; 0: none."""
    template: str | None = None
    """Words around every row, as in "{text} Is this positive?"; for pairs "{text} So: {text_pair}". None: the text."""

    words: ClassVar[bool] = False
    """Labels belong to whole rows."""
    labelled: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice("pooling", self.pooling, get_args(Pooling))
        check_settings(self, "classification")
        if self.template is not None:
            Template.read(self.template)

    def pooling_on(self, default: str) -> str:
        """How hidden states become one row: `pooling`, or `default` (the placement's choice) where it is "auto"."""
        return default if self.pooling == "auto" else self.pooling

    def make_head(self, hidden: int, classes: int, seed: int) -> Head:
        """A fresh head (B, hidden) -> (B, classes), the same for the same seed. Imports torch."""
        from guidebook.tasks.heads import Head

        return Head(hidden, classes, self.head, self.dropout, seed)
