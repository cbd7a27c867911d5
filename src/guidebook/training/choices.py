"""How likely a causal base finds each of a few answers after a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from guidebook.adapters.host import Host
from guidebook.data.tokens import read_specials
from guidebook.training.listener import Listener
from guidebook.training.store import code_digest, key_of
from guidebook.training.tap import Tap
from guidebook.training.trainer import chosen_dtype

if TYPE_CHECKING:
    from guidebook.training.engine import Engine

TOKENS_PER_BATCH = 4096
Pass = tuple[int, list[int], list[list[int]], int]
"""Prompt, input tokens, answers that end where the input ends, and the column of the first of them."""
MARK = "{text}"
CHAT_MARK = "guidebooktextguidebook"
"""Stands for the text while a chat template is filled in: nothing that a template could escape or strip."""


@dataclass(frozen=True)
class Question:
    """A prompt around a text, and the answers to it, as tokens."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    """One for every label, in their order."""
    room: int
    """Tokens that a text may have; what is longer is cut at its end."""

    def prompts(self, texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
        """Return the prompts around texts, as tokens."""
        encoded = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [[*self.before, *ids[: self.room], *self.after] for ids in encoded]


def question_for(tokenizer: Any, asked: str, completed: str, labels: Sequence[str], room: int) -> Question:
    """Return the question about a text's label for this tokenizer.

    Args:
        tokenizer: Of a causal base.
        asked: Prompt with {text} and, if wanted, {labels}: a user's turn, where there is a chat template.
        completed: The same for a base without one, which the answer continues.
        labels: Names of the classes.
        room: Tokens that a text may have.
    """
    names = ", ".join(labels)
    if getattr(tokenizer, "chat_template", None):
        turn = asked.replace("{labels}", names).replace(MARK, CHAT_MARK)
        chat = [{"role": "user", "content": turn}]
        whole = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        before, after = whole.split(CHAT_MARK)
        opening: list[int] = []
        space = ""
    else:
        before, after = completed.replace("{labels}", names).split(MARK)
        opening = list(read_specials(tokenizer).before)
        space = " "

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    answers = tuple(tuple(ids(space + label)) for label in labels)
    return Question((*opening, *ids(before)), tuple(ids(after)), answers, room)


def stored_answers(engine: Engine, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> np.ndarray:
    """Return what `answer_nats` says of the untouched base (N, C), from the store if it was asked before.

    Raises:
        InputError: a prompt is longer than the base has positions.
    """
    host, dtype = engine.host, engine.train.dtype
    host.check_length(max(map(len, prompts)) + max(map(len, answers)))

    def run() -> np.ndarray:
        with host.disabled():
            return answer_nats(host, prompts, answers, dtype, engine.listener)

    model = (host.fingerprint, chosen_dtype(dtype), code_digest(), "answers")
    return engine.store.array(key_of({"model": model, "prompts": prompts, "answers": answers}), run)


@torch.no_grad()
def answer_nats(
    host: Host,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    dtype: str = "auto",
    listener: Listener | None = None,
) -> np.ndarray:
    """Return the log-probability of every answer after every prompt, (N, C), in nats, by the host's active adapters.

    An answer of several tokens is as likely as all of them in a row. Where the first tokens of the answers differ they
    decide alone, which takes one pass over a prompt in place of one for every answer.

    Args:
        host: A causal base.
        prompts: N token sequences, special tokens included; none is empty.
        answers: C token sequences; none is empty.
        dtype: As in a recipe's train.dtype.
        listener: Hears of the progress.
    """
    firsts = [list(answer[:1]) for answer in answers]
    if len({first[0] for first in firsts}) == len(answers):
        passes = [(row, list(prompt), firsts, 0) for row, prompt in enumerate(prompts)]
    else:
        passes = [
            (row, [*prompt, *answer[:-1]], [list(answer)], column)
            for row, prompt in enumerate(prompts)
            for column, answer in enumerate(answers)
        ]
    passes.sort(key=lambda one: -len(one[1]))
    result = np.zeros((len(prompts), len(answers)))
    host.model.eval()
    if listener is not None:
        listener.start("zero-shot", len(passes))
    done = 0
    with Tap(host.lm_head) as tap:
        while done < len(passes):
            chosen = passes[done : done + max(1, TOKENS_PER_BATCH // len(passes[done][1]))]
            _add(result, chosen, host, tap, dtype)
            done += len(chosen)
            if listener is not None:
                listener.advance("zero-shot", done)
    if listener is not None:
        listener.finish("zero-shot")
    return result


def _add(result: np.ndarray, chosen: Sequence[Pass], host: Host, tap: Tap, dtype: str) -> None:
    """Add what one batch of passes says to (N, C); the first of them is the longest."""
    width = len(chosen[0][1])
    ids = torch.zeros(len(chosen), width, dtype=torch.long)  # (B, T); a causal model never looks at what pads a row
    mask = torch.zeros_like(ids)
    places: list[int] = []  # of every answer token its position in B * T,
    goals: list[int] = []  # the token,
    cells: list[tuple[int, int]] = []  # and (prompt, answer)
    for line, (row, tokens, answers, first_column) in enumerate(chosen):
        ids[line, : len(tokens)] = torch.tensor(tokens)
        mask[line, : len(tokens)] = 1
        for column, answer in enumerate(answers, first_column):
            begin = line * width + len(tokens) - len(answer)
            places += range(begin, begin + len(answer))
            goals += answer
            cells += [(row, column)] * len(answer)
    device = next(host.model.parameters()).device
    asked, where = np.unique(np.array(places, dtype=np.int64), return_inverse=True)
    inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
    with torch.autocast(device.type, torch.bfloat16, enabled=chosen_dtype(dtype) == "bfloat16"):
        logits = tap.run(host.model, inputs, torch.from_numpy(asked).to(device)).logits
    nats = logits.reshape(len(asked), -1).float().log_softmax(-1).cpu().numpy()  # (M, V)
    np.add.at(result, tuple(np.array(cells).T), nats[where, goals])
