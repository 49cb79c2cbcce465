"""Whose energy it was: what devices used, divided among the requests that ran meanwhile. Pure.

A device's counter is read now and then. What it used between two readings is spread evenly over
that time, and each moment's part is divided evenly among the requests that ran on the device in
that moment. It is the whole device's energy, and nothing is taken off for what it would have used
idle: that is what the meter counts, and what a machine costs that is on for its answers. What a
device uses while none runs is nobody's. So all shares together are never more than was used.

Evenly over time and not by tokens: a request that reads a long prompt writes none, one token of a
large batch costs a fraction of a lonely one, and of a canvas most tokens come at its end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

PROCESSOR: Final = "cpu"
"""The device that every worker runs on, whatever else it runs on."""


class Split:
    """One device: the requests that run on it, and the time that each has had since a reading.

    Args:
        now: Monotonic second.

    """

    def __init__(self, now: float) -> None:
        self._since = now
        self._moved = now
        self._running: set[str] = set()
        self._parts: dict[str, float] = {}

    def begin(self, request: str, now: float) -> None:
        """A request runs on it from now on."""
        self._move(now)
        self._running.add(request)

    def end(self, request: str, now: float) -> None:
        """It does not any more; what it has had is still its part of the next reading."""
        self._move(now)
        self._running.discard(request)

    def deal(self, now: float) -> dict[str, float]:
        """The part of each request in what was used since the last reading, which is over now.

        From 0 to 1, and at most 1 together.
        """
        self._move(now)
        whole, self._since = now - self._since, now
        parts, self._parts = self._parts, {}
        if whole <= 0:
            return {}
        # Sums of rounded numbers may be larger than the whole by the last bit.
        scale = max(whole, sum(parts.values()))
        return {request: part / scale for request, part in parts.items()}

    @property
    def due(self) -> Collection[str]:
        """Requests that run on it or have a part in what is read next."""
        return self._running | self._parts.keys()

    def _move(self, now: float) -> None:
        passed, self._moved = max(0.0, now - self._moved), max(now, self._moved)
        if not self._running or not passed:
            return
        each = passed / len(self._running)
        for request in self._running:
            self._parts[request] = self._parts.get(request, 0.0) + each


class Attribution:
    """All devices and all requests.

    Args:
        now: Monotonic second.

    Attributes:
        totals: Joules of all requests so far, by the model that they were for and the source.

    """

    def __init__(self, now: float) -> None:
        self.totals: dict[tuple[str, str], float] = {}
        self._made = now
        self._splits: dict[str, Split] = {}
        self._accounts: dict[str, _Account] = {}

    @property
    def busy(self) -> bool:
        """Whether a request has begun and is not closed."""
        return any(not account.closed for account in self._accounts.values())

    def begin(self, request: str, model: str, devices: Iterable[str], now: float) -> None:
        """A model works on a request, on these devices and the processor.

        Of several models the last one counts as the request's, and the devices of all do.
        """
        account = self._accounts.setdefault(request, _Account(model))
        account.model = model
        for device in {PROCESSOR, *devices} - account.devices:
            account.devices.add(device)
            self._split(device).begin(request, now)

    def end(self, request: str, now: float) -> None:
        """It runs on none any more."""
        account = self._accounts.get(request)
        for device in () if account is None else account.devices:
            self._splits[device].end(request, now)

    def close(self, request: str) -> None:
        """It has ended, and nobody will ask for its joules; the totals get what is still due."""
        account = self._accounts.get(request)
        if account is not None:
            account.closed = True
            self._drop_settled()

    def deal(
        self, device: str, used: Mapping[str, float], now: float, *, whole: bool = True
    ) -> None:
        """Divide what sources of a device used since its last reading, which is over now.

        Args:
            device: Its id.
            used: Joules by source.
            now: Monotonic second.
            whole: Whether that is all of it; false if a source did not tell.

        """
        for request, part in self._split(device).deal(now).items():
            account = self._accounts[request]
            for source, joules in used.items():
                share = joules * part
                key = account.model, source
                account.shares[source] = account.shares.get(source, 0.0) + share
                self.totals[key] = self.totals.get(key, 0.0) + share
            if not whole or not used:
                account.gaps.add(device)
        self._drop_settled()

    def gpus(self, request: str) -> frozenset[str]:
        """What it has run on beside the processor."""
        account = self._accounts.get(request)
        return frozenset() if account is None else frozenset(account.devices - {PROCESSOR})

    def joules(self, request: str) -> float | None:
        """What a request has used; None if a device that it is about did not tell all the time.

        Those are the GPUs that it runs on, or the processor where it runs on none. Of a request on
        a GPU what the processor used is added as far as that is known.
        """
        account = self._accounts.get(request)
        gpus = self.gpus(request)
        if account is None or not account.shares or not account.shares.keys() >= gpus:
            return None
        if account.gaps & (gpus or {PROCESSOR}):
            return None
        return sum(account.shares.values())

    def _split(self, device: str) -> Split:
        return self._splits.setdefault(device, Split(self._made))

    def _drop_settled(self) -> None:
        """Forget who is closed and has no part in a reading that is still to come."""
        due = {request for split in self._splits.values() for request in split.due}
        closed = [request for request, account in self._accounts.items() if account.closed]
        for request in closed:
            if request not in due:
                del self._accounts[request]


@dataclass(slots=True)
class _Account:
    """One request's.

    Attributes:
        model: That works on it.
        devices: That it runs on.
        shares: Joules by source.
        gaps: Devices that did not tell some part of them.
        closed: Nobody asks any more.

    """

    model: str
    devices: set[str] = field(default_factory=set)
    shares: dict[str, float] = field(default_factory=dict)
    gaps: set[str] = field(default_factory=set)
    closed: bool = False
