"""How large the kernels' tiles are: starting points by architecture, and what was measured.

A tile of tokens should hold most experts' tokens at once, since weights are decoded anew for each
one. Deeper tiles and more stages keep more bytes on the way, until shared memory or registers run
out: an A100 and an H100 have 163 and 227 KB of it for a program, a desktop GPU 99 KB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

Kind = Literal["gate_up", "down", "linear"]


@dataclass(frozen=True, slots=True)
class Tile:
    """Of one kernel.

    Attributes:
        rows: Of weights.
        tokens: To multiply with.
        columns: At once, of weights and tokens; whole chunks of 64.
        warps: That compute a tile.
        stages: Of loads that are on the way.
        parts: Among which an expert's tokens are divided; 1 for a layer without experts.

    """

    rows: int
    tokens: int
    columns: int
    warps: int
    stages: int
    parts: int = 1


ARCHITECTURES: Final[dict[tuple[int, int], Tile]] = {
    (8, 0): Tile(64, 32, 128, warps=4, stages=4),
    (8, 6): Tile(64, 32, 128, warps=4, stages=3),
    (8, 9): Tile(64, 32, 128, warps=4, stages=3),
    (9, 0): Tile(64, 32, 128, warps=4, stages=3),
    (10, 0): Tile(64, 32, 128, warps=4, stages=4),
    (12, 0): Tile(64, 32, 128, warps=4, stages=3),
}
"""For a canvas of 256 tokens, by compute capability: a guess from what the compiler makes of it,
which `tune` corrects. Others take the nearest one below."""

INTERPRETED: Final = Tile(128, 32, 128, warps=4, stages=1)
"""For the interpreter, which takes its time by the number of programs and not by their size."""

_LEAST_TOKENS: Final = 16
_MOST_TOKENS: Final = 64
_ROOM: Final = 1.5
"""Random routing gives an expert half as many tokens again as it gives on average, or fewer, in
nine of ten cases at 16 on average."""


def bucket(pairs: int, groups: int) -> int:
    """Tokens of an expert on average, rounded up to a power of two; groups are the experts."""
    return 1 << max(0, -(-pairs // groups) - 1).bit_length()


def tile_for(capability: tuple[int, int] | None, size: int) -> Tile:
    """Where to start.

    Args:
        capability: Of the GPU; None for the interpreter.
        size: As `bucket` gives it.

    """
    if capability is None:
        return INTERPRETED
    known = [one for one in ARCHITECTURES if one <= capability]
    base = ARCHITECTURES[max(known, default=min(ARCHITECTURES))]
    tokens = min(_MOST_TOKENS, max(_LEAST_TOKENS, bucket(int(size * _ROOM), 1)))
    # Beyond that, tiles of one expert are spread over programs instead of made larger.
    parts = max(1, min(8, size // (2 * _MOST_TOKENS)))
    return Tile(base.rows, tokens, base.columns, base.warps, base.stages, parts)


def candidates(start: Tile, size: int) -> Iterable[Tile]:
    """Tiles worth a measurement, the most promising first; `start` is the first."""
    seen = set()
    near = sorted(
        {start.tokens, _LEAST_TOKENS, max(_LEAST_TOKENS, min(_MOST_TOKENS, size)), 2 * start.tokens}
    )
    shapes = (
        (start.rows, start.columns, start.warps, start.stages),
        (start.rows, start.columns, start.warps, start.stages + 1),
        (start.rows, start.columns // 2, start.warps, start.stages + 2),
        (2 * start.rows, start.columns, 2 * start.warps, start.stages),
        (2 * start.rows, start.columns // 2, start.warps, start.stages),
        (2 * start.rows, start.columns // 2, start.warps, start.stages + 1),
        (start.rows, 2 * start.columns, start.warps, max(2, start.stages - 1)),
        (start.rows, start.columns, 2 * start.warps, start.stages),
    )
    by_tokens = [start.tokens, *(tokens for tokens in near if tokens != start.tokens)]
    for tokens in by_tokens:
        for rows, columns, warps, stages in shapes:
            tile = Tile(rows, tokens, columns, warps, stages, start.parts)
            if tile not in seen:
                seen.add(tile)
                yield tile
