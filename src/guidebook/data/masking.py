"""Masked tokens of a batch: what is hidden, where, and what stood there."""

from __future__ import annotations

import torch
from torch import Tensor

from guidebook.data.tokens import Specials, require_mask

MASKED, RANDOM = 0.8, 0.1  # the rest keeps its token


def mask_tokens(
    ids: Tensor, attention: Tensor, specials: Specials, rate: float, *, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the corrupted batch, the masked places and the tokens that stood there.

    Each token is chosen with probability `rate`; of those chosen 80 % become the mask token, 10 % a random token, 10 %
    stay. Special and padding tokens are never chosen, and never drawn as random tokens. At least one token is chosen if
    any may be. The draws are made on the generator's device, so that a CPU generator gives the same masks everywhere.

    Args:
        ids: (B, T) token ids.
        attention: (B, T) True where there is text.
        specials: The tokenizer's special tokens.
        rate: Share of the tokens to choose, in (0, 1].
        generator: All randomness comes from it.

    Returns:
        corrupted (B, T), places (M,) flat indices into B * T in rising order, targets (M,).

    Raises:
        InputError: the tokenizer has no mask token.

    Reference:
        Devlin et al. 2019, BERT, section 3.1 and appendix A.1.
    """
    mask = require_mask(specials)
    special = torch.tensor(sorted(specials.ids), dtype=ids.dtype, device=ids.device)
    allowed = attention.bool() & ~torch.isin(ids, special)  # (B, T)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=generator.device).to(ids.device)

    chosen = allowed & (draw(*ids.shape) < rate)
    places = chosen.flatten().nonzero().flatten()  # (M,)
    if len(places) == 0:
        possible = allowed.flatten().nonzero().flatten()
        places = possible[(draw(1) * len(possible)).long()] if len(possible) else places
    targets = ids.flatten()[places]
    fate = draw(len(places))
    drawn = _ordinary(draw(len(places)), specials).to(ids.dtype)
    changed = torch.where(fate < MASKED, torch.full_like(targets, mask), targets)
    changed = torch.where((fate >= MASKED) & (fate < MASKED + RANDOM), drawn, changed)
    corrupted = ids.flatten().scatter(0, places, changed).view_as(ids)  # (B, T)
    return corrupted, places, targets


def _ordinary(uniform: Tensor, specials: Specials) -> Tensor:
    """Return token ids (M,) for numbers in [0, 1): all but the special ones are equally likely."""
    special = torch.tensor(sorted(token for token in specials.ids if 0 <= token < specials.vocabulary))
    # The k-th special token s is passed over by every draw of at least s - k.
    passed = (special - torch.arange(len(special))).to(uniform.device)
    number = specials.vocabulary - len(special)
    index = (uniform.double() * number).long().clamp(max=number - 1)
    return index + torch.searchsorted(passed, index, right=True)
