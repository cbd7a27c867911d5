"""The batch plan is data: every batch of a stage, made before it starts.

Row ids per step are a pure function of lengths, mixture, budget and seed; masks of (seed, stage, step). Nothing is
drawn from the global random state, so a resumed run sees exactly what an undisturbed one sees.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from guidebook.data.batches import mix, padding_share, plan_epochs, plan_rows, plan_tokens
from guidebook.data.masking import mask_tokens
from guidebook.data.packing import plan_packed
from guidebook.data.spans import hide_spans
from guidebook.data.streams import Stream, seed_for
from guidebook.data.tokens import Specials, token_types
from guidebook.losses.contract import Reads
from guidebook.methods.stage import Stage
from guidebook.training.packing import may_pack, packed, packed_padding
from guidebook.training.settings import Training

DEFAULT_FUSE_TOKENS = 2_000_000
DEFAULT_FUSE_PASSES = 3


@dataclass(frozen=True)
class Input:
    """What a base wants to be fed."""

    specials: Specials
    causal: bool
    takes_token_types: bool
    model_type: str = ""
    decoder_start: int | None = None
    """Token that an encoder-decoder's decoder starts from; None for all others."""


@dataclass(frozen=True)
class Fed:
    """The rows of one view as a base reads them, and what it has to predict."""

    ids: Tensor
    """(B, T)"""
    mask: Tensor
    """(B, T)"""
    places: Tensor
    """(M,) flat positions in `answers` that are predicted."""
    goals: Tensor
    """(M,) token ids to predict there."""
    answers: Tensor
    """(B, D) what a decoder has to write; where there is no second side, `ids`."""
    answer_mask: Tensor
    """(B, D)"""


def pad(stream: Stream, rows: np.ndarray, width: int, fill: int) -> tuple[Tensor, Tensor]:
    """Return ids (B, T) padded on the right with `fill`, and the boolean attention mask (B, T)."""
    ids = np.full((len(rows), width), fill, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=bool)
    for place, row in enumerate(rows):
        values = stream.tokens[int(row)]
        ids[place, : len(values)] = values
        mask[place, : len(values)] = True
    return torch.from_numpy(ids), torch.from_numpy(mask)


def inputs_of(
    ids: Tensor, mask: Tensor, feed: Input, answers: tuple[Tensor, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return what a base's forward takes: ids, mask and, where the family has them, token types, each (B, T).

    An encoder-decoder also takes what its decoder has to write, `answers` (B, D) and their mask, one token later. Where
    nothing is to be written the decoder reads the row itself (Lewis et al. 2020, BART, section 3.1).
    """
    inputs = {"input_ids": ids, "attention_mask": mask.long()}
    if feed.decoder_start is not None:
        goals, goal_mask = answers or (ids, mask)
        start = torch.full_like(goals[:, :1], feed.decoder_start)
        inputs["decoder_input_ids"] = torch.cat([start, goals[:, :-1]], 1)
        inputs["decoder_attention_mask"] = goal_mask.long()
    if feed.takes_token_types:
        inputs["token_type_ids"] = torch.from_numpy(token_types(ids.numpy(), feed.specials.separator)).long()
    return inputs


def next_tokens(ids: Tensor, mask: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """Return flat positions (M,) whose next token is real, and those next tokens (M,); `first` offsets the rows."""
    follows = mask[:, :-1] & mask[:, 1:]
    follows = torch.nn.functional.pad(follows, (0, 1))  # (B, T), the last position predicts nothing
    positions = follows.flatten().nonzero().squeeze(1)
    return positions + first * ids.shape[1], ids.flatten()[positions + 1]


class StagePlan(Dataset[dict[str, Any]]):
    """A dataset whose items are whole batches: item `step * parts + part`.

    Rows are planned per stream, so all views of a stream hold the same rows; two losses that read a stream in the
    same way share the view, and its forward pass.
    """

    def __init__(self, stage: Stage, train: Training, seed: int, feed: Input, parts: int = 1) -> None:
        self.stage = stage
        self.parts = parts
        self._train = train
        self._seed = seed
        self._feed = feed
        self.views: dict[str, Reads] = {}
        self.of_loss: dict[str, list[str]] = {}
        for name, loss in stage.losses.items():
            self.of_loss[name] = [read.key for read in loss.reads]
            self.views.update({read.key: read for read in loss.reads})
        self.streams = _streams(self.views.values())
        first = next(iter(stage.losses.values()))
        self.primary = first.reads[0].stream.name
        self.length_in = first.length_in
        packable = feed.causal and self.length_in == "tokens" and may_pack(feed.model_type, stage)
        self.packs = packable and train.packing  # asked for last: a setting that is read is in the stage's key
        self.rows = self._plan()
        self._made: dict[tuple[int, tuple[str, ...]], dict[str, tuple[Fed, Tensor]]] = {}

    def _plan(self) -> dict[str, list[np.ndarray]]:
        """Return the row ids of every step for every stream; the first loss decides how many steps there are."""
        stream, train = self.streams[self.primary], self._train
        fixed = {read.stream.name: read.rows for read in self.views.values() if read.rows is not None}
        seed = seed_for(self._seed, "order", self.primary)
        if self.primary in fixed:
            lengths, rows = stream.tokens.lengths, fixed[self.primary]
            if self.length_in == "tokens":
                count = math.ceil(self.token_budget / (rows * float(lengths.mean())))
            else:
                count = math.ceil(train.task.epochs * len(lengths) / rows)
            steps = plan_rows(lengths, rows, count, seed)
        elif self.packs:
            steps = plan_packed(
                stream.tokens.lengths,
                stream.owner,
                stream.ratios,
                self.token_budget,
                width=train.max_length,
                tokens_per_batch=train.tokens_per_batch,
                seed=seed,
            )
        elif self.length_in == "tokens":
            budget = train.tokens_per_batch
            steps = plan_tokens(
                stream.tokens.lengths,
                stream.owner,
                stream.ratios,
                self.token_budget,
                tokens_per_batch=budget,
                seed=seed,
            )
        else:
            steps = plan_epochs(stream.tokens.lengths, train.task.epochs, train.task.rows_per_batch, seed)
        plans = {self.primary: steps}
        per_step = round(float(np.mean([len(rows) for rows in steps])))
        for name, other in self.streams.items():
            if name != self.primary:
                other_seed = seed_for(self._seed, "order", name)
                plans[name] = plan_rows(other.tokens.lengths, fixed.get(name, per_step), len(steps), other_seed)
        return plans

    @cached_property
    def token_budget(self) -> int:
        """Real tokens of a stage that is counted in tokens: as asked, or what three passes give up to two million."""
        fuse, stream = self._train.fuse, self.streams[self.primary]
        if fuse.tokens is not None:
            return fuse.tokens
        counts = np.bincount(stream.owner, weights=stream.tokens.lengths, minlength=len(stream.ratios))
        once = float(min(count / ratio for count, ratio in zip(counts, stream.ratios, strict=True) if ratio > 0))
        if fuse.epochs is not None:
            return max(1, round(fuse.epochs * once))
        return min(DEFAULT_FUSE_TOKENS, round(DEFAULT_FUSE_PASSES * once))

    @property
    def steps(self) -> int:
        """Number of optimiser steps."""
        return len(self.rows[self.primary])

    @cached_property
    def tokens(self) -> int:
        """Real (non-padding) tokens over all views and steps."""
        return sum(
            int(read.stream.tokens.lengths[rows].sum())
            for read in self.views.values()
            for rows in self.rows[read.stream.name]
        )

    @cached_property
    def step_tokens(self) -> list[int]:
        """Real tokens of every step over all views."""
        lengths = [(read.stream.tokens.lengths, self.rows[read.stream.name]) for read in self.views.values()]
        return [sum(int(of[rows[step]].sum()) for of, rows in lengths) for step in range(self.steps)]

    @cached_property
    def padding_share(self) -> float:
        """Share of the positions of the first stream's batches that are padding."""
        lengths, rows = self.streams[self.primary].tokens.lengths, self.rows[self.primary]
        return packed_padding(lengths, rows, self._train.max_length) if self.packs else padding_share(lengths, rows)

    def mix(self) -> dict[str, float]:
        """Return the share of the first stream's tokens that each domain has in the plan."""
        stream = self.streams[self.primary]
        shares = mix(stream.tokens.lengths, stream.owner, self.rows[self.primary])
        return {name: round(float(share), 4) for name, share in zip(stream.domains, shares, strict=True)}

    def __len__(self) -> int:
        return self.steps * self.parts

    def __getitem__(self, item: int) -> dict[str, Any]:
        if item >= len(self):
            raise IndexError(item)
        step, part = divmod(item, self.parts)
        return self.batch(step, part)

    def batch(self, step: int, part: int = 0) -> dict[str, Any]:
        """Return one part of one step: inputs, predicted positions, labels, and the scale of every loss."""
        own = {key: read for key, read in self.views.items() if read.how != "teacher"}
        lesson = {key: read for key, read in self.views.items() if read.how == "teacher"}
        batch = self._gathered(own, step, part)
        if lesson:
            batch["teacher"] = self._gathered(lesson, step, part)
        items = batch.pop("items") | batch.get("teacher", {}).pop("items", {})
        batch |= {
            "views": self.of_loss,
            "scale": {name: items[keys[0]][self.stage.losses[name].counts] for name, keys in self.of_loss.items()},
            "tokens": int(batch["inputs"]["attention_mask"].sum()),
        }
        return packed(batch, self._train.max_length, self._feed.specials.pad) if self.packs else batch

    def _gathered(self, views: Mapping[str, Reads], step: int, part: int) -> dict[str, Any]:
        """Return views as one padded batch, with the span of every view's rows and predicted positions."""
        chosen = {key: self.rows[read.stream.name][step] for key, read in views.items()}
        whole = self._whole(views, step)
        wide = max(view.answers.shape[1] for view, _ in whole.values())  # the decoder's width; elsewhere the rows' own
        width = max(wide, *(view.ids.shape[1] for view, _ in whole.values()))
        ids, masks, answers, positions, targets, labels, owner = [], [], [], [], [], [], []
        row_spans, pick_spans, items = {}, {}, {}
        row_count = pick_count = 0
        for key, rows in chosen.items():
            stream, (view, known) = views[key].stream, whole[key]
            kept = slice(*_share(len(rows), self.parts, part))
            counts = {"positions": len(view.goals), "labels": int((known >= 0).sum()), "rows": len(rows)}
            items[key] = {name: count / self.parts for name, count in counts.items()} | {"batches": 1}
            row, column = view.places // view.answers.shape[1], view.places % view.answers.shape[1]
            inside = (row >= kept.start) & (row < kept.stop)
            positions.append(((row - kept.start + row_count) * wide + column)[inside])
            targets.append(view.goals[inside])
            ids.append(view.ids[kept])
            masks.append(view.mask[kept])
            answers.append(tuple(_widened(part, wide) for part in (view.answers[kept], view.answer_mask[kept])))
            labels.append(known[kept])
            owner.append(torch.from_numpy(stream.owner[rows[kept]].astype(np.int64)))
            row_spans[key] = (row_count, row_count + len(ids[-1]))
            pick_spans[key] = (pick_count, pick_count + len(targets[-1]))
            row_count, pick_count = row_spans[key][1], pick_spans[key][1]
        return {
            "inputs": inputs_of(torch.cat(ids), torch.cat(masks), self._feed, _joined(answers)),
            "positions": torch.cat(positions),
            "targets": torch.cat(targets),
            "labels": _stacked(labels, width),
            "owner": torch.cat(owner),
            "rows": row_spans,
            "picks": pick_spans,
            "fraction": step / self.steps,
            "items": items,
        }

    def _whole(self, views: Mapping[str, Reads], step: int) -> dict[str, tuple[Fed, Tensor]]:
        """Return the rows of a whole step with their labels, per view: made once for all parts of the step."""
        key = (step, tuple(views))
        if key not in self._made:
            self._made = {known: made for known, made in self._made.items() if known[0] == step}
            chosen = {name: self.rows[read.stream.name][step] for name, read in views.items()}
            width = max(int(views[name].stream.tokens.lengths[rows].max()) for name, rows in chosen.items())
            fed = {name: self._fed(views[name], rows, width, step) for name, rows in chosen.items()}
            width = max(width, *(view.answers.shape[1] for view in fed.values()))
            labels = {name: views[name].stream.labels_of(rows, width) for name, rows in chosen.items()}
            self._made[key] = {name: (view, torch.from_numpy(labels[name])) for name, view in fed.items()}
        return self._made[key]

    def _fed(self, read: Reads, rows: np.ndarray, width: int, step: int) -> Fed:
        """Return the rows of a view, padded to a width, and what is predicted of them."""
        ids, mask = pad(read.stream, rows, width, self._feed.specials.pad)
        nothing = torch.zeros(0, dtype=torch.long)
        if read.how != "masked":
            return Fed(ids, mask, nothing, nothing, ids, mask)
        if self._feed.causal:
            return Fed(ids, mask, *next_tokens(ids, mask, first=0), ids, mask)
        seed, rate = seed_for(self._seed, "masks", read.key, step), self._train.fuse.mask_rate
        if self._feed.decoder_start is None:
            generator = torch.Generator().manual_seed(seed)
            ids, places, goals = mask_tokens(ids, mask, self._feed.specials, rate, generator=generator)
            return Fed(ids, mask, places, goals, ids, mask)
        hidden = hide_spans(ids, mask, self._feed.specials, rate, generator=np.random.default_rng(seed))
        ids, mask, answers, answer_mask = hidden
        places = answer_mask.flatten().nonzero().squeeze(1)
        return Fed(_widened(ids, width), _widened(mask, width), places, answers.flatten()[places], answers, answer_mask)


def _stacked(labels: list[Tensor], width: int) -> Tensor:
    """Return the labels of all views, one after the other: (B,), or (B, T) if those of any view are per token."""
    if all(part.dim() == 1 for part in labels):
        return torch.cat(labels)
    return torch.cat([part if part.dim() == 2 else torch.full((len(part), width), -1) for part in labels])


def _streams(reads: Iterable[Reads]) -> dict[str, Stream]:
    """Return the streams of a stage by name.

    Raises:
        ValueError: two streams share a name, or two losses want different numbers of rows of one stream.
    """
    found: dict[str, Stream] = {}
    fixed: dict[str, int | None] = {}
    for read in reads:
        name = read.stream.name
        known = found.setdefault(name, read.stream)
        if known is not read.stream and known.fingerprint != read.stream.fingerprint:
            raise ValueError(f"two different streams of a stage are named {name!r}")
        if fixed.setdefault(name, read.rows) != read.rows:
            raise ValueError(f"the stream {name!r} is read with {fixed[name]} and with {read.rows} rows per step")
    return found


def _widened(values: Tensor, width: int) -> Tensor:
    """Return (B, T) values padded on the right to (B, width); what is padding is never attended."""
    return torch.nn.functional.pad(values, (0, width - values.shape[1]))


def _joined(pairs: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, Tensor]:
    ids, masks = zip(*pairs, strict=True)
    return torch.cat(ids), torch.cat(masks)


def _share(rows: int, parts: int, part: int) -> tuple[int, int]:
    """Return the first and last row of a part, parts as equal as can be."""
    return math.floor(rows * part / parts), math.floor(rows * (part + 1) / parts)
