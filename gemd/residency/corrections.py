"""What models were measured to take against what was predicted, and better predictions from that.

The most that a worker was seen to hold in its life counts, and of its latest lives the largest.
In main memory predictions only grow by it: pages are taken when they are touched first, so a
worker that never saw a long prompt has not shown what it can take. On a GPU weights, cells and
scratch are allocated while the model loads, so several lives that agree show that less is enough.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

import structlog

from gemd.hardware import RAM
from gemd.residency.states import ContextSize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gemd.residency.states import Located

log = structlog.get_logger(__name__)

REMEMBERED: Final = 5
"""Lives of a model whose measurements count."""
MOST: Final = 4.0
"""Beyond it a measurement is taken for a defect of the sensor."""
SHRINKS_AFTER: Final = 3
"""Whole lives of a model, before its prediction for a GPU gets smaller by them."""
LEAST: Final = 0.5
"""No prediction gets smaller than this part of it, whatever was measured."""
SHRUNK_ROOM: Final = 0.05
"""Of the prediction, what a smaller one leaves above what was measured: a pool grows a little."""
KEPT_MODELS: Final = 1000

Ratios = dict[str, dict[str, list[float]]]
"""Measured bytes to predicted ones, oldest first, by model file, then by device."""


class Corrections:
    """Keeps the ratios of measured to predicted sizes.

    Args:
        ratios: Of earlier runs.
        keep: Takes all of them when a prediction changes by them, or soon will.

    """

    def __init__(
        self, ratios: Ratios | None = None, *, keep: Callable[[Ratios], None] = lambda _: None
    ) -> None:
        self._ratios = {
            file: {device: deque(seen, maxlen=REMEMBERED) for device, seen in devices.items()}
            for file, devices in (ratios or {}).items()
        }
        self._keep = keep

    def corrected(self, located: Located) -> Located:
        """The same with sizes as they are to be expected by what was measured."""
        factors = self.factors(located.spec.model, PurePath(located.spec.load.path).name)
        return replace(
            located,
            estimate_bytes=_scaled(located.demand, factors)[RAM],
            elsewhere=_scaled(located.elsewhere, factors),
            smaller=tuple(
                ContextSize(size.tokens, _scaled(size.demand, factors)) for size in located.smaller
            ),
        )

    def factors(self, model: str, file: str) -> dict[str, float]:
        """What predictions of a model's file are multiplied by, by device; empty if by nothing."""
        seen = self._ratios.get(_kept_under(model, file), {})
        return {device: _factor(device, ratios) for device, ratios in seen.items()}

    def note(
        self, file: str, device: str, *, predicted: int, measured: int, whole: bool = True
    ) -> None:
        """The most that a worker was seen to hold, against the uncorrected prediction; bytes.

        A life that is not `whole` can show that a prediction was too low, and nothing else: the
        worker answered nobody, or crashed, or was not seen to the end.
        """
        if predicted <= 0 or measured <= 0:
            return
        ratio = measured / predicted
        if ratio <= 1.0 and not whole:
            return
        if ratio > MOST:
            log.warning("memory.odd_size", file=file, device=device, ratio=round(ratio, 3))
            return
        devices = self._ratios.pop(file, {})
        seen = devices.setdefault(device, deque(maxlen=REMEMBERED))
        before = _factor(device, seen)
        seen.append(round(ratio, 4))
        # The one that was used last is forgotten last.
        self._ratios[file] = devices
        while len(self._ratios) > KEPT_MODELS:
            del self._ratios[next(iter(self._ratios))]
        if _factor(device, seen) != before or device != RAM:
            # Lives that change nothing yet count for later ones, of other daemons too.
            self._keep(self.ratios())

    def ratios(self) -> Ratios:
        """All that is kept."""
        return {
            file: {device: list(seen) for device, seen in devices.items()}
            for file, devices in self._ratios.items()
        }


def file_of(located: Located) -> str:
    """What a model's sizes are kept under: its id and its file."""
    return _kept_under(located.spec.model, PurePath(located.spec.load.path).name)


def _kept_under(model: str, file: str) -> str:
    return f"{model}@{file}"


def ratios_of(text: str) -> Ratios:
    """What was written by `text_of`.

    Raises:
        ValueError: It is something else.

    """
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("it is no table")  # noqa: TRY004 - the callers' one error
    return {str(file): _devices(devices) for file, devices in found.items()}


def text_of(ratios: Ratios) -> str:
    """Ratios as a file has them."""
    return json.dumps(ratios, indent=1)


def _devices(devices: Any) -> dict[str, list[float]]:
    if not isinstance(devices, dict):
        raise ValueError("a model's ratios are no table")  # noqa: TRY004 - as above
    return {str(device): list(_numbers(seen)) for device, seen in devices.items()}


def _numbers(seen: Any) -> Iterable[float]:
    if not isinstance(seen, list) or not seen:
        raise ValueError("ratios are no list")
    for each in seen:
        if not isinstance(each, int | float) or not 0 <= each <= MOST:
            raise ValueError(f"{each!r} is no ratio")
        yield float(each)


def _factor(device: str, seen: Sequence[float]) -> float:
    most = max(seen, default=1.0)
    if most >= 1.0 or device == RAM or len(seen) < SHRINKS_AFTER:
        return max(1.0, most)
    return min(1.0, max(LEAST, most + SHRUNK_ROOM))


def _scaled(sizes: Mapping[str, int], factors: Mapping[str, float]) -> dict[str, int]:
    return {device: int(size * factors.get(device, 1.0)) for device, size in sizes.items()}
