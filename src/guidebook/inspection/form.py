"""Differences of form: case, spacing, line breaks, encoding, length. What can be made equal before adapting."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

SMALLEST_GAP = 0.15  # of shares of rows; less is not worth a remark
SURE = 4.0  # standard errors
LONGER = 1.5  # ratio of median lengths


@dataclass(frozen=True)
class Trait:
    """Something that a text has or has not, whatever it is about."""

    has: Callable[[str], object]
    advice: str


@dataclass(frozen=True)
class FormDifference:
    """A difference of form between two domains."""

    what: str
    source: float
    """Share of the source's rows, or its median, in the unit that `what` names."""
    target: float
    advice: str


def _pattern(expression: str) -> Callable[[str], object]:
    return re.compile(expression).search


TRAITS: dict[str, Trait] = {
    "no capital letters": Trait(
        lambda text: not any(mark.isupper() for mark in text), "lower-case both, or take the original text"
    ),
    "begins with a small letter": Trait(lambda text: text.lstrip()[:1].islower(), "find out where texts are cut"),
    "only capital letters": Trait(lambda text: text.isupper(), "lower-case them"),
    "space before punctuation": Trait(_pattern(r"\S\s+[.,!?;:](\s|$)"), "one is tokenised: join the punctuation again"),
    "no mark at the end": Trait(lambda text: text.rstrip()[-1:].isalnum(), "one is cut, or lost its final marks"),
    "no punctuation at all": Trait(
        lambda text: not any(unicodedata.category(mark)[0] == "P" for mark in text), "take the original text"
    ),
    "double spaces": Trait(_pattern(r"\S  +\S"), "collapse runs of spaces"),
    "line breaks": Trait(_pattern(r"[\r\n]"), "write line breaks as spaces in both"),
    "tabs": Trait(_pattern(r"\t"), "write tabs as spaces"),
    "spaces at the ends": Trait(lambda text: text != text.strip(), "strip both"),
    "HTML": Trait(_pattern(r"</?[a-zA-Z][^<>]*>|&(#\d+|[a-z]+);"), "remove tags and write entities as characters"),
    "escaped characters": Trait(_pattern(r"\\[nrt\"']|\\u[0-9a-f]{4}"), "undo the escaping"),
    "broken encoding": Trait(_pattern("Ã[\x80-\xbf]|â€|Â[\xa0-\xbf]|\ufffd"), "read the file in the encoding it has"),
    "curly quotes": Trait(_pattern("[“”‘’]"), "write quotes as straight ones in both"),
    "non-ASCII characters": Trait(lambda text: not text.isascii(), "see whether accents or signs were removed in one"),
    "decomposed accents": Trait(lambda text: unicodedata.normalize("NFC", text) != text, "normalise both to NFC"),
    "links": Trait(_pattern(r"https?://|www\."), "remove links, or write one word for them"),
    "digits": Trait(_pattern(r"\d"), "see whether numbers were masked in one"),
}


def form_differences(source: Sequence[str], target: Sequence[str]) -> list[FormDifference]:
    """Return what differs in form between texts of two domains, the largest gap first.

    A trait counts if the shares of rows that have it differ by 15 points and by four standard errors; lengths, if the
    medians differ by half and the longer domain's row is the longer one in two of three pairs; a limit of length, if
    one in twenty rows of one domain is exactly as long as its longest.
    """
    found = []
    for what, trait in TRAITS.items():
        shares = [float(np.mean([bool(trait.has(text)) for text in texts])) for texts in (source, target)]
        if abs(shares[0] - shares[1]) >= SMALLEST_GAP and _z(shares, (len(source), len(target))) >= SURE:
            found.append(FormDifference(f"rows: {what}", shares[0], shares[1], trait.advice))
    found.sort(key=lambda difference: -abs(difference.source - difference.target))
    return found + _lengths(source, target)


def _z(shares: Sequence[float], rows: tuple[int, int]) -> float:
    """Standard errors between two shares, with half a row added on either side."""
    smooth = [(share * count + 0.5) / (count + 1) for share, count in zip(shares, rows, strict=True)]
    together = sum(share * count for share, count in zip(smooth, rows, strict=True)) / sum(rows)
    return abs(smooth[0] - smooth[1]) / math.sqrt(together * (1 - together) * (1 / rows[0] + 1 / rows[1]))


def _lengths(source: Sequence[str], target: Sequence[str]) -> list[FormDifference]:
    found = []
    words = [np.array([len(text.split()) for text in texts]) for texts in (source, target)]
    medians = [float(np.median(count)) for count in words]
    shorter, longer = (0, 1) if medians[0] <= medians[1] else (1, 0)
    ranked = np.sort(words[shorter])
    below = np.searchsorted(ranked, words[longer], side="left") + np.searchsorted(ranked, words[longer], side="right")
    beats = float(below.mean()) / (2 * len(ranked))  # how often a row of the longer domain is the longer one
    if medians[longer] >= LONGER * max(medians[shorter], 1) and beats >= 2 / 3:
        found.append(
            FormDifference(
                "words in a row, median",
                medians[0],
                medians[1],
                "cut the longer ones, or split them, if that is no loss",
            )
        )
    limits = [_limit(texts) for texts in (source, target)]
    if limits[0] != limits[1]:
        shown = [float(limit or 0) for limit in limits]
        found.append(
            FormDifference(
                "characters at which rows are cut (0: nowhere)", shown[0], shown[1], "cut both alike, or none"
            )
        )
    return found


def _limit(texts: Sequence[str]) -> int | None:
    """Return the length at which texts seem to be cut, if one in twenty is exactly as long as the longest."""
    lengths = Counter(map(len, texts))
    longest = max(lengths)
    return longest if lengths[longest] >= max(5, len(texts) / 20) and longest >= 20 and len(lengths) > 1 else None
