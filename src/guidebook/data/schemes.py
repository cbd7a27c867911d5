"""Schemes in which tags of words spell entities: IOB1, IOB2, IOBES, BILOU and the like, and from one to another.

Reference: Ramshaw and Marcus 1995 (IOB1); Tjong Kim Sang and Veenstra 1999 (IOB2, IOE); Ratinov and Roth 2009 (BILOU).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

OUTSIDE = "O"
MARKS = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S", "W": "S"}
"""Letter -> what it says of a word: it begins an entity, goes on inside, ends one, or is a whole one by itself."""
FORMS = {
    "prefix": re.compile(r"(?P<mark>[BIMELSUW])(?:(?P<sign>[-_:|/.])(?P<type>.+))?", re.IGNORECASE),
    "suffix": re.compile(r"(?P<type>.+)(?P<sign>[-_:|/.])(?P<mark>[BIMELSUW])", re.IGNORECASE),
}
Entity = tuple[int, int, str]
"""First word, word after the last, type."""


@dataclass(frozen=True)
class Scheme:
    """How tags spell entities.

    Attributes:
        form: Where the mark of a tag stands: "prefix" (B-PER), "suffix" (PER-B); "" where tags have none.
        sign: What stands between mark and type; "" where there are marks alone.
        letters: The letters that are used as marks, as they are written.
        iob1: Whether an entity begins with "I" unless it follows one of its own type, as in IOB1; None: not known.
        plain: Tags that do not look like the others: each word with one is an entity of its own.
    """

    form: str = ""
    sign: str = ""
    letters: frozenset[str] = frozenset()
    iob1: bool | None = None
    plain: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The scheme's name, as people know it; "" where tags have no marks."""
        marks = {letter.upper() for letter in self.letters}
        if not self.form:
            return ""
        if marks & set("LU"):
            return "BILOU"
        if marks & set("ESW"):
            return "BMES" if "M" in marks else "IOBES"
        return "IOB1" if self.iob1 else "IOB2"

    def parse(self, tag: str) -> tuple[str, str]:
        """Return what a tag says of its word (B, I, E, S or O; S for a tag without a mark) and the entity's type."""
        if tag == OUTSIDE or (self.form and tag.upper() == OUTSIDE):
            return "O", ""
        if self.form and tag not in self.plain and (found := _match(self.form, tag, self.sign)):
            return MARKS[found["mark"].upper()], found["type"] or ""
        return "S", tag

    def spell(self, mark: str, kind: str) -> str:
        """Return the tag of a word whose entity is of a type; marks that the scheme lacks are written as B or I."""
        if not self.form:
            return kind
        written = next((letter for letter in sorted(self.letters) if MARKS[letter.upper()] == mark), None)
        if written is None and mark in "ES":
            return self.spell("I" if mark == "E" else "B", kind)
        lower = all(letter.islower() for letter in self.letters)
        written = written or (mark.lower() if lower else mark)
        parts = [written, kind] if self.form == "prefix" else [kind, written]
        return self.sign.join(parts) if kind else written


def scheme_of(tags: Collection[str], rows: Sequence[Sequence[str]] = ()) -> Scheme:
    """Return the scheme that a set of tags spells entities in.

    Args:
        tags: The different tags.
        rows: Tags of words, row by row, which tell IOB1 from IOB2.

    >>> scheme_of(["O", "B-PER", "E-PER", "S-LOC"]).name, scheme_of(["O", "noun", "verb"]).name
    ('IOBES', '')
    """
    inside = {tag for tag in tags if tag.upper() != OUTSIDE}
    options = []
    for form in FORMS:
        for sign in ("-", "_", ":", "|", "/", ".", ""):
            found = {tag: match for tag in inside if (match := _match(form, tag, sign))}
            if found and _is_scheme(form, sign, found, all_match=len(found) == len(inside)):
                letters = frozenset(match["mark"] for match in found.values())
                options.append(Scheme(form, sign, letters, plain=tuple(sorted(inside - found.keys()))))
    if not options:
        return Scheme(plain=tuple(sorted(inside)))
    best = min(options, key=lambda scheme: len(scheme.plain))
    begins = any(MARKS[letter.upper()] in "BS" for letter in best.letters)
    iob1 = _is_iob1(rows, best) if rows else None if begins else True
    return Scheme(best.form, best.sign, best.letters, iob1, best.plain)


def _match(form: str, tag: str, sign: str) -> re.Match[str] | None:
    found = FORMS[form].fullmatch(tag)
    return found if found is not None and (found["sign"] or "") == sign else None


def _is_scheme(form: str, sign: str, found: dict[str, re.Match[str]], *, all_match: bool) -> bool:
    """Return whether tags that look marked are: "E-MAIL" may be a type, and so may the "NOUN_M" of a grammar."""
    marks = {match["mark"].upper() for match in found.values()}
    types = [match["type"] for match in found.values()]
    if all_match:
        return bool(marks & set("BI")) or (form == "prefix" and sign == "-" and marks <= set("ELSU"))
    return bool(marks & set("BI")) and (len(set(types)) < len(types) or marks <= set("BI")) and bool(sign)


def _is_iob1(rows: Sequence[Sequence[str]], scheme: Scheme) -> bool:
    """Return whether some entity begins with I, and every B follows an entity of its own type."""
    begins_inside = False
    for row in rows:
        before = ("O", "")
        for tag in row:
            mark, kind = scheme.parse(tag)
            if mark == "I" and before[1] != kind:
                begins_inside = True
            if mark in "ES" or (mark == "B" and before[1] != kind):
                return False
            before = mark, kind
    return begins_inside


def spans(tags: Sequence[str], scheme: Scheme) -> Iterator[Entity]:
    """Yield the entities of one row of tags, as CoNLL's own evaluation reads them.

    An entity ends before a word outside, of another type, or one that begins an entity, and after one that ends it; a
    word inside that continues nothing of its type begins an entity.

    >>> list(spans(["B-a", "E-a", "I-b", "S-b", "O"], scheme_of(["B-a", "E-a", "I-b", "S-b"])))
    [(0, 2, 'a'), (2, 3, 'b'), (3, 4, 'b')]
    """
    start: int | None = None
    kind = ""
    for place, tag in enumerate([*tags, OUTSIDE]):
        mark, here = scheme.parse(tag)
        if start is not None and (mark in "OBS" or here != kind):
            yield start, place, kind
            start = None
        if mark != "O" and start is None:
            start, kind = place, here
        if mark in "ES" and start is not None:
            yield start, place + 1, kind
            start = None


def translated(tags: Sequence[str], scheme: Scheme, into: Scheme) -> tuple[str, ...]:
    """Return the tags of one row, written in another scheme; the entities are the same.

    >>> iobes = scheme_of(["B-a", "E-a", "S-a"])
    >>> translated(["B-a", "I-a", "O", "B-a"], scheme_of(["B-a", "I-a"]), iobes)
    ('B-a', 'E-a', 'O', 'S-a')
    """
    found = [OUTSIDE] * len(tags)
    last: Entity = (0, 0, "")
    for start, stop, kind in spans(tags, scheme):
        beside = last[1] == start and last[2] == kind
        marks = ["I" if into.iob1 and not beside else "B", *"I" * (stop - start - 1)]
        if len(marks) == 1:
            marks = marks if into.iob1 else ["S"]
        else:
            marks[-1] = "E"
        found[start:stop] = [into.spell(mark, kind) for mark in marks]
        last = start, stop, kind
    return tuple(found)
