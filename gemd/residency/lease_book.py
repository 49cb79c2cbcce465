"""Leases in a running daemon: they end on time, and residency and readers of events hear of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from gemd.residency.leases import Lease, Leases
from gemd.residency.refusals import shutting_down
from gemd.residency.wishes import Wish

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gemd.residency.hold import Clock, Handle

log = structlog.get_logger(__name__)


class LeaseBook:
    """Keeps the leases of one daemon; they end with it. Sets one alarm, at the next expiry.

    Args:
        wish: Takes what all active leases together wish, by model, after every change. Must not
            wait.
        publish: Takes each lease after each change of it. Must not wait.
        clock: Monotonic time and alarms.
        insist: Takes a model that a lease has just asked to load: what ended an earlier wish to
            load it does not count any more. Must not wait.

    """

    def __init__(
        self,
        *,
        wish: Callable[[Mapping[str, Wish]], None],
        publish: Callable[[Lease], None],
        clock: Clock,
        insist: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._wish = wish
        self._insist = insist
        self._publish = publish
        self._clock = clock
        self._leases = Leases()
        self._alarm: Handle | None = None
        self._closed = False

    def create(
        self, model: str, *, ttl_s: float | None, client: str, load: bool, request_id: str
    ) -> Lease:
        """See `Leases.create`.

        Raises:
            InvalidRequestError: As there.
            QueueFullError: As there.
            ShuttingDownError: The daemon ends, and the lease would with it.

        """
        if self._closed:
            raise shutting_down(model)
        now = self._expire()
        before = self._leases.made
        lease = self._leases.create(
            model, ttl_s=ttl_s, client=client, load=load, request_id=request_id, now=now
        )
        if self._leases.made > before:
            self._changed(lease)
            if load:
                self._insist(lease.model)
        return lease

    def renew(self, identity: str, ttl_s: float | None) -> Lease:
        """See `Leases.renew`. Raises InvalidRequestError and ResourceNotFoundError."""
        lease = self._leases.renew(identity, ttl_s, now=self._expire())
        self._changed(lease)
        return lease

    def release(self, identity: str) -> None:
        """End a lease; nothing happens if it has ended already."""
        self._expire()
        lease = self._leases.release(identity)
        if lease is not None:
            self._changed(lease)

    def list(self) -> list[Lease]:
        """The active leases, oldest first."""
        return self._leases.list()

    def close(self) -> None:
        """Take no new lease and set no more alarms: the daemon ends."""
        self._closed = True
        self._set_alarm()

    def _ring(self) -> None:
        self._alarm = None
        self._expire()
        # Also where nothing was over: an event loop may ring a moment too soon.
        self._set_alarm()

    def _expire(self) -> float:
        """End what is over, and return the present second."""
        now = self._clock.time()
        over = self._leases.expire(now)
        if over:
            self._changed(*over)
        return now

    def _changed(self, *leases: Lease) -> None:
        self._wish(self._wishes())
        for lease in leases:
            log.info(
                "lease.changed",
                lease=lease.id,
                model=lease.model,
                client=lease.client,
                state=lease.state.value,
                ttl_s=lease.ttl_s,
            )
            self._publish(lease)
        self._set_alarm()

    def _wishes(self) -> dict[str, Wish]:
        leases = self._leases.list()
        warm = {lease.model for lease in leases if lease.load}
        return {lease.model: Wish(leased=True, warm=lease.model in warm) for lease in leases}

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        when = self._leases.next_expiry()
        if when is not None and not self._closed:
            self._alarm = self._clock.call_at(when, self._ring)
