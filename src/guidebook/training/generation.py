"""Writing on from prompts, with the base's active adapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from guidebook.adapters.host import Host
from guidebook.data.tokens import prompt_ids
from guidebook.errors import InputError

Piece = Callable[[str], None]
AT_ONCE = 16
"""Prompts that are continued together."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Raises:
        InputError: a setting is outside its range.
    """

    max_length: int | None = None
    """Tokens of prompt and text together. Empty: 400, or what the base has positions for."""
    top_k: int = 250
    """Only the k likeliest tokens are drawn from; 0: all."""
    top_p: float = 0.8
    """Only the likeliest tokens that together have this probability are drawn from."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest token, without chance."""
    seed: int = 0
    """Fixes the draws: the same prompt gets the same text."""

    def __post_init__(self) -> None:
        for name, holds, expected in (
            ("max_length", self.max_length is None or self.max_length >= 2, "at least 2"),
            ("top_k", self.top_k >= 0, "0 or more"),
            ("top_p", 0 < self.top_p <= 1, "more than 0 and at most 1"),
            ("temperature", self.temperature >= 0, "0 or more"),
            ("seed", self.seed >= 0, "0 or more"),
        ):
            if not holds:
                raise InputError(f"{name} is {getattr(self, name)}, expected {expected}.")


def write(host: Host, prompts: Sequence[str], sampling: Sampling, on_text: Piece | None = None) -> list[str]:
    """Return what the model writes after each prompt, without the prompt.

    Args:
        host: A causal base with its adapters.
        prompts: Texts to go on from.
        sampling: How.
        on_text: Is called with every piece of text as soon as it is there, of one prompt after the other.

    Raises:
        InputError: not a causal base, or a prompt that leaves no room.
    """
    require_causal(host)
    tokenizer = host.tokenizer
    encoded = [prompt_ids(tokenizer, prompt) or [_start(tokenizer)] for prompt in prompts]
    written = []
    for ids in encoded:
        made = continue_tokens(host, [ids], sampling, on_text)[0]
        written.append(tokenizer.decode(made, skip_special_tokens=True))
    return written


@torch.no_grad()
def continue_tokens(
    host: Host, prompts: Sequence[Sequence[int]], sampling: Sampling, on_text: Piece | None = None
) -> list[list[int]]:
    """Return the tokens after each prompt; prompts of one length are continued together."""
    if not prompts:
        return []
    total = total_length(host, max(len(ids) for ids in prompts), sampling)
    found: list[list[int]] = [[] for _ in prompts]
    by_length: dict[int, list[int]] = {}
    for index, ids in enumerate(prompts):
        by_length.setdefault(len(ids), []).append(index)
    host.model.eval()
    device = next(host.model.parameters()).device
    for length, rows in by_length.items():
        for start in range(0, len(rows), AT_ONCE):
            chosen = rows[start : start + AT_ONCE]
            starts = torch.tensor([list(prompts[row]) for row in chosen], device=device)  # (B, T)
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.manual_seed(sampling.seed)
                model: Any = host.model
                out = model.generate(starts, **_settings(host, sampling, total, on_text))
            for row, made in zip(chosen, out[:, length:].tolist(), strict=True):
                found[row] = _until_end(made, host.tokenizer.eos_token_id)
    return found


def total_length(host: Host, prompt: int, sampling: Sampling) -> int:
    """Return how many tokens prompt and text may have.

    Raises:
        InputError: more than the base has positions, or no more than the prompt has.
    """
    positions = getattr(host.config, "max_position_embeddings", None)
    wanted = sampling.max_length or min(400, positions or 400)
    if positions and wanted > positions:
        raise InputError(f"max_length is {wanted}, but {host.base_id} has {positions} positions. Ask for no more.")
    if wanted <= prompt:
        raise InputError(f"A prompt of {prompt} tokens leaves no room within max_length {wanted}. Raise max_length.")
    return wanted


def require_causal(host: Host) -> None:
    """Raise InputError if the base fills gaps instead of writing on."""
    if host.placement.kind != "causal":
        raise InputError(
            f"{host.base_id} ({host.config.model_type}) is not a causal language model: it does not write on from a "
            "prompt. Choose a decoder: GPT-J, GPT-2, GPT-NeoX, Llama, Mistral, Qwen, Gemma, Phi, OPT, OLMo."
        )


def _settings(host: Host, sampling: Sampling, total: int, on_text: Piece | None) -> dict[str, Any]:
    tokenizer = host.tokenizer
    end = tokenizer.eos_token_id
    settings: dict[str, Any] = {
        "max_length": total,
        "use_cache": True,
        "do_sample": sampling.temperature > 0,
        "eos_token_id": end,
        "pad_token_id": tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (end or 0),
    }
    if sampling.temperature > 0:
        settings |= {"top_k": sampling.top_k, "top_p": sampling.top_p, "temperature": sampling.temperature}
    if on_text is not None:
        settings["streamer"] = _streamer(tokenizer, on_text)
    return settings


def _streamer(tokenizer: Any, on_text: Piece) -> Any:
    """Return a transformers streamer that hands finished pieces of text to a function."""
    from transformers import TextStreamer

    class Pieces(TextStreamer):  # type: ignore[misc]
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            if text:
                on_text(text)

    return Pieces(tokenizer, skip_prompt=True, skip_special_tokens=True)


def _until_end(ids: list[int], end: int | None) -> list[int]:
    return ids[: ids.index(end)] if end in ids else ids


def _start(tokenizer: Any) -> int:
    found = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if found is None:
        raise InputError("An empty prompt, and the tokenizer has no token that begins a text. Give a prompt.")
    return int(found)
