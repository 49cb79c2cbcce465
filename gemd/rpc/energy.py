"""What requests use of energy: counters are read when one begins or ends, and shares are kept.

The processor's counters are files of the kernel and are read here and now. Those of GPUs come with
the samples of their memory, which are taken in a thread of their own, because a driver may hang.
There is no loop for it: only while something runs a timer sees that no counter goes round unseen.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from gemd.hardware import RAM
from gemd.hardware.joules import READ_WITHIN_S, Joules
from gemd.metrics.attribution import PROCESSOR, Attribution

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from gemd.hardware import Sample
    from gemd.hardware.rapl import Counted
    from gemd.rpc.requests import RequestRecord, Totals, Waits

log = structlog.get_logger(__name__)

LEAST_S: Final = 0.002
"""Between two readings of the processor's counters, however many requests begin and end."""
PATIENCE_S: Final = 0.05
"""How long the end of an answer on a GPU waits for a reading; its text is with the client then."""


class Clock(Protocol):
    """The event loop's, or a test's."""

    def time(self) -> float:
        """Monotonic seconds."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> asyncio.TimerHandle:
        """Call that in so many seconds."""


class EnergyMeter:
    """Follows requests; see `gemd.rpc.requests.Follower`.

    Args:
        processor: Reads the counters of processors, by source.
        gpus: The GPUs that a model is on.
        look: Has the sensors look at once.
        fresh: Returns after a sample that was begun from then on.
        totals: Gets the sum.
        clock: Time and timers.

    """

    def __init__(
        self,
        processor: Callable[[], Mapping[str, Counted]],
        *,
        gpus: Callable[[str], Iterable[str]],
        look: Callable[[], None],
        fresh: Callable[[], Awaitable[None]],
        totals: Totals,
        clock: Clock,
    ) -> None:
        self._processor = processor
        self._gpus = gpus
        self._look = look
        self._fresh = fresh
        self._totals = totals
        self._clock = clock
        self._attribution = Attribution(clock.time())
        self._sources: dict[str, Joules] = {}
        self._processors: set[str] = set()
        self._telling: frozenset[str] = frozenset()
        self._seen_gpu = False
        self._failed = False
        self._read_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._always = False

    @property
    def counted(self) -> dict[str, float]:
        """Joules by source, as far as they were counted since the start."""
        return {source: joules.total for source, joules in self._sources.items()}

    @property
    def attributed(self) -> dict[tuple[str, str], float]:
        """Of them, those that requests used, by model and source."""
        return dict(self._attribution.totals)

    def start(self) -> None:
        """Count all the time, and not only while something runs: somebody draws the curve."""
        self._always = True
        self.read()
        self._arm()

    def stop(self) -> None:
        """Read no more."""
        self._always = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def began(self, record: RequestRecord) -> None:
        """A model works on it from now on."""
        self.read()
        # Asking costs a look at a process, and most machines have one kind of memory only.
        gpus = frozenset(self._gpus(record.model)) if self._seen_gpu else frozenset()
        self._attribution.begin(record.work_id, record.model, gpus, self._clock.time())
        if gpus & self._telling:
            self._look()
        self._arm()

    def ended(self, record: RequestRecord, _: Waits) -> None:
        """It is over; what was used until now is counted."""
        self._attribution.end(record.work_id, self._clock.time())
        self.read()
        self._attribution.close(record.work_id)

    async def taken(self, work_id: str) -> float | None:
        """The joules of a request that is done now; None if they are not known."""
        self._attribution.end(work_id, self._clock.time())
        self.read()
        gpus = self._attribution.gpus(work_id)
        if gpus and gpus <= self._telling:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    await self._fresh()
        return self._attribution.joules(work_id)

    def read(self) -> None:
        """Count what processors have used. Reads a few files of the kernel."""
        now = self._clock.time()
        if self._read_at is not None and now - self._read_at < LEAST_S:
            return
        self._read_at = now
        found = self._says()
        self._processors |= found.keys()
        used = {}
        for source in self._processors:
            counted = found.get(source)
            joules = self._take(source, None if counted is None else counted.joules, now, counted)
            if joules is not None:
                used[source] = joules
        self._deal(PROCESSOR, used, now, whole=used.keys() == self._processors)

    def on_sample(self, sample: Sample) -> None:
        """Count what GPUs have used."""
        now = self._clock.time()
        gpus = {
            each.device: each.energy_joules for each in sample.devices if each.device != RAM
        } | dict.fromkeys(sample.lost)
        self._seen_gpu = self._seen_gpu or bool(gpus)
        self._telling = frozenset(device for device, joules in gpus.items() if joules is not None)
        for device, joules in gpus.items():
            used = self._take(device, joules, now)
            self._deal(device, {} if used is None else {device: used}, now)

    def _says(self) -> Mapping[str, Counted]:
        try:
            return self._processor()
        except Exception:
            # No answer may fail for it.
            if not self._failed:
                log.exception("energy.failed")
            self._failed = True
            return {}

    def _take(
        self, source: str, says: float | None, now: float, counted: Counted | None = None
    ) -> float | None:
        if says is None:
            if source in self._sources:
                self._sources[source].lose()
            return None
        joules = self._sources.setdefault(source, Joules())
        return joules.take(says, now, span=0.0 if counted is None else counted.span)

    def _deal(
        self, device: str, used: Mapping[str, float], now: float, *, whole: bool = True
    ) -> None:
        self._attribution.deal(device, used, now, whole=whole)
        if self._attribution.totals:
            self._totals.energy_joules = sum(self._attribution.totals.values())

    def _arm(self) -> None:
        if self._timer is None and self._processors:
            self._timer = self._clock.call_later(READ_WITHIN_S, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.read()
        if self._always or self._attribution.busy:
            self._arm()
