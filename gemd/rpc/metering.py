"""Metrics: what happens is counted on its way to those who publish it, and told where asked for.

Made only if the settings name a port or a file.
"""

from __future__ import annotations

import asyncio
import platform
from typing import TYPE_CHECKING, Final

from gemd.errors import GemdError
from gemd.metrics.families import (
    CAUSES,
    LOCAL,
    METHODS,
    NONE,
    OTHER,
    error_reasons,
    listed,
)
from gemd.metrics.tally import Tally
from gemd.residency.decisions import Decision, DecisionKind
from gemd.residency.states import State, StateChanged
from gemd.rpc.requests import RequestState
from gemd.store.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gemd.config import Settings
    from gemd.metrics.http import MetricsPort
    from gemd.metrics.tally import Page
    from gemd.metrics.textfile import MetricsFile
    from gemd.residency.manager import Manager
    from gemd.residency.senses import Senses
    from gemd.residency.states import ResidencyEvent
    from gemd.rpc.energy import EnergyMeter
    from gemd.rpc.figures import Figures
    from gemd.rpc.library import Library
    from gemd.rpc.lifecycle import Identity
    from gemd.rpc.requests import RequestLog, RequestRecord, Waits
    from gemd.rpc.tiers import TierStatus
    from gemd.store import Operation, Operations

_OUTCOMES: Final[Mapping[RequestState, str]] = {
    RequestState.FINISHED: "finished",
    RequestState.FAILED: "failed",
    RequestState.CANCELLED: "cancelled",
}
_GIVEN_BACK: Final[Mapping[DecisionKind, str]] = {
    DecisionKind.EVICT: "gemd_evictions_total",
    DecisionKind.SHRINK: "gemd_memory_reductions_total",
    DecisionKind.YIELD: "gemd_yields_total",
    DecisionKind.REFUSE: "gemd_load_refusals_total",
}


class ModelLabels:
    """What models are called: never a path, and never more names than the catalogue has.

    Args:
        library: What models there are.

    """

    def __init__(self, library: Library) -> None:
        self._library = library

    def __call__(self, model: str) -> str:
        """The value of the label `model` for the id of a model; a variant counts as its model."""
        if not model:
            return NONE
        if "/" in model:
            return LOCAL
        try:
            return self._library.resolve(model.partition(":")[0]).id
        except GemdError:
            return OTHER


class Counting:
    """Counts what happens: events of residency, ends of requests, ends of operations.

    Args:
        label: The label of a model.

    """

    def __init__(self, label: Callable[[str], str]) -> None:
        self.tally = Tally()
        self._label = label
        self._reasons = error_reasons()
        self._latest = 0
        self._ended: set[str] = set()

    def began(self, record: RequestRecord) -> None:
        """See `gemd.rpc.requests.Follower`; it counts when it ends."""

    def ended(self, record: RequestRecord, waits: Waits) -> None:
        """A request is over."""
        model = self._label(record.model)
        method = listed(record.method, METHODS)
        outcome = _OUTCOMES[record.state]
        count, observe = self.tally.count, self.tally.observe
        count("gemd_requests_total", model=model, method=method, outcome=outcome)
        count("gemd_prompt_tokens_total", record.prompt_tokens, model=model)
        count("gemd_cached_tokens_total", record.cached_tokens, model=model)
        # A correction may have taken away more than there was.
        count("gemd_completion_tokens_total", max(0, record.completion_tokens), model=model)
        if record.state is RequestState.FAILED:
            reason = listed(record.error_reason, self._reasons)
            count("gemd_request_failures_total", method=method, reason=reason)
        if record.state is not RequestState.FINISHED:
            # How long it took to fail, or to be given up, is no waiting time of an answer.
            return
        observe("gemd_request_queue_seconds", waits.queued, model=model)
        observe("gemd_request_load_seconds", waits.load or None, model=model)
        observe("gemd_request_time_to_first_token_seconds", waits.first_text, model=model)
        observe("gemd_request_duration_seconds", waits.total, model=model, method=method)

    def residency(self, event: ResidencyEvent) -> None:
        """Something happened to a model."""
        if isinstance(event, Decision):
            self._decided(event)
        elif isinstance(event, StateChanged):
            self._changed(event)

    def operation(self, operation: Operation) -> None:
        """Work on files moved on."""
        if operation.done and operation.id not in self._ended:
            self._ended.add(operation.id)
            kind, outcome = operation.kind.value, operation.state.value
            self.tally.count("gemd_operations_total", kind=kind, outcome=outcome)

    def _decided(self, decision: Decision) -> None:
        # It comes again when its effect is confirmed.
        if decision.sequence <= self._latest:
            return
        self._latest = decision.sequence
        name = _GIVEN_BACK.get(decision.kind)
        if name is not None and decision.reasons:
            among = self._reasons if decision.kind is DecisionKind.REFUSE else CAUSES
            reason = listed(decision.reasons[0].code, among)
            self.tally.count(name, model=self._label(decision.model), reason=reason)

    def _changed(self, event: StateChanged) -> None:
        if event.now.state is State.READY and event.before is State.LOADING:
            model = self._label(event.now.model)
            self.tally.count("gemd_model_loads_total", model=model)
            self.tally.observe("gemd_model_load_seconds", event.now.last_load_s, model=model)


class Metering:
    """Tells what was counted and how things stand, where the settings ask for it.

    Args:
        settings: With a port or a file.
        counting: What was counted.
        figures: How things stand.
        energy: Counts all the time while somebody draws its curve.
        version: Of gemd.

    """

    def __init__(
        self,
        settings: Settings,
        counting: Counting,
        figures: Figures,
        energy: EnergyMeter,
        *,
        version: str,
    ) -> None:
        self._settings = settings
        self._counting = counting
        self._figures = figures
        self._energy = energy
        self._version = version
        self._outlets: list[MetricsPort | MetricsFile] = []

    async def start(self) -> None:
        """Begin to tell.

        Raises:
            ConfigError: The port cannot be listened on, or the file cannot be written.

        """
        # Only here, so that a daemon without metrics does not pay for them.
        from gemd.metrics.http import MetricsPort  # noqa: PLC0415 - see above
        from gemd.metrics.textfile import MetricsFile  # noqa: PLC0415 - as above

        self._energy.start()
        port, file = self._settings.metrics_port, self._settings.metrics_file
        wanted: list[MetricsPort | MetricsFile] = []
        if port:
            wanted.append(MetricsPort(port, self._rendered))
        if file is not None:
            wanted.append(MetricsFile(file, self._plain, in_thread=in_thread))
        for outlet in wanted:
            await outlet.start()
            self._outlets.append(outlet)

    async def stop(self) -> None:
        """Tell no more."""
        outlets, self._outlets = self._outlets, []
        await asyncio.gather(*(outlet.stop() for outlet in outlets))
        self._figures.stop()

    async def page(self) -> Page:
        """All figures as they are now."""
        page = self._counting.tally.page()
        page.put("gemd_build_info", 1, version=self._version, python=platform.python_version())
        await self._figures.put_on(page)
        return page

    async def _rendered(self, accept: str) -> tuple[bytes, str]:
        from gemd.metrics.exposition import render  # noqa: PLC0415 - as above

        return render(await self.page(), accept)

    async def _plain(self) -> bytes:
        # The collector knows no OpenMetrics.
        body, _ = await self._rendered("")
        return body


def counting_for(settings: Settings, library: Library) -> Counting | None:
    """What counts; None if the settings do not ask for metrics."""
    if not settings.metrics_port and settings.metrics_file is None:
        return None
    return Counting(ModelLabels(library))


def metering_for(
    settings: Settings,
    counting: Counting | None,
    *,
    identity: Identity,
    library: Library,
    requests: RequestLog,
    manager: Manager,
    senses: Senses,
    operations: Operations,
    tiers: TierStatus,
    energy: EnergyMeter,
) -> Metering | None:
    """What tells of all parts of the daemon; None if nothing is counted."""
    if counting is None:
        return None
    requests.followers.append(counting)
    from gemd.rpc.figures import DiskLook, Figures  # noqa: PLC0415 - as in `Metering.start`

    figures = Figures(
        requests=requests,
        manager=manager,
        senses=senses,
        operations=operations,
        shares=lambda: tiers.shares,
        energy=energy,
        disk=DiskLook(library.disk_use),
        label=ModelLabels(library),
        started=identity.start_time,
    )
    return Metering(settings, counting, figures, energy, version=identity.version)
