"""The doctor inside the daemon: the same checks, from the environment that counts for a service."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from gemd.doctor import Doctor
from gemd.hardware import SensorBlindError
from gemd.rpc.convert import diagnoses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gemd.doctor import Check, Diagnosis, Surroundings
    from gemd.hardware import Sample
    from gemd.residency.senses import Senses
    from gemd.rpc.observer import Observer


def all_checks() -> Sequence[Check]:
    """Every check of `gemd.doctor`."""
    # About a megabyte of a daemon that may never be asked for one.
    from gemd.doctor.checks import CHECKS  # noqa: PLC0415 - see above

    return CHECKS


class Diagnostics:
    """Makes the checks; what concerns the daemon itself it is not asked for over its socket.

    Args:
        surroundings: Where they are made.
        observer: Sees the daemon.
        senses: What the sensors say.
        planned: The id of the model that suits this machine; None if none does.
        checks: Gives all there are, when the first is wanted.

    """

    def __init__(
        self,
        surroundings: Surroundings,
        *,
        observer: Observer,
        senses: Senses,
        planned: Callable[[], str | None],
        checks: Callable[[], Sequence[Check]] = all_checks,
    ) -> None:
        self._surroundings = surroundings
        self._observer = observer
        self._senses = senses
        self._planned = planned
        self._checks = checks

    @cached_property
    def _doctor(self) -> Doctor:
        """The one that remembers which checks hang."""
        return Doctor(self._checks())

    async def examine(self, names: Iterable[str], *, thorough: bool) -> tuple[Diagnosis, ...]:
        """One row for each check of these names; all for none.

        Raises:
            InvalidRequestError: There is no check of a name.

        """
        wanted = tuple(names)
        # Before the daemon looks at itself, which takes a while.
        self._doctor.chosen(wanted)
        report = diagnoses.report(await self._observer.status())
        sample, blind = self._senses.sample, self._senses.blind

        def reading() -> Sample:
            if sample is None or blind is not None:
                raise SensorBlindError(blind.reason if blind else "no sensor has said anything yet")
            return sample

        around = replace(
            self._surroundings, report=lambda: report, sample=reading, planned=self._planned
        )
        return await self._doctor.examine(around, wanted, thorough=thorough)
