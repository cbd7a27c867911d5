"""Words around a row: read strictly, and in every row whatever is cut."""

from __future__ import annotations

import pytest

from guidebook.data.columns import Columns
from guidebook.data.template import Template, framed
from guidebook.data.tokens import encode, read_specials, tokenise, windows
from guidebook.errors import InputError
from tiny import TEXTS, build_tokenizer

NONE = Columns()


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("", "has the fields none"),
        ("Is this positive?", "has the fields none"),
        ("{text} {text}", "has the fields {text}, {text}"),
        ("{a} {b} {c}", "has the fields {a}, {b}, {c}"),
        ("{}", "the field {}, expected a plain name"),
        ("{0}", "the field {0}"),
        ("{text.real}", "the field {text.real}"),
        ("{text[0]}", "the field {text[0]}"),
        ("{text!r}", "the field {text!r}"),
        ("{text:>9}", "the field {text:>9}"),
        ("{text", "Write a brace of the text itself twice"),
        ("text}", "Write a brace of the text itself twice"),
    ],
)
def test_what_is_no_template_is_said(template, told):
    with pytest.raises(InputError) as caught:
        Template.read(template)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("template", "pairs", "columns", "told"),
    [
        ("{txt}?", False, NONE, "the unknown field {txt}. Did you mean 'text'? Expected {text}"),
        ("{stars}?", False, Columns(text="review_body"), "Expected {review_body} or {text}"),
        ("{text} {text_pair}", False, NONE, "has 2 fields, and rows are single texts: write {text} alone"),
        ("{text}", True, NONE, "has 1 field, and rows are pairs of texts: write {text} and {text_pair}"),
        ("{premise} {hypotesis}", True, NONE, "{hypotesis}. Did you mean 'hypothesis'?"),
        ("{hypothesis} {premise}", True, NONE, "the second text first"),
    ],
)
def test_fields_are_the_texts_of_a_row(template, pairs, columns, told):
    with pytest.raises(InputError) as caught:
        Template.read(template).check(columns, pairs=pairs)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("template", "pairs", "columns", "written"),
    [
        ("{text}\nIs this positive?", False, NONE, "{text}\nIs this positive?"),
        ("{{a}} {review}: ", False, NONE, "{{a}} {text}: "),
        ("{Body} ok", False, Columns(text="Body"), "{text} ok"),
        ("{premise} so {hypothesis}!", True, NONE, "{text} so {text_pair}!"),
        ("{a} so {b}", True, Columns(text="a", text_pair="b"), "{text} so {text_pair}"),
    ],
)
def test_it_is_kept_without_names_of_columns(template, pairs, columns, written):
    read = Template.read(template)
    read.check(columns, pairs=pairs)
    assert read.written() == written
    again = Template.read(written)
    again.check(NONE, pairs=pairs)
    assert (again.before, again.between, again.after) == (read.before, read.between, read.after)


@pytest.mark.parametrize("family", ["llama", "bert", "roberta"])
@pytest.mark.parametrize("length", [24, 64])
def test_words_stand_in_every_row_whatever_is_cut(family, length):
    tokenizer = build_tokenizer(family)
    plain = read_specials(tokenizer)
    specials = framed(plain, tokenizer, "a story: {text} is it dull?")
    before, after = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a story: ", " is it dull?"))
    tokens = tokenise([" ".join(TEXTS), TEXTS[0]], tokenizer)
    for rows in (encode(tokens, None, length, specials), windows(tokens, None, length, specials)[0]):
        for ids in (rows[row].tolist() for row in range(len(rows))):
            assert len(ids) <= length
            assert ids[: len(plain.before) + len(before)] == [*plain.before, *before]
            assert ids[len(ids) - len(after) - len(plain.after) :] == [*after, *plain.after]


def test_words_between_the_texts_of_a_pair_take_the_place_of_separators():
    tokenizer = build_tokenizer("bert")
    specials = framed(read_specials(tokenizer), tokenizer, "{text} so {text_pair}")
    first, second = tokenise(["a dull story"], tokenizer), tokenise(["no end"], tokenizer)
    row = encode(first, second, 40, specials)[0].tolist()
    assert tokenizer.decode(row, skip_special_tokens=True) == "a dull story so no end"
    assert specials.separator is None


def test_without_a_template_nothing_changes():
    tokenizer = build_tokenizer("llama")
    assert framed(read_specials(tokenizer), tokenizer, None) == read_specials(tokenizer)
