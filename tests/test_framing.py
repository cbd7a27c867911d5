"""Causal bases read pieces and prompts with what their tokenizers put before a text, and with nothing behind it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import guidebook as gb
from guidebook.data.corpus import Corpus
from guidebook.data.domains import LabelSet, load_text
from guidebook.data.tokens import prompt_ids
from guidebook.evaluation import forgetting
from guidebook.text_evaluation import evaluate_text
from guidebook.training.generation import Sampling, write
from guidebook.training.material import Material
from tiny import TEXTS, build_tokenizer
from tiny_causal import build

FRAMES = {
    "plain": "$A",
    "beginning": "<s> $A",
    "beginning and end": "<s> $A </s>",
    "end": "$A </s>",
    "two": "<s> <s> $A </s> </s>",
}
LONG = " ".join(f"{text} {number}" for number, text in enumerate(TEXTS))


def framed(frame: str, *, eos: bool = True):
    """A byte-level tokenizer with such a post-processor."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    backend = build_tokenizer("gpt2").backend_tokenizer
    backend.add_special_tokens(["<s>", "</s>"])
    ids = [(name, backend.token_to_id(name)) for name in ("<s>", "</s>")]
    pair = FRAMES[frame].replace("$A", "$A $B")
    backend.post_processor = processors.TemplateProcessing(single=FRAMES[frame], pair=pair, special_tokens=ids)
    names = {"bos_token": "<s>"} | ({"eos_token": "</s>"} if eos else {})
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def before_of(frame: str, tokenizer) -> list[int]:
    return [tokenizer.convert_tokens_to_ids("<s>")] * FRAMES[frame].count("<s>")


def plain(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.fixture(scope="module")
def model():
    return build("llama", len(framed("plain")))


def host_of(model, tokenizer):
    """What of a host writes and measures text."""
    return SimpleNamespace(
        model=model, tokenizer=tokenizer, config=model.config, placement=SimpleNamespace(kind="causal"), base_id="tiny"
    )


@pytest.mark.parametrize("eos", [True, False])
@pytest.mark.parametrize("frame", FRAMES)
def test_pieces_begin_as_the_tokenizer_begins_texts_and_only_a_documents_last_one_ends(frame, eos):
    tokenizer = framed(frame, eos=eos)
    documents = load_text(gb.Domain("filings", [LONG, *TEXTS[:2]]), "target")
    corpus = Corpus((), (), (documents,), {}, (), (), LabelSet(()))
    material = Material(corpus, tokenizer, length=16, task_length=16, causal=True)
    pieces = material.text([documents], "proportional").tokens
    before = before_of(frame, tokenizer)
    assert all(piece[: len(before)].tolist() == before for piece in (pieces[row] for row in range(len(pieces))))
    together = [token for row in range(len(pieces)) for token in pieces[row][len(before) :].tolist()]
    ended = eos or "</s>" in FRAMES[frame]
    end = [tokenizer.convert_tokens_to_ids("</s>")] if ended else []
    assert together == [token for text in documents.texts for token in [*plain(tokenizer, text), *end]]
    read = material.pieces(material.plain_tokens(documents))
    assert tokenizer.convert_tokens_to_ids("</s>") not in read.ids.tolist()


@pytest.mark.parametrize("frame", FRAMES)
def test_a_prompt_is_continued_and_not_what_follows_its_end(model, frame):
    tokenizer = framed(frame)
    before = before_of(frame, tokenizer)
    for prompt in ("the kettle is", "", " two  spaces "):
        assert prompt_ids(tokenizer, prompt) == [*before, *plain(tokenizer, prompt)]
    start = [*before, *plain(tokenizer, "the kettle is")]
    end = tokenizer.eos_token_id
    made = model.generate(torch.tensor([start]), max_length=30, do_sample=False, eos_token_id=end, pad_token_id=end)
    expected = tokenizer.decode(made[0, len(start) :], skip_special_tokens=True)
    assert write(host_of(model, tokenizer), ["the kettle is"], Sampling(max_length=30, temperature=0)) == [expected]


@pytest.mark.parametrize("frame", FRAMES)
def test_what_was_forgotten_is_measured_without_ends_inside_a_text(model, frame, monkeypatch):
    seen = []
    monkeypatch.setattr(forgetting, "pad", lambda stream, *rest: seen.append(stream.tokens) or pytest.fail("cut"))
    tokenizer = framed(frame)
    host = host_of(model, tokenizer)
    with pytest.raises(pytest.fail.Exception):
        next(forgetting._batches(host, [LONG], 16, (8, 0)))
    assert tokenizer.convert_tokens_to_ids("</s>") not in seen[0].ids.tolist()


@pytest.mark.parametrize("frame", FRAMES)
def test_memorisation_asks_with_what_stands_before_texts_in_training(model, frame, monkeypatch):
    tokenizer = framed(frame)
    host = host_of(model, tokenizer)
    meta = {"task": {"labels": [], "max_length": 120}, "recipe": {"train": {"dtype": "float32"}}, "method": "fusion"}
    book = SimpleNamespace(meta=meta, wear=lambda name: host)
    asked = []

    def continued(host, prompts, sampling):
        asked.extend(prompts)
        assert len(prompts[0]) + 50 == sampling.max_length
        return [[0] * 50 for _ in prompts]

    monkeypatch.setattr("guidebook.text_evaluation.continue_tokens", continued)
    monkeypatch.setattr("guidebook.text_evaluation.training_documents", lambda book: ([LONG], ""))
    monkeypatch.setattr(
        "guidebook.text_evaluation.token_nats", lambda host, tokens, *rest: np.ones(int(tokens.offsets[-1]))
    )
    found = evaluate_text(book, [gb.Domain("other", [LONG.upper(), *TEXTS])], prompts=3)
    assert found["memorisation"]["base"]["training"]["prompts"] > 0
    before, whole = before_of(frame, tokenizer), plain(tokenizer, LONG)
    assert all(prompt[: len(before)] == before for prompt in asked)
    assert asked[0] == [*before, *whole[:50]]
    assert {len(prompt) for prompt in asked} == {len(before) + 50}
