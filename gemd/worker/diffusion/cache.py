"""Keys and values of the prompts and of the canvases that were committed.

A slot belongs to one answer, or keeps what the last one left for the next turn of its
conversation. Layers with a sliding window hold the window and a little more; layers that attend
to everything hold the whole context. Behind what a slot holds there is room for one canvas, whose
keys and values are written there at each step and attended to in place: nothing is concatenated,
where transformers' cache copies every layer at every step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

WORTH_COPYING = 16
"""Shared tokens below which a prompt gains nothing by a copy: they cost no pass of their own."""
SLACK = 256
"""Tokens that windows hold beyond what is attended to. A conversation's next turn often differs
from what was encoded by the few tokens that opened the answer, and can be cut back to there."""


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Of one layer.

    Attributes:
        heads: Of keys and values.
        width: Of a head.
        window: Tokens that a query sees, itself included; None for all.

    """

    heads: int
    width: int
    window: int | None


@dataclass(slots=True)
class Held:
    """What a slot holds.

    Attributes:
        tokens: Those whose keys and values are there.
        windowed: How many of the last of them windowed layers hold.

    """

    tokens: list[int] = field(default_factory=list)
    windowed: int = 0


def reusable(held: Held, prompt: Sequence[int], *, keep: int) -> int:
    """How many of a prompt's first tokens a slot can stand in for.

    Windowed layers can only be cut back as far as they still hold a whole window before the cut
    (or everything that there ever was).

    Args:
        held: What the slot holds.
        prompt: The tokens wanted.
        keep: Tokens before a query that a window needs: its size less one.

    """
    common = 0
    for ours, theirs in zip(held.tokens, prompt, strict=False):
        if ours != theirs:
            break
        common += 1
    first = len(held.tokens) - held.windowed
    return common if first == 0 or common - first >= keep else 0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a prompt goes.

    Attributes:
        slot: That will hold it.
        source: Whose first tokens it shares; may be the same.
        kept: How many of them.

    """

    slot: int
    source: int
    kept: int


def place(
    prompt: Sequence[int],
    held: Sequence[Held],
    *,
    free: Collection[int],
    last_used: Sequence[float],
    keep: int,
) -> Place:
    """The best place for a prompt.

    A slot that the prompt wholly continues is taken over. Of one that shares only its beginning
    that is copied into another, so that the longer history is there for its own next turn. Empty
    slots go first, then the longest unused.

    Args:
        prompt: Token ids.
        held: By slot.
        free: Slots that no answer has; at least one.
        last_used: By slot, when its last answer ended, in any unit that grows.
        keep: See `reusable`.

    """
    shared = [reusable(each, prompt, keep=keep) for each in held]
    best = max(range(len(held)), key=lambda slot: (shared[slot], slot in free, last_used[slot]))
    if best in free and len(held[best].tokens) - shared[best] < WORTH_COPYING:
        return Place(best, best, shared[best])
    oldest = min(
        (slot for slot in free if slot != best),
        key=lambda slot: (bool(held[slot].tokens), last_used[slot]),
        default=best,
    )
    # A prompt that is there as a whole spares a pass over the weights, however short it is.
    if shared[best] == len(prompt) or shared[best] - shared[oldest] >= WORTH_COPYING:
        return Place(oldest, best, shared[best])
    return Place(oldest, oldest, shared[oldest])


class Slots:
    """The memory of all slots, allocated once.

    Args:
        layers: Shapes, in order.
        count: Slots.
        context_tokens: The most tokens that a slot holds.
        canvas_tokens: Of a canvas.
        dtype: Of keys and values.
        device: Where.

    """

    def __init__(
        self,
        layers: Sequence[LayerShape],
        *,
        count: int,
        context_tokens: int,
        canvas_tokens: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._layers = tuple(layers)
        self.context_tokens = context_tokens
        self.held = [Held() for _ in range(count)]
        windows = [layer.window for layer in layers if layer.window is not None]
        assert len(set(windows)) <= 1, "one window size is all that the model family has"
        self.window_keep = max(windows, default=1) - 1
        """Tokens before a query that its window reaches."""
        self._windowed_most = min(context_tokens, self.window_keep + SLACK)
        self._buffers = [
            torch.zeros(
                (
                    2,
                    count,
                    layer.heads,
                    (context_tokens if layer.window is None else self._windowed_most)
                    + canvas_tokens,
                    layer.width,
                ),
                dtype=dtype,
                device=device,
            )
            for layer in layers
        ]

    @property
    def nbytes(self) -> int:
        """Of all buffers."""
        return sum(buffer.nbytes for buffer in self._buffers)

    def layer(self, index: int) -> torch.Tensor:
        """Keys and values of a layer; shape (2, slots, heads, capacity, width)."""
        return self._buffers[index]

    def extents(self, slot: int) -> tuple[int, int, int]:
        """What a canvas goes on from.

        Returns:
            Tokens that the slot holds, those that layers with a window hold, and the first of
            these that the canvas sees.

        """
        held = self.held[slot]
        return len(held.tokens), held.windowed, max(0, held.windowed - self.window_keep)

    def length(self, slot: int) -> int:
        """Tokens that a slot holds."""
        return len(self.held[slot].tokens)

    def with_canvas(
        self, layer: int, slot: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What a canvas attends to, its own keys and values at the end.

        Args:
            layer: Of the model.
            slot: That the canvas goes on from.
            keys: Of the canvas; shape (heads, canvas, width).
            values: Likewise.

        Returns:
            Views of shape (1, heads, reach + canvas, width), overwritten by the next step.

        """
        shape, buffer, held = self._layers[layer], self._buffers[layer], self.held[slot]
        stored = len(held.tokens) if shape.window is None else held.windowed
        first = 0 if shape.window is None else max(0, stored - self.window_keep)
        end = stored + keys.shape[1]
        buffer[0, slot, :, stored:end] = keys
        buffer[1, slot, :, stored:end] = values
        return buffer[0, slot : slot + 1, :, first:end], buffer[1, slot : slot + 1, :, first:end]

    def extend(
        self, layer: int, slot: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the keys and values of the next tokens; `advance` follows after the last layer.

        Args:
            layer: Of the model.
            slot: That goes on.
            keys: Of the new tokens; shape (heads, tokens, width).
            values: Likewise.

        Returns:
            What they attend to, themselves at the end: shape (1, heads, stored + tokens, width).

        """
        shape, buffer, held = self._layers[layer], self._buffers[layer], self.held[slot]
        if shape.window is None:
            stored = len(held.tokens)
            end = stored + keys.shape[1]
            buffer[0, slot, :, stored:end] = keys
            buffer[1, slot, :, stored:end] = values
            return buffer[0, slot : slot + 1, :, :end], buffer[1, slot : slot + 1, :, :end]
        stored = held.windowed
        seen = [
            torch.cat((buffer[part, slot, :, :stored], new), dim=1)
            for part, new in enumerate((keys, values))
        ]
        kept = min(self._windowed_most, seen[0].shape[1])
        for part, both in enumerate(seen):
            buffer[part, slot, :, :kept] = both[:, -kept:]
        return seen[0][None], seen[1][None]

    def advance(self, slot: int, tokens: Sequence[int]) -> None:
        """The tokens that `extend` has stored in every layer."""
        held = self.held[slot]
        held.tokens.extend(tokens)
        held.windowed = min(self._windowed_most, held.windowed + len(tokens))

    def cut(self, slot: int, length: int) -> None:
        """Forget all but the first tokens; see `reusable` for how far that can go."""
        held = self.held[slot]
        gone = len(held.tokens) - length
        assert 0 <= gone <= held.windowed or length == 0
        del held.tokens[length:]
        held.windowed = max(0, held.windowed - gone) if length else 0

    def copy(self, source: int, target: int, length: int) -> None:
        """Let another slot hold the first tokens; see `reusable` for how many they may be."""
        held = self.held[source]
        windowed = held.windowed - (len(held.tokens) - length)
        assert 0 <= windowed <= length
        for shape, buffer in zip(self._layers, self._buffers, strict=True):
            stored = length if shape.window is None else windowed
            buffer[:, target, :, :stored] = buffer[:, source, :, :stored]
        self.held[target] = Held(held.tokens[:length], windowed)
