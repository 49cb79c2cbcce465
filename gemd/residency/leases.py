"""The leases that are active: who wants which model warm, and until when. Pure.

Times are monotonic seconds that the caller gives. A lease whose time is over counts as ended
from that second on, whether or not `expire` was called.
"""

from __future__ import annotations

import enum
import secrets
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from gemd.errors import InvalidRequestError, QueueFullError, ResourceNotFoundError

DEFAULT_TTL_S: Final = 600.0
SHORTEST_TTL_S: Final = 1.0
LONGEST_TTL_S: Final = 24 * 3600.0
MOST_ACTIVE: Final = 1000
"""Leases at one time; a program that forgets its own cannot fill the memory."""


class LeaseState(enum.Enum):
    """Whether a lease counts, or how it ended."""

    ACTIVE = "ACTIVE"
    EXPIRED = "EXPIRED"
    RELEASED = "RELEASED"


@dataclass(frozen=True, slots=True)
class Lease:
    """Somebody's wish that a model stays warm.

    Attributes:
        id: Random.
        number: Grows with each lease; older ones have lower numbers.
        model: Id of the model.
        client: The program that holds it, as it named itself; may be empty.
        load: Whether the model is made warm for it.
        ttl_s: How long it runs from its creation or last renewal.
        created: When it was created.
        expires: When it ends unless it is renewed.
        request_id: Of the request that created it; empty if that had none.
        state: Whether it counts.

    """

    id: str
    number: int
    model: str
    client: str
    load: bool
    ttl_s: float
    created: float
    expires: float
    request_id: str = ""
    state: LeaseState = LeaseState.ACTIVE


class _Request(NamedTuple):
    """What a lease was asked for with; a renewal may give it another time since."""

    model: str
    ttl_s: float
    client: str
    load: bool


class Leases:
    """The active leases of one daemon, oldest first."""

    def __init__(self) -> None:
        self._active: dict[str, Lease] = {}
        self._requests: dict[str, tuple[str, _Request]] = {}
        self.made = 0
        """Leases that were ever created."""

    def create(
        self,
        model: str,
        *,
        ttl_s: float | None = None,
        client: str = "",
        load: bool = False,
        request_id: str = "",
        now: float,
    ) -> Lease:
        """A new lease, or the one that a request of this id created, if it is still active.

        Args:
            model: Id of the model.
            ttl_s: How long it runs, from 1 s to 24 h; None for 10 minutes.
            client: The program that holds it.
            load: Whether the model is made warm for it.
            request_id: Recognises a repeated request; empty: every call creates a lease.
            now: The present second.

        Raises:
            InvalidRequestError: The time is out of its range, or `request_id` belongs to an
                active lease that was asked for with other fields.
            QueueFullError: As many leases are active as may be.

        """
        request = _Request(model, _checked(DEFAULT_TTL_S if ttl_s is None else ttl_s), client, load)
        if request_id in self._requests:
            identity, first = self._requests[request_id]
            found = self._active[identity]
            if found.expires > now:
                if first != request:
                    raise _reused(request_id, found)
                return found
        if sum(lease.expires > now for lease in self._active.values()) >= MOST_ACTIVE:
            raise self._full(now)
        self.made += 1
        lease = Lease(
            id=secrets.token_hex(8),
            number=self.made,
            model=model,
            client=client,
            load=load,
            ttl_s=request.ttl_s,
            created=now,
            expires=now + request.ttl_s,
            request_id=request_id,
        )
        self._active[lease.id] = lease
        if request_id:
            self._requests[request_id] = lease.id, request
        return lease

    def renew(self, identity: str, ttl_s: float | None = None, *, now: float) -> Lease:
        """Start the time of a lease anew.

        Args:
            identity: Its id.
            ttl_s: How long it runs from now, from 1 s to 24 h; None for as long as before.
            now: The present second.

        Raises:
            InvalidRequestError: The time is out of its range.
            ResourceNotFoundError: It has ended, or never was.

        """
        found = self._active.get(identity)
        if found is None or found.expires <= now:
            raise _ended(identity)
        ttl_s = found.ttl_s if ttl_s is None else _checked(ttl_s)
        renewed = replace(found, ttl_s=ttl_s, expires=now + ttl_s)
        self._active[identity] = renewed
        return renewed

    def release(self, identity: str) -> Lease | None:
        """End a lease, and return it as it ended; None if it had ended before."""
        return self._end(identity, LeaseState.RELEASED) if identity in self._active else None

    def expire(self, now: float) -> list[Lease]:
        """End those whose time is over, and return them as they ended, first ended first."""
        over = [lease for lease in self._active.values() if lease.expires <= now]
        over.sort(key=lambda lease: lease.expires)
        return [self._end(lease.id, LeaseState.EXPIRED) for lease in over]

    def list(self) -> list[Lease]:
        """All that have neither been released nor been returned by `expire`, oldest first."""
        return [*self._active.values()]

    def next_expiry(self) -> float | None:
        """The second at which the next of them ends unless it is renewed; None if there is none."""
        return min((lease.expires for lease in self._active.values()), default=None)

    def _end(self, identity: str, state: LeaseState) -> Lease:
        ended = self._active.pop(identity)
        # A later lease may have taken over the id of the request of one that was over.
        if self._requests.get(ended.request_id, ("",))[0] == identity:
            del self._requests[ended.request_id]
        return replace(ended, state=state)

    def _full(self, now: float) -> QueueFullError:
        over = min(lease.expires for lease in self._active.values() if lease.expires > now)
        return QueueFullError(
            f"{MOST_ACTIVE} leases are active already",
            why="that is the most there may be",
            advice=("gemctl lease --list",),
            metadata={"active": MOST_ACTIVE, "limit": MOST_ACTIVE},
            retry_after=over - now,
        )


def _checked(ttl_s: float) -> float:
    if SHORTEST_TTL_S <= ttl_s <= LONGEST_TTL_S:
        return ttl_s
    raise InvalidRequestError(
        f"ttl must be from {SHORTEST_TTL_S:g} s to {LONGEST_TTL_S:g} s, got {ttl_s:g} s",
        advice=("gemctl lease MODEL --ttl 10m",),
        metadata={
            "field": "ttl",
            "ttl_seconds": f"{ttl_s:g}",
            "least_seconds": f"{SHORTEST_TTL_S:g}",
            "most_seconds": f"{LONGEST_TTL_S:g}",
        },
    )


def _reused(request_id: str, lease: Lease) -> InvalidRequestError:
    return InvalidRequestError(
        f"request_id {request_id!r} belongs to the lease {lease.id} on {lease.model}",
        why="that one was asked for with other fields",
        advice=("use a new UUID for every request that is not a repetition",),
        metadata={"field": "request_id", "request_id": request_id, "lease": lease.id},
    )


def _ended(identity: str) -> ResourceNotFoundError:
    return ResourceNotFoundError(
        f"there is no active lease {identity!r}",
        why="it was released, its time ran out, or gemd has been started anew",
        advice=("gemctl lease --list", "gemctl lease MODEL"),
        metadata={"lease": identity},
    )
