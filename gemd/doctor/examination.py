"""Making checks: each in a thread of its own, within its time, and none can break the others."""

from __future__ import annotations

import asyncio
import difflib
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.doctor.diagnosis import CannotCheckError, Diagnosis, Result
from gemd.doctor.surroundings import Errand
from gemd.doctor.words import span
from gemd.errors import GemdError, InvalidRequestError
from gemd.threads import delivering

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gemd.doctor.surroundings import Surroundings

LIMIT_S: Final = 10.0
"""Of a check that says nothing else. All run at the same time."""
_SHOWN: Final = 200
"""Characters of an unexpected error's text."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        name: Short and stable.
        make: Looks, and says what it found. May block, raise, or never return.
        limit_s: Seconds after which it is given up.
        thorough_limit_s: The same of a thorough one, where that may take longer.
        hangs: What it means if it does not end.
        fixes: What helps then.

    """

    name: str
    make: Callable[[Surroundings, Errand], Diagnosis]
    limit_s: float = LIMIT_S
    thorough_limit_s: float | None = None
    hangs: str = ""
    fixes: tuple[str, ...] = ()

    def limit(self, *, thorough: bool) -> float:
        """Seconds that it may take."""
        return self.thorough_limit_s if thorough and self.thorough_limit_s else self.limit_s


class Doctor:
    """Makes checks. One that hangs for ever costs one thread, however often it is asked for.

    Args:
        checks: All there are, in the order of their rows.
        clock: Monotonic seconds.

    """

    def __init__(
        self, checks: Sequence[Check], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._checks = tuple(checks)
        self._clock = clock
        self._late: dict[str, tuple[threading.Thread, float]] = {}

    def chosen(self, names: Iterable[str]) -> tuple[Check, ...]:
        """The checks of these names, in the order of their rows; all for none.

        Raises:
            InvalidRequestError: There is no such check; the nearest one is named.

        """
        wanted = frozenset(names)
        known = [check.name for check in self._checks]
        for name in sorted(wanted.difference(known)):
            near = difflib.get_close_matches(name, known, 1, 0.4)
            raise InvalidRequestError(
                f"there is no check {name[:64]!r}",
                why=f"the nearest one is {near[0]}" if near else f"there are {', '.join(known)}",
                advice=(f"gemctl doctor {near[0]}",) if near else ("gemctl doctor",),
                metadata={"field": "checks", "value": name[:64], "nearest": "".join(near)},
            )
        return tuple(check for check in self._checks if not wanted or check.name in wanted)

    async def examine(
        self, around: Surroundings, names: Iterable[str] = (), *, thorough: bool = False
    ) -> tuple[Diagnosis, ...]:
        """Make checks at the same time; one row each, in their order.

        Never fails for what a check does. When the caller is cancelled, those that read
        much are told to stop.

        Args:
            around: Where they are made.
            names: Of the checks; none means all.
            thorough: Whether they may take minutes and memory.

        Raises:
            InvalidRequestError: There is no check of a name.

        """
        checks = self.chosen(names)
        errand = Errand(thorough=thorough)
        try:
            return tuple(
                await asyncio.gather(*(self._make(check, around, errand) for check in checks))
            )
        finally:
            errand.stop.set()

    async def _make(self, check: Check, around: Surroundings, errand: Errand) -> Diagnosis:
        before = self._late.get(check.name)
        if before is not None and before[0].is_alive():
            return _hung(check, f"still hangs since {span(self._clock() - before[1])} ago")
        future: asyncio.Future[Diagnosis] = asyncio.get_running_loop().create_future()
        run = delivering(lambda: _guarded(check, around, errand), future)
        thread = threading.Thread(target=run, name=f"doctor-{check.name}", daemon=True)
        began = self._clock()
        thread.start()
        limit = check.limit(thorough=errand.thorough)
        try:
            async with asyncio.timeout(limit):
                return await future
        except TimeoutError:
            self._late[check.name] = thread, began
            return _hung(check, f"did not end within {limit:g} s")


def _guarded(check: Check, around: Surroundings, errand: Errand) -> Diagnosis:
    """What the check found, or what it broke on."""
    try:
        return check.make(around, errand)
    except CannotCheckError as reason:
        return Diagnosis(check.name, Result.SKIPPED, str(reason))
    except GemdError as error:
        return Diagnosis(check.name, Result.FAILED, str(error), error.advice)
    except Exception as error:  # noqa: BLE001 - a check that breaks must not hide the others
        text = f"{type(error).__name__}: {error}"[:_SHOWN]
        return Diagnosis(check.name, Result.FAILED, f"the check itself broke with {text}")


def _hung(check: Check, how: str) -> Diagnosis:
    because = f": {check.hangs}" if check.hangs else ""
    return Diagnosis(check.name, Result.FAILED, f"the check {how}{because}", check.fixes)
