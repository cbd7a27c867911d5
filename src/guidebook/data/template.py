"""Words around a row's text, as a decoder wants to be asked: `{text}` and a question about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from string import Formatter
from typing import Any

from guidebook.data.columns import PAIR_NAMES, TEXT_NAMES, Columns
from guidebook.data.tokeniser import whole_text
from guidebook.data.tokens import Specials
from guidebook.errors import InputError, nearest

FIRST = ("text", *dict.fromkeys([*TEXT_NAMES[1:], *(pair[0] for pair in PAIR_NAMES)]))
SECOND = ("text_pair", *dict.fromkeys(pair[1] for pair in PAIR_NAMES[1:]))


@dataclass(frozen=True)
class Template:
    """What stands before, between and after the texts of a row.

    Attributes:
        before: Before the text.
        between: Between the two texts of a pair; None in a template for single texts.
        after: Behind the last text.
        fields: Names that the template gives to the texts.
    """

    before: str
    between: str | None
    after: str
    fields: tuple[str, ...]

    @classmethod
    def read(cls, template: str) -> Template:
        """Return a template's parts.

        Raises:
            InputError: it is no format string, or has not one or two different plain fields.

        >>> Template.read("{premise} So: {hypothesis}?")
        Template(before='', between=' So: ', after='?', fields=('premise', 'hypothesis'))
        """
        try:
            parts = list(Formatter().parse(template))
        except ValueError as error:
            raise InputError(
                f"task.template is {template!r}: {error}. Write a brace of the text itself twice."
            ) from error
        texts, fields = [""], []
        for literal, name, form, conversion in parts:
            texts[-1] += literal
            if name is None:
                continue
            if not name.isidentifier() or form or conversion:
                shown = f"{name}{'!' + conversion if conversion else ''}{':' + form if form else ''}"
                raise InputError(f"task.template has the field {{{shown}}}, expected a plain name such as {{text}}.")
            fields.append(name)
            texts.append("")
        if not 1 <= len(fields) <= 2 or len(set(fields)) != len(fields):
            found = ", ".join(f"{{{name}}}" for name in fields) or "none"
            raise InputError(
                f"task.template has the fields {found}; expected {{text}} once, and for pairs {{text_pair}} behind it."
            )
        return cls(texts[0], texts[1] if len(fields) == 2 else None, texts[-1], tuple(fields))

    def check(self, columns: Columns, *, pairs: bool) -> None:
        """Refuse a template whose fields are not the texts of a row.

        Args:
            columns: Names of the source's columns, which the fields may use.
            pairs: Whether rows are pairs of texts.

        Raises:
            InputError: an unknown field, two fields for single texts or one for pairs, or the second text first.
        """
        wanted = 2 if pairs else 1
        if len(self.fields) != wanted:
            raise InputError(
                f"task.template has {len(self.fields)} field{'s' if len(self.fields) > 1 else ''}, and rows are "
                f"{'pairs of texts: write {text} and {text_pair}' if pairs else 'single texts: write {text} alone'}."
            )
        allowed = [tuple(filter(None, (columns.text, *FIRST))), tuple(filter(None, (columns.text_pair, *SECOND)))]
        for name, known in zip(self.fields, allowed, strict=False):
            if name in known:
                continue
            if pairs and name in allowed[1]:
                raise InputError(
                    "task.template has the second text first. Rows are read first text first: swap the two fields."
                )
            raise InputError(
                f"task.template has the unknown field {{{name}}}.{nearest(name, known)} "
                f"Expected {{{known[0]}}}{' or {text}' if known[0] != 'text' and known is allowed[0] else ''}."
            )

    def written(self) -> str:
        """Return the template with {text} and {text_pair} as its fields, which need no names of columns."""
        second = "" if self.between is None else f"{_escaped(self.between)}{{text_pair}}"
        return f"{_escaped(self.before)}{{text}}{second}{_escaped(self.after)}"


def framed(specials: Specials, tokenizer: Any, template: str | None) -> Specials:
    """Return special tokens with a template's words beside them: they stand in every row, whatever of a text is cut.

    Words are tokenised apart from the text, so a text's own tokens are the same with and without a template.
    """
    if template is None:
        return specials
    words, backend = Template.read(template), whole_text(tokenizer)

    def ids(text: str) -> tuple[int, ...]:
        return tuple(backend.encode(text, add_special_tokens=False).ids)

    between = specials.between if words.between is None else ids(words.between)
    return replace(
        specials,
        before=(*specials.before, *ids(words.before)),
        between=between,
        after=(*ids(words.after), *specials.after),
        separator=specials.separator if words.between is None else None,
    )


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
