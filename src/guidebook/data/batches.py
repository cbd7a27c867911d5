"""The plan: which rows every optimiser step reads, a pure function of lengths, mixture, budget and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from guidebook.errors import InputError, nearest

Plan = list[np.ndarray]
"""Row ids of each optimiser step."""

JITTER = 0.04  # lengths are stretched by up to this share before they are sorted, so that batches differ between passes
MIXTURES = ("proportional", "equal", "temperature")


def plan_epochs(lengths: np.ndarray, epochs: float, rows_per_batch: int, seed: int, *, pool: int = 2048) -> Plan:
    """Return batches that read every row exactly once per epoch; a fraction of an epoch is that share of its batches.

    Rows of similar length stand together, picked from shuffled pools of about `pool` rows; batches differ by at most
    one row in size and come in random order. There is always at least one batch.
    """
    lengths = np.asarray(lengths)
    if rows_per_batch < 1 or epochs < 0:
        raise InputError(
            f"{epochs} epochs of {rows_per_batch} rows per batch cannot be planned. Give positive numbers."
        )
    if len(lengths) == 0:
        return []
    batches = -(-len(lengths) // rows_per_batch)
    bounds = np.arange(batches + 1) * len(lengths) // batches
    in_pool = np.searchsorted(bounds[:: max(pool // rows_per_batch, 1)], np.arange(len(lengths)), side="right")
    plan: Plan = []
    for epoch in range(int(np.ceil(epochs))):
        rng = np.random.default_rng((seed, epoch))
        order = rng.permutation(len(lengths))
        order = order[np.lexsort((_jittered(lengths[order], rng), in_pool))]
        kept = max(round(min(epochs - epoch, 1) * batches), 0 if plan else 1)  # a stage has at least one step
        plan += [order[bounds[batch] : bounds[batch + 1]] for batch in rng.permutation(batches)[:kept]]
    return plan


def plan_tokens(
    lengths: np.ndarray,
    owner: np.ndarray,
    ratios: np.ndarray,
    tokens: int,
    *,
    tokens_per_batch: int,
    seed: int,
    pool: int = 2048,
) -> Plan:
    """Return batches until `tokens` real tokens are planned, each domain with its share of them.

    Every domain goes through its rows in shuffled passes, so that how often its rows are read differs by at most one,
    and stops within one row of its share; the domains advance side by side. Batches are cut from pools of up to `pool`
    rows, which hold no row twice, sorted by length.

    Args:
        lengths: (N,) tokens of each row, special tokens included.
        owner: (N,) domain of each row.
        ratios: (D,) share of the tokens of each domain.
        tokens: Real tokens to plan.
        tokens_per_batch: Rows times longest row of a batch is at most this.
        seed: Decides the order.
        pool: Rows that are sorted by length together.

    Raises:
        InputError: a row is longer than a batch, or a domain with a share has no tokens.
    """
    lengths, ratios = np.asarray(lengths), np.asarray(ratios, dtype=np.float64)
    if len(lengths) and lengths.max() > tokens_per_batch:
        raise InputError(
            f"a row of {lengths.max()} tokens does not fit into a batch of {tokens_per_batch}. Raise "
            "train.tokens_per_batch, or lower train.max_length."
        )
    rows = draw(lengths, owner, ratios, tokens, seed)
    rng = np.random.default_rng((seed, len(ratios), 1))
    plan: Plan = []
    for group in _pools(rows, lengths, pool, tokens_per_batch):
        order = group[np.argsort(-_jittered(lengths[group], rng), kind="stable")]
        bounds = _cut(lengths[order], tokens_per_batch)
        plan += [order[bounds[batch] : bounds[batch + 1]] for batch in rng.permutation(len(bounds) - 1)]
    return plan


def draw(lengths: np.ndarray, owner: np.ndarray, ratios: np.ndarray, tokens: int, seed: int) -> np.ndarray:
    """Return rows until `tokens` real tokens are drawn, each domain with its share of them, side by side."""
    drawn = [
        _passes(np.flatnonzero(owner == domain), lengths, tokens * ratio / ratios.sum(), (seed, domain))
        for domain, ratio in enumerate(ratios)
        if ratio > 0
    ]
    rows = np.concatenate([rows for rows, _ in drawn]) if drawn else np.zeros(0, np.int64)
    when = [when for _, when in drawn]
    return np.asarray(rows[np.argsort(np.concatenate(when), kind="stable")]) if drawn else rows


def plan_rows(lengths: np.ndarray, rows_per_batch: int, steps: int, seed: int) -> Plan:
    """Return `steps` batches of exactly `rows_per_batch` rows from endless shuffled passes.

    No batch holds a row twice, unless there are fewer rows than a batch needs.
    """
    rows = len(lengths)
    if rows == 0 or rows_per_batch < 1:
        raise InputError(
            f"batches of {rows_per_batch} rows cannot be planned from {rows} rows. Give at least one of each."
        )
    needed = rows_per_batch * steps
    drawn = np.zeros(0, np.int64)
    passes = []
    for number in range(-(-needed // rows)):
        order = np.random.default_rng((seed, number)).permutation(rows)
        begun = number * rows % rows_per_batch  # rows of the last pass that share a batch with the first of this one
        repeated = np.isin(order, drawn[rows - begun :]) if 0 < begun < rows else np.zeros(rows, bool)
        drawn = np.concatenate([order[~repeated], order[repeated]])
        passes.append(drawn)
    together = np.concatenate([np.zeros(0, np.int64), *passes])[:needed]
    return list(together.reshape(steps, rows_per_batch))


def padding_share(lengths: np.ndarray, plan: Plan) -> float:
    """Return the share of padding among all tokens of the plan's batches, in [0, 1).

    >>> padding_share(np.array([4, 2]), [np.array([0, 1])])
    0.25
    """
    lengths = np.asarray(lengths)
    padded = sum(len(rows) * int(lengths[rows].max()) for rows in plan if len(rows))
    return 1 - sum(int(lengths[rows].sum()) for rows in plan) / padded if padded else 0.0


def mix(lengths: np.ndarray, owner: np.ndarray, plan: Plan, *, domains: int = 0) -> np.ndarray:
    """Return the share of the plan's real tokens that each domain has, (D,), for at least `domains` domains."""
    domains = max(domains, int(np.max(owner, initial=-1)) + 1)
    rows = np.concatenate([np.zeros(0, np.int64), *plan])
    counts = np.bincount(owner[rows], weights=np.asarray(lengths)[rows], minlength=domains)
    return np.asarray(counts / max(counts.sum(), 1))


def mixture_ratios(
    counts: Sequence[int] | np.ndarray, mixture: str | Mapping[str, float], names: Sequence[str] = ()
) -> np.ndarray:
    """Return the share of tokens (D,) that each domain is given; domains without tokens get none.

    Args:
        counts: (D,) tokens that each domain has.
        mixture: "proportional" to the tokens, "equal", "temperature:t" (proportional to tokens ** t: 1 is
            proportional, 0 is equal), or domain name -> share.
        names: (D,) names of the domains, for a mapping.

    Raises:
        InputError: an unknown mixture or name, a missing or negative share.

    >>> mixture_ratios([900, 100], "temperature:0.5").tolist()
    [0.75, 0.25]
    """
    tokens = np.asarray(counts, dtype=np.float64)
    shares = _declared_shares(mixture, names) if isinstance(mixture, Mapping) else tokens ** _exponent(mixture)
    shares = np.where(tokens > 0, shares, 0.0)
    if not shares.sum() > 0:
        raise InputError(f"the mixture {mixture!r} leaves no text: no domain has both tokens and a share. Correct it.")
    return np.asarray(shares / shares.sum())


def _exponent(mixture: str) -> float:
    name, _, number = mixture.partition(":")
    if mixture in ("proportional", "equal"):
        return float(mixture == "proportional")
    try:
        if name == "temperature" and 0 <= float(number) < np.inf:
            return float(number)
    except ValueError:
        pass
    raise InputError(
        f"unknown mixture {mixture!r}.{nearest(name, MIXTURES)} Expected proportional, equal, temperature:0.5 or a "
        "mapping of domain names to shares."
    )


def _declared_shares(mixture: Mapping[str, float], names: Sequence[str]) -> np.ndarray:
    for name, share in mixture.items():
        if name not in names:
            raise InputError(f"mixture: unknown domain {name!r}.{nearest(name, names)} Known: {', '.join(names)}.")
        if not isinstance(share, int | float) or not 0 <= share < np.inf:
            raise InputError(
                f"mixture: the share of {name!r} is {share!r}, expected a number of 0 or more. Correct it."
            )
    missing = [name for name in names if name not in mixture]
    if missing:
        raise InputError(f"mixture: no share for {', '.join(missing)}. Give one for each domain; 0 leaves it out.")
    return np.array([mixture[name] for name in names], dtype=np.float64)


def _jittered(lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.asarray((lengths + 1) * (1 + JITTER * (rng.random(len(lengths)) - 0.5)))


def _passes(
    rows: np.ndarray, lengths: np.ndarray, quota: float, seed: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of one domain in shuffled passes until they hold `quota` tokens, and when in [0, 1) each is due."""
    total = int(lengths[rows].sum())
    if total == 0:
        raise InputError(
            f"domain {seed[1]} is given a share of the tokens but has no text. Leave it out of the mixture."
        )
    rng = np.random.default_rng(seed)
    passes = [rng.permutation(rows)]
    while len(passes) <= quota // total:
        # A row moves by less than half a pass, so it does not come again before half of the others have.
        place = np.arange(len(rows)) + rng.random(len(rows)) * len(rows) / 2
        passes.append(passes[-1][np.argsort(place)])
    drawn = np.concatenate(passes)
    before = np.cumsum(lengths[drawn]) - lengths[drawn]
    count = int(np.searchsorted(before, quota - 1e-6))  # rows that start before the quota is reached
    # Rounded, so that passes of domains that end together are not torn apart by the last bit.
    return drawn[:count], np.round(before[:count] / max(quota, 1), 9)


def _pools(rows: np.ndarray, lengths: np.ndarray, pool: int, tokens_per_batch: int) -> list[np.ndarray]:
    """Return the rows in pools of up to `pool`; a pool ends before a row repeats, once it fills a batch."""
    order = np.argsort(rows, kind="stable")
    previous = np.full(len(rows), -1)
    same = rows[order][1:] == rows[order][:-1]
    previous[order[1:][same]] = order[:-1][same]  # position at which the same row stood before
    pools, start = [], 0
    while start < len(rows):
        stop = min(start + pool, len(rows))
        repeated = previous[start:stop] >= start
        repeated &= np.cumsum(lengths[rows[start:stop]]) > tokens_per_batch
        stop = start + int(repeated.argmax()) if repeated.any() else stop
        pools.append(rows[start:stop])
        start = stop
    return pools


def _cut(lengths: np.ndarray, budget: int) -> list[int]:
    """Return bounds of consecutive batches, each as long as rows * longest row <= budget allows; the last two share."""
    bounds = [0]
    while bounds[-1] < len(lengths):
        start = bounds[-1]
        longest = np.maximum.accumulate(lengths[start : start + budget // max(int(lengths[start]), 1)])
        fits = longest * np.arange(1, len(longest) + 1) <= budget
        bounds.append(start + (int(fits.argmin()) if not fits.all() else len(fits)))
    if len(bounds) > 2:  # a batch of a few left-over rows would weigh as much as a full one
        middle = (bounds[-3] + bounds[-1] + 1) // 2
        if lengths[middle:].max() * (bounds[-1] - middle) <= budget:
            bounds[-2] = min(middle, bounds[-2])
    return bounds
