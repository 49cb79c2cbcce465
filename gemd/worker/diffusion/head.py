"""From hidden states to what the sampler reads.

Logits of a canvas over Gemma's vocabulary are 268 MB in float32; softmax, entropy, drawing and
self-conditioning on the whole of them take seven times as much, and are moved again and again. Here
one canvas's logits lie in one buffer that all canvases use in turn, and everything else happens in
slices of the vocabulary. The table of embeddings, 1.5 GB, is read twice for a canvas and no more:
once for the logits, once for the mixture of embeddings that conditions the next step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from gemd.worker.diffusion.sampler import Reading

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

SLICE: Final = 16_384
"""Tokens of a slice. Smaller ones save scratch, 17 MB for each array, and cost launches."""
FEW_ROWS: Final = 16
"""Positions at a time where a whole row of the vocabulary has to be sorted, or a slice for each
position be gathered."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Which tokens may be drawn; all of them where nothing is set.

    Attributes:
        top_k: Among so many likeliest; 0 for all.
        top_p: Among the likeliest that together have this probability.
        min_p: No token less likely than this share of the likeliest.

    """

    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    @property
    def any(self) -> bool:
        """Whether anything is filtered."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0


@dataclass(frozen=True, slots=True, eq=False)
class Bias:
    """What is added to the logits of some tokens.

    Attributes:
        tokens: Ids, ascending; shape (biased,).
        values: Shape (biased,).

    """

    tokens: NDArray[np.int64]
    values: NDArray[np.float32]

    @classmethod
    def of(cls, by_token: Mapping[int, float]) -> Bias | None:
        """From a value for each token; None where there is none."""
        if not by_token:
            return None
        tokens = sorted(by_token)
        values = [by_token[token] for token in tokens]
        return cls(np.array(tokens, dtype=np.int64), np.array(values, dtype=np.float32))


@dataclass(frozen=True, slots=True)
class Wish:
    """How one canvas's logits are read.

    Attributes:
        temperature: Of this step, above 0.
        uniforms: What tokens are drawn with; shape (canvas,).
        fixed: Positions that are given; shape (canvas,).
        tokens: What stands on the canvas; shape (canvas,).
        filters: Of the tokens drawn.
        bias: Of the logits.

    """

    temperature: float
    uniforms: NDArray[np.float32]
    fixed: NDArray[np.bool_]
    tokens: NDArray[np.int64]
    filters: Filters = Filters()
    bias: Bias | None = None


class Head:
    """Reads hidden states.

    Args:
        embedding: The tied table; shape (vocabulary, hidden).
        scale: What embeddings are multiplied with, in the table's type.
        softcap: Logits are bent to stay within plus and minus this.
        canvas_tokens: The most positions of a canvas.

    """

    def __init__(
        self, embedding: torch.Tensor, scale: torch.Tensor, softcap: float, *, canvas_tokens: int
    ) -> None:
        self._embedding = embedding
        self._scale = scale
        self._softcap = softcap
        size = (canvas_tokens, embedding.shape[0])
        self._logits = torch.empty(size, device=embedding.device)
        width = min(SLICE, embedding.shape[0])
        self._work = torch.empty((2, canvas_tokens, width), device=embedding.device)

    @property
    def room(self) -> torch.Tensor:
        """Where logits are kept, for another reader to use in between; float32."""
        return self._logits

    def read(
        self, hidden: torch.Tensor, wishes: Sequence[Wish]
    ) -> tuple[list[Reading], torch.Tensor]:
        """What the sampler needs of each canvas, and what conditions the next step.

        Args:
            hidden: From `Stack.denoise`; shape (canvases, canvas, hidden).
            wishes: One for each canvas.

        Returns:
            Readings, on the host; and soft embeddings of the shape and type of `hidden`.

        """
        with torch.inference_mode():
            soft = torch.empty_like(hidden)
            columns = []
            for index, wish in enumerate(wishes):
                columns.append(self._canvas(hidden[index], wish, soft[index]))
            # The one wait for the device in a step.
            host = torch.stack(columns).cpu().numpy()
        return [reading_of(host[index]) for index in range(len(wishes))], soft

    def _canvas(self, hidden: torch.Tensor, wish: Wish, soft: torch.Tensor) -> torch.Tensor:
        """The six columns of a reading; shape (6, canvas)."""
        logits = self._logits[: hidden.shape[0]]
        raw, heated, top = self._fill(logits, hidden, wish)
        drawing = _Drawing(logits, heated, _least(logits, heated, wish))
        most = top.values[:, :1]
        raw_entropy, entropy = torch.zeros_like(raw.total), torch.zeros_like(raw.total)
        mixture = torch.zeros(
            soft.shape, dtype=torch.promote_types(soft.dtype, torch.float32), device=soft.device
        )
        for part in _slices(logits.shape[1]):
            slice_ = logits[:, part]
            surprise, chances = self._room(slice_)
            torch.sub(most, slice_, out=surprise)
            torch.neg(surprise, out=chances).exp_()
            raw_entropy += chances.mul_(surprise).sum(-1)
            surprise.div_(wish.temperature)
            torch.neg(surprise, out=chances).exp_()
            entropy += surprise.mul_(chances).sum(-1)
            drawing.observe(part, chances)
            weights = self._embedding[part]
            mixture += torch.matmul(chances.to(weights.dtype), weights)
        soft.copy_(mixture.div_(heated.total[:, None]))
        soft.mul_(self._scale)
        self._give(wish, soft)
        uniforms = _sent(wish.uniforms, hidden.device)
        confidence = raw.total.reciprocal()
        return torch.stack(
            (
                top.tokens[:, 0].float(),
                drawing.tokens(uniforms).float(),
                entropy / heated.total + heated.total.log(),
                raw_entropy / raw.total + raw.total.log(),
                confidence,
                confidence * -(top.values[:, 1] - top.values[:, 0]).expm1(),
            )
        )

    def _fill(
        self, logits: torch.Tensor, hidden: torch.Tensor, wish: Wish
    ) -> tuple[_Sum, _Sum, _Top]:
        """Compute a canvas's logits, and what can be told of them as they come."""
        raw, heated = _Sum(hidden, 1.0), _Sum(hidden, wish.temperature)
        top = _Top(hidden)
        bias = None if wish.bias is None else _Placed(wish.bias, logits.device)
        for part in _slices(logits.shape[1]):
            slice_ = logits[:, part]
            # In the model's own type first, as the reference has it.
            slice_.copy_(torch.matmul(hidden, self._embedding[part].T))
            slice_.div_(self._softcap).tanh_().mul_(self._softcap)
            if bias is not None:
                bias.add(part, slice_)
            room, _ = self._room(slice_)
            best = top.observe(part, slice_, room)
            raw.observe(slice_, best, room)
            heated.observe(slice_, best, room)
        return raw, heated, top

    def _room(self, slice_: torch.Tensor) -> torch.Tensor:
        """Two arrays of a slice's shape to compute in; shape (2, rows, slice)."""
        return self._work[:, : slice_.shape[0], : slice_.shape[1]]

    def _give(self, wish: Wish, soft: torch.Tensor) -> None:
        """Fixed positions are no mixture: the next step is told what stands there."""
        if wish.fixed.any():
            where = _sent(np.flatnonzero(wish.fixed), soft.device)
            tokens = _sent(wish.tokens[wish.fixed], soft.device)
            soft[where] = self._embedding[tokens] * self._scale


class _Sum:
    """The sum of exponentials by row, slice by slice, in terms of the largest one.

    Logits are divided by the temperature only after the largest was taken from them: divided by a
    small one, they would be too large for float32 to tell them apart.

    Attributes:
        temperature: That logits are divided by.
        most: The largest logit; shape (rows,).
        total: The sum; shape (rows,).

    """

    def __init__(self, like: torch.Tensor, temperature: float) -> None:
        self.temperature = temperature
        self.most = torch.full((like.shape[0],), -math.inf, device=like.device)
        self.total = torch.zeros(like.shape[0], device=like.device)

    def observe(self, slice_: torch.Tensor, best: torch.Tensor, room: torch.Tensor) -> None:
        """Take in a slice and its largest values by row, with room for a copy of it."""
        most = torch.maximum(self.most, best)
        self.total *= ((self.most - most) / self.temperature).exp_()
        torch.sub(slice_, most[:, None], out=room).div_(self.temperature)
        self.total += room.exp_().sum(-1)
        self.most = most

    def parts(self, logits: torch.Tensor, rows: slice) -> torch.Tensor:
        """What logits of some rows add to the sum."""
        return logits.sub(self.most[rows, None]).div_(self.temperature).exp_()


class _Top:
    """The two largest values by row, slice by slice."""

    def __init__(self, like: torch.Tensor) -> None:
        rows = like.shape[0]
        self.values = torch.full((rows, 2), -math.inf, device=like.device)
        self.tokens = torch.zeros((rows, 2), dtype=torch.int64, device=like.device)

    def observe(self, part: slice, slice_: torch.Tensor, room: torch.Tensor) -> torch.Tensor:
        """Take in a slice, with room for a copy of it; its largest values by row."""
        first = slice_.max(-1)
        rest = room.copy_(slice_).scatter_(-1, first.indices[:, None], -math.inf).max(-1)
        values = torch.cat((self.values, first.values[:, None], rest.values[:, None]), -1)
        new = torch.stack((first.indices, rest.indices), -1) + part.start
        tokens = torch.cat((self.tokens, new), -1)
        # Stable: of equal values the earlier token stays, as `argmax` has it.
        order = values.sort(dim=-1, descending=True, stable=True).indices[:, :2]
        self.values, self.tokens = values.gather(-1, order), tokens.gather(-1, order)
        return first.values


class _Drawing:
    """Draws a token for each row by the inverse of the cumulative distribution.

    One number for each position decides: the draw is the same on every device, and costs no random
    numbers for a quarter of a million tokens. Sums of whole slices find the slice, and only one
    slice for each row is looked at token by token.

    Args:
        logits: Of the canvas; shape (rows, vocabulary).
        heated: Their sum at the temperature.
        least: By row the least logit that may be drawn; None for any.

    """

    def __init__(self, logits: torch.Tensor, heated: _Sum, least: torch.Tensor | None) -> None:
        self._logits, self._heated, self._least = logits, heated, least
        self._sums: list[torch.Tensor] = []

    def observe(self, part: slice, chances: torch.Tensor) -> None:
        """Take in what a slice adds to the sum."""
        if self._least is not None:
            chances = torch.where(self._logits[:, part] >= self._least[:, None], chances, 0.0)
        # A sum in float64 would make a copy of the whole slice in it first.
        self._sums.append(chances.sum(-1).double())

    def tokens(self, uniforms: torch.Tensor) -> torch.Tensor:
        """Token ids; shape (rows,)."""
        ends = torch.stack(self._sums, -1).cumsum(-1)
        wanted = uniforms[:, None] * ends[:, -1:]
        chosen = _found(ends, wanted)
        before = torch.where(chosen > 0, ends.gather(-1, (chosen - 1).clamp(min=0)), 0.0)
        wanted = wanted - before
        return torch.cat(
            [
                self._within(rows, chosen[rows], wanted[rows])
                for rows in _parts(len(wanted), FEW_ROWS)
            ]
        )

    def _within(self, rows: slice, chosen: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Tokens of the chosen slice of each row."""
        vocabulary = self._logits.shape[1]
        places = chosen * SLICE + torch.arange(min(SLICE, vocabulary), device=chosen.device)
        values = self._logits[rows].gather(-1, places.clamp(max=vocabulary - 1))
        chances = self._heated.parts(values, rows)
        allowed = places < vocabulary
        if self._least is not None:
            allowed &= values >= self._least[rows, None]
        within = torch.where(allowed, chances, 0.0).cumsum(-1, dtype=torch.float64)
        return places.gather(-1, _found(within, wanted))[:, 0].clamp_(max=vocabulary - 1)


def _found(cumulative: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """By row the first place whose sum is above what is wanted; never one that adds nothing."""
    total = cumulative[:, -1:]
    below = torch.nextafter(total, torch.zeros_like(total))
    found = torch.searchsorted(cumulative, torch.minimum(wanted, below).contiguous(), right=True)
    # Sums that are no numbers have no such place, and a wrong token is no reason to end a worker.
    return found.clamp_(max=cumulative.shape[-1] - 1)


class _Placed:
    """A bias on the device."""

    def __init__(self, bias: Bias, device: torch.device) -> None:
        self._bias = bias
        self._tokens, self._values = _sent(bias.tokens, device), _sent(bias.values, device)

    def add(self, part: slice, slice_: torch.Tensor) -> None:
        """Add what is meant for the tokens of a slice, all of them at once."""
        first, last = np.searchsorted(self._bias.tokens, (part.start, part.stop))
        if first < last:
            row = torch.zeros(slice_.shape[1], device=slice_.device)
            row[self._tokens[first:last] - part.start] = self._values[first:last]
            slice_ += row


def _sent(values: NDArray[Any], device: torch.device) -> torch.Tensor:
    """An array on the device, without a wait for what is under way there.

    Torch waits for the end of a copy to a GPU, and so for all before it, unless it is told not to.
    """
    there = torch.from_numpy(values)
    if device.type == "cuda":
        there = there.pin_memory()
    return there.to(device, non_blocking=True)


def _least(logits: torch.Tensor, heated: _Sum, wish: Wish) -> torch.Tensor | None:
    """By row the least logit that the filters let through; None where they let all."""
    filters = wish.filters
    if not filters.any:
        return None
    found = []
    for part in _parts(len(logits), FEW_ROWS):
        ordered = logits[part].sort(dim=-1, descending=True).values
        chances = heated.parts(ordered, part).div_(heated.total[part, None])
        keep = chances >= chances[:, :1] * filters.min_p
        keep &= chances.cumsum(-1) - chances < filters.top_p
        if filters.top_k:
            keep[:, filters.top_k :] = False
        found.append(torch.where(keep, ordered, math.inf).amin(-1))
    return torch.cat(found)


def _slices(vocabulary: int) -> Iterator[slice]:
    return _parts(vocabulary, SLICE)


def _parts(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def reading_of(columns: NDArray[np.float32]) -> Reading:
    """A reading from its six columns; shape (6, canvas)."""
    # Token ids are exact in float32: the vocabulary has fewer than 2**24.
    return Reading(
        likeliest=columns[0].astype(np.int64),
        drawn=columns[1].astype(np.int64),
        entropy=np.maximum(columns[2], 0.0),
        raw_entropy=np.maximum(columns[3], 0.0),
        confidence=columns[4],
        margin=columns[5],
    )
