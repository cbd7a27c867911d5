"""Numbers as people read them: shares, differences, times, sizes, lists."""

from __future__ import annotations

from collections.abc import Sequence


def percent(share: float) -> str:
    """A share in percent, without the sign: 0.8875 is "88.8"."""
    return f"{100 * share:.1f}"


def points(difference: float) -> str:
    """A difference of shares in signed percentage points; what rounds to zero has no sign.

    >>> points(0.0231), points(-0.0004)
    ('+2.3', '0.0')
    """
    rounded = round(100 * difference, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"


def duration(seconds: float) -> str:
    """A time for people: "3 s", "2 min 10 s", "2 h 5 min"."""
    whole = round(seconds)
    if whole < 1:
        return "under 1 s"
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def megabytes(amount: float) -> str:
    """A size in megabytes with three figures: "0.59 MB", "45.3 MB", "1,340 MB"."""
    digits = 2 if amount < 10 else 1 if amount < 100 else 0
    return f"{amount:,.{digits}f} MB"


def listed(words: Sequence[str]) -> str:
    """Words in a sentence: "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
