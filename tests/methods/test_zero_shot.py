from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import guidebook as gb
from guidebook.adapters.host import Host
from guidebook.errors import InputError
from guidebook.methods.zero_shot import ZeroShot
from guidebook.training.choices import answer_nats, question_for
from tiny import LABELS, TEXTS, domains, tiny_recipe

CHAT = "{% for turn in messages %}<{{ turn['role'] }}>{{ turn['content'] }}{% endfor %}<assistant>"


@pytest.fixture(params=["llama", "gpt2"])
def host(request: pytest.FixtureRequest, tiny_base: Callable[[str], Path]) -> Host:
    return Host.load(str(tiny_base(request.param)))


def slowly(host: Host, prompt: list[int], answer: list[int]) -> float:
    """One prompt, one answer, one token at a time, nothing padded."""
    total, ids = 0.0, list(prompt)
    for token in answer:
        with torch.no_grad():
            logits = host.model(input_ids=torch.tensor([ids])).logits[0, -1]
        total += float(logits.log_softmax(-1)[token])
        ids.append(token)
    return total


@pytest.mark.parametrize(
    "answers",
    [[[7], [9], [11]], [[7, 8, 9], [9]], [[7, 8], [7, 10, 12], [9]]],
    ids=["one token", "first token decides", "same first token"],
)
def test_answers_are_as_likely_as_token_by_token(host: Host, answers: list[list[int]]) -> None:
    prompts = [[5, 6], [5, 6, 7, 8, 9, 10], [12], [5, 5, 5]] * 3
    found = answer_nats(host, prompts, answers, "float32")
    firsts = [answer[0] for answer in answers]
    whole = len(set(firsts)) < len(firsts)
    expected = [[slowly(host, p, a if whole else a[:1]) for a in answers] for p in prompts]
    assert np.allclose(found, expected, atol=1e-5)


def test_a_question_is_a_turn_of_a_chat_where_the_tokenizer_has_a_template(host: Host) -> None:
    tokenizer = host.tokenizer
    plain = question_for(tokenizer, "asked {text}?", "completed {text} of {labels}:", ["bad", "good"], 4)
    said = tokenizer.decode(plain.prompts(["the plot was a slow burn"], tokenizer)[0], skip_special_tokens=True)
    assert said.startswith("completed")
    assert "bad, good" in said.replace(" ,", ",")
    tokenizer.chat_template = CHAT
    try:
        chat = question_for(tokenizer, "asked {text}?", "completed {text}", ["bad", "good"], 4)
        said = tokenizer.decode(chat.prompts(["the plot"], tokenizer)[0])
        assert "asked" in said
        assert "completed" not in said
    finally:
        tokenizer.chat_template = None
    long = plain.prompts(["the plot was a slow burn but the ending paid off"], tokenizer)[0]
    assert len(long) == len(plain.before) + 4 + len(plain.after)


def named(labels: list[int]) -> list[str]:
    return [("sad", "glad")[label] for label in labels]


def test_a_run_on_a_decoder_has_the_prompt_in_its_table(tiny_base: Callable[[str], Path], tmp_path: Path) -> None:
    book = gb.adapt(tiny_recipe(tiny_base("llama"), method="source_only", **domains("zero_shot")), out=tmp_path / "run")
    target = book.meta["evaluation"]["targets"][0]
    assert list(target["scores"]) == ["tfidf", "zero_shot", "linear_probe", "source_only"]


@pytest.mark.parametrize(("family", "method"), [("bert", "zero_shot"), ("llama", "source_only")])
def test_where_it_makes_no_sense_it_is_left_out(
    family: str, method: str, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    """An encoder, or classes that are numbers."""
    book = gb.adapt(
        tiny_recipe(tiny_base(family), **{**domains(method), "method": "source_only"}), out=tmp_path / "run"
    )
    assert "zero_shot" not in book.meta["evaluation"]["targets"][0]["scores"]


@pytest.mark.parametrize(("family", "says"), [("bert", "asks a decoder"), ("llama", "label names")])
def test_asked_for_by_name_it_is_refused_with_the_reason(
    family: str, says: str, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    where = domains("zero_shot" if family == "bert" else "")
    with pytest.raises(InputError, match=says):
        gb.adapt(tiny_recipe(tiny_base(family), **where, method="zero_shot"), out=tmp_path / "run")


@pytest.mark.parametrize("template", ["no text", "{text} {text}"])
def test_a_template_without_one_place_for_the_text_is_refused(template: str) -> None:
    with pytest.raises(InputError, match="once"):
        ZeroShot(template=template)


class Asked:
    """A run whose base prefers the first answer by two nats, whatever the text."""

    planned, classes, labels = False, 2, ("glad", "sad")

    def __init__(self) -> None:
        self.texts = [text for text in TEXTS for _ in range(3)]
        self.gold = np.repeat(LABELS, 3)

    def answers(self, asked: str, completed: str) -> Callable[[list[str]], np.ndarray]:
        evidence = dict(zip(TEXTS, 2.0 * np.array(LABELS) - 1, strict=True))
        return lambda texts: np.array([[2.0 - evidence[text], evidence[text]] for text in texts])

    def labelled_texts(self) -> tuple[list[str], np.ndarray]:
        return self.texts, self.gold

    def submit(self, predict: Callable[[object], np.ndarray]) -> None:
        self.found = predict(type("Rows", (), {"joined": lambda _: list(TEXTS)})())


@pytest.mark.parametrize(("calibrate", "right"), [("source", 8), ("nothing", 4)])
def test_what_a_prompt_prefers_whatever_the_text_is_taken_away(calibrate: str, right: int) -> None:
    run = Asked()
    list(ZeroShot(calibrate=calibrate).plan(run))
    assert (run.found.argmax(1) == np.array(LABELS)).sum() == right
    assert np.allclose(run.found.sum(1), 1)
