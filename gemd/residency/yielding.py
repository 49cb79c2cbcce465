"""Memory that a user asked back: what was given, and who waits to hear that it is free."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gemd.residency.decisions import Reason

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Sequence

    from gemd.residency.plans import Resident


@dataclass(frozen=True, slots=True)
class Ask:
    """What a user asked for.

    Attributes:
        devices: Whose memory.
        size: Bytes on each; None for all.
        keep_off_until: Until when nothing is loaded there; None if it may.
        force: Pinned models too, and answers are cut off.
        resume: Nothing is given back; an earlier wish to keep off is over.

    """

    devices: tuple[str, ...]
    size: int | None = None
    keep_off_until: float | None = None
    force: bool = False
    resume: bool = False


@dataclass(frozen=True, slots=True)
class Yielded:
    """What was given back of one device.

    Attributes:
        device: Its id.
        released: Bytes.
        confirmed: Whether a sensor has seen them free.
        seconds: From the wish to that.
        models: Who went.
        kept: Bytes that models still hold.
        reasons: Why those were kept.
        keep_off_until: Until when nothing is loaded there; None if it may.

    """

    device: str
    released: int
    confirmed: bool
    seconds: float
    models: tuple[str, ...]
    kept: int
    reasons: tuple[Reason, ...] = ()
    keep_off_until: float | None = None


@dataclass(slots=True)
class _Open:
    results: list[Yielded]
    waiting: set[int]
    since: float
    done: asyncio.Future[list[Yielded]]


class YieldCalls:
    """Those who wait until memory is confirmed to be back.

    Args:
        held: Bytes that models hold of a device now.

    """

    def __init__(self, held: Callable[[str], int]) -> None:
        self._held = held
        self._open: list[_Open] = []

    def add(
        self,
        results: Iterable[Yielded],
        waiting: Iterable[int],
        *,
        now: float,
        done: asyncio.Future[list[Yielded]],
    ) -> None:
        """Answer as soon as all decisions with these numbers have taken effect."""
        self._open.append(_Open(list(results), set(waiting), now, done))
        self._settle(now)

    def confirmed(self, number: int, *, now: float) -> None:
        """A decision has taken effect."""
        for call in self._open:
            call.waiting.discard(number)
        self._settle(now)

    def _settle(self, now: float) -> None:
        finished = [call for call in self._open if not call.waiting]
        self._open = [call for call in self._open if call.waiting and not call.done.done()]
        for call in finished:
            if not call.done.done():
                call.done.set_result(
                    [
                        replace(each, seconds=now - call.since, kept=self._held(each.device))
                        for each in call.results
                    ]
                )


def kept_reasons(kept: Sequence[Resident]) -> tuple[Reason, ...]:
    """Why models were not given back."""
    return tuple(
        Reason("PINNED", f"{each.model} is pinned", {"model": each.model})
        if each.standing.name == "PINNED"
        else Reason("ENOUGH", f"{each.model} was not needed for it", {"model": each.model})
        for each in kept
    )
