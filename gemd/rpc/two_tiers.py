"""All parts of routing, put together for one daemon."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.routing.speeds import Speeds, kept_speeds
from gemd.rpc.default_model import DefaultModel
from gemd.rpc.learning import Learning
from gemd.rpc.named_model import AUTO
from gemd.rpc.pairing import Pairing, Wishes
from gemd.rpc.router import Router
from gemd.rpc.tiers import TierStatus
from gemd.rpc.warming import Warming

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from gemd.config import Settings
    from gemd.residency.manager import Manager
    from gemd.routing.risk import KeptStates
    from gemd.rpc.advisor import Advisor
    from gemd.rpc.library import Library
    from gemd.rpc.requests import RequestLog
    from gemd.rpc.shadow import ShadowRuns

SPEEDS_FILE: Final = "speeds.json"
JUDGES_DIR: Final = "judges"


@dataclass(frozen=True, slots=True)
class Memory:
    """Where the settings came from, and where what is learnt is kept.

    Attributes:
        origins: What set each setting, by its key.
        folder: Of the files; None keeps nothing.

    """

    origins: Mapping[str, str]
    folder: Path | None = None


NO_MEMORY: Final = Memory({})
"""Nothing is kept, and nobody has set anything."""


class TwoTiers:
    """The two tiers of a daemon.

    Args:
        settings: In force.
        memory: See there.
        library: What models there are.
        manager: Who is warm.
        advisor: What suits this machine.
        requests: Those under way, and how many there were.
        on_battery: Whether the machine runs on battery, if that is known.

    """

    def __init__(
        self,
        settings: Settings,
        memory: Memory,
        *,
        library: Library,
        manager: Manager,
        advisor: Advisor,
        requests: RequestLog,
        on_battery: Callable[[], bool | None],
    ) -> None:
        pairing = Pairing(
            Wishes.of(settings, memory.origins),
            library=library,
            planned=lambda: advisor.planned,
            manager=manager,
            speeds=lambda: self._learning.speeds,
            on_battery=on_battery,
        )
        default = DefaultModel(
            settings.default_model,
            memory.origins.get("default_model", "default"),
            library=library,
            planned=lambda: advisor.strong,
            strong=lambda: pairing.strong_named,
            clock=manager.time,
        )
        self._learning = _learning(settings, pairing, memory.folder)
        self._shadow: ShadowRuns | None = None
        if settings.shadow_runs:
            from gemd.rpc.shadow import ShadowRuns  # noqa: PLC0415 - off by default, and large

            self._shadow = ShadowRuns(
                manager=manager,
                sampling_defaults=library.sampling_defaults,
                busy=lambda: bool(requests.live()),
                served=lambda: requests.totals.requests,
                allowed=lambda: on_battery() is not True and not manager.pressures(),
                wall=time.time,
            )
        self._warming = Warming(manager, asyncio.get_running_loop())
        self.router = Router(
            settings,
            library=library,
            manager=manager,
            pairing=pairing,
            default=default.choose,
            learning=self._learning,
            warming=self._warming,
            shadow=self._shadow,
        )
        self.told = TierStatus(pairing, self._learning, alone=settings.default_model != AUTO)

    def start(self) -> None:
        """Begin what runs beside requests."""
        if self._shadow is not None:
            self._shadow.start()

    async def stop(self) -> None:
        """End it."""
        self._warming.stop()
        if self._shadow is not None:
            await self._shadow.stop()

    async def close(self) -> None:
        """Write what was learnt."""
        await self._learning.close()


def _learning(settings: Settings, pairing: Pairing, folder: Path | None) -> Learning:
    speeds = (
        Speeds(pairing.fingerprint)
        if folder is None
        else kept_speeds(folder / SPEEDS_FILE, pairing.fingerprint)
    )
    return Learning(
        speeds=speeds,
        states=None if folder is None else lambda: _kept_states(folder),
        identity=pairing.fingerprint,
        budget=settings.refine_percent / 100,
        harm=settings.harm_percent / 100,
        wall=time.time,
    )


def _kept_states(folder: Path) -> KeptStates:
    # As in `Learning.of`: only where something is drafted.
    from gemd.routing.risk import KeptStates  # noqa: PLC0415 - see above

    return KeptStates(folder / JUDGES_DIR)
